"""Rows with pictures as files: a folder with lines, a tar as webdataset writes them, and Parquet as Hugging Face does.

The same row is in each of them what their users would expect: a caption beside the name of a file, or `messages` whose
image parts stand where the pictures do. Bytes depend on rows alone: no times, owners or random names.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.synth.scenes.words import asked_of

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])
_SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("images", pa.list_(_IMAGE)), ("messages", pa.list_(_MESSAGE))]
)
_PARQUET_ROWS = 1000


class Row(NamedTuple):
    """A row: files of pictures, and an `answer` to a question about them; without a question it is a caption."""

    id: str
    kind: str
    pictures: tuple[bytes, ...]
    question: str | None
    answer: str


def folder(rows: Iterable[Row]) -> dict[str, bytes]:
    """Name -> bytes: a picture a file, and `metadata.jsonl`, whose lines name them and say the captions."""
    files: dict[str, bytes] = {}
    lines: list[str] = []
    for row in rows:
        (picture,) = row.pictures
        files[f"{row.id}.png"] = picture
        lines.append(_json({"id": row.id, "source": row.kind, "file_name": f"{row.id}.png", "text": row.answer}))
    files["metadata.jsonl"] = "".join(f"{line}\n" for line in lines).encode()
    return files


def tar(rows: Iterable[Row]) -> bytes:
    """A sample a row: `ID.json`, where a caption is `text`, and `ID.png`, or `ID.0.png`, `ID.1.png`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            content = {"text": row.answer} if row.question is None else {"messages": messages(row)}
            _add(archive, f"{row.id}.json", _json({"source": row.kind, **content}).encode())
            for number, picture in enumerate(row.pictures):
                _add(archive, f"{row.id}.png" if len(row.pictures) == 1 else f"{row.id}.{number}.png", picture)
    return stream.getvalue()


def parquet(rows: Iterable[Row]) -> bytes:
    """Columns id, source, images (Hugging Face's `List(Image())`), messages."""
    columns = [
        {
            "id": row.id,
            "source": row.kind,
            "images": [{"bytes": picture, "path": None} for picture in row.pictures],
            "messages": messages(row),
        }
        for row in rows
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(columns, schema=_SCHEMA), stream, row_group_size=_PARQUET_ROWS)
    return stream.getvalue()


def messages(row: Row) -> list[dict[str, Any]]:
    """What a user asks of the pictures, which are parts of the message, and the answer. ValueError for a caption."""
    if row.question is None:
        raise ValueError(f"{row.id} is a caption: nobody asks")
    picture = ""  # no text of a message is empty
    parts = asked_of([picture] * len(row.pictures), row.question)
    content = [{"type": "text", "text": part} if part != picture else {"type": "image"} for part in parts]
    answer = [{"type": "text", "text": row.answer}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of mode 0644, owned by nobody, from 1970
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields)
