"""How fast are near duplicates found, against datatrove's four stages, and does the time grow with the documents?

`from signatures`: the same signatures on disk, in datatrove's files and in our collections; its stages 2 to 4 against
link and merge (which settle the clusters and how many are kept), and against all of ours with choose and clusters,
which do what theirs does not: survivors by measure, fates, balances, tables for `why`. Clusters have to be the same
sets of documents, and as many must be kept. Theirs compares whole bands, ours 64-bit hashes of them from the
collections. Both read and write files of their own; ours with checksums, fsync and receipts.
`whole chain`: from texts to who is kept. Hashes and words are not the same, so recall of planted pairs has to be.
`growth`: the exponent of our chain's CPU time over the number of documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document

from benchmarks import datatrove_minhash as datatrove
from benchmarks.cpu_time import cpu_seconds
from benchmarks.dedup_chain import SETTINGS, ChainResult, Stopwatch, chain, collected, linked
from benchmarks.dedup_material import TEXTS_PER_CHUNK, Pair, Sample, material, put_chunks
from benchmarks.dedup_recall import OURS, THEIRS, recall_note, recall_rows, recalls, theory
from benchmarks.harness import (
    Arm,
    Differ,
    Figure,
    Places,
    Report,
    Row,
    Times,
    contest,
    figure,
    require_equal,
)
from gristmill.filters.signatures.minhash import warm
from gristmill.lake.store.objects import ObjectRef, read_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.clusters.settle import kernels as settle_kernels
from gristmill.stages.core.records import Chunk
from gristmill.stages.near.minhash import signature_values
from gristmill.stages.near.union_find import kernels

BY_SIMILARITY = "gristmill, by similarity"
KEPT_APART = 0.01  # of all documents: kept by the two chains
RECALL_APART = 0.03  # beyond three standard errors and one pair: words are not the same words everywhere
GROWTH = (1, 4, 16)


def turns(run: Callable[[Path], Any], places: Places, origin: Path) -> Arm:
    """An arm that runs on its own copy of a folder, made outside the clock."""
    current: list[Path] = []
    return Arm(lambda: run(current[-1]), lambda: current.append(places.fresh(origin)))


# The same signatures.


@dataclass(frozen=True)
class Signed:
    """The same signatures in both forms. lake, refs: a lake and its collections. files, shards: datatrove's."""

    lake: Path
    refs: list[ObjectRef]
    files: Path
    shards: list[list[Document]]


def signed_twice(texts: Sequence[str], places: Places) -> Signed:
    """Signs the texts once and writes both forms. Raises Differ for a text that is too short."""
    lake, files = places.fresh(), places.fresh()
    store = open_store(str(lake))
    refs = collected(Stopwatch(store), put_chunks(store, list(texts)))
    width = SETTINGS.bands * SETTINGS.rows
    values = np.concatenate([signature_values(read_table(store, r, ["signature"])["signature"], width) for r in refs])
    if len(values) != len(texts):
        raise Differ(f"dedup: {len(texts)} texts, {len(values)} signatures: give texts of five words or more")
    datatrove.write_signatures(values, TEXTS_PER_CHUNK, files, SETTINGS.bands, SETTINGS.rows)
    return Signed(lake, refs, files, datatrove.documents(texts, TEXTS_PER_CHUNK))


def check_same(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless the clusters are the same sets, and each keeps one document."""
    outcome, reference = outcomes[OURS], outcomes[THEIRS]
    require_equal(
        "dedup: clusters, ours against datatrove's", outcome.clusters, datatrove.clusters(reference, TEXTS_PER_CHUNK)
    )
    require_equal("dedup: number kept, ours against datatrove's", [len(outcome.kept)], [len(reference.kept)])
    for name, kept in ((OURS, outcome.kept), (THEIRS, set(reference.kept))):
        stay = [sum(number in kept for number in members) for members in outcome.clusters]
        require_equal(f"dedup: {name} keeps of each cluster", stay, [1] * len(stay))


def same_signatures(texts: Sequence[str], places: Places, rounds: int) -> tuple[Times, list[dict[str, float]]]:
    """The times from signatures on, and the CPU seconds of our stages, a round each."""
    given = signed_twice(texts, places)
    splits: list[dict[str, float]] = []

    def check(outcomes: Mapping[str, Any]) -> None:
        check_same(outcomes)
        splits.append(outcomes[OURS].cpu)

    arms = {
        OURS: turns(lambda place: linked(Stopwatch(open_store(str(place))), given.refs), places, given.lake),
        BY_SIMILARITY: turns(
            lambda place: linked(Stopwatch(open_store(str(place))), given.refs, SelectSurvivors()), places, given.lake
        ),
        THEIRS: turns(lambda place: datatrove.deduplicate(given.shards, place, datatrove.GIVEN), places, given.files),
    }
    return contest(arms, rounds, check), splits[1:]


# From texts.


def chains(texts: Sequence[str], places: Places, rounds: int) -> tuple[Figure, ChainResult, datatrove.Kept, Times]:
    """datatrove once, because it takes minutes, ours `rounds` times."""
    origin = places.fresh()
    chunks = put_chunks(open_store(str(origin)), list(texts))
    shards = datatrove.documents(texts, TEXTS_PER_CHUNK)
    place = places.fresh()
    place.mkdir()
    started = cpu_seconds()
    datatrove.sign(shards, place)
    reference = datatrove.deduplicate(shards, place)
    taken = cpu_seconds() - started
    times = contest({OURS: chain_arm(chunks, places, origin)}, rounds, lambda outcomes: None)
    seconds = times.seconds(OURS)
    ratio = Figure(taken / seconds.median, taken / seconds.high, taken / seconds.low)
    return ratio, times.outcomes[OURS], reference, times


def chain_arm(chunks: Sequence[Chunk], places: Places, origin: Path) -> Arm:
    """Our chain from texts, each time in a new lake."""
    return turns(lambda place: chain(open_store(str(place)), chunks), places, origin)


def agreement(texts: int, pairs: Sequence[Pair], outcome: ChainResult, reference: datatrove.Kept) -> dict[str, Any]:
    """What both kept and found; raises Differ where they are further apart than their hashes explain."""
    if abs(len(outcome.kept) - len(reference.kept)) > KEPT_APART * texts:
        raise Differ(f"dedup: ours keeps {len(outcome.kept)} of {texts} texts, datatrove {len(reference.kept)}")
    expected = theory(pairs)
    recall_of = {
        OURS: recalls(pairs, outcome.clusters),
        THEIRS: recalls(pairs, datatrove.clusters(reference, TEXTS_PER_CHUNK)),
    }
    for name, recall in recall_of.items():
        for planted, (chance, n) in expected.items():
            slack = RECALL_APART + 3 * (chance * (1 - chance) / n) ** 0.5 + 1 / n  # of a few pairs, one is much
            if abs(recall[planted] - chance) > slack:
                raise Differ(
                    f"dedup: {name} finds {recall[planted]:.3f} of {n} pairs at {planted}; in theory {chance:.3f}"
                    f" +- {slack:.3f}"
                )
    both = len(outcome.kept & set(reference.kept))
    kept = {OURS: len(outcome.kept), THEIRS: len(reference.kept), "both": both}
    return {"kept": kept, "recall": recall_of, "theory": expected}


# Growth.


def growth(texts: Mapping[int, Sequence[str]], places: Places, rounds: int) -> Times:
    """Our chain on each number of texts, in turns."""
    arms = {}
    for n, part in texts.items():
        origin = places.fresh()
        arms[str(n)] = chain_arm(put_chunks(open_store(str(origin)), list(part)), places, origin)
    return contest(arms, rounds, lambda outcomes: None)


def exponent(times: Times, small: int, large: int) -> Figure:
    """k, if time grows as n^k between two sizes."""
    ratios = [b / a for a, b in zip(times.cpu[str(small)], times.cpu[str(large)], strict=True)]
    return figure([float(np.log(ratio) / np.log(large / small)) for ratio in ratios])


@dataclass(frozen=True)
class Results:
    """Of the three contests. `whole`: (how many times ours datatrove took, our outcome, its outcome, our times)."""

    sizes: Sequence[int]
    sample: Sample
    same: Times
    splits: Sequence[dict[str, float]]  # CPU seconds of our stages in `same`, a round each
    whole: tuple[Figure, ChainResult, datatrove.Kept, Times]
    agreed: dict[str, Any]
    grown: Times


def run(tiny: bool) -> Report:
    """The report; `tiny` on a few hundred texts."""
    rounds, texts, smallest = (1, 240, 40) if tiny else (3, 50_000, 6_250)
    sizes = [smallest * factor for factor in GROWTH]
    source = material(tiny, sizes[-1])
    samples = {n: source.first(n) for n in {texts, *sizes}}
    warm()
    kernels()
    settle_kernels()
    with scratch() as folder:
        places, sample = Places(folder), samples[texts]
        same, splits = same_signatures(samples[sizes[-1]].texts, places, rounds)
        whole = chains(sample.texts, places, rounds)
        agreed = agreement(texts, sample.pairs, whole[1], whole[2])
        grown = growth({n: samples[n].texts for n in sizes}, places, rounds)
        return report(source.source, rounds, Results(sizes, sample, same, splits, whole, agreed, grown))


def report(source: str, rounds: int, of: Results) -> Report:
    """The results as a report."""
    ratio, outcome, _, times = of.whole
    small, middle, large = of.sizes
    seconds = {
        "from signatures": {name: of.same.seconds(name).median for name in of.same.cpu},
        "from texts": {OURS: times.seconds(OURS).median, THEIRS: ratio.median * times.seconds(OURS).median},
        "growth": {name: of.grown.seconds(name).median for name in of.grown.cpu},
    }
    kept = of.agreed["kept"]
    stages = {name: figure([split[name] for split in of.splits]).median for name in of.splits[0]}
    return Report(
        name="dedup",
        data=source,
        rounds=rounds,
        rows=tuple(rows_of(of)),
        notes=(
            f"from texts ours keeps {kept[OURS]:,}, datatrove {kept[THEIRS]:,}, {kept['both']:,} the same document",
            "recall, " + "; ".join(recall_note(of.agreed, planted) for planted in of.agreed["theory"]),
            f"growth: time goes as n^k; k from {small:,} to {large:,} {_exponent(of.grown, small, large)}, from"
            f" {middle:,} to {large:,} {_exponent(of.grown, middle, large)}; fixed costs of small runs lower it",
            "from signatures, CPU seconds of ours: " + _split(stages),
            "from texts, CPU seconds of ours: " + _split(outcome.cpu),
            "datatrove's stages run without executor, reader and writer: documents are in memory and only counted",
            "the band hashes that ours links by are made when collections are written: `collect`, in the whole chain",
        ),
        details={
            "texts": {"from signatures": large, "from texts": len(of.sample.texts)},
            "characters": sum(map(len, of.sample.texts)),
            "from_texts": of.agreed,
            "cpu_seconds": seconds,
            "stages": {"from signatures": stages, "from texts": outcome.cpu},
        },
    )


def rows_of(of: Results) -> list[Row]:
    """The figures."""
    small, _, large = of.sizes
    outcome, texts = of.same.outcomes[OURS], len(of.sample.texts)
    linking = [split["link"] + split["merge"] for split in of.splits]
    components = figure([a / b for a, b in zip(of.same.cpu[THEIRS], linking, strict=True)])
    exactly = f"{len(outcome.clusters):,} clusters as sets, {len(outcome.kept):,} of {large:,} kept"
    alike = f"recall of {len(of.sample.pairs):,} planted pairs, kept within {100 * KEPT_APART:g}%"
    times = of.grown.ratio(str(large), str(small))
    return [
        Row("from signatures: datatrove's stages 2 to 4 over band link + components", components, "x", exactly),
        Row("from signatures: the same over all of ours, to fates", of.same.ratio(THEIRS, OURS), "x", exactly),
        Row(
            "from signatures: all of ours with min_similarity at its default over without",
            of.same.ratio(BY_SIMILARITY, OURS),
            "x",
            f"{len(of.same.outcomes[BY_SIMILARITY].kept):,} of {large:,} kept",
        ),
        Row(f"from {texts:,} texts: datatrove's four stages (1 run) over ours", of.whole[0], "x", alike),
        *recall_rows(of.agreed),
        Row(f"growth: {large // small} times the texts ({small:,} to {large:,}) cost, times", times, "x"),
    ]


def _exponent(times: Times, small: int, large: int) -> str:
    power = exponent(times, small, large)
    return f"{power.median:.2f} ({power.low:.2f} - {power.high:.2f})"


def _split(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
