"""What `choose` reads: the members of its components and nothing else, however many documents and Works there are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from near import BANDS, WIDTH, GrownDataset, collection, edited, texts

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet, read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.stages.clusters.members import read_members
from gristmill.stages.clusters.select_survivors import SelectSurvivors, survivor_works
from gristmill.stages.near.gather import SHARES_WITHOUT_SIGNATURES, gather
from gristmill.stages.near.link import Linked, link
from gristmill.stages.near.minhash import signature_values
from gristmill.stages.run.runner import Runner

ROW_GROUP = 32
PIECES = 5


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, shares and row groups of some rows, so that a few hundred documents make many of each."""
    monkeypatch.setattr("gristmill.stages.near.link.EDGES_PER_CHOICE", 40)
    monkeypatch.setattr("gristmill.stages.near.link.MEMBERS_PER_SHARE", 64)
    monkeypatch.setattr("gristmill.lake.store.objects.ROW_GROUP_ROWS", ROW_GROUP)
    monkeypatch.setattr("gristmill.stages.near.gather.ROW_GROUP_ROWS", ROW_GROUP)


def pages(seed: int, n: int) -> np.ndarray:
    """Half of them alone, half in families of 2 to 9 that lie anywhere."""
    random = np.random.default_rng(seed)
    parts, left = [texts(random, n // 2)], n - n // 2
    while left:
        copies = min(left, int(random.integers(2, 10)))
        parts.append(edited(random, texts(random, 1)[0], random.choice([0.85, 0.95, 1.0]), copies))
        left -= copies
    return random.permutation(np.concatenate(parts))


def collections_of(store: Store, values: np.ndarray, pieces: int, first: int = 0) -> list[ObjectRef]:
    cuts = np.array_split(np.arange(len(values)), pieces)
    return [
        collection(store, values[at], [f"{first + i:032x}" for i in at], at % 17, first + n)
        for n, at in enumerate(cuts)
    ]


def by_hand(store: Store, linked: Linked) -> dict[int, int]:
    """document -> root, of the components with more than one document, a new one among them."""
    table = read_table(store, linked.forest)
    root = dict(zip(table["child"].to_pylist(), table["root"].to_pylist(), strict=True))
    with_new = {of for child, of in root.items() if child >= linked.old}
    members = {child: of for child, of in root.items() if of in with_new}
    return members | {of: of for of in with_new}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("signatures", [True, False])
@pytest.mark.parametrize(("seed", "old"), [(0, 0), (1, 0), (2, 300), (3, 590)])
def test_each_range_has_its_members_whole_and_in_order(tmp_path, seed, old, signatures):
    """Against the forest and the collections read as a whole: also where most documents are of an earlier increment."""
    store = open_store(str(tmp_path))
    runner = Runner(store, workers=0)
    values = pages(seed, 600)
    before = collections_of(store, values[:old], 3) if old else []
    new = collections_of(store, values[old:], PIECES, first=old)
    linked = link(runner, BANDS, before, new)
    expected = by_hand(store, linked)
    refs = read_refs(store, gather(runner, linked, signatures=signatures))
    seen: list[int] = []
    for low, high in pairwise(linked.cuts):
        members = read_members(store, refs, low, high, linked.old)
        documents = sorted(i for i, root in expected.items() if low <= root < high)
        assert members.rows["id"].to_pylist() == [f"{i:032x}" for i in documents]
        assert members.root.tolist() == [expected[i] for i in documents]
        assert members.old == sum(i < old for i in documents)
        assert members.values.shape == (len(documents), WIDTH if signatures else 0)
        if signatures:
            assert np.array_equal(members.values, values[documents])
        seen += documents
    assert sorted(seen) == sorted(expected) and expected
    assert (
        len(linked.cuts) > 2 if old < 500 else len(expected) < 100
    )  # of the earlier ones only who hangs together with a new one


@pytest.mark.usefixtures("small")
def test_ranges_and_shares_change_nothing(tmp_path, monkeypatch):
    values = pages(4, 500)
    ids, ranks = [f"{i:032x}" for i in np.random.default_rng(4).permutation(500)], [float(i % 13) for i in range(500)]
    outcomes = []
    for name, per_choice, per_share in [("whole", 10**6, 10**6), ("many", 7, 50), ("others", 90, 11)]:
        monkeypatch.setattr("gristmill.stages.near.link.EDGES_PER_CHOICE", per_choice)
        monkeypatch.setattr("gristmill.stages.near.link.MEMBERS_PER_SHARE", per_share)
        increments = GrownDataset(open_store(str(tmp_path / name)))
        for at in (slice(0, 250), slice(250, 400), slice(400, 500)):
            increments.increment(values[at], ids[at], ranks[at], PIECES)
        outcomes.append((increments.kept, increments.survivors, increments.values, increments.differences))
    assert outcomes[0] == outcomes[1] == outcomes[2] and outcomes[0][1] and outcomes[0][3]


# Cost


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", [SelectSurvivors(), SelectSurvivors(None)])
def test_all_works_together_read_each_member_once_and_each_collection_about_once(tmp_path, monkeypatch, stage):
    read: list[int] = []
    whole = pq.ParquetFile.read_row_group

    def counted(self, *args, **settings):
        read.append(whole(self, *args, **settings).num_rows)
        return whole(self, *args, **settings)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for documents in (600, 1200, 2400):
        store = open_store(str(tmp_path / str(documents)))
        runner = Runner(store, workers=0)
        linked = link(runner, BANDS, [], collections_of(store, pages(documents, documents), documents // 120))
        read.clear()
        gathered = gather(runner, linked, signatures=stage.min_similarity is not None)
        shares = len(read_refs(store, gathered))
        assert linked.components.records > documents / 3
        assert sum(read) <= documents + shares * ROW_GROUP  # a row group where two shares meet is read by both
        read.clear()
        works = survivor_works(stage, linked, gathered)
        runner.map("choose", works)
        assert sum(read) == linked.components.records
        assert len(works) >= documents // 200  # more Works the more there are, which is what made it quadratic


@pytest.mark.usefixtures("small")
def test_row_groups_are_of_one_range_each_and_without_signatures_a_work_takes_more(tmp_path):
    store = open_store(str(tmp_path))
    runner = Runner(store, workers=0)
    linked = link(runner, BANDS, [], collections_of(store, pages(5, 900), PIECES))
    refs = {signatures: read_refs(store, gather(runner, linked, signatures=signatures)) for signatures in (True, False)}
    for ref in (*refs[True], *refs[False]):
        with open_parquet(store, ref) as file:
            for g in range(file.num_row_groups):
                places = np.searchsorted(linked.cuts, file.read_row_group(g, ["root"])["root"].to_numpy(), side="right")
                assert len(set(places.tolist())) == 1
    assert len(refs[True]) == len(linked.shares) - 1
    assert len(refs[False]) == -(-len(refs[True]) // SHARES_WITHOUT_SIGNATURES)
    first = read_table(store, refs[True][0])
    at = first["document"].to_numpy()
    assert np.array_equal(signature_values(first["signature"], WIDTH), pages(5, 900)[at])


def test_documents_that_are_all_alone_are_gathered_as_none(tmp_path):
    increments = GrownDataset(open_store(str(tmp_path)))
    increments.increment(texts(np.random.default_rng(6), 20), [f"{i:032x}" for i in range(20)], [1.0] * 20, 2)
    assert len(increments.kept) == 20 and increments.compared == 0
