"""The scenes of `grist sample-data DIR`: which rows there are, in which files. Notable choices:

- a row is a function of seed, file and number; more rows leave those before them as they are;
- containers differ on purpose, so that a pipeline is shown each of them: a folder, tars, Parquet;
- files are written one after the other: memory holds one of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gristmill.synth.scenes
from gristmill.synth.draw import Draw
from gristmill.synth.scenes import containers
from gristmill.synth.scenes.containers import Row
from gristmill.synth.scenes.figures import NOTHING, Part, caption, drawn_figure, drawn_scene
from gristmill.synth.scenes.frames import drawn_frames
from gristmill.synth.scenes.outlines import FACES, NEW_FACES, Face
from gristmill.synth.scenes.picture import background, png, quadrant_pixels, scene_pixels
from gristmill.synth.scenes.questions import Asked, asked
from gristmill.synth.scenes.words import reading

FOLDER = "scenes"
_README = "README.md"
_NOTHING_SHARE = 0.05
_TURNS = 2
"""Questions about what a row of training shows: more is learned of each picture. What is held out is asked once."""
_Make = Callable[[Draw, Part], Row]


@dataclass(frozen=True)
class Written:
    """What was written: names of files below the directory, their bytes, and rows by kind. Pictures of a folder count
    as files, and are not named."""

    files: tuple[str, ...]
    bytes: int
    kinds: dict[str, int]


@dataclass(frozen=True)
class _File:
    """`name` without an extension, which is the container's."""

    name: str
    make: _Make
    count: int
    part: Part
    container: str


def check_scenes(directory: Path, *, scenes: int = 12_000, held_out: int = 400) -> None:
    """Raises what `write_scenes` raises, and writes nothing."""
    if scenes < 2 or held_out < 1:
        raise ValueError(f"scenes={scenes}, held_out={held_out}: at least 2 and 1 are needed")
    refuse_foreign(Path(directory) / FOLDER, _expected(_files(scenes, held_out)))


def write_scenes(directory: Path, *, scenes: int = 12_000, held_out: int = 400, seed: int = 0) -> Written:
    """Writes `directory`/scenes: `scenes` rows to train on in each file, half as many in frames, and `held_out` rows in
    each that is asked. What the files are: synth/scenes/__init__.py.

    Files of an earlier run are overwritten; a file that this run does not write, as of a run with more scenes, raises
    FileExistsError before anything is touched. ValueError for fewer than 2 scenes or 1 held-out row.
    """
    check_scenes(directory, scenes=scenes, held_out=held_out)
    folder, files = Path(directory) / FOLDER, _files(scenes, held_out)
    readme = (gristmill.synth.scenes.__doc__ or "").encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _README).write_bytes(readme)
    size, kinds, names = len(readme), Counter[str](), [f"{FOLDER}/{_README}"]
    for file in files:
        rows = Counted(_rows(file, seed))
        for name, data in _written(file, rows):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            size += len(data)
            if not name.endswith(".png"):
                names.append(f"{FOLDER}/{name}")
        kinds.update(f"scenes_{kind}" for kind in rows.kinds.elements())
    return Written(tuple(sorted(names)), size, dict(sorted(kinds.items())))


class Counted:
    """Rows as they pass, counted by kind."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.kinds: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.kinds[row.kind] += 1
            yield row


def _files(scenes: int, held_out: int) -> list[_File]:
    half = scenes // 2
    return [
        _File("objects", _object, 2 * scenes, "train", "tar"),
        _File("objects-held-out", _object, held_out, "held_out", "tar"),
        _File("captions", _caption, scenes, "train", "folder"),
        _File("captions-held-out", _caption, held_out, "held_out", "folder"),
        _File("captions-withheld", _caption, held_out, "withheld", "folder"),
        _File("captions-faces", partial(_caption, faces=NEW_FACES), held_out, "held_out", "folder"),
        _File("questions", _question, scenes, "train", "tar"),
        _File("questions-held-out", _question, held_out, "held_out", "tar"),
        _File("questions-withheld", _question, held_out, "withheld", "tar"),
        _File("frames", _frames, half, "train", "parquet"),
        _File("frames-held-out", _frames, held_out, "held_out", "parquet"),
        _File("reading", _reading, 2 * scenes, "train", "lines"),
        _File("reading-held-out", _reading, held_out, "held_out", "lines"),
    ]


def _rows(file: _File, seed: int) -> Iterator[Row]:
    for number in range(file.count):
        row = file.make(Draw(seed, FOLDER, file.name, number), file.part)
        yield row._replace(id=f"{file.name}-{number:05}")


def _written(file: _File, rows: Counted) -> Iterator[tuple[str, bytes]]:
    """Names below the folder and bytes."""
    if file.container == "folder":
        for name, data in containers.folder(rows).items():
            yield f"{file.name}/{name}", data
    elif file.container == "tar":
        yield f"{file.name}.tar", containers.tar(rows)
    elif file.container == "parquet":
        yield f"{file.name}.parquet", containers.parquet(rows)
    else:
        yield f"{file.name}.jsonl", b"".join(map(_line, rows))


def _expected(files: list[_File]) -> set[str]:
    """Names below the folder."""
    expected = {_README} | {f"{file.name}.{'jsonl' if file.container == 'lines' else file.container}" for file in files}
    for file in files:
        if file.container == "folder":
            expected |= {f"{file.name}/{file.name}-{number:05}.png" for number in range(file.count)}
            expected.add(f"{file.name}/metadata.jsonl")
    return expected


def refuse_foreign(folder: Path, expected: Set[str]) -> None:
    """Raises FileExistsError for a file below a folder that is not expected there: what another run left."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if foreign := sorted(present - expected):
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign[:3])}, which this run does not write: choose an empty directory, or"
            f" remove {folder.name} first"
        )


# One row of each kind of file; its id follows from its place.


def _object(draw: Draw, part: Part) -> Row:
    figure = None if draw.chance(_NOTHING_SHARE) else drawn_figure(draw, 0)
    return _captioned("object", quadrant_pixels(figure, draw), str(figure or NOTHING))


def _caption(draw: Draw, part: Part, faces: tuple[Face, ...] = FACES) -> Row:
    scene = drawn_scene(draw, part)
    return _captioned("caption", scene_pixels(scene, draw, background(draw), faces), caption(scene))


def _captioned(kind: str, pixels: np.ndarray, text: str) -> Row:
    return Row("", (png(pixels),), (Asked(kind, "", text),))


def _question(draw: Draw, part: Part) -> Row:
    scene = drawn_scene(draw, part)
    questions = asked(scene, draw, part, _turns(part))
    pixels = scene_pixels(scene, draw, background(draw))
    return Row("", (png(pixels),), questions)


def _frames(draw: Draw, part: Part) -> Row:
    frames = drawn_frames(draw, part, _turns(part))
    shade = background(draw)
    pictures = []
    for scene in frames.scenes:
        pictures.append(png(scene_pixels(scene, draw, shade)))
        shade = shade if frames.is_video else background(draw)
    return Row("", tuple(pictures), frames.asked)


def _reading(draw: Draw, part: Part) -> Row:
    prompt, questions = reading(draw, part, _turns(part))
    return Row("", (), questions, prompt)


def _turns(part: Part) -> int:
    return _TURNS if part == "train" else 1


def _line(row: Row) -> bytes:
    """A row of reading, as turns and as one text."""
    messages = containers.conversation(row)
    text = "\n".join(map(_text, messages))
    fields = {"id": row.id, "source": f"reading_{row.kind}", "messages": messages, "text": text}
    return json.dumps(fields).encode() + b"\n"


def _text(message: dict[str, Any]) -> str:
    """What is said, behind what is thought."""
    thought = message.get("reasoning_content")
    return f"<think>\n{thought}\n</think>\n\n{message['content']}" if thought else message["content"]
