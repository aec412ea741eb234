"""Patterns over local folders: what `glob` finds, and by name what `glob` passes over in silence.

A link that leads nowhere, a folder that may not be read, a pipe: each may hide a part of a crawl, so each is a fault.
Under `**` every folder is entered once, by its own path before any link to it: links that lead round in a circle end,
and a hundred of them cost a hundred steps. Nothing is recursive, so depth is no limit either.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

MAGIC = re.compile(r"[*?\[]")


class Survey(NamedTuple):
    """`faults`: what could not be looked at, a sentence each. `again`: links to folders that were read already."""

    files: list[str]
    faults: list[str]
    again: list[str]


def find(where: str) -> Survey:
    """The regular files that an absolute pattern names (`*` `?` `[..]` in a name, `**` over folders), sorted."""
    walk = _Walk([part for part in where.split("/") if part])
    walk.run()
    return Survey(sorted(walk.files), sorted(walk.faults), sorted(walk.again))


class _Walk:
    """Steps of (folder, number of the part of the pattern that comes next), those through links last."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = parts
        self._steps: deque[tuple[str, int]] = deque([("/", 0)])
        # Kept back until no other step is left: a folder that has a way without links is then entered by that one, and
        # files have the same addresses whatever links lead to them.
        self._links: deque[tuple[str, int]] = deque()
        self._entered: set[tuple[int, int, int]] = set()  # device, inode, part: a folder may match two parts
        self.files: set[str] = set()
        self.faults: set[str] = set()
        self.again: set[str] = set()

    def run(self) -> None:
        """Takes steps until none is left, and fills `files`, `faults` and `again`."""
        while self._steps or self._links:
            is_link = not self._steps
            folder, number = (self._links if is_link else self._steps).popleft()
            part = self._parts[number]
            if part == "**":
                if self._enter(folder, number, is_link):
                    self._any_depth(folder, number)
            elif MAGIC.search(part):
                for name, path in self._entries(folder):
                    if fnmatchcase(name, part) and (not name.startswith(".") or part.startswith(".")):
                        self._next(path, number)
            elif self._is_there(path := os.path.join(folder, part)):
                self._next(path, number)

    def _enter(self, folder: str, number: int, is_link: bool) -> bool:
        """Whether the folder was not yet entered at this part of the pattern."""
        try:
            status = os.stat(folder)
        except OSError as error:
            self._fault(folder, error)
            return False
        key = (status.st_dev, status.st_ino, number)
        if key in self._entered:
            if is_link:
                self.again.add(f"{folder} is a link to {os.path.realpath(folder)}, whose files are read once")
            return False
        self._entered.add(key)
        return True

    def _any_depth(self, folder: str, number: int) -> None:
        """`**` at this folder: what follows may match here, and `**` itself in every folder below."""
        last = number + 1 == len(self._parts)
        if not last:
            self._steps.append((folder, number + 1))
        for name, path in self._entries(folder):
            if name.startswith("."):
                continue
            kind = self._kind(path)
            if kind == "folder":
                (self._links if os.path.islink(path) else self._steps).append((path, number))
            elif last:
                self._end(path, kind)

    def _next(self, path: str, number: int) -> None:
        """`path` matches this part of the pattern: a file, if it is the last part, or the way to more."""
        kind, last = self._kind(path), number + 1 == len(self._parts)
        if last:
            self._end(path, kind)
        elif kind == "folder":
            (self._links if os.path.islink(path) else self._steps).append((path, number + 1))

    def _end(self, path: str, kind: str) -> None:
        """`path` matches the whole pattern."""
        if kind == "file":
            self.files.add(path)
        elif kind == "special":
            self.faults.add(f"{path} is no regular file (a pipe, a socket or a device)")

    def _is_there(self, path: str) -> bool:
        """Whether a name without magic exists, be it a link that leads nowhere: that is a fault, and no absence."""
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._fault(path, error)
            return False
        return True

    def _kind(self, path: str) -> str:
        """`file`, `folder`, `special` (a pipe, ...), or `fault`, which is then noted."""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            self._fault(path, error)
            return "fault"
        if stat.S_ISDIR(mode):
            return "folder"
        if stat.S_ISREG(mode):
            return "file"
        return "special"

    def _entries(self, folder: str) -> Iterator[tuple[str, str]]:
        """(name, path) of what is in a folder, by name; a fault and nothing where it cannot be read."""
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            self.faults.add(f"the folder {folder} cannot be read: {error.strerror}")
            return
        for name in names:
            yield name, os.path.join(folder, name)

    def _fault(self, path: str, error: OSError) -> None:
        if error.errno == errno.ELOOP:
            self.faults.add(f"{path} is a link that leads back to itself")
        elif not isinstance(error, FileNotFoundError):
            self.faults.add(f"{path} cannot be read: {error.strerror}")
        elif os.path.islink(path):
            self.faults.add(f"{path} is a link to {os.readlink(path)}, which does not exist")
        # else it went away since its folder was read, as if it had never been there
