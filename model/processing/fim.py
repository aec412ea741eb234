"""Fill-in-the-middle: a document as prefix, suffix and middle, so that a model learns to write what stands between.

Bavarian et al. 2022 (arXiv 2207.14255): cuts at random characters, half of the documents, half of those with the suffix
first. All three are learned, as there; `middle_only` learns the middle alone. Which documents, where and in which
order follows from text and seed, so that a copy elsewhere is cut alike. No cut falls inside what a reader sees as one
character, nor between the two halves of a line end.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata
from dataclasses import dataclass

from gristmill.model.processing.segments import END_OF_TEXT, Segment

PREFIX, MIDDLE, SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
_JOINER = "\u200d"


@dataclass(frozen=True)
class Fim:
    """`rate`: of documents that get a hole; `spm_rate`: of those that have the suffix before the prefix."""

    rate: float = 0.5
    spm_rate: float = 0.5
    seed: int = 0
    middle_only: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "spm_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: from 0 to 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")


def fim(text: str, record: str, config: Fim) -> list[Segment] | None:
    """The segments of `text` with a hole, or None where `record` (an id, or a hash of the text) is to stay as it is.

    PSM: <prefix> prefix <suffix> suffix <middle> middle. SPM: <prefix> <suffix> suffix <middle> prefix middle, which
    are one stretch. Both end with <|endoftext|>. Prefix, middle and suffix are `text` again, and may be empty.
    """
    digest = hashlib.blake2b(f"fim\0{config.seed}\0{record}".encode(), digest_size=16).digest()
    rng = random.Random(int.from_bytes(digest, "little"))  # seeded by an int: the same in every Python since 3.2
    if rng.random() >= config.rate:
        return None
    first = rng.random() < config.spm_rate
    at = sorted(_whole(text, int(rng.random() * (len(text) + 1))) for _ in range(2))
    prefix, middle, suffix = text[: at[0]], text[at[0] : at[1]], text[at[1] :]
    rest = not config.middle_only
    if first:
        before = [Segment(suffix, loss_mask=rest), Segment(MIDDLE, special=True), Segment(prefix, loss_mask=rest)]
        segments = [Segment(PREFIX, special=True), Segment(SUFFIX, special=True), *before]
    else:
        segments = [Segment(PREFIX, special=True), Segment(prefix, loss_mask=rest), Segment(SUFFIX, special=True)]
        segments += [Segment(suffix, loss_mask=rest), Segment(MIDDLE, special=True)]
    segments += [Segment(middle, loss_mask=True), Segment(END_OF_TEXT, special=True, loss_mask=True)]
    if first and rest:  # one stretch: a token may stand across the border, as in the text itself
        segments[4:6] = [Segment(prefix + middle, loss_mask=True)]
    return [segment for segment in segments if segment.text]


def _whole(text: str, at: int) -> int:
    """The next place at or after `at` where a cut divides nothing that belongs together."""
    while 0 < at < len(text) and _belongs(text[at - 1], text[at]):
        at += 1
    return at


def _belongs(before: str, after: str) -> bool:
    if before == "\r" and after == "\n":
        return True
    if _JOINER in (before, after):
        return True
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True  # marks, variation selectors; skin tones
    return all("\U0001f1e6" <= letter <= "\U0001f1ff" for letter in (before, after))  # letters of a flag
