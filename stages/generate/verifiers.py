"""Which verifier judges problems of a kind, put together once a worker: what it starts is ended with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gristmill.synth.sandbox.isolation import LEVELS, Level, Limits
from gristmill.synth.sandbox.sandbox import Sandbox
from gristmill.synth.verify.answers.symbolic import Symbolic
from gristmill.synth.verify.choice import Choice
from gristmill.synth.verify.code import CODE, Code
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.steps.check import Steps
from gristmill.synth.verify.verdict import AllOf, Kind, Verifier


@dataclass(frozen=True)
class Checks:
    """What is asked of a chain beside its answer. `steps`: no equation of it may be false. `symbolic`: answers that are
    no numbers are compared by math-verify in a child process. `truncated`: chains that were cut off at `max_tokens` are
    judged as well; else they are rejected as such. Of code: `isolation`, the level below which no program is run, and
    `limits` of a program."""

    steps: bool = True
    symbolic: bool = True
    truncated: bool = False
    isolation: Level = "namespaces"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.isolation not in LEVELS:
            raise ValueError(f"isolation={self.isolation!r}: one of {', '.join(LEVELS)}")


@dataclass
class Judging:
    """A verifier, and how what it started is ended. `isolation`: the level that programs are run at; None: none are."""

    verifier: Verifier
    isolation: Level | None = None
    ends: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Ends it."""
        while self.ends:
            self.ends.pop()()


def judging(kind: Kind, checks: Checks) -> Judging:
    """The verifier of problems of this kind. Raises NotIsolated where programs could not be run apart enough."""
    if kind == "choice":
        return Judging(AllOf((Choice(), Steps())) if checks.steps else Choice())
    if kind == "maths":
        symbolic = Symbolic() if checks.symbolic else None
        ends = [] if symbolic is None else [symbolic.close]
        maths = Maths(symbolic)
        return Judging(AllOf((maths, Steps())) if checks.steps else maths, ends=ends)
    sandbox = Sandbox(checks.limits, checks.isolation)
    try:
        return Judging(Code(sandbox), sandbox.isolation.level, [sandbox.close])
    except BaseException:
        sandbox.close()
        raise


def verifier_id(kind: Kind, checks: Checks) -> str:
    """`name@version` of it, without starting anything."""
    if kind == "code":
        return CODE.id
    ready = judging(kind, checks)
    try:
        return ready.verifier.id
    finally:
        ready.close()
