"""Toy stages for tests of the runner: a plain and a warm one, which note what they do and misbehave on order."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from waiting import PATIENCE

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Hosting, Outcome, Resources, Stage, WarmStage, Work

NOBODY = Tally()


@dataclass(frozen=True)
class Place:
    """A folder in which works note what they do, and in which orders to misbehave are files."""

    folder: Path

    def note(self, what: str) -> None:
        """This process did it."""
        with (self.folder / f"{what}-{os.getpid()}").open("a") as file:
            file.write("x")

    def notes(self, what: str) -> list[int]:
        """How often each process did it."""
        return [len(path.read_text()) for path in self.folder.glob(f"{what}-*")]

    def obey(self, label: str) -> None:
        """Fails or dies if there is an order to, for the work of this label."""
        if (self.folder / f"fail {label}").exists():
            raise OSError("the disk said no")
        if (self.folder / f"die {label}").exists():
            (self.folder / f"die {label}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class AskFacts:
    """The process that did a work, and what Ray reserved for it."""

    pid: int
    resources: dict[str, float]


@dataclass(frozen=True)
class Plain(Stage[Place]):
    """Does nothing but note it."""

    name: ClassVar[str] = "toy.plain"
    VERSION: ClassVar[int] = 1

    deterministic = False  # its facts name the process that ran it

    cpus: int = 1

    @property
    def resources(self) -> Resources:
        """As many CPUs as it is given."""
        return Resources(cpus=self.cpus)

    def run(self, store: Store, work: Work[Place]) -> Outcome:
        work.payload.note("run")
        work.payload.obey(work.label)
        return Outcome(outputs=(), received=NOBODY, facts=AskFacts(os.getpid(), _assigned()))


def _assigned() -> dict[str, float]:
    """Resources of the worker that this process is; none if it is none."""
    # Ray reads its settings when it is first imported, which is for stages/run/cluster.py to do: here none imports it.
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return {}
    return {name: float(n) for name, n in ray.get_runtime_context().get_assigned_resources().items()}


class Engine:
    """What is dear to set up."""

    def __init__(self, place: Place) -> None:
        self.place = place
        place.note("set_up")

    def close(self) -> None:
        """Notes it."""
        self.place.note("closed")


@dataclass(frozen=True)
class Ask(WarmStage[Place, Engine]):
    """A warm stage. `where`: the folder of its notes, which is all that it needs to be set up."""

    name: ClassVar[str] = "toy.ask"
    VERSION: ClassVar[int] = 1

    where: str
    cpus: int = 1

    @property
    def resources(self) -> Resources:
        """As many CPUs as it is given."""
        return Resources(cpus=self.cpus)

    deterministic = False

    def setup(self, store: Store) -> Engine:
        place = Place(Path(self.where))
        place.obey("set_up")
        return Engine(place)

    def run_warm(self, store: Store, work: Work[Place], warm: Engine) -> Outcome:
        warm.place.note("run")
        warm.place.obey(work.label)
        return Outcome(outputs=(), received=NOBODY, facts=AskFacts(os.getpid(), _assigned()))


class Meeting(Engine):
    """What works of `Meet` share: who is under way."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.barrier = threading.Barrier(2)


@dataclass(frozen=True)
class MeetFacts:
    """Whether another work was under way at the same time."""

    met: bool


@dataclass(frozen=True)
class Meet(WarmStage[Place, Meeting]):
    """A warm stage with one worker, whose works wait for one another if there can be two of them."""

    name: ClassVar[str] = "toy.meet"
    VERSION: ClassVar[int] = 1

    where: str
    works: int = 1

    @property
    def hosting(self) -> Hosting:
        """One worker."""
        return Hosting(self.works, workers=1)

    def setup(self, store: Store) -> Meeting:
        return Meeting(Place(Path(self.where)))

    def run_warm(self, store: Store, work: Work[Place], warm: Meeting) -> Outcome:
        if self.works > 1:
            warm.barrier.wait(PATIENCE)
        return Outcome(outputs=(), received=NOBODY, facts=MeetFacts(self.works > 1))


def plain(folder: Path, n: int) -> Work[Place]:
    """Work n of a plain stage."""
    return Work(Plain(), (f"digest{n}",), Place(folder), label=str(n))


def asks(folder: Path, n: int, **config: Any) -> list[Work[Place]]:
    """The first n works of a warm stage."""
    return [Work(Ask(str(folder), **config), (f"digest{i}",), Place(folder), label=str(i)) for i in range(n)]


def works(folder: Path, n: int) -> Iterator[Work[Place]]:
    """The first n works of a plain stage."""
    return (plain(folder, i) for i in range(n))


def labels(done: Any) -> list[str]:
    """Of works with their receipts."""
    return [work.label for work, _ in done]
