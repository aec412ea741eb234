"""Segments: a sample as stretches of text and special tokens, and which of them the loss counts.

Who builds a sample says what is a special token; text never becomes one, whatever it spells. `model.processing.text`
makes tokens of segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"
_SLICE = 1 << 20  # characters encoded at a time


class Segment(NamedTuple):
    """A stretch of a sample. `special`: `text` is the name of a special token; `loss_mask`: the loss counts its tokens,
    all of them."""

    text: str
    special: bool = False
    loss_mask: bool = False


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
