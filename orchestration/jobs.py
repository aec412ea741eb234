"""Ray jobs by what was asked (orchestration/wanted.py): found, submitted, followed, stopped.

Ray takes an id once, so of two flows that submit the same attempt one gets "exists" and attaches to the other's job.
Whether a run finished is never asked of Ray, which forgets its jobs with its head: that is the lake's to say. A head
that is away, as while `grist up` starts another, is waited for.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gristmill import place
from gristmill.lake.store.outage import Patience, Unreachable, brief
from gristmill.orchestration.stack.health import LIVE
from gristmill.orchestration.stack.owner import OWNER, is_dead, this_process
from gristmill.orchestration.wanted import Wanted
from gristmill.pipelines.frame.assembly import code_in_use

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ROOT = place.ROOT
IS_CHECKOUT = (ROOT / "pyproject.toml").exists()
"""Then a job gets a copy of it; the code of an installed package is where the job's python is."""
REQUEST, FLOW_RUN = "gristmill_request", "prefect_flow_run_id"
"""Keys of a job's metadata: the request's key, and the flow run that submitted it; OWNER is that flow run's process."""
AGENT_SECONDS = 300
"""A head answers some seconds before the agent of its node, without which it refuses jobs."""
TICK = 1
"""Seconds between two questions after a job that says nothing."""
PATIENCE_SECONDS = 600
"""How long a job server may be silent, where run.patience_seconds does not say."""


@dataclass(frozen=True)
class Job:
    """A submitted job as Ray lists it. `exit_code`: of the driver; None while it runs, and if Ray stopped it."""

    id: str
    status: str
    exit_code: int | None = None
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE


def stale(jobs: Iterable[Job], ended: Callable[[str], bool | None]) -> list[Job]:
    """Live jobs of flow runs that are over. `ended(flow run id)`: None where the server does not know the run.

    A job that no flow submitted is nobody's to reap. A flow run whose process was killed together with its worker
    stays "running" for Prefect, so the process itself is looked for as well.
    """
    of_flows = [job for job in jobs if job.live and FLOW_RUN in job.metadata and REQUEST in job.metadata]
    return [job for job in of_flows if is_dead(job.metadata.get(OWNER)) or ended(job.metadata[FLOW_RUN])]


def head_is_away(error: BaseException) -> bool:
    """Whether the head may be restarting: no connection (requests' errors are OSErrors), or a server's own 5xx."""
    if isinstance(error, Unreachable):
        return False
    return isinstance(error, OSError) or (isinstance(error, RuntimeError) and bool(_SERVER_ERROR.search(str(error))))


_SERVER_ERROR = re.compile(r"status code 5\d\d")


class Jobs:
    """The job server at $RAY_API_SERVER_ADDRESS, else at $RAY_ADDRESS. While it is away, every call waits but `stop`.

    Every call raises lake.store.outage.Unreachable if it stays away for as long as `patience` says.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        from ray.job_submission import JobSubmissionClient

        self.patience = patience or Patience("Ray's job server", PATIENCE_SECONDS)
        self.client: JobSubmissionClient = self.patience.wait(JobSubmissionClient, head_is_away)
        # A line for every file they do not upload, and these loggers have levels of their own
        for name in ("job.sdk", "dashboard_sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env").setLevel(logging.ERROR)

    def all(self) -> list[Job]:
        """The submitted jobs that the head remembers, ended ones too."""
        return self.patience.wait(self.all_now, head_is_away)

    def all_now(self) -> list[Job]:
        """`all` without waiting: raises OSError or RuntimeError while the server is away."""
        return [_job(details) for details in self.client.list_jobs() if details.submission_id]

    def get(self, id: str) -> Job | None:
        """The job; None where the server does not know it, as after a restart of the head."""
        return self.patience.wait(lambda: self.get_now(id), head_is_away)

    def get_now(self, id: str) -> Job | None:
        """`get` without waiting: raises OSError or RuntimeError while the server is away."""
        try:
            return _job(self.client.get_job_info(id))
        except RuntimeError as error:
            if "does not exist" in str(error) or "404" in str(error):
                return None
            raise

    def submit(self, wanted: Wanted, flow_run: str, announce: Callable[[str], None]) -> tuple[str, bool]:
        """(id, whether this flow run submitted it): a live job of this request, or a new one.

        `announce` hears a new id before Ray does, so that whoever is interrupted in between knows what to stop.
        """
        tried, deadline = 0, time.monotonic() + AGENT_SECONDS
        while True:
            jobs = self.all()
            # A live job of this request does the work already, whoever submitted it: attach to it.
            for job in jobs:
                if job.live and job.metadata.get(REQUEST) == wanted.key:
                    return job.id, bool(flow_run) and job.metadata.get(FLOW_RUN) == flow_run
            # Ray takes an id once, so the next attempt is counted from all that Ray knows, not from this process alone.
            tried = max([tried, *(wanted.attempt(job.id) for job in jobs)]) + 1
            id = wanted.id(tried)
            announce(id)
            try:
                self._submit(wanted, id, flow_run)
                return id, True
            except RuntimeError as error:
                announce("")
                if "already exists" in str(error):  # another flow was first, or a deleted job had the id
                    continue
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                tried -= 1  # refused before it counted: the same id once more
                time.sleep(1)

    def _submit(self, wanted: Wanted, id: str, flow_run: str) -> None:
        metadata = {REQUEST: wanted.key, "dataset": wanted.dataset, "job_name": wanted.dataset}  # Ray's page shows it
        if flow_run:
            metadata |= {FLOW_RUN: flow_run, OWNER: this_process()}
        variables = {"GRIST_COMMIT": commit} if (commit := commit_of_this_code()) else {}
        environment: dict[str, Any] = {"env_vars": variables}
        if IS_CHECKOUT:
            environment["working_dir"] = str(ROOT)
        submit = partial(
            self.client.submit_job,
            entrypoint=wanted.entrypoint,
            submission_id=id,
            metadata=metadata,
            runtime_env=environment,
        )
        self.patience.wait(submit, head_is_away)  # one that got through unheard is "already exists", and found live

    def stop(self, id: str, seconds: float = 20) -> None:
        """SIGTERM, and SIGKILL 3 s later; returns when it has ended, or after `seconds`. Of all calls this one does not
        wait for a server that is away, because whoever stops is on his way out: raises OSError or RuntimeError."""
        deadline = time.monotonic() + seconds
        while (job := self.get_now(id)) is not None and job.live and time.monotonic() < deadline:
            self.client.stop_job(id)
            time.sleep(0.5)

    def follow(self, id: str) -> Iterator[str | Job | None]:
        """The job's output line by line, None every second or so without one, and at last the job as it ended.

        A job that the server no longer knows ends as status LOST. A server that is away is waited for.
        """
        lines: queue.Queue[str] = queue.Queue()
        over = threading.Event()
        reader = threading.Thread(target=self._read, args=(id, lines, over), daemon=True)
        reader.start()
        # The log is read by a thread of its own, so that a tail that hangs keeps nobody from asking for the status.
        clock = self.patience.clock
        seen, away = clock(), False  # when the server last answered; whether that it is away was said
        job: Job | None = None
        try:
            while True:
                try:
                    yield lines.get(timeout=TICK)
                    continue  # while it talks there is no need to ask
                except queue.Empty:
                    yield None
                try:
                    job, seen, away = self.get_now(id), clock(), False
                except (RuntimeError, OSError) as error:
                    if not head_is_away(error):
                        raise
                    if clock() - seen < self.patience.seconds and not self.patience.ended.is_set():
                        if not away:
                            self.patience.say(f"{self.patience.what} unreachable, trying again: {brief(error)}")
                        away = True
                        continue
                    raise self.patience.unreachable(clock() - seen, error) from error
                if job is None or not job.live:
                    break
            reader.join(10)  # the rest of its output, which comes a little later
            while not lines.empty():
                yield lines.get()
            yield job or Job(id, "LOST", message="the job server no longer knows this job")
        finally:
            over.set()

    def _read(self, id: str, lines: queue.Queue[str], over: threading.Event) -> None:
        """Puts whole lines; after a broken connection it goes on where it was, because a tail begins at the start."""
        import asyncio

        read, rest = 0, ""

        async def tail() -> None:
            nonlocal read, rest
            skip = read  # characters: every tail begins at the start of the log
            async for text in self.client.tail_job_logs(id):
                if skip >= len(text):
                    skip -= len(text)
                    continue
                text, skip = text[skip:], 0
                read += len(text)
                *whole, rest = (rest + text).split("\n")
                for line in whole:
                    lines.put(line)
                if over.is_set():
                    return

        while not over.is_set():
            try:
                asyncio.run(tail())
                break
            except Exception:  # whatever broke the connection: the job goes on, and its status is asked elsewhere
                over.wait(2)
                try:
                    job = self.get_now(id)
                except (RuntimeError, OSError):
                    continue
                if job is None:
                    break
        if rest:
            lines.put(rest)


def _job(details: Any) -> Job:
    return Job(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        exit_code=details.driver_exit_code,
        message=details.message or "",
        metadata=dict(details.metadata or {}),
    )


def result_line(lines: Iterable[str]) -> dict[str, Any] | None:
    """The last line that is a pipeline's result. A job's output mixes stdout with stderr."""
    result = None
    for line in lines:
        if line.startswith('{"dataset":'):
            try:
                result = json.loads(line)
            except ValueError:
                continue
    return result


def commit_of_this_code() -> str:
    """For GRIST_COMMIT: the job's copy of the code has no .git. "-dirty" where files differ from the commit."""
    code = code_in_use()
    return f"{code['commit']}-dirty" if code["dirty"] else code["commit"] or ""
