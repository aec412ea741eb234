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

import gristmill.synth.speech
from gristmill.synth.draw import Draw
from gristmill.synth.scenes.sample import Written
from gristmill.synth.speech import containers
from gristmill.synth.speech.containers import Row
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.hearing import hearing
from gristmill.synth.speech.sentences import Part, Spoken, drawn_digits, drawn_phrase, drawn_question
from gristmill.synth.speech.voices import HELD_OUT_VOICES, VOICES, drawn_manner, spoken

FOLDER = "speech"
_README = "README.md"
_WRITERS = {"tar": containers.write_tar, "parquet": containers.write_parquet, "folder": containers.write_folder}


@dataclass(frozen=True)
class _File:
    """Rows with clips. `name` without an extension, which is the container's."""

    name: str
    drawn: Callable[[Draw, Part], Spoken]
    count: int
    part: Part
    container: str
    voices: tuple[str, ...] = VOICES

    @property
    def path(self) -> str:
        """Below the folder."""
        return self.name if self.container == "folder" else f"{self.name}.{self.container}"


def write_speech(directory: Path, *, rows: int = 6000, held_out: int = 240, seed: int = 0) -> Written:
    """Writes `directory`/speech: `rows` clips of digits to train on, half as many of each other kind, and `held_out` in
    each file that is asked. What the files are: synth/speech/__init__.py.

    Files of an earlier run are overwritten; a file that this run does not write, as of a run with more rows, raises
    FileExistsError before anything is touched. ValueError for fewer than 2 rows or 1 held-out row; NoEngine where
    espeak-ng is not installed.
    """
    if rows < 2 or held_out < 1:
        raise ValueError(f"rows={rows}, held_out={held_out}: at least 2 and 1 are needed")
    engine = Espeak()
    folder = Path(directory) / FOLDER
    files = _files(rows, held_out)
    words: dict[str, tuple[int, Part]] = {
        "hearing": (2 * rows, "train"),
        "hearing-held-out": (held_out, "held_out"),
    }
    _refuse_foreign(folder, files, [f"{name}.jsonl" for name in words])
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


def _files(rows: int, held_out: int) -> list[_File]:
    half = rows // 2
    return [
        _File("digits", drawn_digits, rows, "train", "tar"),
        _File("digits-held-out", drawn_digits, held_out, "held_out", "tar"),
        _File("digits-voices", drawn_digits, held_out, "held_out", "tar", HELD_OUT_VOICES),
        _File("phrases", drawn_phrase, half, "train", "folder"),
        _File("phrases-held-out", drawn_phrase, held_out, "held_out", "folder"),
        _File("phrases-voices", drawn_phrase, held_out, "held_out", "folder", HELD_OUT_VOICES),
        _File("questions", drawn_question, half, "train", "parquet"),
        _File("questions-held-out", drawn_question, held_out, "held_out", "parquet"),
        _File("questions-voices", drawn_question, held_out, "held_out", "parquet", HELD_OUT_VOICES),
    ]


def _rows(file: _File, seed: int, engine: Espeak) -> Iterator[Row]:
    for number in range(file.count):
        draw = Draw(seed, FOLDER, file.name, number)
        said = file.drawn(draw, file.part)
        manner = drawn_manner(draw, file.voices)
        fields = {**said.fields, "language": "en", "voice": manner.voice}
        yield Row(f"{file.name}-{number:05}", said.kind, spoken(engine, said.words, manner), fields)


def _counted(rows: Iterator[Row], kinds: Counter[str]) -> Iterator[Row]:
    """Rows as they pass, counted by kind."""
    for row in rows:
        kinds[f"speech_{row.kind}"] += 1
        yield row


def _refuse_foreign(folder: Path, files: list[_File], lines: list[str]) -> None:
    """Raises FileExistsError for what another run left."""
    expected = {_README, *lines} | {file.path for file in files}
    for file in files:
        if file.container == "folder":
            expected |= {f"{file.name}/{file.name}-{number:05}.wav" for number in range(file.count)}
            expected.add(f"{file.name}/metadata.jsonl")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if foreign := sorted(present - expected):
        raise FileExistsError(
            f"{folder} holds {', '.join(foreign[:3])}, which this speech does not have: choose an empty directory, or"
            f" remove {FOLDER} first"
        )


def _line(name: str, number: int, kind: str, prompt: str, answer: str) -> str:
    """A row of words, as a question with its answer and as one text."""
    fields = {"id": f"{name}-{number:05}", "source": kind, "question": prompt, "answer": answer}
    return json.dumps(fields | {"text": f"{prompt}\n{answer}"}) + "\n"
