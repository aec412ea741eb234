"""Placeholders of images and clips in the parts of a sample, and the tokens that they become.

`<|image_1|>` is a special token of a sample's parts that no tokenizer has: it names an image of the record, from 1, as
`<|audio_1|>` names a clip. It becomes as many tokens of its kind as the model makes embeddings of the medium, which
follows from its size alone: nothing is decoded. Mixtures, prompts of the engine and evaluations all come here, so a
model is asked as it was taught. Text that spells a placeholder stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.model.processing.audio_file import MAX_SECONDS
from gristmill.model.processing.segments import Placeholder, Segment, placeholder_of, placeholders
from gristmill.model.processing.text import Encoded, Tokenizer


@dataclass(frozen=True)
class Cut:
    """How images are cut: into at most `max_crops` crops of `crop` pixels a side, in patches of `patch`.

    `token`: what stands for an image; that of a tokenizer which `grist tokenizer` made, and in the released one
    `<|endoftext10|>`.
    """

    max_crops: int = 36
    crop: int = 448
    patch: int = 14
    token: str = "<|image|>"

    def __post_init__(self) -> None:
        if self.max_crops < 1 or self.patch < 1 or self.crop < 10 or self.crop % (2 * self.patch):
            raise ValueError(
                f"max_crops={self.max_crops}, crop={self.crop}, patch={self.patch}: allowed are 1 and more crops, of a"
                " multiple of twice the patch, 10 pixels or more"
            )


@dataclass(frozen=True)
class LogMel:
    """How clips become log-Mel frames. `exact`: in the reference's bits, or else in float32, sooner, which moves no
    logit by 1e-3 (benchmarks/bench_log_mel.py; float16 would); `max_seconds`: of a clip; `reduction`: frames of a token, as the model's encoder has it.

    `token`: what stands for a clip; that of a tokenizer which `grist tokenizer` made, and in the released one
    `<|endoftext11|>`.
    """

    exact: bool = False
    max_seconds: float = 1800.0
    reduction: int = 8
    token: str = "<|audio|>"

    def __post_init__(self) -> None:
        if not 0 < self.max_seconds <= MAX_SECONDS:
            raise ValueError(f"max_seconds={self.max_seconds}: above 0, at most {MAX_SECONDS:g}")
        if self.reduction < 2 or self.reduction & (self.reduction - 1):
            raise ValueError(f"reduction={self.reduction}: allowed are powers of two from 2")


@dataclass(frozen=True, eq=False)
class Medium:
    """What a placeholder stands for. `kind`: "image" or "audio"; `data`: bytes of a file, or pixels uint8 [height,
    width, 3], or log-Mel frames float [frames, bands]. `max_crops`: of this image, None: as of all; `frames` of this
    clip, where it was decoded before; None: as its header says, which may be a few too many."""

    kind: str
    data: bytes | np.ndarray
    max_crops: int | None = None
    frames: int | None = None


class BadMedium(ValueError):
    """A medium that cannot be shown. `number`: from 1, of its kind; `reason`: as ImageError or AudioError has it,
    `image.extreme_ratio` or `audio.too_short`."""

    def __init__(self, number: int, reason: str, message: str) -> None:
        super().__init__(number, reason, message)  # all three, so that it can be pickled
        self.number, self.reason, self.message = number, reason, message

    @property
    def kind(self) -> str:
        """ "image" or "audio"."""
        return self.reason.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.number}: {self.message}"


def places_of(parts: Sequence[Segment], kinds: Sequence[str]) -> list[tuple[Placeholder, int]]:
    """The placeholders of a sample in their order, each with the place of its medium in the record, from 0. `kinds`: of
    the record's media; numbers count those of one kind. Raises ValueError for a placeholder without a medium."""
    placed = []
    for item in placeholders(parts):
        own = [place for place, kind in enumerate(kinds) if kind == item.kind]
        if not 1 <= item.number <= len(own):
            raise ValueError(
                f"<|{item.kind}_{item.number}|>: there are {len(kinds)} media beside the text, and no such {item.kind}"
            )
        placed.append((item, own[item.number - 1]))
    return placed


def encode(
    tokenizer: Tokenizer, samples: Sequence[Sequence[Segment]], names: Mapping[str, str], counts: Sequence[int]
) -> Encoded:
    """Tokens of samples, each placeholder repeated as often as `counts` says of all of them, end to end. `names`: of
    the token of each kind, which no text can spell.

    Raises MissingToken, and ValueError for a placeholder of another kind, and for parts that hold such a token without
    a number.
    """
    ids = {tokenizer.special(name) for name in names.values()}
    encoded = tokenizer.encode([[_named(part, names) for part in parts] for parts in samples])
    at = np.flatnonzero(np.isin(encoded.ids, list(ids)))
    if len(at) != len(counts):
        raise ValueError(
            f"{len(at)} tokens of {' and '.join(names)} for {len(counts)} media; parts hold them without a number"
        )
    times = np.ones(len(encoded.ids), np.int64)
    times[at] = counts
    ends = np.concatenate([[0], np.cumsum(times)])[np.cumsum(encoded.lengths)]
    return Encoded(
        np.repeat(encoded.ids, times),
        np.repeat(encoded.loss_mask, times),
        np.diff(ends, prepend=0).astype(np.int32),
    )


def _named(part: Segment, names: Mapping[str, str]) -> Segment:
    item = placeholder_of(part)
    if item is None:
        return part
    if item.kind not in names:
        raise ValueError(f"{part.text}: there is no token for {item.kind}; there is one for {', '.join(names)}")
    return part._replace(text=names[item.kind])
