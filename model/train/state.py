"""Checkpoints of a stage on its way: trained weights, the optimizer's state, the step, the place in the data.

A checkpoint is a folder, written beside its place, flushed and renamed: it is whole, or it is not there. Writing goes
on in a thread while training does; what it writes was copied before. What a checkpoint is of stands in it, so one of
another stage, base or data is refused by name. Only the trained parts are in it: all others are those of the base.
Where the folder does not outlive the machine a `Mirror` keeps them: what it has counts, whatever lies in the folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gristmill.model.train.checkpoint_files import (
    ASIDE,
    FORMAT,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    Mirror,
    checked,
    damaged,
    sha256_of,
)
from gristmill.model.train.ranks import own_share, whole

_PLACE = re.compile(r"step-(\d{9})")
_FILES = {WEIGHTS, OPTIMIZER, STATE}


@dataclass(frozen=True)
class Reached:
    """How far a run is. `step`: steps done; `position`: of the next window in the global order; `skipped`: steps that
    changed nothing since their loss or gradient was no finite number, `in_a_row` of them the last ones; `order`: the
    digest of the order of windows so far."""

    step: int = 0
    position: int = 0
    skipped: int = 0
    in_a_row: int = 0
    order: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read. `address`: where it is, for people; `weights`: trained parameters by name;
    `optimizer`: key -> parameter -> tensor."""

    address: str
    reached: Reached
    weights: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]]


class Checkpoints:
    """The checkpoints in a folder, of which the last `keep` stay. As a block: left when all of them are written.

    `identity`: what they are of, JSON values by name; one with another identity is refused. `mirror`: what keeps each
    of them too, in the same thread. Only a process that has folder and mirror for itself may write or tidy.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        keep: int,
        mirror: Mirror | None = None,
        *,
        writes: bool = True,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: allowed is 1 checkpoint or more")
        self.folder, self._keep, self._mirror, self._writes = folder, keep, mirror, writes
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it will be read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception as unwritten:
            if error is None:
                raise
            error.add_note(f"The checkpoint that was being written is not there either: {unwritten}")
        finally:
            self._pool.shutdown()

    def newest(self) -> Checkpoint | None:
        """The checkpoint of the most steps, read and compared with its digests; None: there is none.

        With a mirror, the newest that it has, which is then in the folder. Raises ValueError for one of something else,
        of a later format or whose files are not what was written.
        """
        if self._mirror is None:
            places = self._places()
            return self._read(places[-1]) if places else None
        names = self._mirror.names()
        return self._read(self._fetched(self._mirror, names[-1])) if names else None

    def save(self, reached: Reached, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Copies all of it, and writes the copy in a thread, to the mirror too. Waits for the write before it, and
        raises its error. Of parameters in shares all ranks have to save; only the one that writes keeps a copy."""
        self.wait()
        weights: dict[str, Tensor] = {}
        moments: dict[str, Tensor] = {}
        for name, parameter in trained.items():
            of_optimizer = optimizer.state.get(parameter, {})
            for copies, key, value in (
                (weights, name, parameter),
                *((moments, f"{key}:{name}", value) for key, value in of_optimizer.items()),
            ):
                tensor = whole(value)
                if self._writes:
                    copies[key] = _copied(tensor)
        if self._writes:
            self._writing = self._pool.submit(self._write, reached, weights, moments)

    def wait(self) -> None:
        """Until what was saved last is on disk, and in the mirror. Raises the error that writing it met."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def tidy(self) -> None:
        """Removes all but the last checkpoints, and what a process that was killed left half written or removed."""
        places = self._places()
        names = [place.name for place in places] if self._mirror is None else self._mirror.names()
        kept = names[-self._keep :]
        if self._mirror is not None:
            self._mirror.remove_others(kept)
        for place in self._named() if self.folder.is_dir() else []:
            if place.name not in kept or place not in places:
                # Renamed first: a kill between two of its files would leave one that looks whole.
                os.rename(place, self._aside())
        for leftover in self.folder.glob(f"{ASIDE}*"):
            shutil.rmtree(leftover)

    def _aside(self) -> Path:
        """A new name for what nobody may read."""
        return self.folder / f"{ASIDE}{uuid.uuid4().hex}"

    def _fetched(self, mirror: Mirror, name: str) -> Path:
        """A checkpoint of the mirror, in the folder in place of what has its name there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new, place = self._aside(), self.folder / name
        new.mkdir()
        mirror.fetch(name, new)
        if place.exists():
            os.rename(place, self._aside())
        os.rename(new, place)
        return place

    def _places(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [place for place in self._named() if {path.name for path in place.iterdir()} >= _FILES]

    def _named(self) -> list[Path]:
        """Folders with the name of a checkpoint. Not all are one: a gc of the lake deletes file by file, and may be
        killed in between."""
        return sorted(path for path in self.folder.iterdir() if _PLACE.fullmatch(path.name))

    def _write(self, reached: Reached, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new, place = self._aside(), self.folder / f"step-{reached.step:09d}"
        new.mkdir()
        save_file(weights, new / WEIGHTS)
        save_file(moments, new / OPTIMIZER)
        digests = {name: sha256_of(new / name) for name in (WEIGHTS, OPTIMIZER)}
        document = {"format": FORMAT, "reached": asdict(reached), "identity": self._identity, "sha256": digests}
        (new / STATE).write_text(json.dumps(document, indent=1, sort_keys=True), encoding="utf-8")
        for path in (*new.iterdir(), new):
            _flush(path)
        if place.exists():  # what a killed gc left of one
            os.rename(place, self._aside())
        os.rename(new, place)
        _flush(self.folder)
        if self._mirror is not None:
            self._mirror.keep(place)
        self.tidy()

    def _read(self, place: Path) -> Checkpoint:
        address = str(place) if self._mirror is None else self._mirror.address(place.name)
        document = checked(place, address)
        if differing := list(_differing("", document["identity"], self._identity)):
            raise ValueError(
                f"checkpoint {address} is of something else: {'; '.join(differing)}. Train in another folder, or remove"
                " this one to begin again"
            )
        try:
            reached = Reached(**document["reached"])
            weights, flat = load_file(place / WEIGHTS), load_file(place / OPTIMIZER)
        except (SafetensorError, KeyError, TypeError) as error:
            raise damaged(address, str(error)) from error
        moments: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            key, _, parameter = name.partition(":")
            moments.setdefault(key, {})[parameter] = tensor
        return Checkpoint(address, reached, weights, moments)


def restore(checkpoint: Checkpoint, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint's tensors into the parameters and their optimizer. Raises ValueError for other parameters."""
    if differing := sorted(set(checkpoint.weights) ^ set(trained)):
        raise ValueError(f"checkpoint {checkpoint.address} has other parameters: {', '.join(differing[:5])}")
    for name, parameter in trained.items():
        if parameter.shape != checkpoint.weights[name].shape:
            shape = list(checkpoint.weights[name].shape)
            needed = list(parameter.shape)
            raise ValueError(f"checkpoint {checkpoint.address}: {name} is {shape}, the model has {needed}")
    names = {parameter: name for name, parameter in trained.items()}
    state: dict[int, dict[str, Tensor]] = {}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(ordered):
        with torch.no_grad():
            parameter.copy_(own_share(checkpoint.weights[names[parameter]], parameter))
        own: dict[str, Tensor] = {}
        for key, of_key in checkpoint.optimizer.items():
            if (value := of_key.get(names[parameter])) is not None:
                own[key] = own_share(value, parameter) if value.shape == parameter.shape else value
        if own:
            state[number] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _copied(tensor: Tensor) -> Tensor:
    """In the host's memory, and in nobody else's hands."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _differing(place: str, stored: Any, current: Any) -> list[str]:
    """What differs between two identities, field by field."""
    if isinstance(stored, dict) and isinstance(current, dict):
        lines: list[str] = []
        for key in sorted({*stored, *current}):
            inner = f"{place}.{key}" if place else key
            lines += _differing(inner, stored.get(key), current.get(key))
        return lines
    return [] if stored == current else [f"{place} is {stored!r} there and {current!r} here"]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
