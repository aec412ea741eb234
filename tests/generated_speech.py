"""Rows of generated speech as their containers have them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import soundfile

NAMES = ("digits", "phrases", "questions", "scenes", "translations", "listening", "sounds", "reports")
UNHEARD = NAMES[:4]
"""Those with files of held-out voices."""


class Clip(NamedTuple):
    """A row."""

    fields: dict[str, Any]
    data: bytes
    picture: bytes | None = None

    @property
    def sound(self) -> tuple[np.ndarray, int]:
        """float32 [samples], and Hz."""
        samples, rate = soundfile.read(io.BytesIO(self.data), dtype="float32")
        return samples, rate

    @property
    def words(self) -> str:
        """What is said."""
        return str(self.fields.get("text") or self.fields["question"])


def clips(speech: Path, name: str) -> list[Clip]:
    """Rows of a file below speech/."""
    if (folder := speech / name).is_dir():
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        return [Clip(row, (folder / row["file_name"]).read_bytes()) for row in rows]
    if (path := speech / f"{name}.tar").exists():
        return list(_of_tar(path))
    return [Clip(row, row.pop("audio")["bytes"]) for row in pq.read_table(speech / f"{name}.parquet").to_pylist()]


def _of_tar(path: Path) -> Iterator[Clip]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.endswith(".json"):
            key = name.removesuffix(".json")
            yield Clip(json.loads(data), files[f"{key}.flac"], files.get(f"{key}.png"))
