"""A job server of Ray without Ray, and time that passes only while somebody sleeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.lake.store.outage import Patience
from gristmill.orchestration.jobs import Job, Jobs
from gristmill.orchestration.wanted import Wanted
from gristmill.pipelines.command import Request, resolve

CONF = Path(__file__).parents[1] / "conf" / "web.yaml"


def wanted(*settings: str, lake: str = "/lake") -> Wanted:
    """What conf/web.yaml asks for with these settings."""
    return Wanted.of(resolve(Request(CONF, ("recipe.inputs=[/crawl/*]", *settings), lake), in_job=True))


class FakeRay:
    """A job server: what is listed, and what it answers to a submission."""

    def __init__(self, listed: list[Job], refusals: list[str] | None = None) -> None:
        self.listed, self.refusals, self.submitted = listed, refusals or [], []  # type: ignore[var-annotated]

    def list_jobs(self) -> list[Any]:
        """As Ray's client."""

        class Details:
            def __init__(self, job: Job) -> None:
                self.submission_id, self.status, self.metadata = job.id, job.status, job.metadata
                self.driver_exit_code, self.message = job.exit_code, job.message

        return [Details(job) for job in self.listed]

    def submit_job(self, submission_id: str, **rest: Any) -> None:
        """As Ray's client; refuses as often as it was told to."""
        self.submitted.append(submission_id)
        if self.refusals:
            raise RuntimeError(self.refusals.pop(0))


def server(*args: Any) -> tuple[Jobs, FakeRay]:
    """(our client, the server that it speaks to)."""
    jobs, fake = Jobs.__new__(Jobs), FakeRay(*args)
    jobs.client = fake  # type: ignore[assignment]
    jobs.patience = Clock().patience(100)
    return jobs, fake


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept, self.messages = 0.0, list[float](), list[str]()

    def sleep(self, seconds: float) -> None:
        """Lets that time pass."""
        self.now += seconds
        self.slept.append(seconds)

    def patience(self, seconds: float) -> Patience:
        """Patience by this clock, whose words stand in `messages`."""
        return Patience("Ray's job server", seconds, self.sleep, lambda: self.now, self.messages.append)
