"""What is said in generated clips: digits, and phrases of the words for generated scenes. Notable choices:

- a transcript is what a model writes: digits as numerals, words and questions as they stand in synth/scenes, so that
  one language model of a million parameters knows the words of both;
- which sentences are held out is decided by a hash of the transcript, hence the same for every seed and every number
  of rows; of scenes it is their own hash.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import COLOURS, PLACES, SHAPES, caption, drawn_figure, drawn_scene, is_held_out
from gristmill.synth.scenes.words import DIGITS

SHORTEST, LONGEST = 3, 5
"""Digits of a sentence."""

Part = Literal["train", "held_out"]


class Spoken(NamedTuple):
    """What a clip is of. `words`: what is said, in words that an engine says; `fields`: of the row beside the clip."""

    kind: str
    words: str
    fields: dict[str, str]


def transcribed(kind: str, text: str) -> Spoken:
    """A clip whose transcript `text` is learned."""
    return Spoken(kind, in_words(text), {"text": text})


def in_words(text: str) -> str:
    """Every digit by its name."""
    return re.sub("[0-9]", lambda digit: DIGITS[int(digit[0])], text)


def part_of(text: str) -> Part:
    """Whether a text of digits or of a question is held out."""
    return "held_out" if is_held_out(text) else "train"


def drawn_digits(draw: Draw, part: Part) -> Spoken:
    """`4 2 7`: 3 to 5 of them."""
    while True:
        count = draw.between(SHORTEST, LONGEST)
        text = " ".join(str(draw.below(10)) for _ in range(count))
        if part_of(text) == part:
            return transcribed("digits", text)


def drawn_phrase(draw: Draw, part: Part) -> Spoken:
    """Held out: what scenes show that are held out. To train on: that of others, of one quadrant, and every question
    that is asked about scenes, of which there are too few to hold any out."""
    if part == "held_out":
        return transcribed("scene", caption(drawn_scene(draw, "held_out")))
    if draw.chance(0.5):
        return transcribed("asked", _of_scenes(draw))
    if draw.chance(0.5):
        place = draw.below(len(PLACES))
        return transcribed("quadrant", f"{PLACES[place]} {drawn_figure(draw, place)}")
    return transcribed("scene", caption(drawn_scene(draw, "train")))


def drawn_question(draw: Draw, part: Part) -> Spoken:
    """A question about digits, which the clip asks and the answer, a digit, answers."""
    while True:
        question, answer = _sum(draw) if draw.chance(0.8) else _neighbour(draw)
        if part_of(question) == part:
            return Spoken("question", in_words(question), {"question": question, "answer": answer})


def _sum(draw: Draw) -> tuple[str, str]:
    """Of two or three digits, and a digit after every step."""
    total = draw.below(10)
    words = ["What is", str(total)]
    for _ in range(draw.between(1, 2)):
        if draw.chance(0.5):
            digit = draw.below(10 - total)
            words += ["plus", str(digit)]
            total += digit
        else:
            digit = draw.below(total + 1)
            words += ["minus", str(digit)]
            total -= digit
    return f"{' '.join(words)}?", str(total)


def _neighbour(draw: Draw) -> tuple[str, str]:
    """The digit after another one, or before it."""
    if draw.chance(0.5):
        digit = draw.below(9)
        return f"Which digit comes after {digit}?", str(digit + 1)
    digit = draw.between(1, 9)
    return f"Which digit comes before {digit}?", str(digit - 1)


def _of_scenes(draw: Draw) -> str:
    """In the words of synth/scenes/questions.py."""
    kind = draw.below(8)
    if kind < 3:
        return f"What is {draw.pick(PLACES)}?"
    if kind < 5:
        return f"What colour is the {draw.pick(SHAPES)}?"
    if kind < 7:
        return f"Where is the {draw.pick((*SHAPES, 'text'))}?"
    return f"Is there a {draw.pick(tuple(COLOURS))} {draw.pick(SHAPES)}?" if draw.chance(0.8) else "Which digits?"
