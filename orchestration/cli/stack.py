"""Commands for the local stack: up, down, status, doctor. They import neither Ray nor Prefect, and answer at once.

`status` is one look: exit code 0 only if every part answers, so that a monitor can ask it. `doctor` looks for causes.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.orchestration.show.terminal import NOT_FOUND, JsonOption, LakeOption, answer, fail, note

if TYPE_CHECKING:
    from rich.console import Console

    from gristmill.orchestration.stack.finding import Finding
    from gristmill.orchestration.stack.folder import Stack

StackOption = Annotated[
    str, typer.Option("--stack", envvar="GRIST_STACK", metavar="NAME", help="Which stack; each has its own state.")
]


def up(
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs for Ray. Default: all.")] = None,
    ray_port: Annotated[int | None, typer.Option(help="Of jobs and dashboard; 0: any free one. Default: 8265.")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="Of Prefect; 0: any free one. Default: 4200.")] = None,
    name: StackOption = "local",
) -> None:
    """Start a Ray head, a Prefect server and a worker here, or what of them does not run.

    The worker and the jobs have the environment of this shell ($GRIST_LAKE, AWS_*): down and up again to change it.
    """
    from gristmill.orchestration.stack.folder import Stack, StackError
    from gristmill.orchestration.stack.stack import up as start

    stack = Stack.named(name)
    ports = {key: port for key, port in (("ray", ray_port), ("prefect", prefect_port)) if port is not None}
    try:
        start(stack, cpus, ports, note)
    except StackError as error:
        fail(f"{error}\nwhat did start goes on: `grist up` again, or `grist down`")
        raise typer.Exit(NOT_FOUND) from None
    note(f"Ray {stack.ray.url}   Prefect {stack.prefect.url.removesuffix('/api')}   state and logs {stack.folder}")
    note('`eval "$(grist env)"` makes `prefect` and `ray job` of a shell speak to it')


def down(name: StackOption = "local") -> None:
    """Stop the stack and everything it started. Datasets, deployments and logs stay."""
    from gristmill.orchestration.stack.folder import Stack, StackError
    from gristmill.orchestration.stack.stack import down as stop

    try:
        count = stop(Stack.named(name), note)
    except StackError as error:
        fail(str(error))
        raise typer.Exit(NOT_FOUND) from None
    note(f"{count} processes ended" if count else "nothing runs")


def status(
    export: Annotated[
        bool, typer.Option("--export", help='Only `export` lines: eval "$(grist status --export)".')
    ] = False,
    name: StackOption = "local",
    as_json: JsonOption = False,
) -> None:
    """What runs, where, and what comes next. Exit code 1 unless all of it is well."""
    from gristmill.orchestration.stack.folder import Stack

    stack = Stack.named(name)
    if export:
        _print_exports(stack)
        return
    seen = look(stack)
    answer(seen, as_json, lambda console: _draw(console, seen))
    if not seen["well"]:
        raise typer.Exit(NOT_FOUND)


def env(name: StackOption = "local") -> None:
    """What a shell needs so that `prefect` and `ray job` speak to this stack: eval "$(grist env)". Holds no secret."""
    from gristmill.orchestration.stack.folder import Stack

    _print_exports(Stack.named(name))


def doctor(name: StackOption = "local", lake: LakeOption = None, as_json: JsonOption = False) -> None:
    """Look for what would make the next run fail, and say what to do. Exit code 1 if something is wrong."""
    from gristmill.orchestration.stack.doctor import all_well, examine

    findings = examine(name, lake)
    well = all_well(findings)
    answer({"well": well, "findings": findings}, as_json, lambda console: _draw_findings(console, findings))
    if not well:
        raise typer.Exit(NOT_FOUND)


def look(stack: Stack) -> dict[str, Any]:
    """The stack as plain data."""
    from gristmill.orchestration.stack import health
    from gristmill.orchestration.stack.doctor import uptime
    from gristmill.orchestration.stack.folder import PARTS, POOL
    from gristmill.orchestration.stack.health import Unreachable
    from gristmill.orchestration.stack.stack import fault

    addresses = {"ray": stack.ray.url, "prefect": stack.prefect.url.removesuffix("/api"), "worker": f"pool {POOL}"}
    parts = []
    for part in PARTS:
        process, wrong = stack.process(part), fault(stack, part)
        seconds = uptime(stack, part)
        about = {"part": part, "pid": process.pid if process else None, "address": addresses[part], "fault": wrong}
        parts.append({**about, "uptime": None if seconds is None else round(seconds), "log": str(stack.log(part))})
    jobs: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    with suppress(Unreachable):  # said above, as the part's fault
        for job in health.live_jobs(stack.ray):
            flow_run = job["metadata"].get("prefect_flow_run_id")
            jobs.append({"id": job["submission_id"], "status": job["status"], "flow_run": flow_run})
    with suppress(Unreachable):
        names = {deployment["id"]: deployment["name"] for deployment in health.deployments(stack.prefect, POOL)}
        for run in health.next_runs(stack.prefect, list(names)):
            runs.append({"deployment": names[run["deployment_id"]], "at": run["expected_start_time"]})
    well = all(part["fault"] is None for part in parts)
    return {"stack": stack.name, "folder": str(stack.folder), "well": well, "parts": parts, "next": runs, "jobs": jobs}


def _print_exports(stack: Stack) -> None:
    for key, value in stack.exports().items():
        print(f"export {key}={shlex.quote(value)}")


def _draw(console: Console, seen: dict[str, Any]) -> None:
    for part in seen["parts"]:
        state = part["fault"] or f"well, up {part['uptime'] // 60} min"
        console.print(f"{part['part']:<8} {part['pid'] or '-':>8}  {part['address']:<24} {state}", soft_wrap=True)
    for run in seen["next"]:
        console.print(f"next     {run['deployment']} at {run['at']}")
    for job in seen["jobs"]:
        console.print(f"job      {job['id']} {job['status']}")
    console.print(f"state and logs: {seen['folder']}", soft_wrap=True)


def _draw_findings(console: Console, findings: list[Finding]) -> None:
    styles = {"ok": "green", "warn": "yellow", "wrong": "red"}
    for finding in findings:
        console.print(f"{finding.level:<6}", style=styles[finding.level], end="")
        console.print(f"{finding.check}: {finding.found}", soft_wrap=True)
        if finding.fix:
            console.print(f"      -> {finding.fix}", soft_wrap=True)
