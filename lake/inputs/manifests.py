"""Manifests of a folder of clips, each a list of rows: Common Voice's, LibriSpeech's, Kaldi's and Lhotse's, as JSON.

A row is what a line of `folder::PATH/NAME.jsonl` would say: its fields, and in `audio` the file that it speaks of. Here
rows are only put together (a line of `segments` with its text and its recording); what they mean is not known, and a
line that does not have the form of its file becomes a row that says so and names nothing. Kaldi's commands (`sox |`)
name no file, and are not run. All but rows of JSON lines is text in UTF-8; a line is as long as MAX_LINE at most.
What is joined says again what stands once in a file, and what is compressed says more than it has bytes: all rows
together are bounded by a multiple of these.
Source: https://kaldi-asr.org/doc/data_prep.html; the release notes of Common Voice and of LibriSpeech; Lhotse's are in
lake/inputs/lhotse.py.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, NamedTuple

from gristmill.lake.inputs.folder_lines import LONGEST, MAX_LINE, SUFFIXES, ZIPPED, lines_of, names_in
from gristmill.lake.inputs.lhotse import is_cut, row_of_cut, row_of_supervision, source_of
from gristmill.lake.inputs.unzipped import EXPANSION, Broken, unzipped

KALDI, TSV, LIBRISPEECH = "wav.scp", ".tsv", ".trans.txt"
LINES = (*SUFFIXES, *ZIPPED)
MANIFESTS = (*LINES, TSV, LIBRISPEECH)
_CLIPS = "clips/"
"""Where Common Voice has the files whose bare names its rows give."""
MULTIPLE, LEAST_ROWS = 16, 1 << 20
"""Rows that are put together have so many times the bytes of the files of their manifest at most (of compressed ones
EXPANSION times), or LEAST_ROWS bytes; what is more is unread."""
LONGEST_COLUMNS = 1 << 16
"""Characters of the line that names columns: every row says them again."""
_SOUNDS = (".flac", ".wav", ".mp3", ".ogg", ".opus")

UNREAD = "unread"
"""The only field of a row that stands for a line of which none can be made, or for the missing end of a file."""

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
    if not name.endswith(LINES) or recordings == name:
        return [name]
    plain = recordings.removesuffix(".gz")  # either of the two may be compressed
    return [name, *[path for path in (recordings, plain, f"{plain}.gz") if path in beside][:1]]


def rows_of(parts: list[str], files: Collection[str], open_file: Open, size: int) -> Iterator[Row]:
    """The rows of a manifest that consists of these files, in its order. `files`: paths that rows can name; `size`:
    bytes of the manifest's files together."""
    name = parts[0]
    if name == KALDI:
        rows = _kaldi(parts, open_file)
    elif len(parts) > 1:
        rows = _lhotse(parts[0], parts[1], open_file)
    elif name.endswith(LINES) and is_cut(_first(name, open_file)):
        rows = _cuts(name, open_file)
    elif name.endswith(SUFFIXES):
        with open_file(name) as stream:
            for at, length, line in lines_of(stream):
                yield Row(b"", names_in(line, files), at, length, _is_part(line))
        return
    elif name.endswith(ZIPPED):
        rows = (_object(line) or _unread(name, line) for line in _lines(name, open_file))
    else:
        read = _common_voice if name.endswith(TSV) else _librispeech
        rows = read(name, files, open_file)
    yield from _written(name, rows, files, size, EXPANSION if name.endswith(ZIPPED) else MULTIPLE)


def _written(
    name: str, rows: Iterator[dict[str, Any]], files: Collection[str], size: int, multiple: int
) -> Iterator[Row]:
    most, written = max(LEAST_ROWS, multiple * size), 0
    for row in rows:
        data = json.dumps(row).encode()
        if len(data) > MAX_LINE or written + len(data) > most:
            row = _unread(name, f"a row of {len(data)} bytes, of {MAX_LINE} allowed, and {most} of all rows")
            data = json.dumps(row).encode()
        written += len(data)
        line = data if name.endswith(ZIPPED) else json.dumps({"audio": row.get("audio")}).encode()
        yield Row(data, names_in(line, files), None, len(data), _has_start(row))


def _is_part(line: bytes) -> bool:
    """Whether a line of JSON says where in its file it begins."""
    if b'"start"' not in line and b'"offset"' not in line:
        return False
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and _has_start(row)


def _has_start(row: dict[str, Any]) -> bool:
    return row.get("start", row.get("offset")) is not None


def _lines(name: str, open_file: Open) -> Iterator[str]:
    """The lines of a file; of a compressed one that breaks off, a last one that says so, and is no row of any kind."""
    with open_file(name) as stream:
        plain = unzipped(stream) if name.endswith(".gz") else stream
        try:
            for at, _, line in lines_of(plain):
                yield line.removeprefix(b"\xef\xbb\xbf" if at == 0 else b"").decode("utf-8", "replace").rstrip("\r")
        except Broken as broken:
            yield str(broken)


def _first(name: str, open_file: Open) -> dict[str, Any]:
    """The first line of a file of JSON lines; nothing where it is none."""
    return _object(next(_lines(name, open_file), "")) or {}


def _unread(name: str, line: str) -> dict[str, Any]:
    """A line of which no row can be made: a record without a clip, so that it has a fate."""
    return {UNREAD: f"{name}: {line[:200]}"}


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
    """Supervisions, each with the file of its recording. Of recordings with one id the first counts."""
    files: dict[str, str] = {}
    for line in _lines(recordings, open_file):
        recording = _object(line)
        if recording is None:
            yield _unread(recordings, line)
        elif (source := source_of(recording)) is not None:
            files.setdefault(*source)
    for line in _lines(supervisions, open_file):
        row = _object(line)
        yield _unread(supervisions, line) if row is None else row_of_supervision(row, files)


def _cuts(name: str, open_file: Open) -> Iterator[dict[str, Any]]:
    for line in _lines(name, open_file):
        row = row_of_cut(_object(line) or {})
        yield _unread(name, line) if row is None else row


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
