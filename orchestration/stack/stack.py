"""A local stack: a Ray head, a Prefect server and a worker, started detached and stopped by who they are.

`up` starts what is missing, so it is also the repair. Each part leads a session of its own and carries a mark in its
environment that all its children inherit; `down` ends the three and whoever bears the mark: never `ray stop`, which
would end the clusters of others too. A flow run is given time to stop its Ray job before Ray goes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from gristmill.orchestration.stack import health, processes
from gristmill.orchestration.stack.folder import MARK, PARTS, POOL, PORTS, Stack, StackError, private
from gristmill.orchestration.stack.health import Unreachable
from gristmill.orchestration.stack.reaper import end_orphans
from gristmill.stages.run.cluster import LOOPBACK
from gristmill.stages.run.private import NotPrivate, new_folder, weaknesses
from gristmill.stages.run.ray_start import LIMITS

SECONDS = {"ray": 600, "prefect": 300, "worker": 300}
"""To answer, on a machine that is busy with other things; a part that ends is noticed at once."""
GRACE = {"worker": 30, "ray": 15, "prefect": 10}
"""Seconds from SIGTERM to SIGKILL. A flow run needs the most: it stops its Ray job first."""
OBJECT_STORE = 256 << 20  # bytes; only pointers travel through it, data goes through the lake
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    **LOOPBACK,
    **LIMITS,
}


def up(
    stack: Stack, cpus: int | None = None, ports: dict[str, int] | None = None, say: Callable[[str], None] = print
) -> None:
    """Starts what does not run, and returns when all of it answers. Raises StackError.

    `ports`: wanted ones of PORTS; 0 or a taken one becomes any free port. Ports are kept from one `up` to the next.
    """
    with stack.alone():
        for part in PARTS:
            if stack.process(part) is None:  # what a killed part left behind holds its ports
                _end(stack, part, say)
        _prepare(stack, ports or {})
        missing = [part for part in PARTS if stack.process(part) is None]
        for part in PARTS:
            if part not in missing:
                say(f"{part}: runs already (pid {_pid(stack, part)})")
        started = time.monotonic()
        for part in ("ray", "prefect"):
            if part in missing:
                _start(stack, part, _ray(stack, cpus) if part == "ray" else _prefect(stack))
        for part in ("ray", "prefect"):
            if part in missing:
                _wait(stack, part, started, say)
        _make_pool(stack)
        if "worker" in missing:
            started = time.monotonic()
            _start(stack, "worker", _worker(stack))
            _wait(stack, "worker", started, say)
        for run in end_orphans(stack.prefect, POOL):
            say(f"flow run {run.name} was {run.was}, but its process is gone: it is {run.now} now")


def down(stack: Stack, say: Callable[[str], None] = print) -> int:
    """Ends the stack and all it started; how many processes that were. Flow runs stop their Ray jobs on the way."""
    with stack.alone():
        count = 0
        for part in ("worker", "ray", "prefect"):  # flow runs stop their jobs, so Ray goes after them
            count += _end(stack, part, say)
        if stack.state():
            stack.write(parts={})
        _remove_ray_folder(stack)
        return count


def _end(stack: Stack, part: str, say: Callable[[str], None]) -> int:
    """Ends a part, then whatever of it is left: of a worker its flow runs, of Ray its jobs."""
    process = stack.process(part)
    if process is not None:
        processes.end(lambda: [process] if processes.alive(process) else [], GRACE[part])
    left = processes.end(lambda: stack.family(part), GRACE[part])
    if process is not None or left:
        say(f"{part}: stopped" + (f" (pid {process.pid})" if process else f" ({left} processes it had left behind)"))
    return left + (process is not None)


def _pid(stack: Stack, part: str) -> int:
    process = stack.process(part)
    return process.pid if process else 0


def _prepare(stack: Stack, wanted: dict[str, int]) -> None:
    """Folders, secrets, ports, and the profile by which Prefect's own commands find server and password."""
    if stack.folder.lstat().st_uid == os.getuid():
        os.chmod(stack.folder, 0o700)
    if faults := weaknesses(stack.folder):
        raise StackError(
            f"other users of this machine could run code as you: {'; '.join(faults)}. Mend that, or set GRIST_HOME to a"
            " folder of yours"
        )
    (stack.folder / "logs").mkdir(exist_ok=True)
    private(stack.folder / "ray-secret", secrets.token_hex(32))
    private(stack.folder / "prefect-secret", f"grist:{secrets.token_urlsafe(24)}")
    state = stack.state()
    running = {part for part in PARTS if stack.process(part)}
    if not running:
        # A new id, so that what an earlier stack of this name left behind is never taken for this one's. Ports are
        # kept: shells of yesterday still know them.
        kept = {"ports": state.get("ports", {}), "ray_folder": state.get("ray_folder")}
        state = {"id": uuid.uuid4().hex, "parts": {}, **kept}
    ports, taken = {}, set[int]()
    for name, usual in PORTS.items():
        port = wanted.get(name, state["ports"].get(name, usual))
        # Prefect has one port, all others are Ray's; what runs keeps the ports it was started with.
        if ("prefect" if name == "prefect" else "ray") in running:
            port = state["ports"][name]
        elif port == 0 or port in taken or not _is_free(port):
            port = _free_port(taken)
        taken.add(port)
        ports[name] = port
    if "worker" in running and ports != state["ports"]:  # it would speak to addresses where nobody is
        _end(stack, "worker", lambda line: None)
    stack.write(**{**state, "ports": ports})
    lines = ['active = "gristmill"', "", "[profiles.gristmill]", f'PREFECT_API_URL = "{stack.prefect.url}"']
    lines += [f'PREFECT_{kind}_AUTH_STRING = "{stack.secret("prefect")}"' for kind in ("API", "SERVER_API")]
    private(stack.folder / "profiles.toml", "\n".join(lines), again=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int]) -> int:
    """Above Ray's workers (10002 to 19999) and below the kernel's range for outgoing connections (Linux: 32768 and up):
    either could take the port between this look and the server's start. Raises StackError if none is free."""
    for _ in range(1_000):
        port = 20_000 + secrets.randbelow(12_000)
        if port not in taken and _is_free(port):
            return port
    raise StackError("no free port from 20000 to 31999 on 127.0.0.1; close other servers, or name the ports")


def environment(stack: Stack, part: str) -> dict[str, str]:
    """Of every part: this shell's, less what points Ray or Prefect elsewhere. AWS_* and GRIST_LAKE go along."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PREFECT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    variables = {"PATH": path, "PREFECT_HOME": str(stack.folder / "prefect"), MARK: stack.mark(part)}
    return {**kept, **SETTINGS, **stack.exports(), **variables}


def _ray(stack: Stack, cpus: int | None) -> list[str]:
    ports = stack.ports
    folder = _new_ray_folder(stack)
    command = [
        sys.executable,
        "-m",
        "gristmill.stages.run.ray_start",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        f"--temp-dir={folder / 'r'}",
    ]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--object-store-memory={OBJECT_STORE}"]
    command += [f"--port={ports['gcs']}", f"--dashboard-port={ports['ray']}"]
    command += [f"--dashboard-agent-listen-port={ports['agent']}", f"--dashboard-agent-grpc-port={ports['agent_grpc']}"]
    command += [f"--ray-client-server-port={ports['client']}"]
    return command if cpus is None else [*command, f"--num-cpus={cpus}"]


def _new_ray_folder(stack: Stack) -> Path:
    """A folder that nobody else can enter, above the one that Ray opens to everybody. Raises StackError."""
    _remove_ray_folder(stack)
    try:
        folder = new_folder()
    except NotPrivate as error:
        raise StackError(str(error)) from None
    stack.write(ray_folder=str(folder))
    return folder


def _remove_ray_folder(stack: Stack) -> None:
    if stack.ray_folder is not None:
        shutil.rmtree(stack.ray_folder, ignore_errors=True)
        stack.write(ray_folder=None)


def _prefect(stack: Stack) -> list[str]:
    port = stack.ports["prefect"]
    return [_beside("prefect"), "server", "start", "--no-prompt", "--host=127.0.0.1", f"--port={port}"]


def _worker(stack: Stack) -> list[str]:
    name = ["--name", stack.worker_name, "--pool", POOL, "--type", "process"]
    return [_beside("prefect"), "worker", "start", "--no-prompt", *name]


def _beside(command: str) -> str:
    """The command of this very venv, whatever PATH says."""
    return str(Path(sys.executable).parent / command)


def _start(stack: Stack, part: str, command: list[str]) -> None:
    with stack.log(part).open("ab") as log:
        process = subprocess.Popen(
            command,
            env=environment(stack, part),
            cwd=stack.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    identity = processes.identify(process.pid)
    stack.write(parts={**stack.state()["parts"], part: identity})


def _wait(stack: Stack, part: str, started: float, say: Callable[[str], None]) -> None:
    """Until the part answers. Raises StackError if it ended, or takes too long."""
    began = time.time()
    while (wrong := fault(stack, part, since=began)) is not None:
        if stack.process(part) is None or time.time() - began > SECONDS[part]:
            what = "ended" if stack.process(part) is None else f"does not answer after {SECONDS[part]} s ({wrong})"
            tail = "\n".join(stack.log(part).read_text(errors="replace").splitlines()[-15:])
            raise StackError(f"{part} {what}; the end of {stack.log(part)}:\n{tail}")
        time.sleep(0.3)
    say(f"{part}: started in {time.monotonic() - started:.0f} s (pid {_pid(stack, part)})")


def fault(stack: Stack, part: str, since: float | None = None) -> str | None:
    """What is wrong with a part that should run; None if it answers. `since`: a worker's call must be younger."""
    if stack.process(part) is None:
        return "does not run"
    try:
        if part == "ray":
            stack.ray.ask("/api/jobs/")
        elif part == "prefect":
            stack.prefect.ask("/flow_runs/count", {})  # needs the password too, unlike /health
        else:
            return _worker_fault(stack, since)
    except Unreachable as error:
        return str(error)
    return None


def _worker_fault(stack: Stack, since: float | None) -> str | None:
    mine = [w for w in health.workers(stack.prefect, POOL) if w["name"] == stack.worker_name]
    if not mine or mine[0]["last_heartbeat_time"] is None:
        return f"the server has not heard of a worker {stack.worker_name!r}"
    age = health.age(mine[0]["last_heartbeat_time"])
    if since is not None and time.time() - age < since - 1:
        return "has not called the server yet"
    return None if mine[0]["status"] == "ONLINE" else f"last called the server {age:.0f} s ago"


def _make_pool(stack: Stack) -> None:
    """The work pool, by the command that knows its job template. Also made by a worker, but then too late for us."""
    try:
        stack.prefect.ask(f"/work_pools/{POOL}")
    except Unreachable:
        command = [_beside("prefect"), "--no-prompt", "work-pool", "create", POOL, "--type", "process"]
        created = subprocess.run(
            command, env=environment(stack, "worker"), cwd=stack.folder, capture_output=True, text=True
        )
        if created.returncode != 0:
            raise StackError(f"the work pool {POOL!r} cannot be made: {created.stdout}{created.stderr}") from None
