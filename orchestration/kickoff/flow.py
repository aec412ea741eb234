"""A kickoff under Prefect: a flow run whose tasks are the nodes, each with what became of it as an artifact.

The graph, its order and how a node is brought are those of a kickoff without a server; what differs is that a node's
work starts as a task, and runs as a Ray job where there is a job server ($RAY_API_SERVER_ADDRESS), which is found again
if another flow run submitted it. Nothing is kept in Prefect: a flow run that follows one that was killed asks the lake.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run as current
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from gristmill.lake.store.outage import Patience, Unreachable, brief
from gristmill.orchestration.announce import JOB_SERVER, SERVER, prefect_server
from gristmill.orchestration.flows import (
    RUN_HERE,
    JobFailed,
    Setting,
    bring,
    reap,
    reap_runs,
    state_message,
    stop_job_of,
)
from gristmill.orchestration.jobs import FLOW_RUN, Jobs
from gristmill.orchestration.kickoff.by_hand import ByHand
from gristmill.orchestration.kickoff.local import Processes
from gristmill.orchestration.kickoff.made import announce, publish
from gristmill.orchestration.secrets import Secrets
from gristmill.orchestration.wanted import Wanted
from gristmill.pipelines.command import Ended
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.kickoff.bring import CarryOut, End
from gristmill.pipelines.kickoff.graph import Node
from gristmill.pipelines.kickoff.prepare import Asked, Prepared, prepare
from gristmill.pipelines.kickoff.room import Room
from gristmill.pipelines.kickoff.run import code_of, run_graph
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import DONE
from gristmill.pipelines.settings.logs import VERBOSE

RUNNER: Any = ThreadPoolTaskRunner(max_workers=64)
"""How many nodes run at a time says run.nodes."""


def stop_jobs_of(flow: Any, flow_run: Any, state: Any) -> None:
    """`stop_job_of`, where there are jobs: it waits for their server."""
    if by_jobs():
        stop_job_of(flow, flow_run, state)


@flow(
    name="kickoff",
    persist_result=False,
    task_runner=RUNNER,
    on_crashed=[stop_jobs_of],
    on_cancellation=[stop_jobs_of],
)
def kickoff(
    config: str = "everything",
    settings: list[Setting] | None = None,
    lake: str | None = None,
    only: list[str] | None = None,
    since: list[str] | None = None,
    attempts: int = 3,
) -> Any:
    """Brings the nodes of a graph to their versions, and returns the exit code of each that has one.

    Args:
        config: a YAML file of nodes, from the clone's root, or the name of one that comes along.
        settings: laid over it, such as "paths.data=/data".
        lake: where all is kept, absolute or s3://; else run.lake of the file, else $GRIST_LAKE of the worker.
        only: these nodes alone.
        since: these nodes, and all that come after them.
        attempts: how many Ray jobs a node may take if work fails or jobs are killed.
    """
    log = get_run_logger()
    RUN_HERE.add(str(current.id))
    by_hand = ByHand(prefect_server(), str(current.id))
    try:
        asked = Asked(Path(config), tuple(settings or ()), lake, tuple(only or ()), tuple(since or ()))
        no_secrets(asked)
        with by_hand:
            ends = bring_as_tasks(asked, attempts, log)
    except (BadConfig, Unreachable) as error:  # said in one line: a traceback would hide it
        OUTCOMES.append(error)
        return Failed(message=state_message(error))
    except KeyboardInterrupt:
        if not by_hand.cancelled:
            raise
        OUTCOMES.append(InterruptedError("cancelled in Prefect"))
        return Cancelled(message="what is done is kept: the same command goes on")
    OUTCOMES.append(ends)
    message = "; ".join(in_words(end) for end in ends if not end.passes) or f"all {len(ends)} nodes are done"
    return Completed(message=message) if code_of(ends) == DONE else Failed(message=message)


OUTCOMES: list[list[End] | BadConfig | OSError] = []
"""The ends of the nodes of the flow run that was over last, or why there are none, for the process that ran it."""


def run_flow(asked: Asked) -> tuple[Prepared, list[End]]:
    """Runs the flow in this process, seen by the server. Raises BadConfig where it was refused, OSError where it was
    cancelled or a server stayed away (Unreachable), and defects."""
    no_secrets(asked)
    prepared = prepare(asked, in_job=by_jobs())  # so that what is refused is refused before there is a flow run
    arguments = (list(asked.settings), asked.lake, list(asked.only), list(asked.since))
    OUTCOMES.clear()
    quiet_nodes()
    try:
        state: Any = kickoff(str(asked.config), *arguments, return_state=True)
    except httpx.HTTPError as error:
        where = f"Prefect's server at {os.environ[SERVER]} does not answer ({brief(error)})"
        if not OUTCOMES:
            raise Unreachable(f"{where}: start it (`grist up`), or unset {SERVER} to run without it") from error
        logging.getLogger("gristmill").warning("%s, and shows this kickoff as Running until the next one", where)
    else:
        if not OUTCOMES:
            state.result()  # raises what nobody foresaw
    outcome = OUTCOMES.pop()
    if isinstance(outcome, Exception):
        raise outcome
    return prepared, outcome


def quiet_nodes() -> None:
    """Keeps what nodes say out of this process's log, where lines of several would mix, unless it is to say more: it
    is the log of their tasks in Prefect. How each ends, the flow says as well."""

    def of_nodes(record: logging.LogRecord) -> bool:
        return record.levelno == logging.WARNING or not record.name.startswith("prefect.task_runs")

    if logging.getLogger("gristmill").getEffectiveLevel() > VERBOSE:
        for handler in logging.getLogger().handlers:
            handler.addFilter(of_nodes)


def no_secrets(asked: Asked) -> None:
    """Raises BadConfig where a parameter holds a secret, which Prefect would show."""
    secrets = Secrets.of_environment()
    secrets.check_settings(asked.settings)
    secrets.check(asked.lake or "", "lake")


def by_jobs() -> bool:
    """Whether nodes run as Ray jobs."""
    return bool(os.environ.get(JOB_SERVER))


def bring_as_tasks(asked: Asked, attempts: int, log: Any) -> list[End]:
    """The end of each node. Its jobs are stopped where this is interrupted."""
    prepared = prepare(asked, in_job=by_jobs())
    if not by_jobs():
        reap_runs(log)
        processes = Processes(lambda node, line: get_run_logger().info("%s", line))  # of the task, in its thread
        try:
            return _brought(prepared, processes, prepared.room, log, [])
        finally:
            prepared.patience.end()  # of tasks, which wait in threads that Prefect waits for
            processes.stop()
    jobs = Jobs(Patience("Ray's job server", prepared.config.run.patience_seconds, say=log.warning))
    reap(jobs, log)
    tasks: list[PrefectFuture[Any]] = []
    try:
        # The cluster places what each job needs; here only the number of jobs is bounded.
        room = Room(max(1, prepared.config.run.nodes))
        return _brought(prepared, of_jobs(prepared, jobs, attempts), room, log, tasks)
    except BaseException as error:  # a cancelled flow run: Prefect raises it in here, and it is no Exception
        for patience in (jobs.patience, prepared.patience):
            patience.end()
        stop_own_jobs(jobs, tasks, log, type(error).__name__)
        raise


def stop_own_jobs(jobs: Jobs, tasks: Sequence[PrefectFuture[Any]], log: Any, why: str) -> None:
    """Stops the jobs of this flow run until no task is left that may submit another one; where the job server is away,
    the next flow run does."""
    while True:
        try:
            for job in jobs.all_now():
                if job.live and job.metadata.get(FLOW_RUN) == str(current.id):
                    log.warning("stopping Ray job %s (%s)", job.id, why)
                    jobs.stop(job.id)
        except (OSError, RuntimeError) as error:
            log.warning("Ray jobs could not be stopped, which the next flow run does: %s", brief(error))
            return
        if not wait(list(tasks), timeout=0.5).not_done:
            return


def _brought(
    prepared: Prepared, carry_out: CarryOut, room: Room, log: Any, tasks: list[PrefectFuture[Any]]
) -> list[End]:
    """The end of each node. `tasks`: gets the task of each that starts."""
    bring_node = prepared.bringing(carry_out)

    def start(node: Node, work: Callable[[], End]) -> None:
        @task(name=node.name, task_run_name=node.name, cache_policy=NO_CACHE, persist_result=False)
        def brought() -> State[Any]:
            end = work()
            for manifest in end.versions:
                if end.passes:
                    announce(prepared.store, manifest, log)
                publish(prepared.store, manifest, log)
            return state_of(end)

        tasks.append(brought.submit())

    ends = run_graph(prepared.graph, prepared.chosen, prepared.done, bring_node, start, room, Logged(log))
    if any(end.state == "stopped" for end in ends):
        raise KeyboardInterrupt  # which stops what carries nodes out; to wait for it would be to wait for its work
    wait(tasks)  # for what they publish
    return ends


class Logged:
    """Says starts and ends in the flow's log."""

    def __init__(self, log: Any) -> None:
        self.log = log

    def started(self, node: str) -> None:
        """A node starts."""
        self.log.info("%s: starts", node)

    def ended(self, end: End) -> None:
        """A node ended, or will not start."""
        self.log.log(20 if end.passes else 40, "%s", in_words(end))


def of_jobs(prepared: Prepared, jobs: Jobs, attempts: int) -> CarryOut:
    """Runs nodes as Ray jobs, whose lines are the log of the node's task."""

    def carry_out(node: Node, config: PipelineConfig) -> Ended:
        wanted, log = Wanted.of(config), get_run_logger()
        try:
            versions, _ = bring(wanted, prepared.store, jobs, attempts, log, prepared.patience, by_stages=False)
        except JobFailed as error:
            return Ended(error.code, str(error))
        return Ended(DONE, versions=tuple(map(str, versions)), new=True)

    return carry_out


def in_words(end: End) -> str:
    """One line on a node."""
    about = ", ".join(map(str, end.versions))
    why = f"held by {end.why}" if end.state == "held" else state_message(end.why)
    words = {"there": "done before", "made": "done now", "gated": "held back by a gate", "held": ""}
    return ": ".join(part for part in (end.node, words.get(end.state, end.state), about, why) if part)


def state_of(end: End) -> State[Any]:
    """A node's end as the state of its task."""
    return Completed(message=in_words(end)) if end.passes else Failed(message=in_words(end))
