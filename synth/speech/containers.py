"""Rows with clips as files: a folder with lines, a tar as webdataset writes them, and Parquet as Hugging Face does.

Clips are WAV in a folder and FLAC elsewhere, of 16 bits. Bytes depend on rows alone (FLAC's on the release of its
encoder too): no times, owners or random names. Rows are written as they come, and memory holds a few of them.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from gristmill.synth.scenes.containers import add_member
from gristmill.synth.speech.tts import Waveform

_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PARQUET_ROWS = 200


class Row(NamedTuple):
    """A row: its clip, `fields` beside it, texts all, and a picture, a PNG file, where it has one."""

    id: str
    kind: str
    clip: Waveform
    fields: Mapping[str, str]
    picture: bytes | None = None


def encoded(clip: Waveform, form: str) -> bytes:
    """A file of 16 bits. form: WAV or FLAC."""
    stream = io.BytesIO()
    whole = np.clip(np.rint(clip.samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    soundfile.write(stream, whole, clip.rate, format=form, subtype="PCM_16")
    return stream.getvalue()


def write_folder(path: Path, rows: Iterable[Row]) -> None:
    """A clip a file, and `metadata.jsonl`, whose lines name them and have the fields."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for row in rows:
            name = f"{row.id}.wav"
            (path / name).write_bytes(encoded(row.clip, "WAV"))
            lines.write(f"{_json({'id': row.id, 'source': row.kind, 'file_name': name, **row.fields})}\n")


def write_tar(path: Path, rows: Iterable[Row]) -> None:
    """A sample a row: `ID.json` with the fields, `ID.flac`, and `ID.png` of a picture."""
    with tarfile.open(path, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            add_member(archive, f"{row.id}.json", _json({"source": row.kind, **row.fields}).encode())
            add_member(archive, f"{row.id}.flac", encoded(row.clip, "FLAC"))
            if row.picture is not None:
                add_member(archive, f"{row.id}.png", row.picture)


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Columns id, source, audio (Hugging Face's `Audio()`), and those of the first row's fields."""
    writer: pq.ParquetWriter | None = None
    try:
        for group in _groups(rows):
            names = ("id", "source", *group[0].fields)
            schema = pa.schema([*((name, pa.string()) for name in names), ("audio", _AUDIO)])
            writer = writer or pq.ParquetWriter(path, schema)
            columns = [{"id": row.id, "source": row.kind, "audio": _audio(row), **row.fields} for row in group]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))
    finally:
        if writer is not None:
            writer.close()


def _audio(row: Row) -> dict[str, Any]:
    return {"bytes": encoded(row.clip, "FLAC"), "path": None}


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    left = iter(rows)
    while group := list(islice(left, _PARQUET_ROWS)):
        yield group


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False)
