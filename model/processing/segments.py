"""Segments: a sample as stretches of text and special tokens, and which of them the loss counts.

Who builds a sample says what is a special token; text never becomes one, whatever it spells. `model.processing.text`
makes tokens of segments. Placeholders, `<|image_1|>` or `<|audio_1|>`, are special tokens of samples that no tokenizer
has: each stands for a medium of the sample, by its kind and its number among those, from 1
(`model.windows.placeholders`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"
SEPARATOR = "<sep>"
"""In an answer that transcribes, and then translates: what stands behind it is the translation."""
_SLICE = 1 << 20  # characters encoded at a time
_PLACEHOLDER = re.compile(r"<\|(image|audio)_(\d{1,9})\|>")


class Segment(NamedTuple):
    """A stretch of a sample. `special`: `text` is the name of a special token; `loss_mask`: the loss counts its tokens,
    all of them."""

    text: str
    special: bool = False
    loss_mask: bool = False


class Placeholder(NamedTuple):
    """What a part of a sample stands for: `image` or `audio`, and the number of the medium among those, from 1."""

    kind: str
    number: int


def placeholder(kind: str, number: int) -> Segment:
    """The part that stands for a medium, by its number from 1."""
    return Segment(f"<|{kind}_{number}|>", special=True)


def placeholder_of(part: Segment) -> Placeholder | None:
    """What a part stands for; None: for itself."""
    match = _PLACEHOLDER.fullmatch(part.text) if part.special else None
    return Placeholder(match[1], int(match[2])) if match else None


def placeholders(parts: Sequence[Segment]) -> list[Placeholder]:
    """Those of a sample, in their order."""
    return [item for item in map(placeholder_of, parts) if item is not None]


def split_at_placeholders(part: Segment, kind: str) -> list[Segment]:
    """A text, in parts where it spells placeholders of media of a kind; these become special, as their number is
    written: `<|image_01|>` is `<|image_1|>`."""
    split, at = list[Segment](), 0
    for match in _PLACEHOLDER.finditer(part.text):
        if match[1] == kind:
            split += [part._replace(text=part.text[at : match.start()]), placeholder(kind, int(match[2]))]
            at = match.end()
    return [piece for piece in (*split, part._replace(text=part.text[at:])) if piece.text]


def translated(answer: str) -> str:
    """The translation in an answer: what stands behind the last SEPARATOR, or all of it."""
    return answer.rpartition(SEPARATOR)[2].strip()


def slices(samples: Sequence[Sequence[Segment]]) -> Iterator[Sequence[Sequence[Segment]]]:
    """The samples in runs of a megabyte of characters or one more sample: what is encoded at a time."""
    start = size = 0
    for end, sample in enumerate(samples, 1):
        size += sum(len(text) for text, *_ in sample)
        if size >= _SLICE or end == len(samples):
            yield samples[start:end]
            start, size = end, 0


def find_fault(samples: Sequence[Sequence[Segment]]) -> str | None:
    """What is no Unicode text in samples, and in which one; None: all of it is."""
    for number, sample in enumerate(samples):
        for text, *_ in sample:
            if not isinstance(text, str):
                return f"sample {number}: {type(text).__name__} instead of a text"
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return f"sample {number}: a lone surrogate at character {error.start} is no Unicode text"
    return None
