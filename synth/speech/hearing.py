"""Speech told in words, as an encoder tells it: what a language model can learn before it hears anything.

A clip becomes a line of tokens, each for 80 milliseconds: a word stands there as often as it lasts, with blanks before,
between and behind. Transcripts are those of clips, so a language model that learned these rows only has to be shown
what the words sound like. Two equal words have a blank between them, as in connectionist temporal classification.

Each piece has to be one token, as words behind a space are: digits stand there by their names.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.speech.sentences import Part, drawn_digits, drawn_phrase, drawn_question

BLANK = "blank"
ASKED = "What is said?"
"""The prompt of a transcript, in words and of clips."""
_CLIP = ":\n"
"""Before a clip in words: a token of a role takes spaces behind it away, that of the first piece too."""


class Heard(NamedTuple):
    """`prompt`: a clip in words and what is asked about it."""

    kind: str
    prompt: str
    answer: str


def hearing(draw: Draw, part: Part) -> Heard:
    """A clip to transcribe, or a question to answer."""
    kind = draw.fraction()
    if kind < 0.25:
        question = drawn_question(draw, part)
        return Heard("hearing_question", f"{_CLIP}{pieces(question.words, draw)}", question.fields["answer"])
    said = drawn_digits(draw, part) if kind < 0.7 else drawn_phrase(draw, part)
    return Heard(f"hearing_{said.kind}", f"{_CLIP}{pieces(said.words, draw)}\n{ASKED}", said.fields["text"])


def pieces(words: str, draw: Draw) -> str:
    """What is said, as a line; each piece is behind a space."""
    line = [BLANK] * draw.below(2)
    before = None
    for word in words.lower().replace("?", "").split():
        if word == before or (before is not None and draw.chance(0.4)):
            line.append(BLANK)
        line += [word] * draw.between(1, 4)
        before = word
    line += [BLANK] * draw.below(3)
    return "".join(f" {piece}" for piece in line)
