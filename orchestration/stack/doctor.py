"""`grist doctor`: what must be true for a scheduled run to succeed, each with what was found and what to do.

Every check is a function that returns findings; what it cannot find out is a finding too, also where it breaks in a way
that nobody thought of, so that one broken package never hides what the other checks say. Checks ask the thing itself (a
store is made to refuse a second create, a server to answer) instead of reading settings.
"wrong" means that the next run will fail or never start, "warn" that something will go wrong sooner or later.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gristmill import place
from gristmill.filters import lid
from gristmill.filters.classify.learn import REPAIR
from gristmill.orchestration.stack import health
from gristmill.orchestration.stack.finding import OK, WARN, WRONG, Finding
from gristmill.orchestration.stack.folder import PARTS, POOL, Stack
from gristmill.orchestration.stack.health import Unreachable
from gristmill.orchestration.stack.run_checks import runs
from gristmill.orchestration.stack.stack import fault
from gristmill.pipelines.settings.config import LAKE_ENV
from gristmill.stages.run.private import weaknesses

ROOT = place.ROOT
LITTLE, VERY_LITTLE = 10 << 30, 1 << 30
"""Bytes free: below the first is a warning, below the second wrong (SQLite and Ray's spilling fail suddenly)."""
LIMITS = {
    "fastapi": ((0, 151), "Prefect 3.8's server dies with a newer one"),
    "sqlalchemy": ((2, 1), "with a newer one Prefect's cron schedules silently never fire"),
}
LOST = {
    "ray": "its jobs died with it and are forgotten. What they did has receipts; a flow run that waits submits again",
    "prefect": "no schedule fires meanwhile. Flow runs go on, and say how they ended when it is back",
    "worker": "no flow run starts meanwhile. Those that it had started may go on; `grist up` ends those that died",
}
"""What the death of a part means."""
SETUP = "run `make setup`" if (ROOT / "Makefile").exists() else "pip install --upgrade --force-reinstall gristmill"
NEEDED = ("prefect", "ray")


def examine(name: str, lake: str | None) -> list[Finding]:
    """Every check of this environment, of the stack of that name, and of the lake (default: $GRIST_LAKE)."""
    uri = lake or os.environ.get(LAKE_ENV, "")

    def stack() -> Stack:
        return Stack.named(name)

    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": python,
        "packages": packages,
        "fasttext": fasttext_module,
        "language model": language_model,
        "lake": lambda: lake_findings(uri),
        "disk": lambda: disk([stack().folder, Path(tempfile.gettempdir()), *_local(uri)]),
        "privacy": lambda: privacy(stack()),
        "ports": lambda: ports(stack()),
        "parts": lambda: parts(stack()),
        "schedules": lambda: schedules(stack()),
        "flow runs": lambda: runs(stack()),
    }
    return [finding for title, check in checks.items() for finding in _outcome(title, check)]


def _outcome(title: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # of any library, in any state: said, and the other checks go on
        message = f"this check broke: {type(error).__name__}: {error}"
        return [Finding(title, WRONG, message, "mend what it names; if it names nothing of yours, report it")]


def python() -> list[Finding]:
    """Which Python runs, and whether it is a venv's own."""
    running = f"{sys.version.split()[0]} at {sys.prefix}"
    if sys.prefix == sys.base_prefix:
        return [Finding("python", WARN, f"{running}, no venv", f"{SETUP} and start grist from .venv/bin")]
    return [Finding("python", OK, running)]


def packages(lock: Path = ROOT / "requirements.lock") -> list[Finding]:
    """Versions that are known to break something, and what differs from the lock."""
    findings = []
    for name in NEEDED:
        version = _installed(name)
        findings.append(Finding(name, OK, version) if version else Finding(name, WRONG, "not installed", SETUP))
    for name, (limit, why) in LIMITS.items():
        version = _installed(name)
        if version is None:
            findings.append(Finding(name, WRONG, "not installed", SETUP))
        elif release(version) >= limit:
            bound = ".".join(map(str, limit))
            findings.append(Finding(name, WRONG, f"{version}, allowed below {bound}: {why}", SETUP))
        else:
            findings.append(Finding(name, OK, version))
    if not lock.exists():
        return [*findings, Finding("lock", OK, f"no {lock.name} beside the code: an installed package")]
    wanted = dict(line.split("==") for line in lock.read_text().split() if line.count("==") == 1)
    differ = {name: _installed(name) for name, version in wanted.items() if _installed(name) != version}
    if differ:
        shown = ", ".join(f"{name} {differ[name] or 'missing'} (lock: {wanted[name]})" for name in sorted(differ)[:5])
        return [*findings, Finding("lock", WARN, f"{len(differ)} packages differ: {shown}", SETUP)]
    return [*findings, Finding("lock", OK, f"all {len(wanted)} packages as locked")]


def release(version: str) -> tuple[int, int]:
    """(major, minor) of a version, whatever follows."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def fasttext_module() -> list[Finding]:
    """Three distributions install a module `fasttext`; one of them, fasttext-predict, cannot train, which is what it is
    needed for (`grist classifier train`), and overwrites."""
    if _installed("fasttext-predict") is not None:
        overwritten = "fasttext-predict is installed and overwrites the module fasttext"
        return [Finding("fasttext", WRONG, overwritten, REPAIR)]
    try:
        import fasttext
    except Exception as error:  # a broken extension module raises whatever it likes
        return [Finding("fasttext", WRONG, f"cannot be imported: {type(error).__name__}: {error}", REPAIR)]
    if not hasattr(fasttext, "train_supervised"):
        return [Finding("fasttext", WRONG, f"{fasttext.__file__} cannot train: another package's", REPAIR)]
    return [Finding("fasttext", OK, f"fasttext-numpy2-wheel {_installed('fasttext-numpy2-wheel')}")]


def language_model() -> list[Finding]:
    """The model of language identification is there, and the one that was released."""
    from gristmill.filters.language import LanguageFilter

    try:
        LanguageFilter().check()
    except (OSError, ValueError, RuntimeError) as error:
        return [Finding("language model", WRONG, str(error), f"see above, or unset {lid.ENVIRONMENT}")]
    return [Finding("language model", OK, f"lid.176 at {lid.find_model()}")]


def lake_findings(uri: str) -> list[Finding]:
    """The lake opens and refuses a second create, which is what every commit rests on."""
    if not uri:
        return [Finding("lake", WARN, "none given", f"set ${LAKE_ENV}, or give --lake: then it is checked too")]
    if "://" not in uri and not os.path.isabs(uri):
        return [Finding("lake", WRONG, f"{uri!r} is relative", "a scheduled run needs an absolute path or s3://")]
    from gristmill.lake.store.base import MARKER
    from gristmill.lake.store.opening import open_store

    try:
        store = open_store(uri, probe=False)
        if store.info(MARKER) is None:
            return [Finding("lake", WARN, f"{uri}: reachable, but no lake yet", "the first run makes it")]
        open_store(uri)
        return [Finding("lake", OK, f"{uri}: refuses a second create"), *_lasting(uri)]
    except Exception as error:  # a client library's, of any kind
        fix = "check address, network and AWS_* of this shell; allowed stores are named in the message"
        return [Finding("lake", WRONG, f"{uri}: {type(error).__name__}: {error}", fix)]


def _lasting(uri: str) -> list[Finding]:
    if uri.startswith(("/tmp/", "/dev/shm/")):
        return [Finding("lake", WARN, f"{uri} is lost when this machine restarts", "keep it elsewhere")]
    return []


def _local(uri: str) -> list[Path]:
    return [Path(uri)] if uri and "://" not in uri else []


def disk(folders: Iterable[Path]) -> list[Finding]:
    """Free space where these folders are, or would be made."""
    findings = []
    for folder in folders:
        there = next((ancestor for ancestor in (folder, *folder.parents) if os.path.exists(ancestor)), Path("/"))
        free = shutil.disk_usage(there).free
        level = WRONG if free < VERY_LITTLE else WARN if free < LITTLE else OK
        findings.append(Finding("disk", level, f"{free / 2**30:.1f} GB free at {there}", "make room" * (level != OK)))
    return findings


def privacy(stack: Stack) -> list[Finding]:
    """Whoever reaches the secrets, or the folder of Ray's sessions, runs code as this user."""
    folders = [folder for folder in (stack.folder, stack.ray_folder) if folder is not None and folder.exists()]
    faults = dict.fromkeys(fault for folder in folders for fault in weaknesses(folder))
    if faults:
        fix = "mend it, or `grist down`, set GRIST_HOME and TMPDIR to folders of yours, and `grist up`"
        return [Finding("privacy", WRONG, f"other users could run code as you: {'; '.join(faults)}", fix)]
    if not folders:
        return [Finding("privacy", OK, "no stack here yet")]
    return [Finding("privacy", OK, f"only this user reaches {' and '.join(map(str, folders))}")]


def ports(stack: Stack) -> list[Finding]:
    """Of parts that do not run: another program there is only worth knowing, `grist up` takes another port."""
    taken = []
    for part, names in (("ray", ("ray", "gcs", "client")), ("prefect", ("prefect",))):
        if stack.process(part) is None:
            taken += [f"{name} {stack.ports[name]}" for name in names if _answers(stack.ports[name])]
    if taken:
        return [Finding("ports", OK, f"in use by others: {', '.join(taken)}; `grist up` takes free ones instead")]
    return [Finding("ports", OK, "free, or this stack's")]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def parts(stack: Stack) -> list[Finding]:
    """Ray, Prefect and the worker run and answer."""
    findings = []
    for part in PARTS:
        wrong = fault(stack, part)
        fix = f"`grist up`; if it stays so: {stack.log(part)}" if wrong else ""
        process = stack.process(part)
        if wrong and process is None and part in stack.state().get("parts", {}):  # it ran, and nobody ended it
            wrong = f"{wrong}: it was killed, or ended by itself; {LOST[part]}"
        findings.append(
            Finding(part, WRONG if wrong else OK, wrong or f"answers, pid {process.pid if process else '?'}", fix)
        )
    return findings


def schedules(stack: Stack) -> list[Finding]:
    """Each active schedule must have produced runs: with a wrong sqlalchemy it never does, without any error."""
    try:
        deployments = health.deployments(stack.prefect, POOL)
    except Unreachable as error:
        return [Finding("schedules", WRONG, str(error), "`grist up`")]
    if not deployments:
        return [Finding("schedules", WARN, f"no deployment on the pool {POOL}", "`prefect deploy --all` in the clone")]
    return [finding for deployment in deployments for finding in _schedule(stack, deployment)]


def _schedule(stack: Stack, deployment: dict[str, object]) -> list[Finding]:
    name = f"deployment {deployment['name']}"
    active = [s for s in deployment.get("schedules") or [] if s["active"]]  # type: ignore[attr-defined]
    if deployment.get("paused") or not active:
        return [Finding(name, WARN, "no active schedule", "`prefect deployment schedule resume`, or deploy again")]
    try:
        runs = health.next_runs(stack.prefect, [str(deployment["id"])])
    except Unreachable as error:
        return [Finding(name, WRONG, str(error), "`grist up`")]
    if not runs:
        fix = "look for sqlalchemy above, and for errors of the scheduler in the log of prefect; then deploy again"
        return [Finding(name, WRONG, "has a schedule, but no run is scheduled", fix)]
    late = health.age(runs[0]["expected_start_time"])
    if late > 120:
        fix = "nobody takes it: look at the worker above and its log"
        return [Finding(name, WRONG, f"a run is late by {late:.0f} s", fix)]
    return [Finding(name, OK, f"next run {runs[0]['expected_start_time']}")]


def uptime(stack: Stack, part: str) -> float | None:
    """Seconds since the part was started."""
    process = stack.process(part)
    if process is None:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK")


def all_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong; warnings do not count."""
    return all(finding.level != WRONG for finding in findings)
