"""Programs against their tests: real solutions pass, solutions with a mistake fail or are equivalent."""

from __future__ import annotations

import datetime
import json
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from gristmill.synth.audit.mutants import comparison, inputs, mutants
from gristmill.synth.audit.samples import Labelled, humaneval, labelled
from gristmill.synth.sandbox.isolation import Isolation, Limits, NotIsolated, require
from gristmill.synth.sandbox.sandbox import Execution, Sandbox
from gristmill.synth.sandbox.values import BadMessage, decode, encode
from gristmill.synth.verify.code import Code, program
from gristmill.synth.verify.verdict import Problem

DOUBLE = Problem("code", "", tests=("assert double(21) == 42", "assert double('a') == 'aa'"), entry_point="double")


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    sandbox = Sandbox(Limits(cpu_s=2, wall_s=120))
    try:
        sandbox.isolation  # noqa: B018
    except NotIsolated as error:
        pytest.skip(str(error))
    yield Code(sandbox)
    sandbox.close()


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("def double(n): return n + n", "accepted"),
        ("So:\n```python\ndef double(n):\n    return n * 2\n```\nDone.", "accepted"),
        ("```python\ndef double(n): return 2 * n\n```\n```python\nprint(double(4))\n```", "accepted"),
        ("```\ndef double(n): return 2 * n\n", "accepted"),  # cut off
        ("def double(n): return n + 22", "failed_test"),
        ("def double(n): return None", "failed_test"),
        ("def double(n): return n / 0", "raised"),
        ("def triple(n): return 3 * n", "raised"),
        ("I do not know.", "raised"),
        ("```python\n```", "no_program"),
    ],
)
def test_a_program_in_a_chain_is_judged(code: Code, chain: str, expected: str) -> None:
    verdict = code.verify(DOUBLE, chain)
    assert (verdict.outcome if verdict.reason is None else verdict.reason.partition(".")[2]) == expected
    assert verdict.verifier == "code@2" and verdict.outcome in ("accepted", "rejected")


def test_what_says_nothing_about_the_program_is_undecided(code: Code) -> None:
    right = "def double(n): return n + n"
    for problem, reason in (
        (Problem("code", ""), "code.no_tests"),
        (Problem("code", "", tests=("assert double(",)), "code.broken_tests"),
        (Problem("code", "", tests=("import numpy",)), "code.broken_tests"),
    ):
        verdict = code.verify(problem, right)
        assert (verdict.outcome, verdict.reason) == ("undecided", reason)

    class Lost(Sandbox):
        def run(self, *arguments: Any, **named: Any) -> Execution:
            return Execution("infrastructure", "the fork server was lost")

    verdict = Code(Lost()).verify(DOUBLE, right)
    assert (verdict.outcome, verdict.reason) == ("undecided", "code.infrastructure")


def test_the_prelude_stands_before_the_program() -> None:
    head = "import math\n\ndef root(n):\n"
    assert program("    return math.sqrt(n)", head, "root") == head + "    return math.sqrt(n)"
    assert program("def root(n): return 1", head, "root") == head + "\ndef root(n): return 1"
    assert program("```py\nx = 1\n```\n```py\ndef root(n): return 1\n```\n```py\ny = 1\n```", "", "root") == (
        "\ndef root(n): return 1\n"
    )


def test_objects_of_a_program_can_be_used_by_the_tests(code: Code) -> None:
    tests = (
        "nodes = [Node(1), Node(2)]\nnodes[0].next = nodes[1]",
        "assert total(nodes[0]) == 3 and nodes[0].next.value == 2",
        "assert sorted(numbers(3)) == [0, 1, 2] and list(numbers(2)) == [0, 1]",
        "assert kind(int) is int",
        "try:\n    total(None)\n    raise RuntimeError\nexcept AttributeError:\n    pass",
    )
    source = """
class Node:
    def __init__(self, value): self.value, self.next = value, None
def total(node): return node.value + (total(node.next) if node.next else 0)
def numbers(n):
    for number in range(n): yield number
def kind(of): return of
"""
    verdict = code.verify(Problem("code", "", tests=tests), source)
    assert verdict.outcome == "accepted", verdict


RIGHT = {
    "in place": ("def f(a): a.sort()", "a = [3, 1]\nassert f(a) is None and a == [1, 3]"),
    "in place, within": (
        "def f(rows, seen):\n    for row in rows: row.reverse()\n    seen.add(3)",
        "rows, seen = [[1, 2], [3, 4]], {1}\nfirst = rows[0]\nf(rows, seen=seen)\n"
        "assert rows == [[2, 1], [4, 3]] and first == [2, 1] and seen == {1, 3}",
    ),
    "fraction": ("from fractions import Fraction as F\ndef f(): return F(1, 2)", "from fractions import Fraction\n"
                 "assert f() == Fraction(1, 2) and f() + 1 == 1.5"),
    "member": ("import enum\nclass C(str, enum.Enum): RED = 'red'\ndef f(): return C.RED", "assert f() == 'red'"),
    "set of objects": ("class P: pass\ndef f(): return {P(), P()}", "assert len(f()) == 2"),
    "objects by objects": ("class P: pass\ndef f(): return {P(): 1}", "assert len(f()) == 1"),
    "generator": ("def f():\n    yield 1\n    yield 2", "g = f()\nassert next(g) == 1 and list(g) == [2]"),
    "end of a generator": ("def f(): yield 1", "g = f()\nnext(g)\nassert next(g, None) is None"),
    "own exception": (
        "class Bad(ValueError): pass\ndef f(): raise Bad('x')",
        "try:\n    f()\n    raise RuntimeError\nexcept ValueError as error:\n    assert str(error) == 'x'",
    ),
    "module": ("def f(): return 0.5", "assert math.isclose(f(), 0.5)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(RIGHT))
def test_what_a_right_program_does_is_seen_by_the_tests(code: Code, kind: str) -> None:
    source, test = RIGHT[kind]
    verdict = code.verify(Problem("code", "", tests=(test,)), source)
    assert verdict.outcome == "accepted", verdict


def test_tests_that_cannot_be_asked_of_the_program_decide_nothing(code: Code) -> None:
    source = "class Bad(Exception): pass\ndef f(n=0): raise Bad('x')\ndef g(n): return object()"
    deep = "deep = []\nfor _ in range(90): deep = [deep]\n"
    for test, reason in (
        ("try:\n    f()\nexcept Bad:\n    pass", "code.broken_tests"),
        ("import copy\ncopy.deepcopy([4200042, g(1)])", "code.message_limit"),
        (deep + "g(deep)", "code.message_limit"),
    ):
        verdict = code.verify(Problem("code", "", tests=(test,)), source)
        assert (verdict.outcome, verdict.reason) == ("undecided", reason), verdict


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**80), 0.1, float("inf"), "é\ud800", 1j, b"\x00", [1, [2]], (1, (2,)), {1: [2], (1, 2): {3}},
        frozenset({1}), range(3), {"d": 1}, bytearray(b"x"), int, Fraction(-(2**80), 3), Decimal("1.50"),
        datetime.date(2026, 2, 28), datetime.time(9, 5), datetime.datetime(2026, 2, 28, 9, 5, tzinfo=datetime.UTC),
        datetime.timedelta(-1, 5), deque([1, 2]),
    ],
)  # fmt: skip
def test_plain_data_arrives_as_it_was(value: Any) -> None:
    def no_handle(item: Any) -> int:
        raise AssertionError(item)

    copy = decode(json.loads(json.dumps(encode(value, no_handle))), no_handle)
    assert copy == value and type(copy) is type(value)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"x": 1},
        {"t": 5},
        {"d": [1]},
        {"s": [[1]]},
        {"i": "zz"},
        {"r": [1]},
        {"n": "eval"},
        {"a": 1, "b": 2},
        {"fraction": ["1", "0"]},
        {"decimal": "x"},
        {"date": 5},
        {"timedelta": [10**12, 0, 0]},
        {"q": 5},
    ],
)
def test_what_is_no_value_is_refused(plain: Any) -> None:
    with pytest.raises(BadMessage):
        decode(plain, lambda number: number)


def test_depth_is_bounded() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(BadMessage):
        encode(deep, id)
    with pytest.raises(BadMessage):
        decode(deep, id)


def test_below_the_minimum_nothing_runs() -> None:
    reached = Isolation(limits=True, no_new_privileges=True, seccomp=True, landlock=True, capabilities_dropped=True)
    assert reached.level == "restricted" and reached.to_json()["level"] == "restricted"
    require(reached, "restricted")
    with pytest.raises(NotIsolated, match=r"'restricted', the minimum is 'namespaces': missing are pid_namespace"):
        require(reached, "namespaces")
    assert Isolation().level == "none" and Isolation(limits=True, no_new_privileges=True).level == "process"
    with pytest.raises(ValueError, match="memory=1"):
        Limits(memory=1)


# Real problems


def problems(folder: Path, name: str, every: int) -> Iterator[tuple[dict[str, Any], Labelled]]:
    lines = (folder / "3_math_code" / f"{name}.jsonl").read_bytes().splitlines()[::every]
    for line, sample in zip(lines, labelled(lines), strict=True):
        yield json.loads(line), sample


@pytest.mark.parametrize(("name", "every"), [("humaneval", 3), ("mbpp", 12)])
def test_canonical_solutions_pass(code: Code, shared_data: Path, name: str, every: int) -> None:
    """A part of them; `python -m benchmarks verify` runs all."""
    for _, sample in problems(shared_data, name, every):
        verdict = code.verify(sample.problem, sample.chain)
        assert verdict.outcome == "accepted", (sample.problem.question, verdict)


def test_mutants_fail_or_the_input_that_the_tests_lack_is_named(code: Code, shared_data: Path) -> None:
    """Those that pass do the same as the solution near the inputs of the tests, or differ at one that can be said."""
    caught = passed = 0
    for row, _ in problems(shared_data, "humaneval", 9):
        source = row["prompt"] + row["canonical_solution"]
        for mutant in list(mutants(source, row["prompt"].count("\n")))[:3]:
            verdict = code.verify(humaneval(row, ""), mutant.source)
            if verdict.outcome != "accepted":
                caught += 1
                continue
            passed += 1
            names = frozenset({"candidate"})
            tests = [f"assert same({call!r}), {call!r}" for call in inputs(row["test"], names)]
            compared = code.sandbox.run(comparison(source, mutant.source, row["entry_point"]), tests)
            is_missed = compared.status == "failed" and compared.detail.startswith("AssertionError: (")
            assert compared.status == "passed" or is_missed, (mutant.change, compared)
    assert caught > 3 * passed


def test_a_mutant_has_one_mistake() -> None:
    changes = [mutant.change for mutant in mutants("def f(a):\n    return a < 3 and a + 1 or True\n")]
    assert changes == [
        "line 2: a < 3 and a + 1 or True became (a < 3 and a + 1) and True",
        "line 2: a < 3 and a + 1 became a < 3 or a + 1",
        "line 2: True became False",
        "line 2: a < 3 became a <= 3",
        "line 2: a + 1 became a - 1",
        "line 2: 3 became 4",
        "line 2: 1 became 2",
    ]
    assert inputs("assert f(1, [2]) == 3\nassert f(x) == 1", frozenset({"f"}))[:3] == [(1, [2]), (0, [2]), (2, [2])]
