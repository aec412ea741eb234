"""Near duplicates in the pipeline: who is linked, who survives, what is recorded, against truth and brute force."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import web
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom

from gristmill import lake
from gristmill.filters.signatures.minhash import words
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.clusters.select_survivors import SelectSurvivors, survivor_works
from gristmill.stages.near.gather import gather
from gristmill.stages.near.link import link
from gristmill.stages.near.minhash import band_names
from gristmill.stages.run.runner import Runner
from gristmill.synth.sample import write_sample

# Families of the sample crawl


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crawl")
    write_sample(folder, pages=1200)
    return folder


@pytest.fixture(scope="module")
def done(crawl, tmp_path_factory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("lake")
    return folder, web.run(folder, web.crawl_files(crawl)).manifest


@pytest.fixture(scope="module")
def linked(crawl, done) -> Manifest:
    """The same, and whatever hangs together by shared bands has one survivor."""
    return web.run(done[0], web.crawl_files(crawl), min_similarity=None).manifest


@pytest.fixture(scope="module")
def families(crawl, done) -> list[tuple[dict, dict, str]]:
    """(ledger row, truth, WARC id of its family's head) of every record that passed the filters and has a truth."""
    folder, manifest = done
    names = {file.digest: Path(file.names[0]).name for file in manifest.inputs}
    truths = [json.loads(line) for line in (crawl / "truth.jsonl").read_text().splitlines()]
    located = [t for t in truths if t["file"].startswith("crawl/") and t["ordinal"] is not None]
    known = {(Path(t["file"]).name, t["ordinal"]): t for t in located}
    rows = []
    for row in lake.open(str(manifest), lake=str(folder)).ledger().to_pylist():
        truth = known.get((names[row["input"]], row["ordinal"]))
        if truth is not None and (row["fate"] == "kept" or row["stage"] in ("exact", "minhash")):
            rows.append((row, truth, truth["family"] or truth["warc_id"] or truth["file"] + str(truth["ordinal"])))
    return rows


def test_relatives_are_found_as_often_as_the_theory_says(families):
    """At similarity s, 14 x 8 hangs a pair together with 1 - (1 - s^8)^14, and 83 of 112 values agree with the upper
    tail of a binomial; one mostly implies the other. So often a relative and its head are not both kept (other
    relatives may drop either), and no more often one of them is dropped in favour of the other."""
    survivor = {row["id"]: row["survivor"] or row["id"] for row, _, _ in families}
    heads = {family: row["id"] for row, truth, family in families if truth["warc_id"] == family}
    once: dict[float, list[bool]] = defaultdict(list)
    given: dict[float, list[bool]] = defaultdict(list)
    expected: dict[float, list[float]] = defaultdict(list)
    for row, truth, family in families:
        if truth["kind"] == "near_duplicate" and family in heads:
            nominal, similarity = float(truth["note"].split("nominal ")[1].split(";")[0]), truth["jaccard"]
            pair = (row["id"], heads[family])
            relative, head = pair
            once[nominal].append(any(survivor[id] != id for id in pair))
            given[nominal].append(survivor[relative] == head or survivor[head] == relative)
            expected[nominal].append(min(1 - (1 - similarity**8) ** 14, binom.sf(82, 112, similarity)))
    assert set(once) == {0.95, 0.9, 0.8, 0.7, 0.5} and min(map(len, once.values())) >= 5
    for nominal, chances in expected.items():
        theory = float(np.mean(chances))
        # page furniture that extraction keeps moves similarities a little
        slack = 3 * (theory * (1 - theory) / len(chances)) ** 0.5 + 0.12
        assert np.mean(once[nominal]) > theory - slack, (nominal, np.mean(once[nominal]), theory)
        assert np.mean(given[nominal]) < theory + slack, (nominal, np.mean(given[nominal]), theory)
    assert all(once[0.95]) and all(once[0.9])


def test_families_do_not_mix(families):
    family = {row["id"]: head for row, _, head in families}
    dropped = [row for row, _, _ in families if row["reason"] == "minhash.duplicate"]
    assert len(dropped) > 40
    assert not [row for row in dropped if family[row["id"]] != family[row["survivor"]]]


def test_nothing_unrelated_is_dropped_as_a_near_duplicate(done):
    """Chance links texts at a Jaccard similarity of .4 once in 100 times, at .3 once in 1,000."""
    folder, manifest = done
    texts = dict(extracted_texts(open_store(str(folder)), manifest))
    clusters = defaultdict(list)
    for row in table_of(open_store(str(folder)), manifest, "clusters").to_pylist():
        clusters[row["survivor"]].append(row["id"])
    nearest = []
    for survivor, others in clusters.items():
        sets = {id: shingles(texts[id]) for id in (survivor, *others)}
        nearest += [max(overlap(sets[id], sets[other]) for other in sets if other != id) for id in others]
    assert len(nearest) > 40 and min(nearest) > 0.4 and np.mean(nearest) > 0.8


def extracted_texts(store: Store, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(id, text) of everything that was extracted for this version."""
    for bundle in (ref for ref in manifest.attachments if ref.kind == "receipts"):
        for line in store.get(bundle.key).splitlines():
            for ref in (output for output in Receipt.model_validate_json(line).outputs if output.kind == "text"):
                yield from zip(*(read_table(store, ref)[name].to_pylist() for name in ("id", "text")), strict=True)


def shingles(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def overlap(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def test_a_survivor_has_most_words_then_the_lowest_id(done):
    folder, manifest = done
    store = open_store(str(folder))
    rows = {row["id"]: row for row in signatures(store, manifest).to_pylist()}
    clusters = table_of(store, manifest, "clusters")
    assert clusters.num_rows > 40
    for survivor, other in zip(clusters["survivor"].to_pylist(), clusters["id"].to_pylist(), strict=True):
        best, lost = ((-rows[id]["minhash.n_words"], id) for id in (survivor, other))
        assert best < lost


def test_sizes_of_clusters_are_counted(done):
    folder, manifest = done
    counts = pc.value_counts(table_of(open_store(str(folder)), manifest, "clusters")["survivor"])
    sizes = [n.as_py() + 1 for n in counts.field("counts")]
    shown = manifest.statistics["clusters"]
    assert (shown["clusters"], shown["largest"]) == (len(sizes), max(sizes))
    assert shown["sizes_from"]["2"] == sizes.count(2) and sum(shown["sizes_from"].values()) == len(sizes)


def test_why_names_the_cluster(done):
    folder, manifest = done
    store = open_store(str(folder))
    clusters = table_of(store, manifest, "clusters").to_pylist()
    answer = why(Versions(store), clusters[0]["id"]).stories[0]
    family = {row["id"] for row in clusters if row["survivor"] == clusters[0]["survivor"]}
    assert answer.reason == "minhash.duplicate" and answer.survivor.fate == "kept"
    assert set(answer.cluster.others) == family and answer.cluster.size == len(family) + 1
    kept = why(Versions(store), clusters[0]["survivor"]).stories[0]
    assert kept.fate == "kept" and kept.cluster == answer.cluster


def test_components_are_those_of_all_edges(done, linked):
    store, manifest = open_store(str(done[0])), linked
    table = signatures(store, manifest)
    edges = []
    for band in band_names(14):
        buckets = defaultdict(list)
        for i, value in enumerate(table[band].to_pylist()):
            buckets[value].append(i)
        edges += [(members[0], member) for members in buckets.values() for member in members[1:]]
    at = np.array(edges)
    matrix = coo_array((np.ones(len(at)), (at[:, 0], at[:, 1])), shape=(table.num_rows,) * 2)
    n, labels = connected_components(matrix, directed=False)
    ids = table["id"].to_pylist()
    clusters = table_of(store, manifest, "clusters")
    survivor_of = dict(zip(clusters["id"].to_pylist(), clusters["survivor"].to_pylist(), strict=True))
    groups = defaultdict(set)
    for id, label in zip(ids, labels.tolist(), strict=True):
        groups[label].add(survivor_of.get(id, id))
    assert all(len(survivors) == 1 for survivors in groups.values())
    assert manifest.kept.count == n + (manifest.kept.count - len({s for g in groups.values() for s in g}))


def test_another_measure_can_choose_the_survivor(sample, tmp_path):
    files = web.crawl_files(sample)
    by = {}
    for name in ("minhash.n_words", "-minhash.n_words"):
        manifest = web.run(tmp_path / name.strip("-"), files, survivor=[name, "language.language_score"]).manifest
        table = table_of(open_store(str(tmp_path / name.strip("-"))), manifest, "clusters")
        by[name] = (manifest.kept.count, set(table["survivor"].to_pylist()))
    assert by["minhash.n_words"] != by["-minhash.n_words"]
    assert by["minhash.n_words"][0] == by["-minhash.n_words"][0]


def test_a_measure_that_is_not_there_is_refused_with_those_that_are(sample, tmp_path):
    with pytest.raises(BadConfig, match=r"survivor: no measure is called words; there are minhash\.n_words, .*n_stop"):
        web.run(tmp_path, web.crawl_files(sample), survivor=["words"])


def test_switched_off_it_leaves_no_trace(sample, tmp_path):
    manifest = web.run(tmp_path, web.crawl_files(sample), minhash=None).manifest
    assert "minhash" not in [row.stage for row in manifest.funnel] and "clusters" not in manifest.statistics
    assert {ref.kind for ref in manifest.attachments} == {"refs", "receipts", "contents"}


# Links over invented bands


def collection(store: Store, bands: dict[str, list[int]], first: int) -> ObjectRef:
    n = len(next(iter(bands.values())))
    keys = {
        "id": [f"{first + i:032x}" for i in range(n)],
        "input": ["aa"] * n,
        "ordinal": list(range(first, first + n)),
        "start": [0] * n,
        "length": [1] * n,
        "rank_0": [float(i) for i in range(n)],
    }
    hashes = {name: pa.array(values, pa.uint64()) for name, values in bands.items()}
    return put_table(store, "signatures", pa.table({**keys, **hashes}))


def test_a_chain_through_two_bands_is_one_component(tmp_path):
    store = open_store(str(tmp_path))
    refs = [
        collection(store, {"band_00": [10, 10, 20], "band_01": [100, 200, 200]}, 0),
        collection(store, {"band_00": [30, 40], "band_01": [300, 300]}, 3),
    ]
    runner = Runner(store, workers=0)
    linked = link(runner, 2, [], refs)
    rows = read_table(store, linked.forest).to_pylist()
    assert [(row["child"], row["root"]) for row in rows] == [(1, 0), (2, 0), (4, 3)]
    (work,) = survivor_works(SelectSurvivors(None), linked, gather(runner, linked, signatures=False))
    outcome = SelectSurvivors(None).run(store, work)
    members = read_table(store, next(ref for ref in outcome.outputs if ref.kind == "members")).to_pylist()
    assert [(row["survivor"][-1], row["id"][-1]) for row in members] == [("2", "0"), ("2", "1"), ("4", "3")]
    assert outcome.received.count == 5 and outcome.passed.count == 2 and outcome.received != Tally()


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_number_of_ranges_changes_nothing(tmp_path, monkeypatch, parts):
    store = open_store(str(tmp_path))
    random = np.random.default_rng(7)
    bands = {
        name: random.integers(0, 2**63, 300, dtype=np.uint64)[random.integers(0, 300, 500)]
        for name in ("band_00", "band_01")
    }
    refs = [collection(store, {k: v[i : i + 100].tolist() for k, v in bands.items()}, i) for i in range(0, 500, 100)]
    monkeypatch.setattr("gristmill.stages.near.link.DOCUMENTS_PER_RANGE", 500 // parts)
    monkeypatch.setattr("gristmill.stages.near.link.FAN_IN", 2)
    forest = read_table(store, link(Runner(store, workers=0), 2, [], refs).forest)
    a, b = (np.concatenate([_stars(bands[name])[i] for name in bands]) for i in range(2))
    n, labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(500, 500)), directed=False)
    assert forest.num_rows == 500 - n
    smallest = {label: int(np.flatnonzero(labels == label)[0]) for label in range(n)}
    assert all(
        smallest[labels[c]] == r for c, r in zip(forest["child"].to_pylist(), forest["root"].to_pylist(), strict=True)
    )


def _stars(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first: dict[int, int] = {}
    pairs = [(first.setdefault(v, i), i) for i, v in enumerate(values.tolist())]
    return tuple(np.array(side) for side in zip(*pairs, strict=True))  # type: ignore[return-value]


def signatures(store: Store, manifest: Manifest) -> pa.Table:
    return table_of(store, manifest, "signatures")


def table_of(store: Store, manifest: Manifest, kind: str) -> pa.Table:
    return pa.concat_tables([read_table(store, ref) for ref in manifest.attachments if ref.kind == kind])
