"""The flows: one request of any pipeline brought to its version, whatever was done before and dies on the way.

Ask the lake; attach to the request's live job or submit one; follow its log; ask again. Prefect says when and shows
how it went, Ray runs, and the lake alone knows what is done: no result is persisted, no cache key is trusted. A flow
run that is cancelled stops its job on its way out; one that was killed cannot, so the worker's crash hook does, and
every flow first ends the runs whose process died, and stops the jobs of runs that are over. A version that gates let
pass is announced by an event, which starts what is made from it; nothing polls.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run as current
from prefect.settings import PREFECT_LOGGING_MARKUP
from prefect.states import Completed, Failed
from pydantic import Field
from rich.markup import escape

from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import Patience, Unreachable, brief, is_outage
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.recipes import changed_on_the_way
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.announce import is_preview, pass_on, prefect_server
from gristmill.orchestration.funnel import publish
from gristmill.orchestration.jobs import FLOW_RUN, Job, Jobs, head_is_away, result_line, stale
from gristmill.orchestration.one_line import OneLine
from gristmill.orchestration.secrets import Secrets
from gristmill.orchestration.stack import health
from gristmill.orchestration.stack.folder import POOL
from gristmill.orchestration.stack.reaper import end_orphans
from gristmill.orchestration.stage_runs import shown_by_stages
from gristmill.orchestration.wanted import Asked, Wanted
from gristmill.pipelines.ask import all_committed
from gristmill.pipelines.command import open_lake
from gristmill.pipelines.frame.result import versions_of_line
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.gates.held import Gates, limits_of
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import CONFLICT, DEFECT, DONE, INCOMPLETE

SILENCE = 60
"""Seconds without output after which the flow's log says that the job still runs."""
PAUSE = 10
"""Seconds before an attempt that follows an incomplete one; doubled each time."""
Setting = Annotated[str, Field(json_schema_extra={"pattern": r"^(?!.*\[/)"})]
"""Prefect's commands take [/...] for markup and fail once they have started the run: its server refuses it before that.
(For the server alone: pydantic's own patterns know no lookahead, and to the flow such a text is as good as any.)"""


class JobFailed(RuntimeError):
    """The job came to an end that no other attempt would change, or the attempts are used up. `code`: its exit code."""

    def __init__(self, message: str, code: int = INCOMPLETE) -> None:
        super().__init__(message)
        self.code = code


RUN_HERE: set[str] = set()  # flow runs that this process has run
for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(OneLine())


def stop_job_of(flow: Any, flow_run: Any, state: Any) -> None:
    """For a flow run whose process could not do it itself, in a process of the worker's. One that Prefect asks this of
    in its own process has stopped what it could on its way out: nobody is to wait for the job server again."""
    if str(flow_run.id) in RUN_HERE:
        return
    jobs = Jobs()
    for job in jobs.all():
        if job.live and job.metadata.get(FLOW_RUN) == str(flow_run.id):
            print(f"flow run {flow_run.name} is {state.name}: stopping its Ray job {job.id}")
            jobs.patience.wait(partial(jobs.stop, job.id), head_is_away)


def dataset(
    config: str | dict[str, Any] = "conf/web.yaml",
    settings: list[Setting] | None = None,
    lake: str | None = None,
    attempts: int = 3,
    version: str | None = None,
    gates: dict[str, Any] | None = None,
    accept: list[str] | None = None,
) -> Any:
    """Brings a dataset or a model up to date with what it is made from, and returns the version, such as "web@v3".

    Args:
        config: a YAML file, from the clone's root, or what such a file holds.
        settings: laid over it, such as "recipe.inputs=['/data/crawl/*.warc.gz']"; patterns are expanded at each run,
            and ${mixture} stands for an exact version of the dataset `mixture`: `version`, else the latest.
        lake: where the dataset lives, absolute or s3://; else run.lake of the config, else $GRIST_LAKE of the worker.
        attempts: how many Ray jobs a run may take if work fails or jobs are killed.
        version: what ${...} of its dataset stands for, such as "mixture@v3"; the event of a new version gives it.
        gates: thresholds by which the version is held back from what is made from it, laid over the defaults.
        accept: versions that pass though a gate holds them, such as "web@v3".
    """
    log = get_run_logger()
    RUN_HERE.add(str(current.id))
    try:
        limits = limits_of(gates)
        asked = Asked.of(config, settings or (), lake)
        jobs = Jobs(Patience("Ray's job server", asked.patience_seconds, say=partial(log.warning, "%s")))
        reap(jobs, log)
        away = Patience("Prefect's server", asked.patience_seconds, say=partial(log.warning, "%s"))
        patience = Patience(f"store {asked.lake}", asked.patience_seconds, say=partial(log.warning, "%s"))
        store = patience.wait(lambda: open_lake(asked.lake))
        wanted = Wanted.of(asked.config(Versions(store), version))
        log.info("asked for %s (request %s) in %s", wanted.dataset, wanted.key[:12], asked.lake)
        manifests, how = bring(wanted, store, jobs, attempts, log, patience)
    except (BadConfig, JobFailed, Unreachable) as error:  # said in one line: a traceback would hide it
        return Failed(message=state_message(error))
    manifest = manifests[-1]
    if is_preview(wanted.config):
        publish(manifest, changed_on_the_way(Versions(store), manifest))
        return Completed(message=f"{manifest}: {how}", data=str(manifest))
    try:
        held = pass_all_on(manifests, Versions(store), limits, accept or (), away)
    except Unreachable as error:
        return Failed(message=f"{manifest}: {how}, but nothing was told of it: {error}")
    if held:
        why = "; ".join(reason for reasons in held.values() for reason in reasons)
        advice = f"look at it, and deploy with `accept: [{', '.join(held)}]`, or with other `gates`"
        return Completed(name=HELD, message=f"{manifest}: {how}; held back: {why}. {advice}")
    return Completed(message=f"{manifest}: {how}", data=str(manifest))


def pass_all_on(
    manifests: Sequence[Manifest], versions: Versions, limits: Gates, accepted: Sequence[str], away: Patience
) -> dict[str, list[str]]:
    """Shows what became of versions, and announces those that gates let pass. -> Why the others are held. Raises
    Unreachable."""
    held: dict[str, list[str]] = {}
    for manifest in manifests:
        publish(manifest, changed_on_the_way(versions, manifest))
        passing = partial(pass_on, prefect_server(), versions, manifest, versions.store.uri, limits, accepted)
        if reasons := away.wait(passing, _is_away):
            held[str(manifest)] = reasons
    return held


def state_message(why: object) -> str:
    """In one line, as Prefect shows it and its notices pass it on: without secrets."""
    return Secrets.of_environment().hidden("; ".join(str(why).splitlines()))


def _is_away(error: BaseException) -> bool:
    return isinstance(error, health.Unreachable) or is_outage(error)


HELD = "Held"
"""The state of a run whose version is there, but goes no further: not failed, and not to be overlooked."""


def _flow(name: str) -> Any:
    """The same flow by another name, which Prefect shows and counts apart (prefect.yaml)."""
    hooks: list[Any] = [stop_job_of]
    return flow(name=name, persist_result=False, on_crashed=hooks, on_cancellation=hooks)(dataset)


nightly, weekly, mixing, training = _flow("nightly"), _flow("weekly"), _flow("mixing"), _flow("training")


def reap(jobs: Jobs, log: Any) -> None:
    """Ends flow runs whose process died, and stops jobs of flow runs that are over: nobody is to attach to those."""
    reap_runs(log)
    for job in stale(jobs.all(), ended):
        log.warning("stopping %s: its flow run %s is over", job.id, job.metadata[FLOW_RUN])
        jobs.patience.wait(partial(jobs.stop, job.id), head_is_away)


def reap_runs(log: Any) -> None:
    """Ends flow runs whose process died."""
    try:
        for run in end_orphans(prefect_server(), POOL, str(current.id or "")):
            log.warning("flow run %s was %s, but its process is gone: it is %s now", run.name, run.was, run.now)
    except health.Unreachable as error:  # the next flow run looks again
        log.warning("flow runs without a process were not looked for: %s", error)


def ended(flow_run_id: str) -> bool | None:
    """Whether a flow run has reached its end; None if this server does not know it (it may be another's)."""
    if flow_run_id == str(current.id):
        return False
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
        except ObjectNotFound:
            return None
    return state is not None and state.is_final()


def bring(
    wanted: Wanted, store: Store, jobs: Jobs, attempts: int, log: Any, patience: Patience, by_stages: bool = True
) -> tuple[list[Manifest], str]:
    """(the versions of all links of its chain in order, how they came about). `by_stages`: stages of its jobs are shown
    as task runs. Raises JobFailed, Unreachable, or BadConfig where no job could help."""
    tried, pause, why, how = 0, PAUSE, "", "nothing new, no job was needed"
    while True:
        # The lake is asked before each attempt: whoever committed meanwhile, a job of another flow too, has done it.
        if (versions := patience.wait(lambda: all_committed(wanted.config, store))) is not None:
            return versions, how
        if tried >= attempts:
            raise JobFailed(f"{wanted.dataset}: {attempts} jobs did not finish it; the last one {why}")
        job, submitted_here, lines = run_job(wanted, jobs, log, by_stages)
        tried += submitted_here  # another flow run's attempts are its own
        how = f"committed by {'this' if submitted_here else 'another flow'} run ({job.id})"
        why = f"({job.id}) {job.status.lower()} with exit code {job.exit_code}"
        if job.status == "SUCCEEDED" and submitted_here:
            # By its own result line: the lake cannot tell for a run with a limit, nor where inputs changed since.
            versions = patience.wait(partial(_committed_versions, store, lines))
            if versions is not None:
                return versions, how
        elif job.status == "STOPPED" and submitted_here:
            raise JobFailed(f"{job.id} was stopped (`ray job stop`, or a cancellation); what is done is kept")
        elif submitted_here and job.exit_code is not None and job.exit_code >= DEFECT:
            if job.exit_code not in (CONFLICT, INCOMPLETE) and job.exit_code < 128:  # 128: killed, as a shell says it
                raise JobFailed(f"{job.id} failed with exit code {job.exit_code}: {_reason(lines)}", job.exit_code)
            if job.exit_code < 128 and tried < attempts:
                log.warning("%s; next attempt in %d s", why, pause)
                patience.pause(pause)
                pause *= 2
        if job.exit_code != DONE:
            log.warning("%s did not finish: %s", job.id, job.message.splitlines()[0] if job.message else why)


def run_job(wanted: Wanted, jobs: Jobs, log: Any, by_stages: bool = True) -> tuple[Job, bool, list[str]]:
    """(job as it ended, whether it was this flow run's, its last lines). Stops its own job if it is interrupted."""
    mine, submitted_here = "", False

    def announce(id: str) -> None:
        nonlocal mine
        mine = id

    try:
        id, submitted_here = jobs.submit(wanted, str(current.id or ""), announce)
        mine = id if submitted_here else ""
        log.info("%s Ray job %s", "submitted" if submitted_here else "another flow run's job does it: attached to", id)
        lines: deque[str] = deque(maxlen=20)
        secrets = Secrets.of_environment()
        started = heard = time.monotonic()
        items = jobs.follow(id)
        for item, log_here in shown_by_stages(items, log) if by_stages else ((item, log) for item in items):
            if isinstance(item, Job):
                return item, submitted_here, list(lines)
            now = time.monotonic()
            if item is not None:
                lines.append(secrets.hidden(item))
                log_here.info("%s", _unmarked(lines[-1]))
                heard = now
            elif now - heard > SILENCE:
                log_here.info("%s still runs, %d s now", id, now - started)
                heard = now
        raise AssertionError("a job that is followed ends")
    except BaseException as error:  # a cancelled flow run: Prefect raises it in here, and it is no Exception
        if mine:
            _stop_own(jobs, mine, error, log)
        raise


def _stop_own(jobs: Jobs, id: str, error: BaseException, log: Any) -> None:
    """Stops this flow run's job. Where the server is away nobody can: the next flow run stops what it finds."""
    try:
        job = jobs.get_now(id)
        if job is not None and job.metadata.get(FLOW_RUN) == str(current.id or ""):
            log.warning("stopping Ray job %s (%s)", id, type(error).__name__)
            jobs.stop(id)
    except (OSError, RuntimeError) as away:
        log.warning("Ray job %s could not be stopped, which the next flow run does: %s", id, brief(away))


def _reason(lines: list[str]) -> str:
    """What the job said last about why it ended: its error line, else its last lines."""
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[errors[-1] :] if errors else lines[-5:])


def _unmarked(line: str) -> str:
    """A line as Prefect's console shows it unchanged: with PREFECT_LOGGING_MARKUP it takes [...] for markup."""
    return escape(line) if PREFECT_LOGGING_MARKUP.value() else line


def _committed_versions(store: Store, lines: list[str]) -> list[Manifest] | None:
    """The versions that the job's last line names, if the lake says the same."""
    result = result_line(lines)
    if result is None:
        return None
    versions = [exact(Versions(store), ref, "the job's result") for ref in versions_of_line(result)]
    if versions[-1].digest != result["digest"]:
        raise JobFailed(f"the job made {result['digest'][:12]}, but {versions[-1]} is {versions[-1].digest[:12]}")
    return versions
