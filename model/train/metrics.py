"""What is seen of a run while it runs: one `Progress` a step, handed to whoever shows it, and a file of lines of JSON.

A run that goes on from a checkpoint repeats the steps after it, so the file is cut back to that checkpoint first: it
has one line a step. Times are of this process and take no part in what is trained.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Operations a second in bfloat16, dense, by a part of the device's name. Source: NVIDIA's data sheets, SXM parts."""


@dataclass(frozen=True)
class Progress:
    """A step that was done. `step`: 1 to `steps`; `loss`: a target's mean over all ranks, NaN or infinite where a step
    was `skipped` for it; `norm`: of the gradient before it was clipped; `targets`, `tokens`: of all ranks together;
    `seconds` of this step, `seconds_left` at the mean speed of this process so far; `mfu`: the share of the device's
    peak, None where that is not known; `since`: the step that this process went on from, 0 where it began the run;
    `measures`: what else the objective says of a target, means like `loss`. A target is what the loss is divided by: a
    token to learn, or a pair of preferences."""

    step: int
    steps: int
    position: int
    loss: float
    lr: float
    norm: float
    targets: int
    tokens: int
    skipped: bool
    seconds: float
    tokens_per_second: float
    seconds_left: float
    mfu: float | None
    since: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, line: str | bytes) -> Progress:
        """A line of a metrics file. Keys that are not known are left out, so that a later release may add some; a loss
        or norm that JSON had no number for is NaN. Raises ValueError for what is no such line."""
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError(f"not a line of metrics: {line[:80]!r}")
        return cls.of(values)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Progress:
        """The same from the values of a line. Raises ValueError where some are missing."""
        known = {own.name: values[own.name] for own in fields(cls) if own.name in values}
        for name in ("loss", "norm"):
            if known.get(name, 0.0) is None:
                known[name] = math.nan
        measures = known.get("measures", {})
        known["measures"] = {name: math.nan if value is None else value for name, value in measures.items()}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"not a line of metrics: {error}") from error


def read_metrics(path: Path) -> list[Progress]:
    """The steps of a metrics file, none if it is not there; a last line that is not whole yet is left out.

    Raises ValueError for a line that is none of metrics.
    """
    return [Progress.from_json(line) for line in _lines(path)]


def utilisation(flops: float, seconds: float, device: str, world: int) -> float | None:
    """The share of the peak of `world` devices of this name that so many operations are; None: it is not known."""
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    return None if peak is None or seconds <= 0 else flops / seconds / (peak * world)


class MetricsFile:
    """Lines of JSON, one a step, each written at once: `with MetricsFile(path, step) as file: file.write(progress)`.

    `step`: how many steps the run has done; lines of later ones, and a last one that was cut short, are taken out.
    Numbers that are not finite are null, as JSON has it.
    """

    def __init__(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        new = path.with_name(f".{path.name}.new")
        with new.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in kept)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, progress: Progress) -> None:
        """Appends a line."""
        values = {key: _finite(value) for key, value in asdict(progress).items()}
        self._stream.write(json.dumps(values, allow_nan=False) + "\n")
        self._stream.flush()

    def sync(self) -> None:
        """All lines are on disk when this returns: a checkpoint that a machine keeps must not outlive its lines, which
        say how many tokens were trained on."""
        os.fsync(self._stream.fileno())

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of a file, if it is there."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _finite(value: object) -> object:
    """A number, or numbers by name, as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    infinite = isinstance(value, float) and not abs(value) < float("inf")
    return None if infinite else value
