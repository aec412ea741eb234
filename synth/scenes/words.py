"""Scenes told in words, as an encoder tells them: what a language model can learn before it sees anything.

A picture becomes the rows of tokens that its crops become, word for token: four rows of four pieces, a separator, and
the whole picture again as two rows of two; a piece is a word of what is there, or `blank`. Captions, questions and
answers are those of pictures, so a language model that learned these rows only has to be shown what the words look
like. Every word of a figure stands in its quadrant, up to four times, in any order but that digits, as the words for
them, are read from left to right.

Each piece, and each end of a row, has to be one token: places are found by counting. Of words behind a space that holds
in the pattern of o200k, but not of digits, nor of signs before the end of a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import Figure, Part, Scene, caption, drawn_figure, drawn_scene
from gristmill.synth.scenes.frames import ORDINALS, Frames, drawn_frames
from gristmill.synth.scenes.questions import Asked, asked, fit, yes_or_no

BLANK = "blank"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEPARATOR = "-"
_PAIRS = 4
_PICTURE = ":\n"
"""Before a picture in words: a token of a role takes spaces behind it away, that of the first piece too."""


class Reading(NamedTuple):
    """`prompt`: what comes before the first question: pictures in words."""

    prompt: str
    asked: tuple[Asked, ...]


def reading(draw: Draw, part: Part, count: int) -> Reading:
    """A scene or several, and what is said of it, or up to `count` questions with their answers."""
    what = draw.below(12)
    if what >= 10:
        return _alike(draw)
    if what < 2:
        scene = drawn_scene(draw, part)
        frames = Frames((scene,), (Asked("caption", "", caption(scene)),))
    elif what < 5:
        scene = drawn_scene(draw, part)
        frames = Frames((scene,), asked(scene, draw, part, count))
    else:
        frames = drawn_frames(draw, part, count)
    pictures = [lines(scene, draw) for scene in frames.scenes]
    prompt = "".join(announced(pictures))
    return Reading(prompt if len(pictures) > 1 else f"{_PICTURE}{prompt}", frames.asked)


def _alike(draw: Draw) -> Reading:
    """Pairs of figures without a place: which are the same, in the words of a thought. Few figures of two scenes are
    alike but for one word, so that what is in doubt would be compared too seldom there."""
    pairs = [_near_pair(draw) for _ in range(_PAIRS)]
    prompt = "".join(f"- {first}, {second}\n" for first, second in pairs)
    if draw.chance(0.5):
        lines = [f"first {first} second {second} {yes_or_no(first == second)}" for first, second in pairs]
        return Reading(prompt, (Asked("alike", "Which are the same?", "\n".join(lines)),))
    lines = []
    for figure, other in pairs:
        wanted = other.shape if other.shape and draw.chance(0.3) else str(other)
        lines.append(f"- {fit(figure, wanted)}")
    return Reading(prompt, (Asked("alike", "Which are as the second?", "\n".join(lines)),))


def _near_pair(draw: Draw) -> tuple[Figure, Figure]:
    """The same figure twice, or two of a kind, most of which differ in a word or a digit."""
    figure = drawn_figure(draw, 0)
    if draw.chance(0.4):
        return figure, figure
    shared = draw.pick((0, 1, 1))
    while True:
        other = drawn_figure(draw, 0)
        if bool(other.digits) == bool(figure.digits) and _shared(figure, other) == shared:
            return figure, other


def _shared(figure: Figure, other: Figure) -> int:
    """In how many of two words or digits two figures of a kind are alike."""
    if figure.digits:
        return sum(a == b for a, b in zip(figure.digits, other.digits, strict=True))
    return (figure.colour == other.colour) + (figure.shape == other.shape)


def announced(pictures: Sequence[str]) -> list[str]:
    """What stands for pictures; several are announced by number. To be joined, or, with pictures themselves between,
    the parts of a message."""
    if len(pictures) == 1:
        return list(pictures)
    return [part for ordinal, picture in zip(ORDINALS, pictures, strict=False) for part in (f"{ordinal}:\n", picture)]


def lines(scene: Scene, draw: Draw) -> str:
    """Seven lines; each piece is behind a space."""
    near = [[BLANK] * 4 for _ in range(4)]
    far = [[BLANK] * 2 for _ in range(2)]
    for figure in scene:
        row, col = divmod(figure.place, 2)
        pieces = _pieces(figure, draw)
        for at, piece in enumerate(pieces):
            near[2 * row + at // 2][2 * col + at % 2] = piece
        far[row][col] = draw.pick(pieces)
    return f"{_text(near)}{SEPARATOR}\n{_text(far)}"


def _text(rows: list[list[str]]) -> str:
    return "".join("".join(f" {piece}" for piece in row) + "\n" for row in rows)


def _pieces(figure: Figure, draw: Draw) -> list[str]:
    """Of a quadrant, row by row."""
    if figure.digits:
        pieces = [BLANK] * 4
        # Of the same rows, so that they are met in the order in which they are said: an encoder can imitate that.
        for row in draw.pick(((0,), (1,), (0, 1))):
            pieces[2 * row : 2 * row + 2] = [DIGITS[int(digit)] for digit in figure.digits]
        return pieces
    words = [figure.colour, figure.shape]
    return draw.shuffled([*words, draw.pick((*words, BLANK)), draw.pick((*words, BLANK))])
