"""`grist audit`: precision and recall of a verifier on labelled samples."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gristmill.orchestration.show.terminal import JsonOption, answer


class Judged(StrEnum):
    """What of a chain is judged."""

    ANSWER = "answer"
    STEPS = "steps"
    BOTH = "both"


def audit(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE", help="JSON lines: gold, chain, right; - reads stdin.")
    ],
    judged: Annotated[
        Judged, typer.Option("--judge", help="The final answer, the arithmetic of the steps, or both.")
    ] = Judged.ANSWER,
    show: Annotated[int, typer.Option("--show", min=0, help="Disagreements to list; all are in --json.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Compare a verifier's verdicts with labels: a confusion table, precision and recall with 95% intervals.

    A line has `question`, `gold`, `chain` and `right`, with `choices` where there are any; or the form of GSM8K's model
    solutions, of ToRA's and Qwen's outputs, or of HumanEval and MBPP, whose own solutions are right. Multiple choice is
    judged by its own verifier, mathematics by tiers (equal texts, numbers, computer algebra), programs by their tests
    in a sandbox, which refuses where it cannot isolate them.
    """
    from gristmill.orchestration.show.audit import draw_audit
    from gristmill.synth.audit.audit import audit as run_audit
    from gristmill.synth.audit.samples import labelled
    from gristmill.synth.verify.answers.symbolic import Symbolic
    from gristmill.synth.sandbox.sandbox import Sandbox
    from gristmill.synth.verify.choice import Choice
    from gristmill.synth.verify.code import Code
    from gristmill.synth.verify.maths import Maths
    from gristmill.synth.verify.steps.check import Steps
    from gristmill.synth.verify.verdict import AllOf, ByKind, Verifier

    symbolic, sandbox = Symbolic(), Sandbox()
    answers = ByKind({"maths": Maths(symbolic), "choice": Choice(), "code": Code(sandbox)})
    verifiers: dict[Judged, Verifier] = {
        Judged.ANSWER: answers,
        Judged.STEPS: Steps(),
        Judged.BOTH: AllOf((answers, Steps())),
    }
    try:
        result = run_audit(verifiers[judged], labelled(file))
    finally:
        symbolic.close()
        sandbox.close()
    answer(result, as_json, lambda console: draw_audit(console, result, show))
