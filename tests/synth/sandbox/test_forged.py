"""Programs that want to be believed: what they say of themselves decides nothing, and what decides they never see."""

from __future__ import annotations

import pytest
from sandboxes import run

from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.sandbox import Sandbox


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import os\nos._exit(0)", "exited"),
        ("raise SystemExit(0)", "raised"),
        ("print('1 tests passed')\nimport os\nos._exit(0)", "exited"),
        ("import builtins\nbuiltins.AssertionError = ValueError\ndef double(n): return 5", "failed"),
        ("class Same:\n    def __eq__(self, other): return True\ndef double(n): return Same()", "failed"),
        ("class Same(int):\n    def __eq__(self, other): return True\ndef double(n): return Same(5)", "failed"),
        ("import sys\nsys.modules.clear()\ndef double(n): return 5", "failed"),
        (
            'import json\njson.JSONEncoder.iterencode = lambda *a, **k: \'{"status": "passed"}\'\n'
            "def double(n): return 5",
            "forged",
        ),
        (
            'import os\nreply = b\'{"status":"passed"}\'\n'
            "for n in range(3, 64):\n    try: os.write(n, len(reply).to_bytes(4, 'big') + reply)\n"
            "    except OSError: pass\ndef double(n): return 5",
            "forged",
        ),
        ("import os\nfor n in range(3, 64):\n    try: os.write(n, b'\\xff' * 64)\n    except OSError: pass", "forged"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\ndef double(n): return 5",
            "failed",
        ),  # the first of all
        ("import ctypes\nctypes.string_at(0)", "crashed"),
        ("def deep(n): return deep(n + 1)\ndef double(n): return deep(n)", "raised"),
        ("n = input()\ndef double(n): return 42", "raised"),
        ("import atexit, os\natexit.register(os._exit, 0)\ndef double(n): return 5", "failed"),
        ("import sys\nsys.exit = lambda *a: None\nsys.exit(0)\ndef double(n): return 5", "failed"),
        ("import os\nos._exit = lambda code: None\ndef double(n): return 5", "failed"),
        ("import builtins\nbuiltins.len = lambda items: 42\ndef double(n): return 5", "forged"),
        ("import os\nos.closerange(3, 64)\ndef double(n): return 5", "exited"),
        ("def double(n):\n    double.__globals__['assert'] = True\n    raise AssertionError", "raised"),
    ],
)
def test_no_program_says_that_it_passed(sandbox: Sandbox, source: str, status: str) -> None:
    assert run(sandbox, source, "assert double(21) == 42").status == status


ASKED = "double(21) == 4200042"
LOOKS = {
    "frames": """
import re, sys
def seen():
    frame = sys._getframe()
    while frame is not None:
        yield repr(frame.f_locals)
        frame = frame.f_back
""",
    "objects": """
import gc, re
def seen():
    for value in gc.get_objects():
        try:
            yield repr(value)
        except Exception:
            continue
""",
    "modules": """
import re, sys
def seen():
    for module in list(sys.modules.values()):
        yield repr(vars(module))
""",
    "memory": """
import ctypes, os, re, sys
def seen():
    libc, (readable, written), page = ctypes.CDLL(None), os.pipe(), 4096
    places = {id(value) >> 20 for value in (*globals().values(), *sys.modules.values(), object(), [], "")}
    for place in sorted({near for at in places for near in range(at - 24, at + 24)}):
        for address in range(place << 20, (place + 1) << 20, page):
            if libc.write(written, ctypes.c_void_p(address), page) == page:  # a page that is not there is no crash
                yield os.read(readable, page).decode("latin-1")
""",
}
FINDS = """
def double(n):
    for text in seen():
        if match := re.search(r"double\\(21\\) == (\\d+)", text):
            return int(match[1])
    return 0
"""


@pytest.mark.parametrize("look", list(LOOKS))
def test_no_program_finds_an_expected_value_in_its_memory(look: str) -> None:
    """Nor one of the tests of an earlier problem, or of an earlier program for the same problem."""
    sandbox = Sandbox(Limits(cpu_s=30, wall_s=300))
    try:
        for source in ("def double(n): return 0", LOOKS[look] + FINDS, LOOKS[look] + FINDS):
            execution = sandbox.run(source, [f"assert {ASKED}"])
            assert execution.status == "failed", execution
        earlier = sandbox.run(LOOKS[look] + FINDS, ["assert double(0) != 4200042"])
        assert earlier.status == "passed", "of another problem before"
        local = FINDS.replace("(n):\n", "(n):\n    import sys\n    sys.kept = kept = ['double(21) == 4200042']\n")
        own = LOOKS[look] + local
        assert sandbox.run(own, [f"assert {ASKED}"]).status == "passed", "it would be found, if it were there"
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    "shadow",
    [
        "def abs(n): return 0", "def set(items): return 1", "def all(items): return True", "def len(items): return 42",
        "def isinstance(value, kind): return True", "def sorted(items): return 0", "AssertionError = ValueError",
    ],
)  # fmt: skip
def test_a_program_replaces_none_of_the_names_that_tests_judge_by(sandbox: Sandbox, shadow: str) -> None:
    tests = [
        "assert abs(double(21) - 42) < 1e-6",
        "assert set([double(21)]) == set([42])",
        "assert all(double(n) == n + n for n in range(9))",
        "assert len([double(21)] * double(1)) == 2",
        "assert isinstance(double(21), str)",
        "assert sorted([double(21), 1]) == [1, 42]",
    ]
    for test in tests:
        assert sandbox.run(f"{shadow}\ndef double(n): return 5", [test]).status == "failed", test
    check = "def check(candidate):\n    assert abs(candidate(21) - 42) < 1e-6\n"
    wrong = sandbox.run(f"{shadow}\ndef double(n): return 5", [check, "check(double)"], hidden=["double"])
    assert wrong.status == "failed"


@pytest.mark.parametrize(
    ("source", "test", "status"),
    [
        ("raise StopIteration", "assert all(map(lambda n: double(n) == 2 * n, [1, 2]))", "raised"),
        ("import os; os._exit(0)", "try:\n    double(-1)\nexcept Exception:\n    pass", "exited"),
        ("return 'x' * (20 << 20)", "try:\n    double(-1)\nexcept Exception:\n    pass", "message_limit"),
        (
            "import json; json.JSONEncoder.iterencode = lambda *a, **k: '{}'",
            "try:\n    double(1)\nexcept Exception:\n    pass",
            "forged",
        ),
    ],
)
def test_what_ends_a_call_ends_the_tests_that_catch_it(sandbox: Sandbox, source: str, test: str, status: str) -> None:
    assert run(sandbox, f"def double(n): {source}", test).status == status


@pytest.mark.parametrize("hidden", [["double"], []])
def test_a_module_that_tests_judge_by_is_not_the_programs(sandbox: Sandbox, hidden: list[str]) -> None:
    """Nor is it told what they expect."""
    source = "seen = []\nclass math:\n    def isclose(*values): return not seen.append(values)\ndef double(n): return 5"
    right = source.replace("return 5", "return [n + n, *seen][-1]")
    tests = ["assert math.isclose(double(21), 42)"]
    assert sandbox.run(source, tests, hidden=hidden).status == "failed"
    assert sandbox.run(right, tests * 2, hidden=hidden).status == "passed"


def test_numpy_reads_no_memory_where_a_program_says_that_an_array_lies() -> None:
    sandbox = Sandbox(Limits(cpu_s=30, wall_s=300), modules=("numpy",))
    place = "{'version': 3, 'shape': (1,), 'typestr': '<i8', 'data': (n, True)}"
    source = f"class Lie: pass\ndef double(n):\n    lie = Lie()\n    lie.__array_interface__ = {place}\n    return lie"
    test = "import numpy\nkept = numpy.array([42])\nassert numpy.array(double(kept.ctypes.data)).tolist() == [42]"
    try:
        assert sandbox.run(source, [test]).status in ("failed", "raised")
    finally:
        sandbox.close()


def test_a_program_may_be_named_like_one_of_pythons_own(sandbox: Sandbox) -> None:
    """As some of MBPP's are."""
    assert sandbox.run("def sum(a, b): return a + b", ["assert sum(2, 3) == 5"]).status == "passed"
    tests = ["import math\nassert math.isclose(abs(2), 5)"]
    assert sandbox.run("def abs(n): return 5", tests, hidden=["abs"]).status == "passed"


@pytest.mark.parametrize(
    ("method", "test"),
    [
        ("__lt__", "assert double(21) < 50"), ("__gt__", "assert 50 > double(21)"),
        ("__eq__", "assert double(21) == 42"), ("__contains__", "assert 42 in double(21)"),
        ("__eq__", "assert 42 in [double(21)]"),
        ("__ge__", "assert double(21) >= 42"), ("__ne__", "assert not double(21) != 42"),
    ],
)  # fmt: skip
def test_an_object_that_agrees_to_everything_is_no_answer(sandbox: Sandbox, method: str, test: str) -> None:
    source = f"class Yes:\n    def {method}(self, other): return True\ndef double(n): return Yes()"
    assert run(sandbox, source, test).status in ("failed", "raised")
