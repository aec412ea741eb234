"""The stages of a job as task runs of the flow run that follows it, told by the lines of its log.

A stage says in a line when it begins and when it ends (stages/run/progress.py); several may be open at a time. They are
shown, not run: the job is another process, and whether a stage is done is never asked of Prefect. A server that is away
loses bars of a chart and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.logging.loggers import task_run_logger
from prefect.runtime import flow_run as current
from prefect.states import Completed, Failed, Running

from gristmill.orchestration.jobs import Job
from gristmill.stages.run.progress import BEGINS, DONE_BEFORE

Item = TypeVar("Item", bound="str | Job | None")

_LINE = re.compile(r"\d\d:\d\d:\d\d (?P<level>[A-Z]+) (?P<title>[^:\n]{1,60}): (?P<what>[^\n]{1,500})")
_ENDED = re.compile(r"[\d,]+ (?P<not_all>of [\d,]+ )?pieces?\b.*, \d+\.\d s$")


def shown_by_stages(items: Iterator[Item], log: Any) -> Iterator[tuple[Item, Any]]:
    """Each item of a job that is followed, with the log of the stage that it belongs to, else the flow's."""
    stages = StageRuns(log)
    for item in items:
        yield item, stages.heard(item)


class StageRuns:
    """The task runs of one job."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self._open: dict[str, tuple[UUID, Any]] = {}  # title -> task run and its log, in the order in which they began
        self._count = 0
        self._away = False

    def heard(self, item: str | Job | None) -> Any:
        """Takes one item; the log to write it to."""
        if isinstance(item, Job):
            self._end_all(item)
            return self.log
        match = _LINE.match(item) if item is not None else None
        title, what = (match["title"], match["what"]) if match is not None else ("", "")
        if match is None or match["level"] != "INFO":  # a piece that failed names its stage; a line of a library none
            stages = [log for name, (_, log) in self._open.items() if name == title or len(self._open) == 1]
            return stages[0] if stages else self.log
        if what.startswith(BEGINS):
            self._begin(title, what, Running(message=what))
        elif what.endswith(DONE_BEFORE):
            self._begin(title, what, Completed(name="Cached", message=what))
            return self._open.pop(title, (None, self.log))[1]
        elif title in self._open and (ended := _ENDED.match(what)):
            run, log = self._open.pop(title)
            self._set(run, Failed(message=what) if ended["not_all"] else Completed(message=what))
            return log
        return self._open[title][1] if title in self._open else self.log

    def _begin(self, title: str, what: str, state: State[Any]) -> None:
        if self._away or not current.id or title in self._open:
            return
        self._count += 1
        task: Task[[], None] = Task(fn=_shown, name=title)
        try:
            with get_client(sync_client=True) as client:
                run = client.create_task_run(
                    task, UUID(str(current.id)), dynamic_key=f"{title}-{self._count}", name=title, state=state
                )
        except httpx.HTTPError as error:
            self._say_away(error)
            return
        self._open[title] = (run.id, task_run_logger(run, task))

    def _end_all(self, job: Job) -> None:
        """Stages that the job did not end are its last ones: they failed if it did."""
        for run, _ in self._open.values():
            self._set(
                run, Completed() if job.status == "SUCCEEDED" else Failed(message=f"{job.id} {job.status.lower()}")
            )
        self._open.clear()

    def _set(self, run: UUID, state: State[Any]) -> None:
        try:
            with get_client(sync_client=True) as client:
                client.set_task_run_state(run, state, force=True)
        except httpx.HTTPError as error:
            self._say_away(error)

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self.log.warning("stages of this job are not shown: Prefect's server is away (%s)", error)
        self._away = True


def _shown() -> None:
    """What a task run of a stage would run here: nothing, the job runs it."""
