"""A Ray head that is away: waited for, said once, one line where it stays away. No server, and no test sleeps."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import waiting
from fake_ray import Clock, FakeRay, server, wanted

from gristmill.lake.store.outage import Patience, Unreachable
from gristmill.orchestration import jobs as jobs_module
from gristmill.orchestration.jobs import Job, Jobs
from gristmill.orchestration.wanted import Wanted


class Restarting(FakeRay):
    """A head that refuses connections, or answers 503, so many times."""

    def __init__(self, away: int, error: Exception, jobs: list[Job]) -> None:
        super().__init__(jobs)
        self.away, self.error = away, error

    def list_jobs(self) -> list[Any]:
        if self.away:
            self.away -= 1
            raise self.error
        return super().list_jobs()


@pytest.mark.parametrize(
    "error", [ConnectionError("Failed to connect to Ray"), RuntimeError("Request failed with status code 503: ...")]
)
def test_a_head_that_comes_back_within_minutes_is_waited_for_and_said_once(error):
    clock = Clock()
    jobs, _ = server([])
    jobs.client, jobs.patience = Restarting(6, error, [Job("a", "RUNNING")]), clock.patience(600)  # type: ignore
    assert [job.id for job in jobs.all()] == ["a"]
    assert clock.slept == [1, 2, 4, 8, 16, 30] and clock.now > 60
    assert len(clock.messages) == 2 and "unreachable, trying again for 600 s" in clock.messages[0]
    assert "answered again, 61 s after" in clock.messages[1]


def test_a_head_that_stays_away_ends_in_one_line():
    clock = Clock()
    jobs, _ = server([])
    jobs.client, jobs.patience = Restarting(10**6, ConnectionError("no"), []), clock.patience(600)  # type: ignore
    with pytest.raises(Unreachable, match=r"^Ray's job server unreachable for 600 s: ConnectionError: no$"):
        jobs.all()
    assert sum(clock.slept) == 600 and len(clock.messages) == 1


def test_another_error_of_the_server_is_not_waited_for():
    clock = Clock()
    jobs, _ = server([])
    jobs.client, jobs.patience = Restarting(1, RuntimeError("status code 401"), []), clock.patience(600)  # type: ignore
    with pytest.raises(RuntimeError, match="401"):
        jobs.all()
    assert clock.slept == []


def test_a_job_whose_head_comes_back_without_it_is_lost_and_one_that_stays_away_is_unreachable(monkeypatch):
    jobs, _ = server([])
    monkeypatch.setattr(jobs, "_read", lambda id, lines, over: None)
    answers: list[Any] = [ConnectionError("down"), ConnectionError("down"), None]

    def get_now(id: str) -> Job | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(jobs, "get_now", get_now)
    monkeypatch.setattr(jobs_module, "TICK", 0)
    messages: list[str] = []
    jobs.patience = Patience("Ray's job server", 100, clock=lambda: 0, say=messages.append)
    assert [item.status for item in jobs.follow("a") if isinstance(item, Job)] == ["LOST"] and answers == []
    assert messages == ["Ray's job server unreachable, trying again: ConnectionError: down"]
    answers += [ConnectionError("down")] * 3
    ticks = iter(range(0, 10_000, 60))
    jobs.patience = Patience("Ray's job server", 100, clock=lambda: next(ticks), say=messages.append)
    with pytest.raises(Unreachable, match=r"unreachable for \d+ s: ConnectionError: down"):
        list(jobs.follow("a"))


def test_an_interrupted_flow_whose_head_is_away_keeps_its_own_error(monkeypatch):
    from gristmill.orchestration import flows

    class Away(Jobs):
        def __init__(self) -> None:
            pass

        def submit(self, wanted: Wanted, flow_run: str, announce: Any) -> tuple[str, bool]:
            announce("mine")
            raise KeyboardInterrupt

        def get_now(self, id: str) -> Job | None:
            raise ConnectionError("down")

    with pytest.raises(KeyboardInterrupt):
        flows.run_job(wanted(), Away(), logging.getLogger("test"))


def test_whoever_waits_in_another_thread_is_ended_at_once_and_says_why():
    """A kickoff waits for the threads of its nodes: interrupted, it waited as long as they did."""
    asked = threading.Event()
    patience = Patience("Ray's job server", 3600, say=lambda line: asked.set())
    jobs, _ = server([])
    jobs.client, jobs.patience = Restarting(10**6, ConnectionError("no"), []), patience  # type: ignore
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(jobs.all)
        waiting.until(asked.is_set, "that it waits")
        patience.end()
        with pytest.raises(Unreachable, match=r"unreachable for \d+ s, when the wait was interrupted: .*: no$"):
            waits.result()
    with pytest.raises(Unreachable, match="interrupted"):  # and whoever comes later
        jobs.all()


def test_whoever_follows_a_job_is_ended_at_once(monkeypatch):
    jobs, _ = server([])
    monkeypatch.setattr(jobs, "_read", lambda id, lines, over: None)
    monkeypatch.setattr(jobs_module, "TICK", 0)

    def get_now(id: str) -> Job | None:
        jobs.patience.end()
        raise ConnectionError("down")

    monkeypatch.setattr(jobs, "get_now", get_now)
    with pytest.raises(Unreachable, match="interrupted: ConnectionError: down"):
        list(jobs.follow("a"))


def test_stopping_does_not_wait_for_a_head_that_is_away(monkeypatch):
    jobs, _ = server([])
    monkeypatch.setattr(jobs, "get_now", lambda id: (_ for _ in ()).throw(ConnectionError("down")))
    jobs.patience = Patience("Ray's job server", 600, sleep=lambda seconds: pytest.fail("it waits"))
    with pytest.raises(ConnectionError, match="down"):
        jobs.stop("a")


def test_a_flow_run_that_ended_here_needs_no_job_server_and_another_one_does(monkeypatch):
    """Prefect calls the hooks of a flow that was interrupted in the process that somebody interrupted."""
    from gristmill.orchestration import flows

    def jobs() -> None:
        raise LookupError("the job server is asked")

    monkeypatch.setattr(flows, "Jobs", jobs)
    run = SimpleNamespace(id="here", name="red-fox")
    with pytest.raises(LookupError, match="is asked"):
        flows.stop_job_of(None, run, SimpleNamespace(name="Crashed"))
    monkeypatch.setattr(flows, "RUN_HERE", {"here"})
    flows.stop_job_of(None, run, SimpleNamespace(name="Crashed"))
