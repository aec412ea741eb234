"""What a section of `benchmarks.gpu` is given and how it ends: its time, its card, and errors as rows.

Without torch, which takes seconds to import: whoever only starts sections needs none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Row

NO_TIME = "no time was left in its section"


class Deadline:
    """When a section has to be done. `seconds`: from now; `clock`: of seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    def left(self) -> float:
        """Seconds."""
        return self._end - self._clock()

    def rounds(self, most: int, longest: float | None = None) -> Iterator[int]:
        """0 to `most` - 1, as long as there is time for another that takes as long as the longest before it. `longest`:
        the seconds of one before them; None: there was none, and the first comes in any case."""
        for number in range(most):
            if longest is not None and longest > self.left():
                return
            started = self._clock()
            yield number
            longest = max(longest or 0.0, self._clock() - started)


class Card(NamedTuple):
    """What was measured on. `short`: for names of files ("h100"); `name`: as the driver has it; `memory`: bytes."""

    short: str
    name: str
    memory: int

    @classmethod
    def here(cls, tiny: bool) -> Card:
        """The first GPU; the CPU for a tiny run. Raises RuntimeError where torch sees none."""
        if tiny:
            return cls("cpu", "the CPU", 0)
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("torch sees no GPU here; --tiny runs small models on the CPU")
        properties = torch.cuda.get_device_properties(0)
        return cls(short_name(properties.name), properties.name, properties.total_memory)


def short_name(name: str) -> str:
    """ "NVIDIA H100 80GB HBM3" -> "h100"; of a card that is called otherwise, all of its name."""
    model = re.search(r"\b[A-Z]{1,3}\d{1,4}[A-Z]?\b", name)
    return (model[0] if model else re.sub(r"\W+", "-", name)).lower()


def attempted(what: str, rows: Callable[[], Iterable[Row]], *, peer: bool = False) -> Iterator[Row]:
    """The rows; an error becomes the last of them, and whoever asks goes on. `peer`: an error is the peer's own
    affair, and nothing has failed."""
    try:
        yield from rows()
    except Exception as error:
        yield Row(what, None, "", why=reason(error), failed=not peer)


def reason(error: BaseException) -> str:
    """Kind and text of an error on one line, without the folders of this machine."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.replace(str(Path(__file__).resolve().parents[1]), ".").replace(str(Path.home()), "~")[:300]
