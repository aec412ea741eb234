"""The verifier of programs: the program in a chain has to pass the problem's tests, in a sandbox.

What is the program's fault rejects it: a test fails, it raises, it ends itself, it has no program at all. What depends
on the machine (limits of time and memory, a lost server) or on the problem (no tests, tests that do not run) leaves it
undecided. The verdict is decided outside of the program's process (synth/sandbox/tester.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gristmill.synth.sandbox.sandbox import Sandbox
from gristmill.synth.verify.verdict import Named, Problem, Verdict

CODE = Named("code", 2)
_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.S | re.M | re.I)
_REJECTED = {
    "failed": "failed_test",
    "raised": "raised",
    "exited": "exited",
    "crashed": "crashed",
    "forged": "forged",
}


@dataclass(frozen=True)
class Code:
    """Judges problems with `tests`."""

    sandbox: Sandbox = field(compare=False)

    @property
    def id(self) -> str:
        """`code@2`."""
        return CODE.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Accepted: every test passes. Raises NotIsolated where the sandbox's minimum is not reached."""
        if not problem.tests:
            return CODE.undecided("no_tests", problem.question[:80])
        source = program(chain, problem.prelude, problem.entry_point)
        if source is None:
            return CODE.reject("no_program", chain[-80:])
        hidden = (problem.entry_point,) if problem.entry_point else ()
        execution = self.sandbox.run(source, problem.tests, problem.prelude, hidden)
        evidence = execution.detail if execution.test < 0 else f"test {execution.test}: {execution.detail}"
        if execution.status == "passed":
            return CODE.accept(execution.detail)
        if execution.status in _REJECTED:
            return CODE.reject(_REJECTED[execution.status], evidence)
        return CODE.undecided(execution.status, evidence)


def program(chain: str, prelude: str, entry_point: str) -> str | None:
    """The program of a chain, behind the problem's prelude: a fenced block, or all of a chain that has no fence.

    Of several blocks the last that defines the entry point, else the last. A block that begins with an indented line
    goes on where the prelude ends. None: the chain has no program.
    """
    blocks = [match[1] for match in _BLOCK.finditer(chain)]
    if not blocks and "```" in chain:
        blocks = [chain.partition("```")[2].partition("\n")[2]]  # cut off within the block
    defining = [block for block in blocks if entry_point and f"def {entry_point}(" in block]
    code = (defining or blocks or [chain])[-1].replace("\r\n", "\n")
    if not code.strip():
        return None
    goes_on = code.lstrip("\n")[:1] in (" ", "\t")
    return prelude + code if goes_on else f"{prelude}\n{code}"
