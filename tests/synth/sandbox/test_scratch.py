"""The /tmp of programs: empty for each, whatever the one before it left there."""

from __future__ import annotations

import pytest

from gristmill.synth.sandbox.sandbox import Sandbox

_REMOVABLE = [
    "open('/tmp/left', 'w').write('x')",
    "import os\nos.makedirs('/tmp/a/b/c')\nopen('/tmp/a/b/c/left', 'w').write('x')",
    "import os\nos.symlink('/usr/lib', '/tmp/link')",
    "import os\nos.mkfifo('/tmp/pipe')",
    "open(b'/tmp/\\xff\\n', 'w').close()",
    "for number in range(900):\n    open(f'/tmp/{number}', 'w').close()",
    "import os\nopen('/tmp/left', 'w').close()\nos.chmod('/tmp/left', 0)",
    "import os\nif not os.fork():\n    for number in range(10**9):\n        open('/tmp/left', 'w').write('x')",
]
_LOCKED = [
    "import os\nos.makedirs('/tmp/locked/inner')\nos.chmod('/tmp/locked', 0)",
    "import os\nfor _ in range(900):\n    os.mkdir('deep' * 60)\n    os.chdir('deep' * 60)",
]
_LOOK = """import os
def look():
    before = os.listdir('/tmp')
    with open('/tmp/own', 'w') as file:
        file.write('own')
    return [before, oct(os.stat('/tmp').st_mode & 0o7777), os.listxattr('/tmp'), open('/tmp/own').read()]
def number(): return os.stat('/tmp').st_dev
def left(): return 0
"""
_EMPTY = "assert look() == [[], '0o1777', [], 'own']"


def _leave(sandbox: Sandbox, source: str) -> None:
    execution = sandbox.run(f"{source}\ndef left(): return 1", ["assert left() == 1"])
    assert execution.status == "passed", (source, execution)


@pytest.mark.parametrize("source", [*_REMOVABLE, *_LOCKED])
def test_nothing_of_a_program_is_there_for_the_next(sandbox: Sandbox, source: str) -> None:
    for _ in range(2):
        _leave(sandbox, source)
        assert sandbox.run(_LOOK, [_EMPTY]).status == "passed", source


@pytest.mark.parametrize("source", ["import os\nos.chmod('/tmp', 0)", "import os\nos.setxattr('/tmp', 'user.x', b'x')"])
def test_the_folder_itself_is_as_it_was(sandbox: Sandbox, source: str) -> None:
    # Whether a program is refused depends on who owns the folder: root, or the user who started us.
    sandbox.run(f"try:\n    exec({source!r})\nexcept OSError:\n    pass\ndef left(): return 1", ["assert left() == 1"])
    assert sandbox.run(_LOOK, [_EMPTY]).status == "passed"


def test_tests_do_not_see_what_a_program_writes(sandbox: Sandbox) -> None:
    source = "open('/tmp/left', 'w').write('x')\nimport os\ndef names(): return os.listdir('/tmp')"
    tests = ["assert names() == ['left']", "import os\nassert not os.path.exists('/tmp/left')"]
    execution = sandbox.run(source, tests)
    assert execution.status == "passed", execution


def test_programs_have_one_file_system_until_something_is_left_that_cannot_be_removed(sandbox: Sandbox) -> None:
    if not sandbox.isolation.jail:
        pytest.skip("this machine allows no jail: each program mounts a /tmp of its own")
    fresh = Sandbox(sandbox.limits)
    try:
        number = _device(fresh)
        for source in _REMOVABLE:
            _leave(fresh, source)
            assert _device(fresh) == number, source
        _leave(fresh, _LOCKED[0])
        assert number not in (_device(fresh), _device(fresh))
    finally:
        fresh.close()


def _device(sandbox: Sandbox) -> int:
    """The number of the file system that programs have at /tmp, as a failed test tells it."""
    execution = sandbox.run(_LOOK, ["raise AssertionError(f'<{number()}>')"])
    assert execution.status == "failed", execution
    return int(execution.detail.partition("<")[2].partition(">")[0])
