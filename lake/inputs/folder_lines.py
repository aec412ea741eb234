"""Lines of a folder of media: JSON lines that name files beside them, and which files each of them names.

A line names a file where any of its strings, at whatever depth, is the path of a file below the folder (`a.jpg`,
`./a.jpg`, `frames/1.png`), or ends in one: many sets give paths from a folder further up (`train/frames/1.png`). Only
files of the folder can be named, whatever a line says; links in it are followed. What a line means is not known
here: one that is no JSON names nothing, and is handed on as it is. A line longer than MAX_LINE is handed on unread.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

SUFFIXES = (".jsonl", ".ndjson")
ZIPPED = (".jsonl.gz", ".ndjson.gz")
MAX_LINE = 16 << 20
LONGEST = 4096
"""Characters of a path."""
_PIECE = 1 << 20


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(offset, bytes, content) of each line that is not blank, without its end; the content is empty where the line is
    longer than MAX_LINE."""
    at, line, size = 0, bytearray(), 0

    def ended() -> Iterator[tuple[int, int, bytes]]:
        if size > MAX_LINE or line.strip():
            yield at, size, bytes(line) if size <= MAX_LINE else b""

    while piece := stream.readline(_PIECE):
        whole = piece.endswith(b"\n")
        size += len(piece) - whole
        if size <= MAX_LINE:
            line += piece[: len(piece) - whole]
        if whole:
            yield from ended()
            at, line, size = at + size + 1, bytearray(), 0
    yield from ended()


def names_in(line: bytes, files: Collection[str]) -> list[str]:
    """The paths of `files` that a line names, each once, in the order of the line."""
    try:
        pending: list[Any] = [json.loads(line.decode("utf-8-sig"))]
    except (ValueError, RecursionError):  # the stage that reads the line says what is wrong with it
        return []
    named: dict[str, None] = {}
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += reversed(value.values())
        elif isinstance(value, list):
            pending += reversed(value)
        elif isinstance(value, str):
            path = next((path for path in paths_of(value) if path in files), None)
            if path is not None:
                named[path] = None
    return list(named)


def paths_of(name: str) -> Iterator[str]:
    """The paths that a name may mean, the longest first: itself, and without its first folders. None of a URL, nor of
    what is longer than a path."""
    if "://" in name or not 0 < len(name) <= LONGEST:
        return
    path = posixpath.normpath(name)
    while path:
        yield path
        path = path.partition("/")[2]


def quoted(path: str) -> str:
    """The path as the end of a file's name: without a slash."""
    return quote(path, safe="", errors="surrogateescape")
