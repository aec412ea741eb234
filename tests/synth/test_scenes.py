"""Generated scenes: pictures show what is said of them, answers follow from pictures, and what is held out is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import scenes
from scenes import Line, Reading, lines

from gristmill.synth.scenes.figures import NOTHING, WITHHELD_DIGITS, WITHHELD_PAIRS
from gristmill.synth.scenes.sample import write_scenes

SCENES, HELD_OUT = 160, 60
CAPTIONS = ("captions", "captions-held-out", "captions-withheld", "captions-faces", "objects", "objects-held-out")
ASKED = ("questions", "questions-held-out", "questions-withheld", "frames", "frames-held-out")
TRAINED = ("captions", "objects", "questions", "frames")
ORDINALS = ("first", "second", "third")
GRID = re.compile(r"(?:^ .+$\n?){4}", re.MULTILINE)
WITHHELD = {" ".join(pair) for pair in WITHHELD_PAIRS} | {f"text {' '.join(digits)}" for digits in WITHHELD_DIGITS}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scenes/ of a small sample."""
    folder = tmp_path_factory.mktemp("sample")
    write_scenes(folder, scenes=SCENES, held_out=HELD_OUT, seed=3)
    return folder / "scenes"


def files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def captioned(reading: Reading) -> str:
    return " ".join(f"{place} {figure}" for place, figure in reading.items())


@pytest.mark.parametrize("name", CAPTIONS)
def test_a_picture_shows_what_its_caption_says(sample: Path, name: str) -> None:
    rows = lines(sample, name)
    # of single figures there are twice as many: pairs of digits take the longest to be told apart
    assert len(rows) == (2 * SCENES if name == "objects" else SCENES if name in TRAINED else HELD_OUT)
    for row in rows:
        (reading,) = row.readings
        if row.kind == "object":
            assert row.answer == reading.get("top left", NOTHING)
        else:
            assert row.answer == captioned(reading) and len(reading) == 2


def place(first: Reading, question: str) -> str:
    return first.get(question.removeprefix("What is ").strip("?"), NOTHING)


def colour(first: Reading, question: str) -> str:
    (figure,) = [figure for figure in first.values() if figure.endswith(question.strip("?").rpartition(" ")[2])]
    return figure.partition(" ")[0]


def where(first: Reading, question: str) -> str:
    (at,) = [at for at, figure in first.items() if question.strip("?").rpartition(" ")[2] in figure.split()]
    return at


def digits(first: Reading, question: str) -> str:
    (text,) = [figure for figure in first.values() if figure.startswith("text")]
    assert question == "Which digits?"
    return text.removeprefix("text ")


def there(first: Reading, question: str) -> str:
    return "yes" if re.fullmatch(r"Is there a (.+)\?", question)[1] in first.values() else "no"  # type: ignore[index]


def frame(readings: list[Reading], question: str) -> str:
    where, ordinal = re.fullmatch(r"What is (.+) in the (\w+)\?", question).groups()  # type: ignore[union-attr]
    assert all(where in reading for reading in readings)
    return readings[ORDINALS.index(ordinal)][where]


def same(readings: list[Reading], question: str) -> str:
    before, after = readings
    at = re.fullmatch(r"Is (.+) the same in both\?", question)[1]  # type: ignore[index]
    return "yes" if before.get(at) == after.get(at) else "no"


def changed(readings: list[Reading], question: str) -> str:
    before, after = readings
    assert question == "What changed?"
    (at,) = [at for at in {**before, **after} if before.get(at) != after.get(at)]
    return f"{at} {before.get(at, NOTHING)} became {after.get(at, NOTHING)}"


def which(readings: list[Reading], question: str) -> str:
    figure = re.fullmatch(r"Which has a (.+)\?", question)[1]  # type: ignore[index]
    (number,) = [number for number, reading in enumerate(readings) if figure in reading.values()]
    return ORDINALS[number]


ONE: dict[str, Callable[[Reading, str], str]] = {
    "place": place, "colour": colour, "where": where, "digits": digits, "there": there,
}  # fmt: skip
SEVERAL: dict[str, Callable[[list[Reading], str], str]] = {
    "frame": frame, "same": same, "changed": changed, "which": which,
}  # fmt: skip


def answered(row: Line) -> str:
    """The answer by what the pictures show, and by the question."""
    if row.kind in ONE:
        (reading,) = row.readings
        return ONE[row.kind](reading, row.question)
    return SEVERAL[row.kind](row.readings, row.question)


@pytest.mark.parametrize("name", ASKED)
def test_every_answer_follows_from_the_pictures(sample: Path, name: str) -> None:
    rows = lines(sample, name)
    for row in rows:
        assert row.answer == answered(row), row.question
    kinds = Counter(row.kind for row in rows)
    assert set(kinds) == set(SEVERAL if name.startswith("frames") else ONE) and min(kinds.values()) >= 2
    for kind, least in (("there", 0.3), ("same", 0.3)):
        answers = [row.answer for row in rows if row.kind == kind]
        assert not answers or len(answers) < 20 or least < answers.count("yes") / len(answers) < 1 - least


def test_reading_in_words_has_the_answers_of_pictures(sample: Path) -> None:
    for name in ("reading", "reading-held-out"):
        for row in map(json.loads, (sample / f"{name}.jsonl").read_text().splitlines()):
            readings = [_read_in_words(grid) for grid in GRID.findall(row["question"])]
            question, kind = row["question"].rpartition("\n")[2], row["source"].removeprefix("reading_")
            if kind == "caption":
                assert row["answer"] == captioned(readings[0]) and len(readings) == 1
            elif kind in ONE:
                assert row["answer"] == ONE[kind](readings[0], question) and len(readings) == 1
            else:
                assert row["answer"] == SEVERAL[kind](readings, question)
            assert row["text"] == f"{row['question']}\n{row['answer']}"


def _read_in_words(grid: str) -> Reading:
    rows = [line.split() for line in grid.strip("\n").splitlines()]
    reading: Reading = {}
    for number, at in enumerate(scenes.PLACES):
        top, left = (2 * n for n in divmod(number, 2))
        cells = [rows[top + y][left + x] for y in (0, 1) for x in (0, 1)]
        words = set(cells) - {"_"}
        if any(word.isdigit() for word in words):
            columns = [{cells[x], cells[x + 2]} - {"_"} for x in (0, 1)]
            ((first,), (second,)) = columns
            reading[at] = f"text {first} {second}"
        elif words:
            (name,) = words & set(scenes.COLOURS)
            (shape,) = words - {name}
            reading[at] = f"{name} {shape}"
    return reading


def shown(sample: Path, name: str) -> set[str]:
    """Captions of all pictures of a file."""
    return {captioned(reading) for row in lines(sample, name) for reading in row.readings if len(reading) > 1}


def test_no_held_out_scene_is_one_of_training(sample: Path, tmp_path: Path) -> None:
    trained = set[str]().union(*(shown(sample, name) for name in TRAINED))
    write_scenes(tmp_path, scenes=SCENES, held_out=HELD_OUT, seed=4)
    held_out = ("captions-held-out", "captions-faces", "questions-held-out", "frames-held-out")
    for folder in (sample, tmp_path / "scenes"):  # of another seed as well
        for name in held_out:
            assert shown(folder, name) and not shown(folder, name) & trained


def test_withheld_things_are_shown_and_asked_for_apart(sample: Path) -> None:
    others = (*TRAINED, "captions-held-out", "captions-faces", "questions-held-out", "frames-held-out")
    for name in others:
        for row in lines(sample, name):
            assert not {figure for reading in row.readings for figure in reading.values()} & WITHHELD
            assert not any(figure in f"{row.question} {row.answer}" for figure in WITHHELD)
    for name in ("reading", "reading-held-out"):
        for row in map(json.loads, (sample / f"{name}.jsonl").read_text().splitlines()):
            figures = [figure for grid in GRID.findall(row["question"]) for figure in _read_in_words(grid).values()]
            asked = f"{row['question'].rpartition(chr(10))[2]} {row['answer']}"
            assert figures and not set(figures) & WITHHELD and not any(figure in asked for figure in WITHHELD)
    for name in ("captions-withheld", "questions-withheld"):
        figures = {figure for row in lines(sample, name) for reading in row.readings for figure in reading.values()}
        assert figures <= WITHHELD and len(figures) > len(WITHHELD) // 2


def test_the_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "again", scenes=SCENES, held_out=HELD_OUT, seed=3)
    assert files(tmp_path / "again" / "scenes") == files(sample)
    write_scenes(tmp_path / "other", scenes=SCENES, held_out=HELD_OUT, seed=4)
    other = files(tmp_path / "other" / "scenes")
    assert {name for name, data in files(sample).items() if other[name] == data} == {"README.md"}


def test_more_scenes_leave_the_others_as_they_are(sample: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, scenes=SCENES + 20, held_out=HELD_OUT, seed=3)
    for name in TRAINED:
        rows = lines(tmp_path / "scenes", name)
        assert rows[: len(lines(sample, name))] == lines(sample, name) and len(rows) > len(lines(sample, name))


def test_what_another_run_left_is_not_mixed_in(sample: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, scenes=12, held_out=3)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"captions-00010\.png"):
        write_scenes(tmp_path, scenes=10, held_out=3)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="scenes=1"):
        write_scenes(tmp_path, scenes=1)
