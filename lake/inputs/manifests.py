"""Manifests of a folder of clips, each a list of rows: Common Voice's, LibriSpeech's, Kaldi's and Lhotse's, as JSON.

A row is what a line of `folder::PATH/NAME.jsonl` would say: its fields, and in `audio` the file that it speaks of. Here
rows are only put together (a line of `segments` with its text and its recording); what they mean is not known, and a
line that does not have the form of its file becomes a row that says so and names nothing. Kaldi's commands (`sox |`)
name no file, and are not run. All but rows of JSON lines is text in UTF-8; a line is as long as MAX_LINE at most.
What is joined says again what stands once in a file: all rows together are bounded by a multiple of its bytes.
Source: https://kaldi-asr.org/doc/data_prep.html; Lhotse 1.30, `RecordingSet` and `SupervisionSet`; the release notes of
Common Voice and of LibriSpeech.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from gristmill.lake.inputs.folder_lines import LONGEST, MAX_LINE, SUFFIXES, lines_of, names_in

KALDI, TSV, LIBRISPEECH = "wav.scp", ".tsv", ".trans.txt"
MANIFESTS = (*SUFFIXES, TSV, LIBRISPEECH)
_CLIPS = "clips/"
"""Where Common Voice has the files whose bare names its rows give."""
MULTIPLE, LEAST_ROWS = 16, 1 << 20
"""Rows that are put together have so many times the bytes of the files of their manifest at most, or LEAST_ROWS bytes;
what is more is unread."""
LONGEST_COLUMNS = 1 << 16
"""Characters of the line that names columns: every row says them again."""
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


def rows_of(parts: list[str], files: Collection[str], open_file: Open, size: int) -> Iterator[Row]:
    """The rows of a manifest that consists of these files, in its order. `files`: paths that rows can name; `size`:
    bytes of the manifest's files together."""
    name = parts[0]
    if name == KALDI:
        yield from _written(name, _kaldi(parts, open_file), files, size)
    elif len(parts) > 1:
        yield from _written(name, _lhotse(parts[0], parts[1], open_file), files, size)
    elif name.endswith(SUFFIXES):
        with open_file(name) as stream:
            for at, length, line in lines_of(stream):
                yield Row(b"", names_in(line, files), at, length, _is_part(line))
    else:
        read = _common_voice if name.endswith(TSV) else _librispeech
        yield from _written(name, read(name, files, open_file), files, size)


def _written(name: str, rows: Iterator[dict[str, Any]], files: Collection[str], size: int) -> Iterator[Row]:
    most, written = max(LEAST_ROWS, MULTIPLE * size), 0
    for row in rows:
        data = json.dumps(row).encode()
        if len(data) > MAX_LINE or written + len(data) > most:
            row = _unread(name, f"a row of {len(data)} bytes, of {MAX_LINE} allowed, and {most} of all rows")
            data = json.dumps(row).encode()
        written += len(data)
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
    first = next(lines, "")
    columns = first.split("\t") if len(first) <= LONGEST_COLUMNS else []
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
    """Segments with their recording and text; recordings, where there is no file of segments.

    Of lines with one key the first counts; another one of recordings or segments is unread. Other lines of `text` and
    `utt2lang`, and those whose key no row has, say nothing of a clip: they are no rows.
    """
    texts, languages = (dict(_pairs(name, open_file)) if name in parts else {} for name in ("text", "utt2lang"))
    recordings: dict[str, str] = {}
    # With segments its lines are no rows, but for those that cannot be referred to.
    for line in _lines(KALDI, open_file):
        key, path = _pair(line)
        if not key or key in recordings:
            yield _unread(KALDI, line)
            continue
        recordings[key] = path
        if "segments" not in parts:
            yield _utterance(key, path, texts, languages)
    if "segments" not in parts:
        return
    seen = set()
    for line in _lines("segments", open_file):
        fields = line.split()
        try:
            key, recording, start, end = fields
            part = {"start": float(start), "end": float(end)}
        except ValueError:  # another number of fields, or no numbers
            yield _unread("segments", line)
            continue
        if key in seen:
            yield _unread("segments", line)
            continue
        seen.add(key)
        yield _utterance(key, recordings.get(recording, ""), texts, languages) | part


def _utterance(key: str, path: str, texts: dict[str, str], languages: dict[str, str]) -> dict[str, Any]:
    """What is known of an utterance; what is longer than a path names nothing."""
    known = {"id": key, "audio": path if 0 < len(path) <= LONGEST else None, "text": texts.get(key)}
    known["language"] = languages.get(key)
    return {name: value for name, value in known.items() if value is not None}


def _pairs(name: str, open_file: Open) -> Iterator[tuple[str, str]]:
    """Keys, each once, with what the first line says of them."""
    seen = set()
    for line in _lines(name, open_file):
        key, value = _pair(line)
        if key and key not in seen:
            seen.add(key)
            yield key, value


def _pair(line: str) -> tuple[str, str]:
    """Both empty of a line of blanks, such as U+00A0, and of one that is too long to be read."""
    fields = line.split(maxsplit=1)
    return fields[0] if fields else "", fields[1].strip() if len(fields) > 1 else ""


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
            case {"id": str(key), "sources": [{"type": "file", "source": str(path)}]} if len(path) <= LONGEST:
                yield key, path


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
