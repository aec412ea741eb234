"""Flow runs that stay "Running" after their process died together with its worker: found, and ended for the server.

A worker notices the end of a process that it started; nobody notices if both are killed. Every process of a flow run
has the run's id in its environment, so that it is dead where no process of this machine has it. Of other machines
nothing is known: where the pool has workers elsewhere, nothing is touched (docs/cluster.md says what to do there).
A kickoff that a shell started has no worker, and its flow run a label that says which process it is.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.orchestration.stack import health, processes
from gristmill.orchestration.stack.health import Server, Unreachable
from gristmill.orchestration.stack.owner import OWNER, is_dead

MARK = "PREFECT__FLOW_RUN_ID"
_ENDS = {"RUNNING": ("CRASHED", "Crashed"), "CANCELLING": ("CANCELLED", "Cancelled")}
"""State type in which a run is left -> type and name of the state that it should have come to."""
_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PENDING_SECONDS = 300
"""A process needs seconds to begin, and minutes on a machine that is busy with other things."""
KICKOFF = "kickoff"
"""The flow that a shell runs, too."""


@dataclass(frozen=True)
class Orphan:
    """`was`: the name of its state; `now`: the name of the one that it is due. `by_hand`: a shell started it."""

    id: str
    name: str
    deployment: str | None
    was: str
    now: str
    by_hand: bool = False

    @property
    def message(self) -> str:
        """Of the state that it is due."""
        if self.by_hand:
            return "its process died; what it did is kept, and the same command goes on"
        return "its process died together with its worker; what it did is kept, and the next run goes on"


def orphans(prefect: Server, pool: str, own: str = "") -> list[Orphan]:
    """Flow runs of this pool, and kickoffs that a shell started, without a process. `own`: the id of the run that asks.

    Raises Unreachable.
    """
    return [*_of_pool(prefect, pool, own), *_by_hand(prefect, own)]


def _of_pool(prefect: Server, pool: str, own: str) -> list[Orphan]:
    here = f"-{platform.node()}"
    try:
        workers = health.workers(prefect, pool)
    except Unreachable as error:
        if "HTTP 404" in str(error):  # no such pool, as where only shells run flows
            return []
        raise
    if any(not worker["name"].endswith(here) for worker in workers):
        return []
    query = {"work_pools": {"name": {"any_": [pool]}}}
    return _without(prefect, query, lambda run: run["id"] == own or bool(processes.marked(MARK, run["id"])))


def _by_hand(prefect: Server, own: str) -> list[Orphan]:
    query = {"flows": {"name": {"any_": [KICKOFF]}}}
    left = _without(prefect, query, lambda run: run["id"] == own or not is_dead((run.get("labels") or {}).get(OWNER)))
    return [replace(run, by_hand=True) for run in left]


def _without(prefect: Server, query: dict[str, Any], has_process: Callable[[dict[str, Any]], bool]) -> list[Orphan]:
    """Flow runs that have not ended, and have no process."""
    left = [run for run in _in_states(prefect, query, list(_ENDS)) if not has_process(run)]
    # Asked once more, in this order: one that ended by itself meanwhile has another state by now.
    still = {run["id"]: run for run in _in_states(prefect, query, list(_ENDS))} if left else {}
    return [_orphan(still[run["id"]]) for run in left if run["id"] in still]


def end_orphans(prefect: Server, pool: str, own: str = "") -> list[Orphan]:
    """Gives each of them the state that it is due, which frees what it held (its place among concurrent runs) and tells
    whoever waits for its end. Raises Unreachable."""
    ended = orphans(prefect, pool, own)
    for run in ended:
        type = next(type for type, name in _ENDS.values() if name == run.now)
        state = {"type": type, "name": run.now, "message": run.message}
        prefect.ask(f"/flow_runs/{run.id}/set_state", {"state": state, "force": True})
    return ended


def _in_states(prefect: Server, query: dict[str, Any], types: list[str]) -> list[dict[str, Any]]:
    states = {"flow_runs": {"state": {"type": {"any_": types}}}}
    return list(prefect.ask("/flow_runs/filter", {**states, **query}))


def _orphan(run: dict[str, Any]) -> Orphan:
    return Orphan(run["id"], run["name"], run.get("deployment_id"), run["state"]["name"], _ENDS[run["state_type"]][1])


def stuck(prefect: Server, pool: str) -> list[tuple[str, float]]:
    """(name, seconds) of flow runs that somebody took and did not start. Raises Unreachable."""
    pending = _in_states(prefect, {"work_pools": {"name": {"any_": [pool]}}}, ["PENDING"])
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
