"""Copying: what a language model has to be able to do before it can be taught to read images or speech.

An encoder hands a language model a row of vectors, some of which say the same thing twice and some nothing, and the
model writes what they say. A model learns that in minutes if it can already do it with tokens. Notable choices:

- plain (`Repeat:`, `Repeat twice:`), or stretched (`Without repeats:`): every piece up to three times, with blanks `_`
  between;
- pieces are words, digits, or letters that spell no word, so that what is copied cannot be guessed;
- an answer is a list, `- red blue`, so that its pieces follow a space and are the same tokens as in the question;
- a piece never follows itself, hence the answer to a stretched row is unique;
- which rows of pieces are held out is decided by a hash of the pieces.
"""

from __future__ import annotations

import hashlib

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row

_HELD_OUT = 1 / 8  # of all rows of pieces
_WORDS = """
red blue green yellow black white small large round long circle square star ring cross line left right above below
first last zero one two three four five six seven eight nine ten sun moon rain snow wind river lake hill tree leaf
stone sand house door table chair book pen cup bread dog cat horse bird fish mouse open close come go look find
"""
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_KINDS = ("words", "words", "letters", "letters", "digits")
_COUNTS = {"words": (1, 8), "letters": (1, 5), "digits": (2, 5)}


def copying(draw: Draw, *, held_out: bool = False) -> Row:
    """`question`, a row of pieces, and `answer`, the same row each piece once; of those held out, or of the others."""
    what = draw.pick(_KINDS)
    pieces = _pieces(draw, what)
    while _is_held_out(pieces) != held_out:
        pieces = _pieces(draw, what)
    row = " ".join(pieces)
    if draw.chance(0.4):
        question = f"Without repeats: {' '.join(_stretched(draw, pieces))}"
        return Row("copying_stretched", {"question": question, "answer": f"- {row}"})
    if draw.chance(0.5):
        return Row("copying_twice", {"question": f"Repeat twice: {row}", "answer": f"- {row}\n- {row}"})
    return Row("copying_once", {"question": f"Repeat: {row}", "answer": f"- {row}"})


def _pieces(draw: Draw, what: str) -> list[str]:
    pieces: list[str] = []
    count = draw.between(*_COUNTS[what])
    while len(pieces) < count:
        piece = _piece(draw, what)
        if not pieces or piece != pieces[-1]:
            pieces.append(piece)
    return pieces


def _piece(draw: Draw, what: str) -> str:
    if what == "digits":
        return str(draw.below(10))
    if what == "words":
        return draw.pick(_WORDS.split())
    return "".join(draw.pick(_CONSONANTS) + draw.pick(_VOWELS) for _ in range(draw.between(1, 3)))


def _stretched(draw: Draw, pieces: list[str]) -> list[str]:
    """Each piece one to three times, and up to two blanks before it."""
    shown: list[str] = []
    for piece in pieces:
        shown += ["_"] * draw.pick((0, 0, 1, 2))
        shown += [piece] * draw.between(1, 3)
    return shown


def _is_held_out(pieces: list[str]) -> bool:
    number = int.from_bytes(hashlib.blake2b(" ".join(pieces).encode(), digest_size=8).digest(), "big")
    return number < _HELD_OUT * 2**64
