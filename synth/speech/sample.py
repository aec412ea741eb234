"""The speech of `grist sample-data DIR --speech N`: which rows there are, in which files. Notable choices:

- a row is a function of seed, file and number; more rows leave those before them as they are;
- containers differ on purpose, so that a pipeline is shown each of them: folders, tars, Parquet;
- every sentence that is held out is held out of all files, in clips and in words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gristmill.synth.speech
from gristmill.synth.draw import Draw
from gristmill.synth.scenes.sample import Written, refuse_foreign
from gristmill.synth.speech import containers
from gristmill.synth.speech import rows as rows_of
from gristmill.synth.speech.containers import Row
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.hearing import hearing
from gristmill.synth.speech.sentences import Part
from gristmill.synth.speech.voices import HELD_OUT_VOICES, VOICES, Speaker

FOLDER = "speech"
HELD_OUT = 240
_README = "README.md"
_WRITERS = {"tar": containers.write_tar, "parquet": containers.write_parquet, "folder": containers.write_folder}


@dataclass(frozen=True)
class _File:
    """Rows with clips. `name` without an extension, which is the container's."""

    name: str
    make: Callable[[Draw, Part, Speaker], Row]
    count: int
    part: Part
    container: str
    voices: tuple[str, ...] = VOICES

    @property
    def path(self) -> str:
        """Below the folder."""
        return self.name if self.container == "folder" else f"{self.name}.{self.container}"


class _Kind(NamedTuple):
    """Files of one kind of row. `share`: of the rows that are asked for, to train on; `unheard`: whether held-out
    voices say some too."""

    make: Callable[[Draw, Part, Speaker], Row]
    container: str
    share: float
    unheard: bool = False


_KINDS = {
    "digits": _Kind(rows_of.digits, "tar", 1, True),
    "phrases": _Kind(rows_of.phrase, "folder", 1 / 2, True),
    "questions": _Kind(rows_of.question, "parquet", 1 / 4, True),
    "scenes": _Kind(rows_of.scene, "tar", 1 / 2, True),
    "translations": _Kind(rows_of.translation, "parquet", 1 / 10),
    "listening": _Kind(rows_of.listening, "folder", 1 / 10),
    "sounds": _Kind(rows_of.sound, "tar", 1 / 10),
    "reports": _Kind(rows_of.report, "parquet", 1 / 50),
}


def check_speech(directory: Path, *, rows: int = 6000, held_out: int | None = None) -> None:
    """Raises what `write_speech` raises, and writes nothing."""
    if rows < 1 or (held_out is not None and held_out < 1):
        raise ValueError(f"rows={rows}, held_out={held_out}: at least 1 of each is needed")
    Espeak()
    lines = {f"{name}.jsonl" for name in _words(rows, held_out)}
    refuse_foreign(Path(directory) / FOLDER, _expected(_files(rows, held_out)) | lines)


def write_speech(directory: Path, *, rows: int = 6000, held_out: int | None = None, seed: int = 0) -> Written:
    """Writes `directory`/speech: `rows` clips of digits to train on, fewer of each other kind, and `held_out` in each
    file that is asked: 240 of 2,000 rows and more, else an eighth of them, and of no kind more than there are to train
    on. What the files are: synth/speech/__init__.py.

    Files of an earlier run are overwritten; a file that this run does not write, as of a run with more rows, raises
    FileExistsError before anything is touched. ValueError for fewer than 1 row or 1 held-out row; NoEngine where
    espeak-ng is not installed.
    """
    check_speech(directory, rows=rows, held_out=held_out)
    engine = Espeak()
    folder, files, words = Path(directory) / FOLDER, _files(rows, held_out), _words(rows, held_out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _README).write_text(gristmill.synth.speech.__doc__ or "", encoding="utf-8")
    kinds = Counter[str]()
    for file in files:
        _WRITERS[file.container](folder / file.path, _counted(_rows(file, seed, engine), kinds))
    for name, (count, part) in words.items():
        lines = (_line(name, number, *hearing(Draw(seed, FOLDER, name, number), part)) for number in range(count))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        kinds["speech_hearing"] += count
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(directory).as_posix() for path in written if path.suffix != ".wav"]
    return Written(tuple(names), sum(path.stat().st_size for path in written), dict(sorted(kinds.items())))


def _words(rows: int, held_out: int | None) -> dict[str, tuple[int, Part]]:
    """The files of questions without sound: rows of each, and what it is for."""
    asked = _asked(2 * rows, rows) if held_out is None else held_out
    return {"hearing": (2 * rows, "train"), "hearing-held-out": (asked, "held_out")}


def _files(rows: int, held_out: int | None) -> list[_File]:
    files = []
    for name, kind in _KINDS.items():
        count = max(1, round(kind.share * rows))
        asked = _asked(count, rows) if held_out is None else held_out
        files.append(_File(name, kind.make, count, "train", kind.container))
        files.append(_File(f"{name}-held-out", kind.make, asked, "held_out", kind.container))
        if kind.unheard:
            files.append(_File(f"{name}-voices", kind.make, asked, "held_out", kind.container, HELD_OUT_VOICES))
    return files


def _asked(count: int, rows: int) -> int:
    """Held-out rows of a file of which `count` are trained on, where nobody says how many."""
    return min(HELD_OUT, -(-rows // 8), count)


def _rows(file: _File, seed: int, engine: Espeak) -> Iterator[Row]:
    for number in range(file.count):
        row = file.make(Draw(seed, FOLDER, file.name, number), file.part, Speaker(engine, file.voices))
        yield row._replace(id=f"{file.name}-{number:05}")


def _counted(rows: Iterator[Row], kinds: Counter[str]) -> Iterator[Row]:
    """Rows as they pass, counted by kind."""
    for row in rows:
        kinds[f"speech_{row.kind}"] += 1
        yield row


def _expected(files: list[_File]) -> set[str]:
    """Names below the folder, of files with clips."""
    expected = {_README} | {file.path for file in files}
    for file in files:
        if file.container == "folder":
            expected |= {f"{file.name}/{file.name}-{number:05}.wav" for number in range(file.count)}
            expected.add(f"{file.name}/metadata.jsonl")
    return expected


def _line(name: str, number: int, kind: str, prompt: str, answer: str) -> str:
    """A row of words, as a question with its answer and as one text."""
    fields = {"id": f"{name}-{number:05}", "source": kind, "question": prompt, "answer": answer}
    return json.dumps(fields | {"text": f"{prompt}\n{answer}"}) + "\n"
