"""The gate `contamination`: no held-out record is in what a model was trained on, by id, by text or by 13 words.

What a model was trained on is its mixture's sources, whole, and those of whatever it was initialised from, down to the
first stage. Where the lake does not know what a base was trained on (a checkpoint of somebody else), the finding says
so. This adds up what `stages.gates.held_out` has found, and decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.overlap import HeldOut, Overlap
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, read_refs, read_table
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.gates.held_out import (
    ID,
    NEAR,
    TEXT,
    FindHeldOut,
    HeldOutIndex,
    IndexHeldOut,
    find_works,
    index_work,
)
from gristmill.stages.mix.tokenize import TEXT_FORMS
from gristmill.stages.run.runner import Runner

SHOWN = 5
"""Leaks that a finding names."""


@dataclass(frozen=True)
class Leak:
    """A held-out record and one training record that gives it away; `how`: by id, text or words."""

    held_out: str
    id: str
    trained_on: str
    record: str
    how: str


@dataclass(frozen=True)
class ContaminationFinding:
    """`held_out`: records; `trained_on`: records of `versions` that were looked through. `by_id`, `by_text`,
    `by_words`: held-out records that are there, each counted once, by the first of these. `short`: held-out records
    with fewer words than an n-gram, compared whole; `phrases`: those that share nothing but n-grams that many training
    records hold. `unknown`: what it was initialised from and of which the lake does not know, or no longer has, the
    training data."""

    passed: bool
    why: str
    held_out: int
    trained_on: int
    versions: tuple[str, ...]
    by_id: int
    by_text: int
    by_words: int
    short: int
    phrases: int
    leaks: tuple[Leak, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Ancestry:
    """What a model was trained on: versions with texts, what of its past is unknown, and of its mixture `missing`."""

    versions: tuple[Manifest, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]


def ancestry(versions: Versions, mixture: Manifest, bases: Sequence[Manifest]) -> Ancestry:
    """Of a stage on this mixture that starts from these models. Raises as `Versions.manifest`."""
    walk = _Walk(versions)
    walk.data(mixture)
    missing = tuple(sorted(walk.unknown))
    for base in bases:
        walk.model(base)
    return Ancestry(tuple(walk.texts.values()), tuple(sorted(walk.unknown)), missing)


@dataclass
class _Walk:
    versions: Versions
    texts: dict[str, Manifest] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def model(self, manifest: Manifest) -> None:
        """What it was trained on, and what its bases were."""
        if str(manifest) in self.seen:
            return
        self.seen.add(str(manifest))
        if not any(ref.role == "trained_on" for ref in manifest.sources):
            self.unknown.add(str(manifest))
        for ref in manifest.sources:
            if ref.role == "trained_on":
                self.data(self._of(ref))
            elif ref.role.startswith("init_from."):
                self.model(self._of(ref))

    def data(self, manifest: Manifest) -> None:
        """The texts that it was made of."""
        if str(manifest) in self.seen:
            return
        self.seen.add(str(manifest))
        sources = [ref for ref in manifest.sources if ref.role != "tokenizer"]
        if manifest.version in self.versions.withdrawn(manifest.dataset):
            latest = self.versions.latest(manifest.dataset)
            if latest is None:
                self.unknown.add(f"{manifest} (withdrawn)")
            else:  # what a takedown left of it
                self.data(self.versions.manifest(manifest.dataset, latest))
        elif manifest.form in TEXT_FORMS:
            self.texts[str(manifest)] = manifest
        elif not sources:
            self.unknown.add(str(manifest))
        else:
            for ref in sources:
                self.data(self._of(ref))

    def _of(self, ref: VersionRef) -> Manifest:
        return self.versions.manifest(ref.dataset, ref.version)


@dataclass(frozen=True)
class ContaminationInput:
    """The index, and what was found: `hits` lists the outputs of every shard's work, `versions` names the version of
    each shard with its records, in order. `unknown`, `missing`: as in Ancestry."""

    index: HeldOutIndex
    hits: ObjectRef
    versions: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Contamination(Stage[ContaminationInput]):
    """Facts: ContaminationFinding. No outputs."""

    name: ClassVar[str] = "gate_contamination"
    VERSION: ClassVar[int] = 1

    overlap: Overlap = Overlap()

    def run(self, store: Store, work: Work[ContaminationInput]) -> Outcome:
        """Raises DamagedObject."""
        payload = work.payload
        items, index = payload.index.load(store)
        sums = _Sums(index)
        refs = read_refs(store, payload.hits)
        for (version, _), item_hits, gram_hits in zip(payload.versions, refs[::2], refs[1::2], strict=True):
            sums.add(version, read_table(store, item_hits), read_table(store, gram_hits))
        return Outcome(outputs=(), received=Tally(), facts=_finding(sums, items, self.overlap, payload))


class _Sums:
    """What all shards have together. `gram_records`: training records that hold an n-gram, int64 [grams]."""

    def __init__(self, index: HeldOut) -> None:
        self.index = index
        self.gram_records = np.zeros(len(index.grams), np.int64)
        self.grams: dict[int, tuple[str, str]] = {}  # the first (version, record) that holds an n-gram
        self.items: dict[str, dict[int, tuple[str, str]]] = {ID: {}, TEXT: {}, NEAR: {}}

    def add(self, version: str, item_hits: pa.Table, gram_hits: pa.Table) -> None:
        """What the next shard has."""
        for hit in item_hits.to_pylist():
            self.items[hit["how"]].setdefault(hit["item"], (version, hit["record"]))
        self.gram_records[gram_hits["gram"].to_numpy()] += gram_hits["records"].to_numpy()
        for gram, record in zip(gram_hits["gram"].to_pylist(), gram_hits["record"].to_pylist(), strict=True):
            self.grams.setdefault(gram, (version, record))

    def by_words(self, overlap: Overlap) -> dict[int, tuple[str, str]]:
        """Items that training texts hold 13 words of, each with one that does: near copies, and what is no phrase."""
        rare = np.flatnonzero((self.gram_records > 0) & (self.gram_records <= overlap.max_matches))
        hits = dict(self.items[NEAR])
        for gram in rare.tolist():
            for item in self._holders(gram):
                hits.setdefault(item, self.grams[gram])
        return hits

    def of_any_gram(self) -> set[int]:
        """Items that share any n-gram with training texts, phrases too."""
        return {item for gram in np.flatnonzero(self.gram_records).tolist() for item in self._holders(gram)}

    def _holders(self, gram: int) -> list[int]:
        holders: list[int] = self.index.items[self.index.starts[gram] : self.index.starts[gram + 1]].tolist()
        return holders


def _finding(sums: _Sums, items: pa.Table, overlap: Overlap, payload: ContaminationInput) -> ContaminationFinding:
    """By id, else by text, else by words."""
    hits: dict[int, tuple[str, tuple[str, str]]] = {}
    ways = (("id", sums.items[ID]), ("text", sums.items[TEXT]), ("words", sums.by_words(overlap)))
    for how, places in ways:
        for item, where in places.items():
            hits.setdefault(item, (how, where))
    counts = {how: sum(way == how for way, _ in hits.values()) for how, _ in ways}
    versions, ids = items["version"].to_pylist(), items["id"].to_pylist()
    leaks = tuple(Leak(versions[item], ids[item], *where, how) for item, (how, where) in sorted(hits.items())[:SHOWN])
    records = sum(count for _, count in payload.versions)
    words = items["words"].to_numpy()
    return ContaminationFinding(
        passed=not hits and bool(ids) and not payload.missing,
        why=_why(counts, len(ids), leaks, overlap, payload),
        held_out=len(ids),
        trained_on=records,
        versions=tuple(dict.fromkeys(version for version, _ in payload.versions)),
        by_id=counts["id"],
        by_text=counts["text"],
        by_words=counts["words"],
        short=int((words < overlap.ngram).sum()),
        phrases=len(sums.of_any_gram() - hits.keys()),
        leaks=leaks,
        unknown=payload.unknown,
    )


def _why(
    counts: dict[str, int],
    held_out: int,
    leaks: Sequence[Leak],
    overlap: Overlap,
    payload: ContaminationInput,
) -> str:
    """In words, with what to do."""
    if not held_out:
        return "the held-out versions hold no record: nothing was looked for"
    if payload.missing and not leaks:
        return (
            f"{', '.join(payload.missing)} cannot be looked through, of which the mixture was made: mix anew from"
            " versions that are given out"
        )
    unknown = payload.unknown
    if not leaks:
        why = f"none of {held_out:,} held-out records is in the training data"
        return f"{why}; what {', '.join(unknown)} was trained on is not known" if unknown else why
    ways = {"id": "by their record id", "text": "by their text", "words": f"by {overlap.ngram} words in a row"}
    counted = ", ".join(f"{count:,} {ways[how]}" for how, count in counts.items() if count)
    first = leaks[0]
    return (
        f"{sum(counts.values()):,} of {held_out:,} held-out records are in the training data: {counted}. For example"
        f" {first.id} of {first.held_out} is given away by {first.record} of {first.trained_on}. Take them out of what"
        " the mixture is made of, or out of the held-out version, and train on that; `grist why` says where each came"
        " from"
    )


def contamination_stages(overlap: Overlap) -> tuple[Stage, ...]:
    """In the order in which they run."""
    return IndexHeldOut(overlap), FindHeldOut(overlap), Contamination(overlap)


def contamination(
    runner: Runner, overlap: Overlap, held_out: Sequence[Manifest], trained_on: Ancestry
) -> tuple[ContaminationFinding, list[Receipt]]:
    """What the gate says of these versions, and the receipts of its work. It needs no weights: it may be asked before
    anything is trained. Raises what a runner raises, ValueError for a version without texts."""
    indexed = runner.map("index held-out", [index_work(held_out, overlap)])
    index = HeldOutIndex.of(indexed[0])
    receipts = runner.map("find held-out", find_works(trained_on.versions, index, overlap))
    hits = [receipt.output(kind) for receipt in receipts for kind in ("item_hits", "gram_hits")]
    shards = tuple((str(manifest), ref.records) for manifest in trained_on.versions for ref in manifest.shards)
    work = Work(
        stage=Contamination(overlap),
        inputs=(
            *index.digests,
            *(f"{version} {records}" for version, records in shards),
            *(ref.sha256 for ref in hits),
            *trained_on.unknown,
            *(f"missing {version}" for version in trained_on.missing),
        ),
        payload=ContaminationInput(index, put_refs(runner.store, hits), shards, trained_on.unknown, trained_on.missing),
        label="contamination",
    )
    judged = runner.map("gate: contamination", [work])
    return judged[0].facts_as(ContaminationFinding), [*indexed, *receipts, *judged]
