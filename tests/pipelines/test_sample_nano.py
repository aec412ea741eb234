"""What the sample has for a small model: answers that are right, and held-out rows that training has nothing of."""

from __future__ import annotations

import json
import re
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import sample_files

from gristmill.synth.sample import write_sample

sample = sample_files.sample
NAMES = ("stories", "copying")


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The lines of a file below nano/."""
    return [json.loads(line) for line in (folder / "nano" / f"{name}.jsonl").read_text().splitlines()]


def test_every_step_of_a_story_is_what_its_event_says(sample: Path) -> None:
    for row in rows(sample, "stories") + rows(sample, "stories-held-out"):
        opening, *events, question = re.split(r"(?<=\.) ", row["question"])
        *steps, last = row["answer"].splitlines()
        assert 2 <= len(steps) == len(events) <= 4 and question == "How many now?"
        value = int(re.search(r"\d+", opening)[0])  # type: ignore[index]
        for event, step in zip(events, steps, strict=True):
            before, sign, operand, after = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", step).groups()  # type: ignore[union-attr]
            verb = re.sub(r"^(She|He) | \d+| more|\.", "", event)
            amount = {"The number doubles": "2", "The number triples": "3"}.get(verb) or re.search(r"\d+", event)[0]  # type: ignore[index]
            adds, takes = ("buys", "finds", "gets", "wins"), ("gives away", "loses", "sells", "lends out")
            assert sign == ("+" if verb in adds else "-" if verb in takes else "*") and operand == amount
            assert int(before) == value and 1 <= int(after) <= 99
            value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[sign]
            assert value == int(after)
        assert last == f"#### {value}"


def test_a_copy_is_each_piece_once(sample: Path) -> None:
    both = rows(sample, "copying") + rows(sample, "copying-held-out")
    for row in both:
        task, _, shown = row["question"].partition(": ")
        pieces = [piece for piece, _ in groupby(word for word in shown.split() if word != "_")]
        copies = 2 if task == "Repeat twice" else 1
        assert row["answer"].splitlines() == [f"- {' '.join(pieces)}"] * copies
        assert task == "Without repeats" or shown == " ".join(pieces)
    stretched = [row for row in both if row["question"].startswith("Without repeats")]
    assert 0.35 < len(stretched) / len(both) < 0.45 and any("_ _" in row["question"] for row in stretched)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("word", [r"\w+", r"\S+"])
def test_no_13_words_in_a_row_are_in_both_files(sample: Path, name: str, word: str) -> None:
    def runs(name: str, length: int) -> set[tuple[str, ...]]:
        texts = [re.findall(word, f"{row['question']} {row['answer']}".lower()) for row in rows(sample, name)]
        return {tuple(text[i : i + length]) for text in texts for i in range(len(text) - length + 1)}

    assert len(runs(name, 13)) > 10_000 and not runs(name, 13) & runs(f"{name}-held-out", 13)
    assert runs(name, 5) & runs(f"{name}-held-out", 5), "the same kind of text, though"


def test_pairs_of_numbers_are_on_one_side(sample: Path) -> None:
    def pairs(name: str) -> set[tuple[str, str]]:
        operands = [re.findall(r"[-+*](\d+)=", row["answer"]) for row in rows(sample, name)]
        return {pair for numbers in operands for pair in pairwise(numbers)}

    training, held_out = pairs("stories"), pairs("stories-held-out")
    assert not training & held_out and len(training) == 51 and len(held_out) == 13


def test_rows_differ_and_depend_on_the_seed_and_how_many(sample: Path, tmp_path: Path) -> None:
    for name in NAMES:
        for file, least in ((name, 4000), (f"{name}-held-out", 200)):
            lines = rows(sample, file)
            assert len({row["question"] for row in lines}) == len({row["id"] for row in lines}) == len(lines) >= least
    write_sample(tmp_path / "few", pages=100, seed=3, stories=50, copying=20)
    assert rows(tmp_path / "few", "stories") == rows(sample, "stories")[:50]
    assert rows(tmp_path / "few", "copying-held-out") == rows(sample, "copying-held-out")
    write_sample(tmp_path / "other", pages=100, seed=4, stories=50, copying=20)
    assert rows(tmp_path / "other", "stories") != rows(tmp_path / "few", "stories")
    with pytest.raises(ValueError, match="copying=0: at least 1"):
        write_sample(tmp_path / "none", pages=100, copying=0)
