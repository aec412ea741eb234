"""A toy stage with turns in phases: it notes what ran in which order, and waits, fails or is broken off on order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from toy_stages import NOBODY, Place
from waiting import until

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.run.sources import Phase

TITLES = ("read", "judge", "sign")
MANY = 40
"""More pieces than are looked up together."""


@dataclass(frozen=True)
class Turn(Stage[Place]):
    """Writes down that it was this piece's turn in a phase; what it is ordered to do before lies in files."""

    name: ClassVar[str] = "toy.turn"
    VERSION: ClassVar[int] = 1

    phase: str

    def run(self, store: Store, work: Work[Place]) -> Outcome:
        folder, me = work.payload.folder, f"{self.phase} {work.label}"
        if (folder / f"{me} waits for").exists():
            until(lambda: wanted(folder, me) <= set(turns(folder)), f"all that {me} waits for")
        if (folder / f"interrupt {me}").exists():
            (folder / f"interrupt {me}").unlink()
            raise KeyboardInterrupt
        if (folder / f"away {me}").exists():
            raise ConnectionError("the store is away")
        work.payload.obey(me)
        with (folder / "turns").open("a") as file:
            file.write(f"{me}\n")
        return Outcome(outputs=(put_table(store, "turn", pa.table({"me": [me]})),), received=NOBODY)


def turns(folder: Path) -> list[str]:
    """What ran, in the order in which it ended."""
    path = folder / "turns"
    return path.read_text().splitlines() if path.exists() else []


def wanted(folder: Path, me: str) -> set[str]:
    """What a piece waits for in a phase."""
    return set((folder / f"{me} waits for").read_text().splitlines())


def turn(folder: Path, title: str, number: int, before: Sequence[Receipt]) -> Work[Place]:
    """What a piece is to do in a phase: named by what it wrote in the phases before."""
    inputs = (str(number), *(receipt.outputs[0].sha256 for receipt in before))
    return Work(Turn(title), inputs, Place(folder), label=str(number))


def phases(folder: Path, **checks: Callable[[Sequence[Receipt]], None]) -> list[Phase]:
    """Three of them."""
    return [Phase(title, partial(turn, folder, title), checks.get(title, lambda receipts: None)) for title in TITLES]


def ran(folder: Path, title: str) -> list[int]:
    """The pieces that ran in a phase, sorted."""
    return sorted(int(line.split()[1]) for line in turns(folder) if line.startswith(title))
