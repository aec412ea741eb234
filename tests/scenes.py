"""A reader of generated pictures that knows nothing of how they were drawn but the outlines: what it reads is compared
with what is said of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from gristmill.synth.scenes.figures import COLOURS, PLACES, SHAPES
from gristmill.synth.scenes.outlines import FACES, NEW_FACES, Face, digit_mask, shape_mask

Reading = dict[str, str]
"""Place -> what is there."""
_SIDE = 32


class Turn(NamedTuple):
    """A question, the answer, and what is thought before it."""

    question: str
    answer: str
    thought: str = ""


class Line(NamedTuple):
    """A row as its container has it: pictures as files, questions with their answers. A caption has no question."""

    kind: str
    pictures: tuple[bytes, ...]
    asked: tuple[Turn, ...]

    @property
    def caption(self) -> str:
        """Of a row without a question."""
        (turn,) = self.asked
        assert not turn.question and not turn.thought
        return turn.answer

    @property
    def readings(self) -> list[Reading]:
        """What each picture shows."""
        return [read(picture) for picture in self.pictures]


def lines(scenes: Path, name: str) -> list[Line]:
    """The rows of a file below scenes/."""
    if (scenes / name).is_dir():
        rows = [json.loads(line) for line in (scenes / name / "metadata.jsonl").read_text().splitlines()]
        return [
            Line(row["source"], ((scenes / name / row["file_name"]).read_bytes(),), (Turn("", row["text"]),))
            for row in rows
        ]
    if (path := scenes / f"{name}.tar").exists():
        return list(_of_tar(path))
    table = pq.read_table(scenes / f"{name}.parquet").to_pylist()
    return [_line(row, tuple(image["bytes"] for image in row["images"])) for row in table]


def _of_tar(path: Path) -> Iterator[Line]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    for name, data in files.items():
        if name.endswith(".json"):
            yield _line(json.loads(data), (files[name.replace(".json", ".png")],))


def _line(row: dict[str, Any], pictures: tuple[bytes, ...]) -> Line:
    if "text" in row:
        return Line(row["source"], pictures, (Turn("", row["text"]),))
    contents = [turn["content"] for turn in row["messages"]]
    assert [part["type"] for part in contents[0]].count("image") == len(pictures)
    texts = [content[-1]["text"] for content in contents]
    return Line(row["source"], pictures, turns(texts, row["messages"]))


def turns(texts: list[str], messages: list[dict[str, Any]]) -> tuple[Turn, ...]:
    """Of the texts of messages."""
    thoughts = [message.get("reasoning_content") or "" for message in messages]
    assert not any(thoughts[::2])
    return tuple(map(Turn, texts[::2], texts[1::2], thoughts[1::2]))


@lru_cache(maxsize=4096)
def read(picture: bytes) -> Reading:
    """What is in the quadrants of a picture, or in the only one."""
    pixels = np.asarray(Image.open(io.BytesIO(picture))).astype(np.int32)
    reading: Reading = {}
    for number, place in enumerate(PLACES[: (len(pixels) // _SIDE) ** 2]):
        top, left = (at * _SIDE for at in divmod(number, 2))
        figure = _read_quadrant(pixels[top : top + _SIDE, left : left + _SIDE], pixels[0, 0])
        if figure:
            reading[place] = figure
    return reading


def _read_quadrant(pixels: np.ndarray, shade: np.ndarray) -> str:
    """`shade`: the background's, as the corner of a picture has it, which nothing reaches."""
    off = np.abs(pixels - shade).sum(2)
    if not off.any():
        return ""
    rows, cols = np.flatnonzero(off.any(1)), np.flatnonzero(off.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    strongest = np.unravel_index(off.argmax(), off.shape)
    share = off[inside] / off[strongest]
    name, difference = min(
        ((name, _difference(share, mask)) for name, mask in _outlines(share.shape)), key=lambda pair: pair[1]
    )
    assert difference < 0.03, (name, difference)
    if name in SHAPES:
        colour = min(COLOURS, key=lambda other: np.abs(pixels[strongest] - COLOURS[other]).max())
        assert np.abs(pixels[strongest] - COLOURS[colour]).max() <= 12
        return f"{colour} {name}"
    return f"text {name[0]} {name[1]}"


@lru_cache(maxsize=1024)
def _outlines(size: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Every shape and every pair of digits that has this size, trimmed, as shares."""
    return [(name, mask) for name, mask in _all_outlines() if mask.shape == size]


@lru_cache(maxsize=1)
def _all_outlines() -> list[tuple[str, np.ndarray]]:
    masks = [(shape, shape_mask(shape, radius)) for shape in SHAPES for radius in range(7, 11)]
    masks += [(f"{n:02}", _pair(f"{n:02}", face)) for n in range(100) for face in (*FACES, *NEW_FACES)]
    return [(name, _trimmed(mask) / 255) for name, mask in masks]


def _pair(digits: str, face: Face) -> np.ndarray:
    first, second = (digit_mask(int(digit), face) for digit in digits)
    return np.hstack([first, np.zeros((len(first), 2), np.uint8), second])


def _trimmed(mask: np.ndarray) -> np.ndarray:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _difference(share: np.ndarray, mask: np.ndarray) -> float:
    return float(np.abs(share - mask).mean())
