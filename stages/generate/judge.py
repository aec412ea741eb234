"""Verify: a verdict on every sample that has none yet, or that was left undecided and is tried once more.

Only a wrong answer is rejected, and one that nobody can read. What an engine lost, a limit of time, or a gold answer
that nobody can read is undecided, with the reason; the attempt is a part of what the work is made of, so that a later
one is other work.
A sample that was cut off at `max_tokens` is rejected by a reason of its own: it has not come to an answer. Problems
without a gold answer have the one that their first samples agree on (`synth.verify.agreement`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.filters.redact import redact
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.fan import sample_tallies
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.core.releases import release_ids
from gristmill.stages.core.work import Hosting, Outcome, Resources, WarmStage, Work, stage_id
from gristmill.stages.generate.draw import Hosts
from gristmill.stages.generate.engines.protocol import LASTING
from gristmill.stages.generate.problems import PROBLEM, problem_of
from gristmill.stages.generate.tables import (
    JUDGED,
    JUDGED_SCHEMA,
    ORDER,
    Posing,
    by_problem,
    judged_rows,
    may_be_decided,
    without_agreement,
)
from gristmill.stages.generate.verifiers import Checks, Judging, Spent, judge_engine, judging, side_by_side, verifier_id
from gristmill.synth.sampling import Stop, settle
from gristmill.synth.verify.agreement import VOTES, Agreement, agreement
from gristmill.synth.verify.answers.symbolic import RELEASES as SYMBOLIC_RELEASES
from gristmill.synth.verify.verdict import Kind, Problem

ENGINE = "engine"
"""Who decides of samples that no verifier sees."""
TRUNCATED = "engine.truncated"


@dataclass(frozen=True)
class VerifyInput:
    """The problems of chunk number `chunk`, what was drawn since the last verdicts (None: nothing, it is only another
    attempt), and the verdicts so far. `again_below`: undecided samples that had fewer attempts than this are judged
    once more; 0: none."""

    chunk: int
    posing: Posing
    generated: ObjectRef | None
    judged: ObjectRef | None
    again_below: int = 0


@dataclass(frozen=True)
class VerifyFacts:
    """`open`: problems that want another sample. `undecided`: of samples that another attempt may decide, (attempts so
    far, how many samples, how many of these have to be drawn again). `isolation` that programs were run at. `judge`:
    what a model that judges took since a piece of work last told it."""

    open: int
    isolation: str | None = None
    undecided: tuple[tuple[int, int, int], ...] = ()
    judge: Spent = Spent()

    def below(self, attempts: int) -> tuple[int, int]:
        """(samples, of these to be drawn again) that had fewer attempts."""
        rows = [row for row in self.undecided if row[0] < attempts]
        return sum(row[1] for row in rows), sum(row[2] for row in rows)


@dataclass(frozen=True)
class Verify(WarmStage[VerifyInput, Judging]):
    """Outputs `judged`, all samples of the chunk so far. `verifier`: its name and version. `hosts`, where a model that
    judges runs, is no part of its identity."""

    name: ClassVar[str] = "verify"
    VERSION: ClassVar[int] = 4

    deterministic = False  # limits of time depend on the machine

    kind: Kind = "maths"
    checks: Checks = field(default_factory=Checks)
    stop: Stop = field(default_factory=Stop)
    verifier: str = ""
    hosts: Hosts | None = None

    @classmethod
    def of(cls, kind: Kind, checks: Checks, stop: Stop) -> Verify:
        """With the verifier that there is."""
        votes = "" if checks.votes is None else f"{VOTES.id}>"
        return cls(kind, checks, stop, f"{votes}{verifier_id(kind, checks)}")

    @property
    def _hosts(self) -> Hosts | None:
        return self.hosts if self.checks.judge is not None else None

    @property
    def resources(self) -> Resources:
        """Those of the engine of a model that judges."""
        return Resources() if self._hosts is None else Resources(self._hosts.cpus, self._hosts.gpus)

    @property
    def hosting(self) -> Hosting:
        """Of `hosts`."""
        judge, hosts = self.checks.judge, self._hosts
        return Hosting() if judge is None or hosts is None else Hosting(hosts.sharing(judge.kind), hosts.engines)

    def identity(self) -> tuple[StageId, ...]:
        """Without `hosts`; with the packages that compare answers which are no numbers."""
        is_symbolic = self.kind == "maths" and self.checks.symbolic
        return (stage_id(replace(self, hosts=None)), *release_ids(SYMBOLIC_RELEASES if is_symbolic else ()))

    def setup(self, store: Store) -> Judging:
        """The verifier, with the engine of a model that judges."""
        spec = self.checks.judge
        if spec is None:
            return judging(self.kind, self.checks)
        assert self.hosts is not None
        engine = judge_engine(store, spec, self.hosts)
        try:
            ready = judging(self.kind, self.checks, engine)
        except BaseException:
            engine.close()
            raise
        ready.ends.append(engine.close)
        ready.side_by_side = side_by_side(spec, self.hosts)
        return ready

    def run_warm(self, store: Store, work: Work[VerifyInput], warm: Judging) -> Outcome:
        """Facts: VerifyFacts. Children are all samples so far, by verdict."""
        payload = work.payload
        samples = {(row["problem"], row["sample"]): row for row in judged_rows(store, payload.judged)}
        drawn = [] if payload.generated is None else read_table(store, payload.generated).to_pylist()
        again = [
            row
            for row in samples.values()
            if row["failure"] is None and may_be_decided(row) and row["attempt"] < payload.again_below
        ]
        waiting = again + [
            {**row, "attempt": samples.get((row["problem"], row["sample"]), {}).get("attempt", 0)} for row in drawn
        ]
        columns = [name for name, _ in PROBLEM]
        rows = payload.posing.rows(store, columns).to_pylist() if waiting else []
        problems = {row["id"]: problem_of(row) for row in rows}
        agreed = self._agreed(problems, [*samples.values(), *drawn])

        def judged(row: Mapping[str, Any]) -> dict[str, Any]:
            return self._judged(row, problems[row["problem"]], agreed.get(row["problem"]), warm)

        with ThreadPoolExecutor(warm.side_by_side) as threads:
            for row in threads.map(judged, waiting):
                samples[row["problem"], row["sample"]] = row
        table = pa.Table.from_pylist(list(samples.values()), schema=JUDGED_SCHEMA).sort_by(ORDER)
        children = sample_tallies(table.rename_columns({"problem": "parent_id"}))
        return Outcome(
            outputs=(put_table(store, JUDGED, table),),
            received=Tally(),
            children_in=Tally.of(f"{problem}/{sample}".encode() for problem, sample in samples),
            children=children,
            facts=replace(self._facts(list(samples.values()), warm.isolation), judge=warm.spent()),
        )

    def _agreed(self, problems: Mapping[str, Problem], rows: list[dict[str, Any]]) -> dict[str, Agreement]:
        """What samples agree on, of problems that are judged so. `rows`: a later one takes the place of an earlier."""
        if self.checks.votes is None:
            return {}
        samples: dict[str, dict[int, dict[str, Any]]] = {problem: {} for problem in problems}
        for row in rows:
            if row["problem"] in samples:
                samples[row["problem"]][row["sample"]] = row
        return {name: self._agreement(problems[name], own) for name, own in samples.items()}

    def _agreement(self, problem: Problem, samples: Mapping[int, Mapping[str, Any]]) -> Agreement:
        votes = self.checks.votes
        assert votes is not None
        first = [samples.get(number) for number in range(votes.at_least)]
        lost = [row is None or (row["failure"] is not None and row["failure"] not in LASTING) for row in first]
        chains = [None if row is None or row["finish"] == "length" else row["text"] for row in first]
        return agreement(votes, problem, chains, complete=not any(lost))

    def _judged(
        self, row: Mapping[str, Any], problem: Problem, agreed: Agreement | None, warm: Judging
    ) -> dict[str, Any]:
        judged = {**row, "attempt": row["attempt"] + 1}
        if row["failure"] is not None:
            reason = f"{ENGINE}.{row['failure']}"
            value = redact(row["detail"]) if row["detail"] else None
            return judged | {"verdict": "undecided", "reason": reason, "value": value, "verifier": ENGINE}
        if row["finish"] == "length" and not self.checks.truncated:
            value = None if row["tokens"] is None else f"{row['tokens']} tokens"
            return judged | {"verdict": "rejected", "reason": TRUNCATED, "value": value, "verifier": ENGINE}
        verifier = warm.at(row["attempt"])
        if agreed is None:
            verdict = verifier.verify(problem, row["text"])
        elif agreed.gold is None:
            verdict = agreed.verdict
        else:
            verdict = verifier.verify(replace(problem, gold=agreed.gold), row["text"])
            verdict = replace(verdict, verifier=f"{VOTES.id}>{verdict.verifier}")
        value = redact(verdict.evidence) if verdict.evidence else None
        return judged | {
            "verdict": verdict.outcome,
            "reason": verdict.reason,
            "value": value,
            "verifier": verdict.verifier,
        }

    def _facts(self, samples: list[dict[str, Any]], isolation: str | None) -> VerifyFacts:
        undecided, lost = Counter[int](), Counter[int]()
        for row in filter(may_be_decided, samples):
            undecided[row["attempt"]] += 1
            lost[row["attempt"]] += row["failure"] is not None
        unagreed = without_agreement(samples)
        wanted = (judged for name, judged in by_problem(samples).items() if name not in unagreed)
        return VerifyFacts(
            open=sum(not settle(judged, self.stop).done for judged in wanted),
            isolation=isolation,
            undecided=tuple((attempt, count, lost[attempt]) for attempt, count in sorted(undecided.items())),
        )
