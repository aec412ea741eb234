"""Programs that try to get out, to stay, or to take everything: none does, and none stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from sandboxes import processes_of, run, servers
from waiting import until

from gristmill.synth.sandbox import sandbox as sandbox_module
from gristmill.synth.sandbox.isolation import Limits, NotIsolated
from gristmill.synth.sandbox.sandbox import Sandbox

UNDECIDED = ("cpu_limit", "wall_limit", "memory_limit", "message_limit")


def attempted(code: str) -> str:
    """A program whose function `attempt` says which error the code ends with, or `done`."""
    body = "\n".join(f"        {line}" for line in code.splitlines())
    catch = "    except BaseException as error:\n        return type(error).__name__"
    return f"def attempt():\n    try:\n{body}\n{catch}\n    return 'done'"


@pytest.mark.parametrize(
    "code",
    [
        "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', b'\\0abstract')",
        "import socket\nsocket.socketpair(type=socket.SOCK_SEQPACKET)",
        "import socket\nsocket.socketpair()[0].sendto(b'x', '/tmp/path')",
        "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')",
        "open('/etc/shadow').read()",
        "open('/etc/passwd').read()",
        "import os\nos.listdir('/home')",
        "open('/proc/1/environ').read()",
        "import os\nos.listdir('/proc')",
        "open('/proc/self/mem', 'rb')",
        "import os\nos.symlink('/etc/passwd', '/tmp/link')\nopen('/tmp/link').read()",
        "import os\nos.listdir('/dev/shm')",
        "import os\nos.open('/', os.O_TMPFILE | os.O_RDWR)",
        "import os\nfor _ in range(9):\n    os.write(os.open('/tmp', os.O_TMPFILE | os.O_RDWR), bytes(1 << 19))",
        "for number in range(2000):\n    open(f'/tmp/{number}', 'w').close()",
        "import os\nfor _ in range(70):\n    os.pipe()",
        "import _thread, time\nfor _ in range(9):\n    _thread.start_new_thread(time.sleep, (99,))",
        "open('/etc/new', 'w')",
        "open('/new', 'w')",
        "import os\nos.mkdir('/usr/lib/new')",
        "import os\nos.remove(os.__file__)",
        "import os\nos.mknod('/tmp/device', 0o600 | 0o020000, os.makedev(1, 3))\nopen('/tmp/device').read()",
        "import os\nos.execv('/bin/sh', ['sh'])",
        "import subprocess\nsubprocess.run(['ls'])",
        "import os\nos.kill(2, 9)",
        "import os\nos.chroot('/tmp')",
        "import os\nos.nice(-5)",
        "import os\nos.setuid(1)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
        "open('/tmp/large', 'wb').write(bytes(8 << 20))",
        "import gristmill.lake",
        "import numpy",
    ],
)
def test_what_is_outside_cannot_be_reached(sandbox: Sandbox, code: str) -> None:
    execution = sandbox.run(attempted(code), ["assert attempt() != 'done', 'it worked'"])
    assert execution.status == "passed", execution


def test_what_is_installed_is_not_there_in_a_virtual_environment_either(sandbox: Sandbox, tmp_path: Path) -> None:
    """The other tests' Python may be found by a link, whose packages a jail would miss by luck."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    packages = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(packages.strip(), "installed.py").write_text("")
    program = (
        "from gristmill.synth.sandbox.sandbox import Sandbox\n"
        "import installed\n"
        "sandbox = Sandbox()\n"
        "print([sandbox.run(f'import {name}', ['pass']).status for name in ('installed', 'numpy', 'wave')])\n"
        "sandbox.close()\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    output = subprocess.check_output([python, "-c", program], env={**os.environ, "PYTHONPATH": path}, text=True)
    assert output.strip() == "['raised', 'raised', 'passed']"


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)", "unshare(0x20000)", "setns(0, 0)", "mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "umount2(b'/', 2)", "ptrace(16, 1, 0, 0)", "chroot(b'/')", "syscall(435, 0, 0)", "syscall(321, 0, 0, 0)",
        "syscall(56, 0x10000011, 0, 0, 0, 0)", "syscall(425, 8, 0)", "sethostname(b'x', 1)",
    ],
)  # fmt: skip
def test_the_kernel_refuses(sandbox: Sandbox, call: str) -> None:
    source = f"import ctypes\nlibc = ctypes.CDLL(None)\ndef attempt():\n    return libc.{call}"
    assert sandbox.run(source, ["assert attempt() == -1"]).status == "passed"


def test_nothing_of_us_is_inside(sandbox: Sandbox) -> None:
    source = "import os\ndef look(): return [dict(os.environ), os.getppid(), os.listdir('/tmp')]"
    assert sandbox.run(source, ["assert look() == [{}, 0, []]"]).status == "passed"
    source = """
import os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
def count(): return sum(map(is_open, range(3, 64)))
"""
    assert sandbox.run(source, ["assert count() == 1"]).status == "passed"  # the channel of its own values


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("whom", ["0", "-1", "os.getpgrp()", "os.getppid()"])
def test_a_program_signals_nobody_but_its_own(sandbox: Sandbox, whom: str, signal: str) -> None:
    source = f"import os, signal\ntry: os.kill({whom}, signal.{signal})\nexcept OSError: pass\ndef double(n): return 5"
    assert run(sandbox, source, "assert double(21) == 42").status == "failed"


def test_a_program_may_have_an_event_loop(sandbox: Sandbox) -> None:
    source = "import asyncio\nasync def later(n): return 2 * n\ndef double(n): return asyncio.run(later(n))"
    assert run(sandbox, source, "assert double(21) == 42").status == "passed"


FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
MEMORY_BOMB = """
import os
for _ in range(6):
    try:
        os.fork()
    except OSError:
        break
blocks = []
while True:
    try:
        blocks.append(bytearray(16 << 20))
    except MemoryError:
        pass
"""
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True:
            time.sleep(1000)
    os._exit(0)
def double(n): return 2 * n
"""


@pytest.mark.parametrize(
    "source",
    [
        FORK_BOMB,
        MEMORY_BOMB,
        "blocks = [bytearray(1 << 30)]",
        "n = 10 ** 10 ** 10",
        "while True: print('x' * 1000000)",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef deep(n): return deep(n + 1)\ndeep(0)",
        "import threading\nwhile True:\n    try: threading.Thread(target=threading.Event().wait).start()\n"
        "    except RuntimeError: pass",
        "import os, signal\nfor number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass",
        "def double(n): return 'x' * (32 << 20)",
    ],
)
def test_what_takes_everything_is_stopped_and_undecided(sandbox: Sandbox, source: str) -> None:
    assert run(sandbox, source, "assert double(21) == 42").status in UNDECIDED


def test_a_daemon_does_not_outlive_its_program(sandbox: Sandbox) -> None:
    assert run(sandbox, DAEMON, "assert double(21) == 42").status == "passed"


def test_a_program_that_sleeps_whatever_it_is_sent_is_ended() -> None:
    source = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(1000)"
    impatient = Sandbox(Limits(wall_s=1), minimum="none")
    assert impatient.run(source, ["assert True"]).status == "wall_limit"
    names = servers(impatient)
    assert len(processes_of(names)) == 2
    impatient.close()
    assert processes_of(names) == []


def test_a_lost_server_is_replaced_and_takes_its_programs_along(sandbox: Sandbox) -> None:
    server = sandbox._idle.queue[0]
    assert server is not None
    server.process.kill()
    server.process.wait()
    assert sandbox.run("", ["assert True"]).status == "infrastructure"
    until(lambda: processes_of([server.name]) == [], "the end of who was forked for programs")
    assert sandbox.restarts == 1
    assert sandbox.run("", ["assert True"]).status == "passed"


# A machine that refuses namespaces

REFUSING = """
from gristmill.synth.sandbox import kernel, server
clone = kernel.clone
def refuse(flags):
    if flags:
        raise PermissionError(1, 'refused')
    return clone(flags)
kernel.unshare = kernel.clone = refuse
server.main()
"""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork servers are refused namespaces, and there is no bubblewrap."""
    monkeypatch.setattr(sandbox_module, "_command", lambda: [sys.executable, "-P", "-c", REFUSING])
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.mark.usefixtures("refusing")
def test_without_namespaces_nothing_runs_and_the_message_says_what_is_missing() -> None:
    with pytest.raises(NotIsolated, match="the minimum is 'namespaces': missing are pid_namespace, network_namespace"):
        Sandbox().run("", ["assert True"])


@pytest.mark.usefixtures("refusing")
def test_without_namespaces_a_lower_minimum_still_leaves_nothing_behind() -> None:
    sandbox = Sandbox(Limits(cpu_s=2, wall_s=60), minimum="process")
    if sandbox.isolation.level != "restricted":
        pytest.skip(f"this machine reaches {sandbox.isolation.level!r} without namespaces")
    run(sandbox, DAEMON, "assert double(21) == 42")
    for code in ("open('/etc/passwd')", "import socket; socket.socket()", "import os; os.kill(os.getppid(), 9)"):
        assert sandbox.run(attempted(code), ["assert attempt() == 'PermissionError'"]).status == "passed"
    names = servers(sandbox)
    sandbox.close()
    assert processes_of(names) == []
