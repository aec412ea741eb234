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

from gristmill.synth.scenes.questions import Asked
from gristmill.synth.scenes.words import announced

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(_PART)), ("reasoning_content", pa.string())])
_SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("images", pa.list_(_IMAGE)), ("messages", pa.list_(_MESSAGE))]
)
_PARQUET_ROWS = 1000


class Row(NamedTuple):
    """A row: files of pictures, and what is asked about them, turn by turn, or one caption. `prompt`: text before the
    first question, instead of pictures."""

    id: str
    pictures: tuple[bytes, ...]
    asked: tuple[Asked, ...]
    prompt: str = ""

    @property
    def kind(self) -> str:
        """Of what is asked first."""
        return self.asked[0].kind

    @property
    def caption(self) -> str | None:
        """None: questions are asked."""
        return None if self.asked[0].question else self.asked[0].answer


def folder(rows: Iterable[Row]) -> dict[str, bytes]:
    """Name -> bytes: a picture a file, and `metadata.jsonl`, whose lines name them and say the captions."""
    files: dict[str, bytes] = {}
    lines: list[str] = []
    for row in rows:
        (picture,) = row.pictures
        files[f"{row.id}.png"] = picture
        lines.append(_json({"id": row.id, "source": row.kind, "file_name": f"{row.id}.png", "text": row.caption}))
    files["metadata.jsonl"] = "".join(f"{line}\n" for line in lines).encode()
    return files


def tar(rows: Iterable[Row]) -> bytes:
    """A sample a row: `ID.json`, where a caption is `text`, and `ID.png`, or `ID.0.png`, `ID.1.png`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            content = {"messages": messages(row)} if row.caption is None else {"text": row.caption}
            add_member(archive, f"{row.id}.json", _json({"source": row.kind, **content}).encode())
            for number, picture in enumerate(row.pictures):
                add_member(archive, f"{row.id}.png" if len(row.pictures) == 1 else f"{row.id}.{number}.png", picture)
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


def conversation(row: Row) -> list[dict[str, Any]]:
    """The turns of a row in words, whose first has the prompt."""
    turns: list[dict[str, Any]] = []
    for number, asked in enumerate(row.asked):
        prompt = row.prompt if number == 0 else ""
        thought = {"reasoning_content": asked.thought} if asked.thought else {}
        turns += [
            {"role": "user", "content": f"{prompt}{asked.question}"},
            {"role": "assistant", "content": asked.answer, **thought},
        ]
    return turns


def messages(row: Row) -> list[dict[str, Any]]:
    """The turns of a row, whose first shows the pictures, as parts. ValueError for a caption."""
    if row.caption is not None:
        raise ValueError(f"{row.id} is a caption: nobody asks")
    picture = ""  # no text of a message is empty
    shown = [
        {"type": "text", "text": part} if part != picture else {"type": "image"}
        for part in announced([picture] * len(row.pictures))
    ]
    turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in conversation(row)]
    turns[0]["content"] = [*shown, *turns[0]["content"]]
    return turns


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file of a tar, whose header says its name and size and nothing of the machine."""
    member = tarfile.TarInfo(name)  # of mode 0644, owned by nobody, from 1970
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields)
