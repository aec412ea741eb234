"""Flow runs that stay "Running" after their process died together with its worker: found, and ended for the server.

A worker notices the end of a process that it started; nobody notices if both are killed. Every process of a flow run
has the run's id in its environment, so that it is dead where no process of this machine has it. Of other machines
nothing is known: where the pool has workers elsewhere, nothing is touched (docs/cluster.md says what to do there).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.orchestration.stack import health, processes
from gristmill.orchestration.stack.health import Server, Unreachable

MARK = "PREFECT__FLOW_RUN_ID"
_ENDS = {"RUNNING": ("CRASHED", "Crashed"), "CANCELLING": ("CANCELLED", "Cancelled")}
"""State type in which a run is left -> type and name of the state that it should have come to."""
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PENDING_SECONDS = 300
"""A process needs seconds to begin, and minutes on a machine that is busy with other things."""
MESSAGE = "its process died together with its worker; what it did is kept, and the next run goes on"


@dataclass(frozen=True)
class Orphan:
    """`was`: the name of its state; `now`: the name of the one that it is due."""

    id: str
    name: str
    deployment: str | None
    was: str
    now: str


def orphans(prefect: Server, pool: str, own: str = "") -> list[Orphan]:
    """Flow runs of this pool without a process. `own`: the id of the run that asks. Raises Unreachable."""
    here = f"-{platform.node()}"
    if any(not worker["name"].endswith(here) for worker in health.workers(prefect, pool)):
        return []
    left = [run for run in _unended(prefect, pool) if run["id"] != own and not processes.marked(MARK, run["id"])]
    # Asked once more, in this order: one that ended by itself meanwhile has another state by now.
    still = {run["id"]: run for run in _unended(prefect, pool)} if left else {}
    return [_orphan(still[run["id"]]) for run in left if run["id"] in still]


def end_orphans(prefect: Server, pool: str, own: str = "") -> list[Orphan]:
    """Gives each of them the state that it is due, which frees what it held (its place among concurrent runs) and tells
    whoever waits for its end. Raises Unreachable."""
    ended = orphans(prefect, pool, own)
    for run in ended:
        type = next(type for type, name in _ENDS.values() if name == run.now)
        state = {"type": type, "name": run.now, "message": MESSAGE}
        prefect.ask(f"/flow_runs/{run.id}/set_state", {"state": state, "force": True})
    return ended


def _unended(prefect: Server, pool: str) -> list[dict[str, Any]]:
    return _in_states(prefect, pool, list(_ENDS))


def _in_states(prefect: Server, pool: str, types: list[str]) -> list[dict[str, Any]]:
    query = {"flow_runs": {"state": {"type": {"any_": types}}}, "work_pools": {"name": {"any_": [pool]}}}
    return list(prefect.ask("/flow_runs/filter", query))


def _orphan(run: dict[str, Any]) -> Orphan:
    return Orphan(run["id"], run["name"], run.get("deployment_id"), run["state"]["name"], _ENDS[run["state_type"]][1])


def stuck(prefect: Server, pool: str) -> list[tuple[str, float]]:
    """(name, seconds) of flow runs that somebody took and did not start. Raises Unreachable."""
    pending = _in_states(prefect, pool, ["PENDING"])
    ages = [(str(run["name"]), health.age(run["state"]["timestamp"])) for run in pending]
    return [(name, seconds) for name, seconds in ages if seconds > PENDING_SECONDS]


def jobs_of_ended_runs(ray: Server, prefect: Server, left: Sequence[Orphan]) -> list[tuple[str, str]]:
    """(id, name of its flow run) of live Ray jobs whose flow run has ended, or is among `left`. Raises Unreachable."""
    jobs = []
    dead = {run.id: run.name for run in left}
    for job in health.live_jobs(ray):
        id = job["metadata"].get("prefect_flow_run_id")
        if id is None:
            continue
        if id in dead:
            jobs.append((str(job["submission_id"]), dead[id]))
            continue
        try:
            run = prefect.ask(f"/flow_runs/{id}")
        except Unreachable as error:
            if "HTTP 404" in str(error):  # another server's
                continue
            raise
        if run["state_type"] in _FINAL:
            jobs.append((str(job["submission_id"]), str(run["name"])))
    return jobs
