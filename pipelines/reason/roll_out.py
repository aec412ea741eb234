"""The step that samples problems: wave after wave is drawn and judged, until every problem's stop is reached.

Each chunk goes its own way: while one is judged, others are drawn, so that the engine that they share is kept full.
What comes next follows from receipts alone. A sample without a verdict (an engine that lost it, a limit of time) is
tried again until its attempts are spent; if more than `max_undecided_rate` of the samples end so, the run is
incomplete, and running the same command again gives them as many attempts more. Where another attempt would end like
the last (a gold answer that nobody can read, a request that is refused) it fails, and says what to change.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from gristmill.lake.accounts.balance import total
from gristmill.lake.accounts.fan import FAMILIES
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.model.processing.text import MissingToken
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.chunk_steps import NOTHING
from gristmill.pipelines.frame.flow import State, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.pipelines.reason.unfinished import TITLE, BatchesWait, Undecided, never_decided
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.core.records import CONTENT, Records
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.generate.draw import Generate, GenerateFacts, GenerateInput
from gristmill.stages.generate.engines.batch import BatchWaits
from gristmill.stages.generate.engines.endpoint import Away, BadEndpoint
from gristmill.stages.generate.engines.protocol import Load
from gristmill.stages.generate.engines.vllm_server import BadServer
from gristmill.stages.generate.judge import Verify, VerifyFacts, VerifyInput
from gristmill.stages.generate.settle import Settle, SettleFacts, settle_work, settled_chunk
from gristmill.stages.generate.tables import GENERATED, JUDGED, JUDGED_SCHEMA, Posing, Turn
from gristmill.stages.generate.verifiers import Spent
from gristmill.stages.run.runner import Done, Runner
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.run.workers import SetUpFailed
from gristmill.synth.sandbox.isolation import NotIsolated

log = logging.getLogger("gristmill")

_SERVERS = {Generate.name: "run.hosts.{key}", Verify.name: "run.judge.{key}, or run.hosts.{key}"}
"""Which key names the server of a stage: `endpoint`, or `vllm`."""


@dataclass(frozen=True)
class RollOut(Step):
    """Draws, judges and settles. `attempts` at a verdict in one run; `max_undecided_rate`: samples without one, of
    those that count, beyond which the run is incomplete."""

    generate: Generate
    verify: Verify
    settle: Settle
    attempts: int = 3
    max_undecided_rate: float = 0.05

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING
    deciders: ClassVar[tuple[str, ...]] = ()

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (self.generate, self.verify, self.settle)

    def run(self, run: BuildContext, state: State) -> State:
        """The problems with their samples. Raises Incomplete, BadConfig for an engine that cannot be used, GateFailed
        where too many samples never get a verdict."""
        assert isinstance(run.how, ReasoningRun)
        runner = run.runner
        hosted = replace(
            self,
            generate=replace(self.generate, hosts=run.how.hosts),
            verify=replace(self.verify, hosts=run.how.judge or run.how.hosts),
        )
        drawing = _Drawing(hosted, hosted.generate, posings(runner.store, state.records))
        drawing.leave_out_empty(runner.store, state.records)
        settled = self._settled(runner, drawing)
        facts = [receipt.facts_as(SettleFacts) for receipt in settled]
        chunks = [
            settled_chunk(receipt.output(CONTENT), receipt.passed, of_chunk)
            for receipt, of_chunk in zip(settled, facts, strict=True)
        ]
        state.records.check("settle", settled)
        verdicts = {verdict: total(receipt.children[verdict] for receipt in settled) for verdict in _verdicts(settled)}
        return replace(
            state.after(Records.of(chunks), (), statistics={"rollouts": _statistics(facts, drawing, run.how)}),
            ledgers=tuple(receipt.output(FAMILIES) for receipt in settled),
            samples=total(receipt.children_in for receipt in settled),
            verdicts=verdicts,
        )

    def _settled(self, runner: Runner, drawing: _Drawing) -> list[Receipt]:
        """The receipts of all chunks, in order."""
        limit = self.attempts
        while True:
            try:
                judged = drawing.judged(runner, limit)
            except Incomplete as error:
                _refuse_engine(error)
                waits = [cause for cause in error.errors if isinstance(cause, BatchWaits)]
                if not waits or len(waits) < len(error.errors):
                    raise
                raise BatchesWait(waits, drawing.batch_folder) from error
            settled = runner.map("settle", [settle_work(self.settle, *pair) for pair in judged])
            facts = [receipt.facts_as(SettleFacts) for receipt in settled]
            undecided, samples = sum(f.undecided for f in facts), sum(f.samples for f in facts)
            if undecided <= self.max_undecided_rate * samples:
                return settled
            if not drawing.may_be_decided:
                raise GateFailed(never_decided(undecided, samples, _reasons(facts)))
            ran_now = sum(ran for title, _, ran in runner.history if title == TITLE)
            if ran_now:
                raise Undecided(undecided, samples, _reasons(facts))
            limit += self.attempts  # an earlier run spent all attempts, and this one was started to try again


def _refuse_engine(error: Incomplete) -> None:
    """Raises BadConfig where the engine could not be set up for a reason that no rerun mends."""
    for cause in error.errors:
        root = cause.error if isinstance(cause, SetUpFailed) else cause
        if isinstance(cause, SetUpFailed) and isinstance(root, BadEndpoint) and not isinstance(root, Away):
            raise BadConfig(f"{_SERVERS[cause.stage].format(key='endpoint')}: {root}") from error
        if isinstance(cause, SetUpFailed) and isinstance(root, BadServer):
            raise BadConfig(f"{_SERVERS[cause.stage].format(key='vllm')}: {root}") from error
        if isinstance(root, NotIsolated):
            raise BadConfig(f"recipe.checks.isolation: {root}") from error
        if isinstance(root, MissingToken):
            raise BadConfig(f"recipe.engine: {root}") from error


def _reasons(facts: Sequence[SettleFacts]) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for of_chunk in facts:
        reasons.update(of_chunk.reasons)
    return reasons


def _verdicts(settled: Sequence[Receipt]) -> list[str]:
    return sorted({verdict for receipt in settled for verdict in receipt.children})


def posings(store: Store, records: Records) -> list[Posing]:
    """The problems of each chunk."""
    excluded = records.put_exclusions(store) if records.exclusions else None
    return [Posing(chunk, excluded) for chunk in records.chunks]


@dataclass
class _Drawing:
    """What every chunk came to so far. `last`: its judged samples, and what of them may still be decided;
    `spent`: what a model that judges took."""

    step: RollOut
    generate: Generate
    posings: list[Posing]
    last: dict[int, tuple[ObjectRef, VerifyFacts]] = field(default_factory=dict)
    generated: list[Receipt] = field(default_factory=list)
    spent: Spent = Spent()

    def leave_out_empty(self, store: Store, records: Records) -> None:
        """Notes that there are no samples where there is no problem at all: no engine is started, nor a server asked,
        for what is all known already."""
        if not records.tally.count:
            empty = put_table(store, JUDGED, JUDGED_SCHEMA.empty_table())
            self.last = dict.fromkeys(range(len(self.posings)), (empty, VerifyFacts(open=0)))

    def judged(self, runner: Runner, limit: int) -> list[tuple[Posing, ObjectRef]]:
        """Every chunk with its samples, once no stop is open and undecided ones had `limit` attempts. Raises as
        `Runner.stream`."""
        waiting: deque[Work[Any]] = deque()
        for number in range(len(self.posings)):
            if number not in self.last:
                waiting.append(self._wave(number, None))
            elif self.last[number][1].below(limit)[0]:  # all that was drawn stays; what has no verdict is tried again
                waiting.extend(self._following(number, *self.last.pop(number), limit))

        def works() -> Iterator[Work[Any] | None]:
            while waiting or len(self.last) < len(self.posings):
                yield waiting.popleft() if waiting else None

        hosts = self.generate.hosts
        ahead = runner.workers + (hosts.sharing(self.generate.engine.kind) * hosts.engines if hosts else 0)
        for done in runner.stream(TITLE, works(), ahead=ahead):
            waiting.extend(self._next(done, limit))
        return [(posing, self.last[number][0]) for number, posing in enumerate(self.posings)]

    @property
    def batch_folder(self) -> str:
        """Where requests are written down."""
        return "" if self.generate.hosts is None else self.generate.hosts.endpoint.batch_folder

    @property
    def may_be_decided(self) -> bool:
        """Whether another attempt may decide anything."""
        return any(facts.undecided for _, facts in self.last.values())

    def _wave(self, number: int, judged: ObjectRef | None, again_below: int = 0) -> Work[Any]:
        turn = Turn(judged, again_below)
        posing = self.posings[number]
        inputs = (*posing.digests, *turn.digests)
        return Work(self.generate, inputs, GenerateInput(number, posing, turn), label=posing.chunk.label)

    def _verify(self, number: int, drawn: ObjectRef | None, judged: ObjectRef | None, again_below: int) -> Work[Any]:
        posing = self.posings[number]
        digests = ("" if ref is None else ref.sha256 for ref in (drawn, judged))
        inputs = (*posing.digests, *digests, f"again below {again_below}")
        payload = VerifyInput(number, posing, drawn, judged, again_below)
        return Work(self.step.verify, inputs, payload, label=posing.chunk.label)

    def _next(self, done: Done, limit: int) -> Iterator[Work[Any]]:
        """What follows from a receipt: what was drawn is judged; then another attempt, another wave, or nothing."""
        payload, receipt = done.work.payload, done.receipt
        if isinstance(payload, GenerateInput):
            self.generated.append(receipt)
            turn = payload.turn
            yield self._verify(payload.chunk, receipt.output(GENERATED), turn.judged, turn.again_below)
            return
        facts = receipt.facts_as(VerifyFacts)
        self.spent += facts.judge
        yield from self._following(payload.chunk, receipt.output(JUDGED), facts, limit)

    def _following(self, number: int, judged: ObjectRef, facts: VerifyFacts, limit: int) -> Iterator[Work[Any]]:
        undecided, lost = facts.below(limit)
        if lost:
            yield self._wave(number, judged, again_below=limit)
        elif undecided:
            yield self._verify(number, None, judged, again_below=limit)
        elif facts.open:
            yield self._wave(number, judged)
        else:
            self.last[number] = judged, facts


def _judged(spent: Spent, how: ReasoningRun) -> dict[str, Any] | None:
    """What a model that judges took; None: it was asked nothing."""
    if not spent.requests:
        return None
    price = (how.judge or how.hosts).endpoint.price(spent.prompt_tokens, spent.tokens)
    return asdict(spent) | {"cost": price}


def _statistics(facts: Sequence[SettleFacts], drawing: _Drawing, how: ReasoningRun) -> dict[str, Any]:
    """What was drawn, for the manifest: reasons, difficulties, tokens, what they cost."""
    difficulties: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for of_chunk in facts:
        difficulties.update(of_chunk.difficulties)
        ends.update(of_chunk.ends)
    drawn = [receipt.facts_as(GenerateFacts) for receipt in drawing.generated]
    tokens, prompt_tokens = sum(f.tokens for f in drawn), sum(f.prompt_tokens for f in drawn)
    busy = sum((f.load for f in drawn), Load()).busy
    findings = sorted({str(finding) for f in drawn for finding in f.findings if not finding.kept})
    return {
        "samples": sum(f.samples for f in facts),
        "surplus": sum(f.drawn - f.samples for f in facts),
        "tokens": tokens,
        "prompt_tokens": prompt_tokens,
        "surplus_tokens": sum(f.tokens_drawn - f.tokens for f in facts),
        "requests": sum(f.requests for f in drawn),
        "cost": how.hosts.endpoint.price(prompt_tokens, tokens),
        "judge": _judged(drawing.spent, how),
        "engines": sorted({f.engine for f in drawn}),
        "busy": None if busy is None else round(busy, 4),
        "findings": findings,
        "isolation": sorted({facts.isolation for _, facts in drawing.last.values() if facts.isolation is not None}),
        "reasons": dict(sorted(_reasons(facts).items())),
        "difficulties": dict(sorted(difficulties.items())),
        "distinct": sum(f.distinct for f in facts),
        "ends": dict(sorted(ends.items())),
    }
