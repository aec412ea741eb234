"""Generated scenes: pictures show what is said of them, answers follow from pictures, and what is held out is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenes
from scene_answers import ONE, SEVERAL, answered, kind_of, thought
from scenes import Reading, Turn, lines, turns

from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.synth.scenes.figures import NOTHING, WITHHELD_DIGITS, WITHHELD_PAIRS
from gristmill.synth.scenes.sample import write_scenes
from gristmill.synth.scenes.words import BLANK, DIGITS

SCENES, HELD_OUT = 160, 60
CAPTIONS = ("captions", "captions-held-out", "captions-withheld", "captions-faces", "objects", "objects-held-out")
ASKED = ("questions", "questions-held-out", "questions-withheld", "frames", "frames-held-out")
TRAINED = ("captions", "objects", "questions", "frames")
GRID = re.compile(r"((?:^ .+\n){4})-\n((?:^ .+\n){2})", re.MULTILINE)
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
    assert len(rows) == {"objects": 2 * SCENES, "captions": SCENES}.get(name, HELD_OUT)
    for row in rows:
        (reading,) = row.readings
        if row.kind == "object":
            assert row.caption == reading.get("top left", NOTHING)
        else:
            assert row.caption == captioned(reading) and len(reading) == 2


@pytest.mark.parametrize("name", ASKED)
def test_every_answer_follows_from_the_pictures(sample: Path, name: str) -> None:
    rows = lines(sample, name)
    answers: dict[str, list[str]] = {}
    for row in rows:
        assert row.kind == kind_of(row.asked[0].question)
        for question, answer, reasoning in row.asked:
            assert answer == answered(row.readings, question), question
            assert reasoning == thought(row.readings, question), question
            answers.setdefault(kind_of(question), []).append(answer)
    kinds = Counter(row.kind for row in rows)
    assert set(kinds) == set(SEVERAL if name.startswith("frames") else ONE) and min(kinds.values()) >= 2
    for kind in ("there", "same"):
        given = answers.get(kind, [])
        assert len(given) < 20 or 0.25 < given.count("yes") / len(given) < 0.75


@pytest.mark.parametrize("name", ("questions", "frames"))
def test_training_asks_several_different_questions_and_a_held_out_row_one(sample: Path, name: str) -> None:
    counts = Counter(len(row.asked) for row in lines(sample, name))
    assert set(counts) <= {1, 2} and counts[2] > 10
    assert all(len({turn.question for turn in row.asked}) == len(row.asked) for row in lines(sample, name))
    assert {len(row.asked) for row in lines(sample, f"{name}-held-out")} == {1}


def words_of(sample: Path, name: str) -> Iterator[tuple[str, list[Reading], tuple[Turn, ...]]]:
    """Kind, what its pictures show, and turns of the rows in words."""
    for row in map(json.loads, (sample / f"{name}.jsonl").read_text().splitlines()):
        texts = [message["content"] for message in row["messages"]]
        readings = [_read_in_words(*grid) for grid in GRID.findall(texts[0])]
        texts[0] = texts[0].rpartition("\n")[2] if readings else texts[0]
        yield row["source"].removeprefix("reading_"), readings, turns(texts, row["messages"])


@pytest.mark.parametrize("name", ("reading", "reading-held-out"))
def test_reading_in_words_has_the_answers_of_pictures(sample: Path, name: str) -> None:
    for kind, readings, asked in words_of(sample, name):
        assert name == "reading" or len(asked) == 1
        if kind == "caption":
            assert asked == (Turn("", captioned(readings[0])),) and len(readings) == 1
        elif kind == "alike":
            assert asked == (Turn(asked[0].question, alike(asked[0])),)
        else:
            assert kind == kind_of(asked[0].question)
            for turn in asked:
                assert turn == (turn.question, answered(readings, turn.question), thought(readings, turn.question))


def alike(turn: Turn) -> str:
    """Whether the two figures of each line are the same, or the first has the word that stands for the second."""
    *listed, question = turn.question.split("\n")
    verdicts = []
    for line, answer in zip(listed, turn.answer.split("\n"), strict=True):
        first, second = line.removeprefix("- ").split(", ")
        if question == "Which are the same?":
            verdicts.append(f"first {first} second {second} {'yes' if first == second else 'no'}")
            continue
        wanted = second.rpartition(" ")[2] if f"is {second} " not in answer else second
        fits = first == wanted or wanted == first.rpartition(" ")[2]
        verdicts.append(f"- {first} is {wanted} {'yes' if fits else 'no'}")
    return "\n".join(verdicts)


def test_pairs_in_words_are_alike_and_not(sample: Path) -> None:
    turns_of = [asked[0] for kind, _, asked in words_of(sample, "reading") if kind == "alike"]
    verdicts = [line.rpartition(" ")[2] for turn in turns_of for line in turn.answer.split("\n")]
    assert len(verdicts) > 50 and 0.3 < verdicts.count("yes") / len(verdicts) < 0.7


def test_a_picture_in_words_has_a_token_for_each_of_its_own(sample: Path) -> None:
    """So that a place is as far away in words as it is in a picture."""
    rows = [json.loads(line) for line in (sample / "reading.jsonl").read_text().splitlines()]
    texts = [message["content"] for row in rows for message in row["messages"]]
    tokenizer = Tokenizer(train_tokenizer(texts, 512))
    for text in texts[::2]:
        for grid in GRID.finditer(text):
            whole = tokenizer.encode([[Segment(f":\n{grid[0]}")]]).ids
            assert len(whole) == 1 + 27  # 4 rows of 4 and an end, a separator, 2 rows of 2 and an end


def _read_in_words(near: str, far: str) -> Reading:
    rows = [line.split() for line in near.splitlines()]
    small = [line.split() for line in far.splitlines()]
    reading: Reading = {}
    for number, at in enumerate(scenes.PLACES):
        row, col = divmod(number, 2)
        cells = [rows[2 * row + y][2 * col + x] for y in (0, 1) for x in (0, 1)]
        words = set(cells) - {BLANK}
        assert small[row][col] in cells
        if words & set(DIGITS):
            columns = [{cells[x], cells[x + 2]} - {BLANK} for x in (0, 1)]
            ((first,), (second,)) = columns
            reading[at] = f"text {DIGITS.index(first)} {DIGITS.index(second)}"
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
            assert not any(figure in f"{row.asked}" for figure in WITHHELD)
    for name in ("reading", "reading-held-out"):
        for kind, readings, asked in words_of(sample, name):
            figures = {figure for reading in readings for figure in reading.values()}
            assert (
                (figures or kind == "alike")
                and not figures & WITHHELD
                and not any(figure in f"{asked}" for figure in WITHHELD)
            )
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
