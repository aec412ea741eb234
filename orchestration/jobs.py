"""Ray jobs by what was asked: found, submitted, followed, stopped.

A request is the resolved config without its run settings, at one lake; its key stands in the job's metadata and, cut,
in the submission id `{dataset}-{key}-{attempt}`. Ray takes an id once, so of two flows that submit the same attempt
one gets "exists" and attaches to the other's job. Whether a run finished is never asked of Ray, which forgets its jobs
with its head: that is the lake's to say. Settings travel as an argument; no secret does, Ray shows both in clear.
"""

from __future__ import annotations

import json
import logging
import platform
import queue
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.identity import digest_of
from lake.receipt import canonical
from orchestration import processes
from orchestration.health import LIVE
from pipelines.assembly import code_in_use
from pipelines.config import BadConfig, Root

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ROOT = Path(__file__).parents[1]
REQUEST, FLOW_RUN, OWNER = "gristmill_request", "prefect_flow_run_id", "gristmill_owner"
"""Keys of a job's metadata: the request's key, the flow run that submitted it, and that flow run's process."""
LONGEST_ARGUMENT = 100_000  # bytes; Linux takes 128 KiB
AGENT_SECONDS = 60
"""A head answers some seconds before the agent of its node, without which it refuses jobs."""
LOST_SECONDS = 60
"""How long a job server may be silent before its job counts as lost."""


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
        return self.status in LIVE


@dataclass(frozen=True)
class Wanted:
    """What is asked: the resolved config, as a YAML file would hold it, and its key."""

    config: Root
    dataset: str
    key: str

    @classmethod
    def of(cls, config: Root) -> Wanted:
        return cls(config, config.recipe.target, request_key(config))  # type: ignore[attr-defined]

    def id(self, attempt: int) -> str:
        return f"{self.dataset}-{self.key[:12]}-{attempt}"

    def attempt(self, id: str) -> int:
        """The attempt that this id names; 0 if it is none of this request."""
        match = re.fullmatch(re.escape(f"{self.dataset}-{self.key[:12]}-") + r"(\d+)", id)
        return int(match[1]) if match else 0

    @property
    def entrypoint(self) -> str:
        """The command of the job. Raises BadConfig where it is too long for an argument."""
        data = json.dumps(self.config.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        if len(data.encode()) > LONGEST_ARGUMENT:
            raise BadConfig(
                f"the config has {len(data.encode()):,} bytes, a job's argument at most {LONGEST_ARGUMENT:,}:"
                " give recipe.inputs as patterns (crawl/*.warc.gz) instead of single files"
            )
        return f"python -m pipelines run --config-json {shlex.quote(data)}"


def request_key(config: Root) -> str:
    """Identity of what is asked: the recipe with its addresses and patterns, at one lake. No run setting changes it."""
    data = config.model_dump(mode="json")
    return digest_of(b"request", data["pipeline"], canonical(data["recipe"]), data["run"]["lake"])


def owner_of_this_process() -> str:
    one = processes.myself()
    return json.dumps([platform.node(), *one])


def owner_is_dead(job: Job) -> bool:
    """Whether the flow's process is known to be gone; of another host nothing is known."""
    try:
        host, pid, started, boot = json.loads(job.metadata[OWNER])
    except (KeyError, ValueError):
        return False
    here = host == platform.node()
    return here and not processes.alive(processes.Identity(pid, started, boot))


def stale(jobs: Iterable[Job], ended: Callable[[str], bool | None]) -> list[Job]:
    """Live jobs of flow runs that are over. `ended(flow run id)`: None where the server does not know the run.

    A job that no flow submitted is nobody's to reap. A flow run whose process was killed together with its worker
    stays "running" for Prefect, so the process itself is looked for as well.
    """
    ours = [job for job in jobs if job.live and FLOW_RUN in job.metadata and REQUEST in job.metadata]
    return [job for job in ours if owner_is_dead(job) or ended(job.metadata[FLOW_RUN])]


class Jobs:
    """The job server at $RAY_API_SERVER_ADDRESS, else at $RAY_ADDRESS."""

    def __init__(self) -> None:
        from ray.job_submission import JobSubmissionClient

        self.client: JobSubmissionClient = JobSubmissionClient()
        # A line for every file they do not upload, and these loggers have levels of their own
        for name in ("job.sdk", "dashboard_sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env").setLevel(logging.ERROR)

    def all(self) -> list[Job]:
        return [_job(details) for details in self.client.list_jobs() if details.submission_id]

    def get(self, id: str) -> Job | None:
        """The job; None where the server does not know it, as after a restart of the head."""
        try:
            return _job(self.client.get_job_info(id))
        except RuntimeError as error:
            if "does not exist" in str(error) or "404" in str(error):
                return None
            raise

    def submit(self, wanted: Wanted, flow_run: str, announce: Callable[[str], None]) -> tuple[str, bool]:
        """(id, whether it is ours): a live job of this request, or a new one.

        `announce` hears a new id before Ray does, so that whoever is interrupted in between knows what to stop.
        """
        tried, deadline = 0, time.monotonic() + AGENT_SECONDS
        while True:
            jobs = self.all()
            for job in jobs:
                if job.live and job.metadata.get(REQUEST) == wanted.key:
                    return job.id, bool(flow_run) and job.metadata.get(FLOW_RUN) == flow_run
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
                tried -= 1
                time.sleep(1)

    def _submit(self, wanted: Wanted, id: str, flow_run: str) -> None:
        metadata = {REQUEST: wanted.key, "dataset": wanted.dataset}
        if flow_run:
            metadata |= {FLOW_RUN: flow_run, OWNER: owner_of_this_process()}
        variables = {"GRIST_COMMIT": commit} if (commit := commit_of_this_code()) else {}
        self.client.submit_job(
            entrypoint=wanted.entrypoint,
            submission_id=id,
            metadata=metadata,
            runtime_env={"working_dir": str(ROOT), "env_vars": variables},
        )

    def stop(self, id: str, seconds: float = 20) -> None:
        """SIGTERM, and SIGKILL 3 s later; returns when it has ended, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while (job := self.get(id)) is not None and job.live and time.monotonic() < deadline:
            self.client.stop_job(id)
            time.sleep(0.5)

    def follow(self, id: str) -> Iterator[str | Job | None]:
        """The job's output line by line, None every second or so without one, and at last the job as it ended.

        A job that the server no longer knows ends as status LOST.
        """
        lines: queue.Queue[str] = queue.Queue()
        over = threading.Event()
        reader = threading.Thread(target=self._read, args=(id, lines, over), daemon=True)
        reader.start()
        seen = time.monotonic()
        job: Job | None = None
        try:
            while True:
                try:
                    yield lines.get(timeout=1)
                    continue  # while it talks there is no need to ask
                except queue.Empty:
                    yield None
                try:
                    job, seen = self.get(id), time.monotonic()
                except (RuntimeError, OSError):  # requests' errors are OSErrors
                    if time.monotonic() - seen < LOST_SECONDS:
                        continue
                    job = None
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
            skip = read
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
                    job = self.get(id)
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
    found = None
    for line in lines:
        if line.startswith('{"dataset":'):
            try:
                found = json.loads(line)
            except ValueError:
                continue
    return found


def commit_of_this_code() -> str:
    """For GRIST_COMMIT: the job's copy of the code has no .git. "-dirty" where files differ from the commit."""
    code = code_in_use()
    return f"{code['commit']}-dirty" if code["dirty"] else code["commit"] or ""
