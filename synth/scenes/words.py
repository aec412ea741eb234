"""Scenes told in words, as an encoder would tell them: what a language model can learn before it sees anything.

A picture becomes four lines of four pieces, as its four crops become rows of tokens: a piece is a word of what is there
or a blank. Captions, questions and answers are those of pictures, so a language model that learned these rows only has
to be shown what the words look like. Every word of a figure stands in its quadrant, up to four times, in any order but
that digits are read from left to right.
"""

from __future__ import annotations

from gristmill.synth.draw import Draw
from gristmill.synth.scenes.figures import Figure, Part, Scene, caption, drawn_scene
from gristmill.synth.scenes.frames import ORDINALS, Frames, drawn_frames
from gristmill.synth.scenes.questions import Asked, asked

BLANK = "_"


def reading(draw: Draw, part: Part) -> Asked:
    """A scene or several, as the question, and what is said of it, or a question behind it with its answer."""
    what = draw.below(10)
    if what < 3:
        scene = drawn_scene(draw, part)
        return Asked("caption", lines(scene, draw), caption(scene))
    if what < 6:
        scene = drawn_scene(draw, part)
        frames = Frames((scene,), asked(scene, draw, part))
    else:
        frames = drawn_frames(draw, part)
    pictures = [lines(scene, draw) for scene in frames.scenes]
    return frames.asked._replace(question="".join(asked_of(pictures, frames.asked.question)))


def asked_of(pictures: list[str], question: str) -> list[str]:
    """A question behind what stands for pictures; several are announced by number. To be joined, or, with pictures
    themselves between, the parts of a message."""
    if len(pictures) == 1:
        return [pictures[0], f"\n{question}"]
    parts: list[str] = []
    for ordinal, picture in zip(ORDINALS, pictures, strict=False):
        before = "\n" if parts else ""
        parts += [f"{before}{ordinal}:\n", picture]
    return [*parts, f"\n{question}"]


def lines(scene: Scene, draw: Draw) -> str:
    """Four lines of four pieces, each behind a space."""
    rows = [[BLANK] * 4 for _ in range(4)]
    for figure in scene:
        row, col = divmod(figure.place, 2)
        for at, piece in enumerate(_pieces(figure, draw)):
            rows[2 * row + at // 2][2 * col + at % 2] = piece
    return "\n".join("".join(f" {piece}" for piece in row) for row in rows)


def _pieces(figure: Figure, draw: Draw) -> list[str]:
    """Of a quadrant, row by row."""
    if figure.digits:
        pieces = [BLANK] * 4
        # In the same rows, so that they are met in the order in which they are said, as an encoder can show them.
        for row in draw.pick(((0,), (1,), (0, 1))):
            pieces[2 * row : 2 * row + 2] = figure.digits
        return pieces
    words = [figure.colour, figure.shape]
    return draw.shuffled([*words, draw.pick((*words, BLANK)), draw.pick((*words, BLANK))])
