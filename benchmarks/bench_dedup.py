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

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document

from benchmarks import datatrove_minhash as datatrove
from benchmarks.dedup_chain import SETTINGS, Found, Stopwatch, chain, collected, linked
from benchmarks.dedup_material import JACCARDS, TEXTS_PER_CHUNK, Pair, Sample, material, put_chunks
from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, contest, cpu_seconds, figure, require_equal
from filters.minhash import warm
from lake.objects import ObjectRef, read_table, scratch
from lake.store import open_store
from stages.choose import Choose
from stages.forest import kernels
from stages.minhash import signature_values
from stages.records import Chunk
from stages.settle import kernels as settle_kernels

OURS, THEIRS = "gristmill", "datatrove"
BY_SIMILARITY = "gristmill, by similarity"
KEPT_APART = 0.01  # of all documents: kept by the two chains
RECALL_APART = 0.03  # beyond three standard errors and one pair: words are not the same words everywhere
GROWTH = (1, 4, 16)


class Places:
    """A new folder for every run, with what it starts from under another name: no receipt of a run serves the next."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, count()

    def fresh(self, origin: Path | None = None) -> Path:
        place = self.folder / str(next(self.numbers))
        if origin is not None:
            shutil.copytree(origin, place, copy_function=os.link)
        return place


def turns(run: Callable[[Path], Any], places: Places, origin: Path) -> Arm:
    """An arm that runs on its own copy of a folder, made outside the clock."""
    current: list[Path] = []
    return Arm(lambda: run(current[-1]), lambda: current.append(places.fresh(origin)))


# The same signatures.


@dataclass(frozen=True)
class Signed:
    """The same signatures in both forms, each in a folder."""

    ours: Path
    refs: list[ObjectRef]
    theirs: Path
    shards: list[list[Document]]


def signed_twice(texts: Sequence[str], places: Places) -> Signed:
    ours, theirs = places.fresh(), places.fresh()
    store = open_store(str(ours))
    refs = collected(Stopwatch(store), put_chunks(store, list(texts)))
    width = SETTINGS.bands * SETTINGS.rows
    values = np.concatenate([signature_values(read_table(store, r, ["signature"])["signature"], width) for r in refs])
    if len(values) != len(texts):
        raise Differ(f"dedup: {len(texts)} texts, {len(values)} signatures: give texts of five words or more")
    datatrove.write_signatures(values, TEXTS_PER_CHUNK, theirs, SETTINGS.bands, SETTINGS.rows)
    return Signed(ours, refs, theirs, datatrove.documents(texts, TEXTS_PER_CHUNK))


def check_same(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ unless the clusters are the same sets, and each keeps one document."""
    ours, theirs = outcomes[OURS], outcomes[THEIRS]
    require_equal(
        "dedup: clusters, ours against datatrove's", ours.clusters, datatrove.clusters(theirs, TEXTS_PER_CHUNK)
    )
    require_equal("dedup: number kept, ours against datatrove's", [len(ours.kept)], [len(theirs.kept)])
    for name, kept in ((OURS, ours.kept), (THEIRS, set(theirs.kept))):
        stay = [sum(one in kept for one in members) for members in ours.clusters]
        require_equal(f"dedup: {name} keeps of each cluster", stay, [1] * len(stay))


def same_signatures(texts: Sequence[str], places: Places, rounds: int) -> tuple[Times, list[dict[str, float]]]:
    given = signed_twice(texts, places)
    splits: list[dict[str, float]] = []

    def check(outcomes: Mapping[str, Any]) -> None:
        check_same(outcomes)
        splits.append(outcomes[OURS].cpu)

    arms = {
        OURS: turns(lambda place: linked(Stopwatch(open_store(str(place))), given.refs), places, given.ours),
        BY_SIMILARITY: turns(
            lambda place: linked(Stopwatch(open_store(str(place))), given.refs, Choose()), places, given.ours
        ),
        THEIRS: turns(lambda place: datatrove.deduplicate(given.shards, place, datatrove.GIVEN), places, given.theirs),
    }
    return contest(arms, rounds, check), splits[1:]


# From texts.


def chains(texts: Sequence[str], places: Places, rounds: int) -> tuple[Figure, Found, datatrove.Kept, Times]:
    """datatrove once, because it takes minutes, ours `rounds` times."""
    origin = places.fresh()
    chunks = put_chunks(open_store(str(origin)), list(texts))
    shards = datatrove.documents(texts, TEXTS_PER_CHUNK)
    place = places.fresh()
    place.mkdir()
    started = cpu_seconds()
    datatrove.sign(shards, place)
    theirs = datatrove.deduplicate(shards, place)
    taken = cpu_seconds() - started
    times = contest({OURS: chain_arm(chunks, places, origin)}, rounds, lambda outcomes: None)
    seconds = times.seconds(OURS)
    ratio = Figure(taken / seconds.median, taken / seconds.high, taken / seconds.low)
    return ratio, times.outcomes[OURS], theirs, times


def chain_arm(chunks: Sequence[Chunk], places: Places, origin: Path) -> Arm:
    return turns(lambda place: chain(open_store(str(place)), chunks), places, origin)


def recalls(pairs: Sequence[Pair], clusters: Sequence[Sequence[int]]) -> dict[float, float]:
    """Of the planted pairs at each similarity the share that ended in one cluster."""
    name = {member: n for n, members in enumerate(clusters) for member in members}
    hits: dict[float, list[bool]] = {planted: [] for planted in JACCARDS}
    for one in pairs:
        hits[one.planted].append(name.get(one.head, -1) == name.get(one.copy, -2))
    return {planted: float(np.mean(found)) for planted, found in hits.items() if found}


def theory(pairs: Sequence[Pair]) -> dict[float, tuple[float, int]]:
    """The mean chance of the pairs as measured, and how many they are."""
    chances: dict[float, list[float]] = {planted: [] for planted in JACCARDS}
    for one in pairs:
        chances[one.planted].append(1 - (1 - one.jaccard**SETTINGS.rows) ** SETTINGS.bands)
    return {planted: (float(np.mean(found)), len(found)) for planted, found in chances.items() if found}


def agreement(texts: int, pairs: Sequence[Pair], ours: Found, theirs: datatrove.Kept) -> dict[str, Any]:
    """What both kept and found; raises Differ where they are further apart than their hashes explain."""
    if abs(len(ours.kept) - len(theirs.kept)) > KEPT_APART * texts:
        raise Differ(f"dedup: ours keeps {len(ours.kept)} of {texts} texts, datatrove {len(theirs.kept)}")
    expected = theory(pairs)
    found = {
        OURS: recalls(pairs, ours.clusters),
        THEIRS: recalls(pairs, datatrove.clusters(theirs, TEXTS_PER_CHUNK)),
    }
    for name, recall in found.items():
        for planted, (chance, n) in expected.items():
            slack = RECALL_APART + 3 * (chance * (1 - chance) / n) ** 0.5 + 1 / n  # of a few pairs, one is much
            if abs(recall[planted] - chance) > slack:
                raise Differ(
                    f"dedup: {name} finds {recall[planted]:.3f} of {n} pairs at {planted}; in theory {chance:.3f}"
                    f" +- {slack:.3f}"
                )
    both = len(ours.kept & set(theirs.kept))
    return {"kept": {OURS: len(ours.kept), THEIRS: len(theirs.kept), "both": both}, "recall": found, "theory": expected}


# Growth.


def growth(texts: Mapping[int, Sequence[str]], places: Places, rounds: int) -> Times:
    """Our chain on each number of texts, in turns."""
    arms = {}
    for n, some in texts.items():
        origin = places.fresh()
        arms[str(n)] = chain_arm(put_chunks(open_store(str(origin)), list(some)), places, origin)
    return contest(arms, rounds, lambda outcomes: None)


def exponent(times: Times, small: int, large: int) -> Figure:
    """k, if time grows as n^k between two sizes."""
    ratios = [b / a for a, b in zip(times.cpu[str(small)], times.cpu[str(large)], strict=True)]
    return figure([float(np.log(one) / np.log(large / small)) for one in ratios])


@dataclass(frozen=True)
class Results:
    """Of the three contests. `whole`: (how many times ours datatrove took, our outcome, its outcome, our times)."""

    sizes: Sequence[int]
    sample: Sample
    same: Times
    splits: Sequence[dict[str, float]]  # CPU seconds of our stages in `same`, a round each
    whole: tuple[Figure, Found, datatrove.Kept, Times]
    agreed: dict[str, Any]
    grown: Times


def run(tiny: bool) -> Report:
    rounds, texts, smallest = (1, 240, 40) if tiny else (3, 50_000, 6_250)
    sizes = [smallest * factor for factor in GROWTH]
    made = material(tiny, sizes[-1])
    samples = {n: made.first(n) for n in {texts, *sizes}}
    warm()
    kernels()
    settle_kernels()
    with scratch() as folder:
        places, sample = Places(folder), samples[texts]
        same, splits = same_signatures(samples[sizes[-1]].texts, places, rounds)
        whole = chains(sample.texts, places, rounds)
        agreed = agreement(texts, sample.pairs, whole[1], whole[2])
        grown = growth({n: samples[n].texts for n in sizes}, places, rounds)
        return report(made.source, rounds, Results(sizes, sample, same, splits, whole, agreed, grown))


def report(source: str, rounds: int, of: Results) -> Report:
    ratio, ours, _, times = of.whole
    small, middle, large = of.sizes
    seconds = {
        "from signatures": {name: of.same.seconds(name).median for name in of.same.cpu},
        "from texts": {OURS: times.seconds(OURS).median, THEIRS: ratio.median * times.seconds(OURS).median},
        "growth": {name: of.grown.seconds(name).median for name in of.grown.cpu},
    }
    kept, stages = of.agreed["kept"], {name: figure([one[name] for one in of.splits]).median for name in of.splits[0]}
    return Report(
        name="dedup",
        data=source,
        rounds=rounds,
        rows=tuple(rows_of(of)),
        notes=(
            f"from texts ours keeps {kept[OURS]:,}, datatrove {kept[THEIRS]:,}, {kept['both']:,} the same document",
            "recall, " + "; ".join(_recall(of.agreed, planted) for planted in of.agreed["theory"]),
            f"growth: time goes as n^k; k from {small:,} to {large:,} {_exponent(of.grown, small, large)}, from"
            f" {middle:,} to {large:,} {_exponent(of.grown, middle, large)}; fixed costs of small runs lower it",
            "from signatures, CPU seconds of ours: " + _split(stages),
            "from texts, CPU seconds of ours: " + _split(ours.cpu),
            "datatrove's stages run without executor, reader and writer: documents are in memory and only counted",
            "the band hashes that ours links by are made when collections are written: `collect`, in the whole chain",
        ),
        details={
            "texts": {"from signatures": large, "from texts": len(of.sample.texts)},
            "characters": sum(map(len, of.sample.texts)),
            "from_texts": of.agreed,
            "cpu_seconds": seconds,
            "stages": {"from signatures": stages, "from texts": ours.cpu},
        },
    )


def rows_of(of: Results) -> list[Row]:
    small, _, large = of.sizes
    found, texts = of.same.outcomes[OURS], len(of.sample.texts)
    linking = [one["link"] + one["merge"] for one in of.splits]
    components = figure([a / b for a, b in zip(of.same.cpu[THEIRS], linking, strict=True)])
    exactly = f"{len(found.clusters):,} clusters as sets, {len(found.kept):,} of {large:,} kept"
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


def recall_rows(agreed: Mapping[str, Any], planted: float = 0.8) -> list[Row]:
    chance, n = agreed["theory"][planted]
    error = 100 * (chance * (1 - chance) / n) ** 0.5
    told = f"{n} pairs; in theory {100 * chance:.1f} %"
    found = {name: 100 * agreed["recall"][name][planted] for name in (OURS, THEIRS)}
    return [
        Row(
            f"recall at Jaccard {planted}, {name} (spread: standard error)",
            Figure(one, one - error, one + error),
            "%",
            told,
        )
        for name, one in found.items()
    ]


def _recall(agreed: Mapping[str, Any], planted: float) -> str:
    ours, theirs = (agreed["recall"][name][planted] for name in (OURS, THEIRS))
    chance, n = agreed["theory"][planted]
    return f"{n} pairs at {planted}: ours {ours:.3f}, datatrove {theirs:.3f}, in theory {chance:.3f}"


def _exponent(times: Times, small: int, large: int) -> str:
    found = exponent(times, small, large)
    return f"{found.median:.2f} ({found.low:.2f} - {found.high:.2f})"


def _split(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
