"""Manifests of a folder of clips, each a list of rows: Common Voice's, LibriSpeech's, Kaldi's and Lhotse's, as JSON.

A row is what a line of `folder::PATH/NAME.jsonl` would say: its fields, and in `audio` the file that it speaks of. Here
rows are only put together (a line of `segments` with its text and its recording); what they mean is not known, and a
line that does not have the form of its file becomes a row that says so and names nothing. Kaldi's commands (`sox |`)
name no file, and are not run. All but rows of JSON lines is text in UTF-8; a line is as long as MAX_LINE at most.
Source: https://kaldi-asr.org/doc/data_prep.html; Lhotse 1.30, `RecordingSet` and `SupervisionSet`; the release notes of
Common Voice and of LibriSpeech.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from gristmill.lake.inputs.folder_lines import SUFFIXES, lines_of, names_in

KALDI, TSV, LIBRISPEECH = "wav.scp", ".tsv", ".trans.txt"
MANIFESTS = (*SUFFIXES, TSV, LIBRISPEECH)
_CLIPS = "clips/"
"""Where Common Voice has the files whose bare names its rows give."""
_SOUNDS = (".flac", ".wav", ".mp3", ".ogg", ".opus")

Open = Callable[[str], BinaryIO]
"""Of the path of a file beside the manifest."""


class Row(NamedTuple):
    """`files`: those that it names, paths in the folder. `at`, `size`: where it stands in the manifest, byte for byte;
    None: it was put together, and is `data`, JSON in UTF-8. `is_part`: it speaks of a part of its file."""

    data: bytes
    files: list[str]
    at: int | None
    size: int
    is_part: bool


def is_manifest(path: str) -> bool:
    """Whether a file of this name is read as one."""
    return path.endswith(MANIFESTS) or posixpath.basename(path) == KALDI


def parts_of(name: str, beside: Collection[str]) -> list[str]:
    """The files that the manifest `name` consists of, itself first. `beside`: all in its folder."""
    if name == KALDI:
        return [name, *(other for other in ("segments", "text", "utt2lang") if other in beside)]
    recordings = name.replace("supervisions", "recordings")
    return [name, recordings] if name.endswith(SUFFIXES) and recordings != name and recordings in beside else [name]


def rows_of(parts: list[str], files: Collection[str], open_file: Open) -> Iterator[Row]:
    """The rows of a manifest that consists of these files, in its order. `files`: paths that rows can name."""
    name = parts[0]
    if name == KALDI:
        yield from _written(_kaldi(parts, open_file), files)
    elif len(parts) > 1:
        yield from _written(_lhotse(*parts, open_file), files)
    elif name.endswith(SUFFIXES):
        with open_file(name) as stream:
            for at, size, line in lines_of(stream):
                yield Row(b"", names_in(line, files), at, size, _is_part(line))
    else:
        read = _common_voice if name.endswith(TSV) else _librispeech
        yield from _written(read(name, files, open_file), files)


def _written(rows: Iterator[dict[str, Any]], files: Collection[str]) -> Iterator[Row]:
    for row in rows:
        data = json.dumps(row).encode()
        named = names_in(json.dumps({"audio": row.get("audio")}).encode(), files)
        yield Row(data, named, None, len(data), "start" in row)


def _is_part(line: bytes) -> bool:
    """Whether a line of JSON says where in its file it begins."""
    if b'"start"' not in line and b'"offset"' not in line:
        return False
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and (row.get("start", row.get("offset")) is not None)


def _lines(name: str, open_file: Open) -> Iterator[str]:
    with open_file(name) as stream:
        for at, _, line in lines_of(stream):
            yield line.removeprefix(b"\xef\xbb\xbf" if at == 0 else b"").decode("utf-8", "replace").rstrip("\r")


def _unread(name: str, line: str) -> dict[str, Any]:
    """A line of which no row can be made: a record without a clip, so that it has a fate."""
    return {"unread": f"{name}: {line[:200]}"}


def _common_voice(name: str, files: Collection[str], open_file: Open) -> Iterator[dict[str, Any]]:
    """Columns as the first line names them; empty ones are left out. `path` is a file in clips/."""
    lines = _lines(name, open_file)
    columns = next(lines, "").split("\t")
    for line in lines:
        values = line.split("\t")
        row: dict[str, Any] = {key: value for key, value in zip(columns, values, strict=False) if value}
        path = row.pop("path", None)
        if len(values) != len(columns) or path is None:
            yield _unread(name, line)
            continue
        yield row | {"audio": _CLIPS + path if _CLIPS + path in files else path}


def _librispeech(name: str, files: Collection[str], open_file: Open) -> Iterator[dict[str, Any]]:
    """`KEY WORDS`, where KEY is the name of a file beside it, without its ending."""
    for line in _lines(name, open_file):
        key, _, text = line.partition(" ")
        file = next((key + ending for ending in _SOUNDS if key + ending in files), key)
        yield {"id": key, "audio": file, "text": text.strip()} if text.strip() else _unread(name, line)


def _kaldi(parts: list[str], open_file: Open) -> Iterator[dict[str, Any]]:
    """Segments with their recording and text; recordings, where there is no file of segments."""
    tables = {name: dict(_pairs(name, open_file)) for name in parts if name != "segments"}
    texts, languages = tables.get("text", {}), tables.get("utt2lang", {})

    def row(key: str, recording: str) -> dict[str, Any]:
        known = {"id": key, "audio": tables[KALDI].get(recording), "text": texts.get(key)}
        known["language"] = languages.get(key)
        return {name: value for name, value in known.items() if value is not None}

    if "segments" not in parts:
        yield from (row(key, key) for key in tables[KALDI])
        return
    for line in _lines("segments", open_file):
        fields = line.split()
        try:
            key, recording, start, end = fields
            part = {"start": float(start), "end": float(end)}
        except ValueError:  # another number of fields, or no numbers
            yield _unread("segments", line)
            continue
        yield row(key, recording) | part


def _pairs(name: str, open_file: Open) -> Iterator[tuple[str, str]]:
    for line in _lines(name, open_file):
        key, *rest = line.split(maxsplit=1)
        yield key, rest[0].strip() if rest else ""


def _lhotse(supervisions: str, recordings: str, open_file: Open) -> Iterator[dict[str, Any]]:
    """Supervisions, each with the file of its recording."""
    files = dict(_sources(recordings, open_file))
    for line in _lines(supervisions, open_file):
        row = _object(line)
        if row is None:
            yield _unread(supervisions, line)
            continue
        recording = row.get("recording_id")
        audio = files.get(recording) if isinstance(recording, str) else None
        yield row | ({} if audio is None else {"audio": audio})


def _sources(recordings: str, open_file: Open) -> Iterator[tuple[str, str]]:
    """(id, file) of recordings that lie in one file."""
    for line in _lines(recordings, open_file):
        row = _object(line) or {}
        match row:
            case {"id": str(key), "sources": [{"type": "file", "source": str(path)}]}:
                yield key, path


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
