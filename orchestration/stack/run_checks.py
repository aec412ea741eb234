"""What the doctor says of flow runs and jobs: those that were left by a process that was killed, and who ends them."""

from __future__ import annotations

from gristmill.orchestration.stack.finding import OK, WARN, WRONG, Finding
from gristmill.orchestration.stack.folder import POOL, Stack
from gristmill.orchestration.stack.health import Unreachable
from gristmill.orchestration.stack.reaper import Orphan, jobs_of_ended_runs, orphans, stuck


def runs(stack: Stack) -> list[Finding]:
    """Flow runs and jobs that nobody ends: what is left where a flow and its worker were killed together."""
    try:
        left = orphans(stack.prefect, POOL)
        waiting = stuck(stack.prefect, POOL)
        jobs = jobs_of_ended_runs(stack.ray, stack.prefect, left)
    except Unreachable as error:
        return [Finding("flow runs", WRONG, str(error), "`grist up`")]
    findings = [
        Finding(
            f"flow run {run.name}",
            WARN,
            f"is {run.was}, but its process is gone",
            f"`grist up`, or the next flow run, makes it {run.now}; {_goes_on(run)} goes on",
        )
        for run in left
    ]
    for name, seconds in waiting:
        state = f"is Pending for {seconds:.0f} s: whoever took it died before its process began"
        findings.append(Finding(f"flow run {name}", WARN, state, "`prefect flow-run cancel`, and start it again"))
    for id, run_name in jobs:
        state = f"runs, but its flow run {run_name} is over"
        findings.append(Finding(f"job {id}", WARN, state, "the next flow run stops it; or `ray job stop` now"))
    return findings or [Finding("flow runs", OK, "each has its process, and each job its flow run")]


def _goes_on(run: Orphan) -> str:
    return "the same command" if run.by_hand else "the next run of its deployment"
