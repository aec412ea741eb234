"""Which verifier judges problems of a kind, put together once a worker: what it starts is ended with it.

A language model that judges is asked through an engine of this package, with one prompt a chain and nearly greedily, as
many side by side as the engine takes. It may be the model that drew the samples or another, of the lake or on a server
of its own. What an engine could not give leaves the chain undecided, by the engine's own word for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
from collections.abc import Callable
from dataclasses import dataclass, field

from gristmill.lake.store.base import Store
from gristmill.stages.generate.draw import EngineSpec, Hosts, compact_engine, vllm_engine
from gristmill.stages.generate.engines.endpoint import OpenAIEngine
from gristmill.stages.generate.engines.probe import check_answers
from gristmill.stages.generate.engines.protocol import LASTING, Ask, Draws, Engine
from gristmill.synth.sandbox.isolation import LEVELS, Level, Limits
from gristmill.synth.sandbox.sandbox import Sandbox
from gristmill.synth.verify.answers.symbolic import Symbolic
from gristmill.synth.verify.choice import Choice
from gristmill.synth.verify.code import CODE, Code
from gristmill.synth.verify.judge import EngineFailed, Judge
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.resort import Resort
from gristmill.synth.verify.steps.check import Steps
from gristmill.synth.verify.verdict import AllOf, Kind, Verifier
from gristmill.synth.verify.votes import Majority
from gristmill.synth.verify.wording import Wording


@dataclass(frozen=True)
class JudgeSpec(EngineSpec):
    """Who judges, as `EngineSpec`. `max_tokens` of a reply, which has to end in its ruling; `temperature` of it."""

    max_tokens: int = 1024
    temperature: float = 0.1

    @property
    def draws(self) -> Draws:
        """How a reply is drawn."""
        return Draws(self.max_tokens, self.temperature)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws.max_tokens >= self.context:
            raise ValueError(
                f"max_tokens={self.max_tokens}: less than context={self.context}, which holds the prompt too"
            )


def judge_engine(store: Store, spec: JudgeSpec, hosts: Hosts) -> Engine:
    """The engine of a judge. Raises as `compact_engine` and `vllm_engine`, and as `probe` for a server that does not
    answer; one that draws copies is welcome here."""
    if spec.kind == "openai":
        engine = OpenAIEngine(hosts.endpoint, spec.model, spec.draws)
        try:
            check_answers(engine)
        except BaseException:
            engine.close()
            raise
        return engine
    if spec.kind == "vllm":
        return vllm_engine(store, spec, spec.draws, hosts)
    return compact_engine(store, spec, spec.draws, hosts)


def side_by_side(spec: JudgeSpec, hosts: Hosts) -> int:
    """How many chains are judged at a time."""
    return hosts.side_by_side(spec.kind)


@dataclass(frozen=True)
class Spent:
    """What judging took: `requests`, tokens of prompts and of replies, as far as the engine tells."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests, self.prompt_tokens + other.prompt_tokens, self.tokens + other.tokens
        )


def model_judge(spec: JudgeSpec, engine: Engine | None, spent: Callable[[Spent], None], attempt: int = 0) -> Judge:
    """The judge; what each reply took goes to `spent`. `attempt`: how often it judged these chains before; a reply that
    was no ruling is not drawn once more. Without an engine it has a name alone, and nothing can be asked of it."""

    def ask(prompt: str) -> str:
        assert engine is not None
        name = hashlib.sha256(prompt.encode()).hexdigest()  # at one attempt the same prompt has the same draw
        (reply,) = engine.generate([Ask(name, (attempt,), prompt)])
        spent(Spent(reply.requests, reply.prompt_tokens or 0, reply.tokens or 0))
        if reply.text is None:
            raise EngineFailed(f"{reply.failure}: {reply.detail}", lasting=reply.failure in LASTING)
        return reply.text

    return Judge(ask, spec.model)


@dataclass(frozen=True)
class Checks:
    """What is asked of a chain beside its answer. `steps`: no equation of it may be false. `symbolic`: answers that are
    no numbers are compared by math-verify in a child process. `truncated`: chains that were cut off at `max_tokens` are
    judged as well; else they are rejected as such. Of code: `isolation`, the level below which no program is run, and
    `limits` of a program. `judge`: a language model, asked where no rule can compare an answer with the gold answer.
    `votes`: problems have no gold answer; it is what most of the first samples of a problem agree on."""

    steps: bool = True
    symbolic: bool = True
    truncated: bool = False
    isolation: Level = "namespaces"
    limits: Limits = field(default_factory=Limits)
    judge: JudgeSpec | None = None
    votes: Majority | None = None

    def __post_init__(self) -> None:
        if self.votes is not None and self.votes.share < 0.5:
            raise ValueError(f"votes.share={self.votes.share}: 0.5 or more, since two answers could have less each")
        if self.isolation not in LEVELS:
            raise ValueError(f"isolation={self.isolation!r}: one of {', '.join(LEVELS)}")


@dataclass
class Judging:
    """A verifier, and how what it started is ended. `later`: the one of another attempt, counted from 0, at which a
    model draws other replies; None: it says the same again. `isolation`: the level that programs are run at; None: none
    are. `side_by_side`: chains that are judged at a time. `bills`: what a model that judges took for each."""

    verifier: Verifier
    isolation: Level | None = None
    ends: list[Callable[[], None]] = field(default_factory=list)
    side_by_side: int = 1
    bills: queue.SimpleQueue[Spent] = field(default_factory=queue.SimpleQueue)
    later: Callable[[int], Verifier] | None = None

    def at(self, attempt: int) -> Verifier:
        """The verifier of this attempt, counted from 0."""
        return self.verifier if self.later is None or not attempt else self.later(attempt)

    def spent(self) -> Spent:
        """What judging took since this was asked last, whichever piece of work it was for."""
        sum_of_bills = Spent()
        with contextlib.suppress(queue.Empty):  # other pieces of work empty it as well
            while True:
                sum_of_bills += self.bills.get_nowait()
        return sum_of_bills

    def close(self) -> None:
        """Ends it."""
        while self.ends:
            self.ends.pop()()


def judging(kind: Kind, checks: Checks, engine: Engine | None = None) -> Judging:
    """The verifier of problems of this kind; `engine`: of the model that judges, if one does. Raises NotIsolated where
    programs could not be run apart enough."""
    if kind == "code":
        sandbox = Sandbox(checks.limits, checks.isolation)
        try:
            return Judging(Code(sandbox), sandbox.isolation.level, [sandbox.close])
        except BaseException:
            sandbox.close()
            raise
    if kind == "seed":
        return Judging(Wording())
    ends: list[Callable[[], None]] = []
    rule: Verifier = Choice()
    if kind == "maths":
        symbolic = Symbolic() if checks.symbolic else None
        ends += [] if symbolic is None else [symbolic.close]
        rule = Maths(symbolic)
    bills: queue.SimpleQueue[Spent] = queue.SimpleQueue()

    def at(attempt: int) -> Verifier:
        verifier = rule
        if checks.judge is not None:
            verifier = Resort(rule, model_judge(checks.judge, engine, bills.put, attempt))
        return AllOf((verifier, Steps())) if checks.steps else verifier

    return Judging(at(0), ends=ends, bills=bills, later=at)


def verifier_id(kind: Kind, checks: Checks) -> str:
    """`name@version` of it, without starting anything."""
    if kind == "code":
        return CODE.id
    ready = judging(kind, checks)
    try:
        return ready.verifier.id
    finally:
        ready.close()
