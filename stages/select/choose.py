"""Choose: one decision over all samples of a version of rollouts: which become data, and why the others do not.

Caps, shares of groups and equal chains are decided over everything at once, so this is a single piece of work; what it
writes is a row a sample, from which shards are written side by side. It counts, too, what the selection did to groups
of problems (`synth.bias`), and what shares cost (`synth.selection`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.filters.overlap import Overlap
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, iter_batches, put_refs, put_table, read_refs
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.gates.held_out import HeldOutIndex
from gristmill.stages.generate.contamination import Contamination
from gristmill.synth.bias import Counts, Thinning, thinning
from gristmill.synth.groups import groups_of
from gristmill.synth.selection import Candidate, Cost, Selection, select

CHOSEN = "chosen"
"""Kind of the table of all samples with what became of each."""
CHOSEN_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),  # sha256 of the shard of rollouts
        ("ordinal", pa.int64()),  # of the sample among those of its shard
        ("id", pa.string()),
        ("problem", pa.string()),
        ("reason", pa.string()),  # null: it is selected
        ("contaminated", pa.string()),  # the held-out item that it gives away; null: none
    ],
    metadata={"gristmill.format": "1"},
)
COLUMNS = ["id", "text", "domain", "language", "difficulty", "samples"]


@dataclass(frozen=True)
class ChooseInput:
    """The shards of rollouts in order (a list object), and what is held out; None: nothing."""

    shards: ObjectRef
    index: HeldOutIndex | None = None


@dataclass(frozen=True)
class ChooseFacts:
    """`samples` of each shard, in order. `reasons` -> samples; `costs` of shares; `groups`: what it did to each."""

    samples: tuple[int, ...]
    selected: int
    reasons: dict[str, int]
    costs: tuple[Cost, ...]
    groups: tuple[Thinning, ...]


@dataclass(frozen=True)
class Choose(Stage[ChooseInput]):
    """Output `chosen`. `names`: group -> names of people, for the report of groups; they decide nothing else, unless
    `selection` balances by them."""

    name: ClassVar[str] = "choose_samples"
    VERSION: ClassVar[int] = 2

    selection: Selection = field(default_factory=Selection)
    overlap: Overlap | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def run(self, store: Store, work: Work[ChooseInput]) -> Outcome:
        """Facts: ChooseFacts. All accepted texts are in memory. Raises DamagedObject."""
        payload = work.payload
        contamination = None
        if payload.index is not None:
            assert self.overlap is not None
            contamination = Contamination(store, payload.index, self.overlap)
        places: list[dict[str, Any]] = []
        asked: list[str] = []  # the problem of each sample
        candidates: list[Candidate] = []
        problems: dict[str, Mapping[str, str]] = {}
        counts: list[int] = []
        for shard in read_refs(store, payload.shards):
            before = len(places)
            for ordinal, (problem, question, groups, sample) in enumerate(self._samples(store, shard)):
                problems[problem] = groups
                asked.append(question)
                text = sample["text"] or ""
                places.append({"shard": shard.sha256, "ordinal": ordinal, "id": sample["id"], "problem": problem})
                candidates.append(Candidate(sample["id"], problem, sample["verdict"], sample["reason"], text, groups))
            counts.append(len(places) - before)
        held = {} if contamination is None else _held(contamination, asked, [each.text for each in candidates])
        candidates = [candidate._replace(contaminated=row in held) for row, candidate in enumerate(candidates)]
        reasons, costs = select(candidates, self.selection)
        rows = [
            place | {"reason": reasons[place["id"]], "contaminated": held.get(row)} for row, place in enumerate(places)
        ]
        return Outcome(
            outputs=(put_table(store, CHOSEN, pa.Table.from_pylist(rows, schema=CHOSEN_SCHEMA)),),
            received=Tally(),
            facts=ChooseFacts(
                samples=tuple(counts),
                selected=sum(reason is None for reason in reasons.values()),
                reasons=dict(sorted(Counter(reason for reason in reasons.values() if reason is not None).items())),
                costs=tuple(costs),
                groups=tuple(thinning(_of_problems(problems, candidates, reasons))),
            ),
        )

    def _samples(self, store: Store, shard: ObjectRef) -> Iterator[tuple[str, str, Mapping[str, str], dict[str, Any]]]:
        """(problem, its question, its groups, sample) of every sample, in order."""
        known = {name.lower(): group for group, names in self.names.items() for name in names}
        for batch in iter_batches(store, shard, COLUMNS):
            for row in batch.to_pylist():
                groups = groups_of(row["text"], row["domain"], row["language"], row["difficulty"], known)
                for sample in row["samples"]:
                    yield row["id"], row["text"], groups, sample


def _held(contamination: Contamination, asked: Sequence[str], chains: Sequence[str]) -> dict[int, str]:
    """Row of a contaminated sample -> what it gives away: as it is trained on, a problem with its chain behind it."""
    whole = [f"{question}\n{chain}" for question, chain in zip(asked, chains, strict=True)]
    return contamination.items(whole, chains)


def _of_problems(
    problems: Mapping[str, Mapping[str, str]], candidates: list[Candidate], reasons: Mapping[str, str | None]
) -> Iterator[tuple[Mapping[str, str], Counts]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for candidate in candidates:
        counts[candidate.problem].update(
            proposed=1, accepted=candidate.verdict == "accepted", selected=reasons[candidate.id] is None
        )
    for problem, groups in problems.items():
        counted = counts[problem]
        yield groups, Counts(counted["proposed"], counted["accepted"], counted["selected"])


def choose_work(stage: Choose, store: Store, shards: list[ObjectRef], index: HeldOutIndex | None) -> Work[ChooseInput]:
    """The one Work of a selection."""
    refs = put_refs(store, shards)
    digests = () if index is None else index.digests
    return Work(stage, (refs.sha256, *digests), ChooseInput(refs, index), label="samples")


def report(facts: ChooseFacts) -> dict[str, Any]:
    """For a manifest: what was selected, what shares cost, and what became of groups."""
    return {
        "reasons": facts.reasons,
        "balance": [asdict(cost) for cost in facts.costs],
        "groups": [asdict(row) for row in facts.groups],
    }
