"""How many verdicts a CPU-second gives: maths by tier, steps, and programs in the sandbox against a fresh interpreter.

On the same chains the tiers and math-verify alone (in the same warm child) have to agree, and so have the sandbox and
`python -I` on the same programs; the sandbox isolates them meanwhile, the interpreter does not. CPU time is that of all
processes. The details count what the audits find: labelled solutions, canonical programs, programs with a mistake.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Arm, Figure, Report, Row, Times, contest, require_equal
from benchmarks.material import SHARED
from gristmill.synth.audit.audit import audit
from gristmill.synth.audit.mutants import comparison, inputs, mutants
from gristmill.synth.audit.samples import Labelled, labelled
from gristmill.synth.draw import Draw
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.sandbox import Sandbox
from gristmill.synth.sandbox.server import IMPORTED
from gristmill.synth.tasks.maths import problem
from gristmill.synth.verify.answers.final import final_answer
from gristmill.synth.verify.answers.symbolic import Symbolic
from gristmill.synth.verify.code import Code
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.steps.check import Steps
from gristmill.synth.verify.verdict import Problem, Verifier

FOLDER = SHARED / "3_math_code"
SOLUTIONS = ("gsm8k_example_model_solutions", "tora_70b_gsm8k_outputs", "qwen_math_cot_8samples")
PROGRAMS = ("humaneval", "mbpp")
_ALGEBRA = (("4a-2", "-2+4a"), (r"\sqrt{8}", r"2\sqrt{2}"), ("x^2+2x+1", "(x+1)^2"), (r"2\pi", r"\pi + \pi"))
_DOUBLE = "def double(n):\n    return 2 * n\n"
SAMPLES = 8
"""Programs of a problem, one after the other."""
_MUTANTS = 3
"""Of each program of HumanEval, with a mistake each."""


def chains(tiny: bool) -> tuple[str, list[Labelled]]:
    """Where the labelled chains are from, and the chains."""
    file = FOLDER / f"{SOLUTIONS[0]}.jsonl"
    if file.is_file() and not tiny:
        return f"shared real data: {file.name}", list(labelled(file.read_bytes().splitlines()))
    samples = []
    for seed in range(20 if tiny else 2000):
        cells = problem(Draw(str(seed))).fields
        answer = final_answer(cells["answer"])
        gold = answer.text if answer else ""
        wrong = cells["answer"] + "0"
        samples += [
            Labelled(Problem("maths", "", gold), cells["answer"], True, ""),
            Labelled(Problem("maths", "", gold), wrong, False, ""),
        ]
    return "generated word problems", samples


def programs(tiny: bool) -> list[Labelled]:
    """Programs with their tests, SAMPLES of a problem one after the other, as a wave of samples is verified.

    Every sixth of HumanEval's solutions, else a generated one.
    """
    file = FOLDER / "humaneval.jsonl"
    if file.is_file() and not tiny:
        return [sample for sample in list(labelled(file.read_bytes().splitlines()))[::6] for _ in range(SAMPLES)]
    return smallest_programs(1)


def smallest_programs(problems: int) -> list[Labelled]:
    """SAMPLES programs of each problem that have next to nothing to compute: what is left is an execution itself."""
    doubled = [
        Problem("code", "", tests=(f"assert double({n}) == {2 * n}",), entry_point="double") for n in range(problems)
    ]
    return [Labelled(problem, _DOUBLE, True, "") for problem in doubled for _ in range(SAMPLES)]


def judged(verifier: Verifier, samples: Sequence[Labelled]) -> list[bool]:
    """Which chains a verifier accepts."""
    return [verifier.verify(sample.problem, sample.chain).outcome == "accepted" for sample in samples]


def by_algebra(symbolic: Symbolic, samples: Sequence[Labelled]) -> list[bool]:
    """Which chains math-verify alone accepts, of their final answers."""
    accepted = []
    for sample in samples:
        answer = final_answer(sample.chain)
        accepted.append(answer is not None and symbolic.relation(sample.problem.gold, answer.text) == "same")
    return accepted


def by_interpreter(samples: Sequence[Labelled], modules: Sequence[str] = ()) -> list[bool]:
    """Which programs a fresh interpreter ends with 0 after, tests included, without any isolation.

    `modules`: imported first, as harnesses put the usual imports before a program.
    """
    first = "".join(f"import {module}\n" for module in modules)
    accepted = []
    for sample in samples:
        command = [sys.executable, "-I", "-c", first + script(sample)]
        accepted.append(subprocess.run(command, capture_output=True, check=False).returncode == 0)
    return accepted


def script(sample: Labelled) -> str:
    """A program and its tests in one file."""
    return "\n".join([sample.problem.prelude + sample.chain, *sample.problem.tests])


def maths_times(samples: Sequence[Labelled], symbolic: Symbolic, rounds: int, few: int) -> Times:
    """The tiers against math-verify alone on a part of the chains, and each tier by itself."""
    numeric = [Labelled(_with_zeros(sample.problem), sample.chain, sample.right, "") for sample in samples]
    algebra = [Labelled(Problem("maths", "", gold), f"#### {answer}", True, "") for gold, answer in _ALGEBRA] * 5
    tiers = Maths(symbolic)
    arms = {
        "tiers": Arm(lambda: judged(tiers, samples[:few])),
        "math-verify": Arm(lambda: by_algebra(symbolic, samples[:few])),
        "exact": Arm(lambda: judged(tiers, samples)),
        "numeric": Arm(lambda: judged(tiers, numeric)),
        "symbolic": Arm(lambda: judged(tiers, algebra)),
        "steps": Arm(lambda: judged(Steps(), samples)),
    }

    def check(outcomes: Mapping[str, Any]) -> None:
        require_equal("verify: tiers against math-verify alone", outcomes["tiers"], outcomes["math-verify"])
        require_equal("verify: the numeric tier against labels", outcomes["numeric"], [s.right for s in samples])
        require_equal("verify: the exact tier against labels", outcomes["exact"], [s.right for s in samples])
        require_equal("verify: the symbolic tier", outcomes["symbolic"], [True] * len(algebra))

    return contest(arms, rounds, check)


def _with_zeros(problem: Problem) -> Problem:
    """The problem with a gold answer that is equal as a number only."""
    gold = problem.gold
    return Problem("maths", "", gold + "0" if "." in gold else gold + ".0")


def code_times(samples: Sequence[Labelled], sandbox: Sandbox, rounds: int) -> Times:
    """The sandbox against a fresh interpreter on the same programs."""
    arms = {
        "sandbox": Arm(lambda: judged(Code(sandbox), samples)),
        "interpreter": Arm(lambda: by_interpreter(samples)),
        "imports": Arm(lambda: by_interpreter(samples, IMPORTED.split())),
    }

    def check(outcomes: Mapping[str, Any]) -> None:
        for arm in ("interpreter", "imports"):
            require_equal(f"verify: programs, sandbox against {arm}", outcomes["sandbox"], outcomes[arm])

    return contest(arms, rounds, check)


def audited(symbolic: Symbolic, sandbox: Sandbox) -> dict[str, Any]:
    """What the audits of all shared data find; nothing where it is not there."""
    details: dict[str, Any] = {}
    for names, verifier in ((SOLUTIONS, Maths(symbolic)), (PROGRAMS, Code(sandbox))):
        for name in names:
            file = FOLDER / f"{name}.jsonl"
            if file.is_file():
                result = audit(verifier, labelled(file.read_bytes().splitlines()))
                details[name] = {
                    "samples": result.samples,
                    "accepted": result.table.accepted_right + result.table.accepted_wrong,
                    "disagreements": len(result.disagreements),
                    "undecided": result.undecided.part,
                }
    if (FOLDER / "humaneval.jsonl").is_file():
        details["mutants of humaneval"] = dict(
            Counter(fate for fate, _ in mutated(sandbox, FOLDER / "humaneval.jsonl"))
        )
    return details


def mutated(sandbox: Sandbox, file: Path) -> Iterator[tuple[str, str]]:
    """(fate, what it was) of mutants: `caught`, `same` near all inputs of the tests, `missed` by the tests, ..."""
    code = Code(sandbox)
    for line, sample in zip(file.read_bytes().splitlines(), labelled(file.read_bytes().splitlines()), strict=True):
        row = json.loads(line)
        source = row["prompt"] + row["canonical_solution"]
        for mutant in list(mutants(source, row["prompt"].count("\n")))[:_MUTANTS]:
            what = f"{row['task_id']}, {mutant.change}"
            verdict = code.verify(sample.problem, mutant.source)
            if verdict.outcome != "accepted":
                yield "caught" if verdict.outcome == "rejected" else "undecided", what
                continue
            calls = inputs(row["test"], frozenset({"candidate"}))
            if not calls:
                yield "not compared", f"{what}: the tests compute their arguments"
                continue
            tests = [f"assert same({call!r}), {call!r}" for call in calls]
            compared = sandbox.run(comparison(source, mutant.source, row["entry_point"]), tests)
            yield {"passed": "same", "failed": "missed"}.get(compared.status, compared.status), f"{what}: {compared}"


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated problems."""
    rounds, few = (1, 10) if tiny else (5, 200)
    source, samples = chains(tiny)
    tested = programs(tiny)
    symbolic, sandbox = Symbolic(), Sandbox(Limits(cpu_s=5, wall_s=120), minimum="none")
    try:
        maths = maths_times(samples, symbolic, rounds, few)
        code = code_times(tested, sandbox, rounds)
        smallest = code_times(smallest_programs(1 if tiny else 14), sandbox, rounds)
        isolation = sandbox.isolation
        details: dict[str, Any] = {} if tiny else audited(symbolic, sandbox)
    finally:
        symbolic.close()
        sandbox.close()
    counts = {"exact": len(samples), "numeric": len(samples), "symbolic": 5 * len(_ALGEBRA), "steps": len(samples)}
    rows = [Row(f"maths, {tier}: verdicts a CPU-second", _rate(counts[tier], maths, tier), "/s") for tier in counts]
    ratio = maths.ratio("math-verify", "tiers")
    rows.append(Row("math-verify alone costs, times the tiers", ratio, "x", f"{few} verdicts"))
    rows.append(Row("programs in the sandbox: a CPU-second", _rate(len(tested), code, "sandbox"), "/s"))
    same = f"{len(tested)} programs, {SAMPLES} a problem"
    peers = {"imports": "with the modules that the sandbox offers", "interpreter": "with none but its own"}
    for arm, what in peers.items():
        rows.append(Row(f"a fresh interpreter {what} costs, times the sandbox", code.ratio(arm, "sandbox"), "x", same))
    execution = smallest.ratio("imports", "sandbox")
    rows.append(Row(f"the same {peers['imports']}, for programs of one line", execution, "x", "the verdicts"))
    details |= {"isolation": isolation.to_json()}
    note = f"the sandbox reached the level {isolation.level}; the fresh interpreter isolates nothing"
    return Report("verify", source, rounds, tuple(rows), (note,), details)


def _rate(count: int, times: Times, arm: str) -> Figure:
    seconds = times.seconds(arm)
    return Figure(count / seconds.median, count / seconds.high, count / seconds.low)
