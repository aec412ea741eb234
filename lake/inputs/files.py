"""What a kind of place that inputs lie in has to be able to do, and the words that all of them share.

Local folders, S3 and whatever fsspec reaches are one of these each; `lake.inputs.sources` chooses by the scheme of an
address.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, NamedTuple, Protocol

from gristmill.lake.inputs.patterns import MAGIC, Survey

BUFFER = 1 << 20


class InputInfo(NamedTuple):
    """`size` in bytes, `modified` in seconds since the epoch, `etag` as the store gives it (None: local).

    `changed`: when a local file's content, time or name was last touched, which `cp -p` and `touch -d` cannot set back.
    """

    uri: str
    size: int
    modified: float
    etag: str | None
    changed: float = 0.0

    @property
    def stamp(self) -> tuple[str, int, float, str | None]:
        """What every node sees alike; some mounts make `changed` up."""
        return self.uri, self.size, self.modified, self.etag


class InputFault(OSError):
    """This address cannot be an input; the message says why, and what to do."""


class InputStore(Protocol):
    """A place that inputs lie in."""

    def open(self, uri: str, offset: int = 0) -> BinaryIO:
        """As `lake.inputs.sources.open_input`."""
        ...

    def info(self, uri: str) -> InputInfo:
        """As `lake.inputs.sources.input_info`."""
        ...

    def unchanged(self, uri: str, stamp: tuple[Any, ...]) -> bool:
        """As `lake.inputs.sources.unchanged`."""
        return self.info(uri).stamp == stamp

    def survey(self, pattern: str) -> Survey:
        """The files that a pattern names, none where it names none. Raises IsADirectoryError for a folder."""
        ...


def missing(uri: str) -> FileNotFoundError:
    """There is nothing at this address."""
    return FileNotFoundError(f"input {uri!r} does not exist; check the path, or give a pattern such as folder/*")


def is_folder(where: str) -> IsADirectoryError:
    """A folder is at this address, which could be meant in three ways."""
    where = where.rstrip("/")
    return IsADirectoryError(
        f"input {where!r} is a folder; write {where}/* for its files, {where}/**/* for all below it, or"
        f" folder::{where} to read images or clips in it as one input"
    )


def check_offset(uri: str, offset: int, size: int) -> None:
    """Raises ValueError for an offset outside the input."""
    if not 0 <= offset <= size:
        raise ValueError(f"offset {offset} is outside {uri} of {size} bytes")


def matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """`glob.glob(recursive=True)`'s rules over the parts of a key: which places in `wanted` each part may lead to."""
    # As a finite automaton over the parts: a set of places and no backtracking, so that a pattern with many `**` costs
    # parts times places and no more.
    end = len(wanted)
    places = _and_behind({0}, wanted)
    for part in parts:
        visible, reached = not part.startswith("."), set[int]()
        for place in places - {end}:
            name = wanted[place]
            if name == "**":
                if visible:
                    reached.add(place)
                if visible and place + 1 == end:
                    reached.add(end)
            elif fnmatchcase(part, name) and (visible or name.startswith(".") or not MAGIC.search(name)):
                reached.add(place + 1)
        places = _and_behind(reached, wanted)
    return end in places


def _and_behind(places: set[int], wanted: Sequence[str]) -> set[int]:
    """Also the places behind each `**`, which may stand for no folder; a last `**` stands for one name at least."""
    for place in range(len(wanted) - 1):
        if place in places and wanted[place] == "**":
            places.add(place + 1)
    return places
