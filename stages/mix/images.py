"""Tokens of records with images: each placeholder becomes as many image tokens as the plan of its image has.

Only sizes are read for it, no pixel: what an image costs, in tokens and in crops that the encoder sees, is known before
a mixture is planned. A placeholder is a special token of a sample's parts, so that text which spells one stays text.
The result depends on the shard, the tokenizer and how images are cut, and serves every mixture that cuts them so;
shards of text are tokenized by `stages.mix.tokenize` in every mixture alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.stages.mix.tokenize import LENGTHS, SCHEMA, Rows, TextShard, Tokenize, table_of

IMAGES = pa.list_(pa.struct([("place", pa.int32()), ("tokens", pa.int32()), ("crops", pa.int32())]))
"""Of a record, in the order of its placeholders: where the image is among its media, from 0, its tokens, and how many
crops the encoder sees, with the global view."""
PLACEHOLDER = re.compile(r"<\|image_(\d{1,9})\|>")
_SIZES = tuple(f"media.list.element.{name}" for name in ("kind", "height", "width"))


@dataclass(frozen=True)
class Cut:
    """How a mixture cuts images: into at most `max_crops` crops of `crop` pixels a side, in patches of `patch`.

    `token`: what stands for an image in a window; that of a tokenizer which `grist tokenizer` made, and in the released
    one `<|endoftext10|>`.
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
class TokenizeImages(Tokenize):
    """`cut`: how images are cut."""

    name: ClassVar[str] = "tokenize_images"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = pa.schema([*SCHEMA, ("images", IMAGES), ("crops", pa.int32())], SCHEMA.metadata)
    lengths: ClassVar[pa.Schema] = pa.schema([*LENGTHS, ("crops", pa.int32())])

    cut: Cut = Cut()

    def columns(self, texts: TextShard) -> list[str]:
        """Sizes of media beside the text, not their bytes."""
        return [*texts.columns, *_SIZES]

    def rows(self, batch: pa.RecordBatch, samples: bool) -> Rows:
        """Without those whose images are too thin to be cut."""
        from gristmill.model.processing.image import ExtremeRatio  # torch: not for who only looks a mixture up

        rows = super().rows(batch, samples)
        media = batch["media"].to_pylist()
        for i, parts in list(rows.segments.items()):
            assert not isinstance(parts, str), "records with images have parts"
            try:
                self._images(parts, media[i])
            except ExtremeRatio as error:
                rows.refused[i] = ("tokenize.extreme_ratio", str(error))
                del rows.segments[i]
        return rows

    def encoded(self, tokenizer: Tokenizer, batch: pa.RecordBatch, rows: Rows, first: int) -> pa.Table:
        """Each image is encoded as one token, which then is repeated."""
        media = batch["media"].to_pylist()
        images, samples = list[list[dict[str, int]]](), list[list[Segment]]()
        for i, parts in rows.segments.items():
            assert not isinstance(parts, str), "records with images have parts"
            images.append(self._images(parts, media[i]))
            samples.append([part._replace(text=self.cut.token) if _number(part) else part for part in parts])
        token = tokenizer.special(self.cut.token)
        encoded = _repeated(tokenizer.encode(samples), token, [image["tokens"] for own in images for image in own])
        table = table_of(batch, rows, encoded, first)
        crops = [sum(image["crops"] for image in own) for own in images]
        table = table.append_column(self.schema.field("images"), pa.array(images, IMAGES))
        return table.append_column(self.schema.field("crops"), pa.array(crops, pa.int32()))

    def _images(self, parts: Sequence[Segment], media: Sequence[Mapping[str, Any]]) -> list[dict[str, int]]:
        """The images of a sample as IMAGES has them. Raises ExtremeRatio, and ValueError for a placeholder without an
        image, which no pipeline writes."""
        from gristmill.model.processing.image import plan_crops

        images = []
        for number in filter(None, map(_number, parts)):
            if number > len(media) or media[number - 1]["kind"] != "image":
                raise ValueError(f"a text has <|image_{number}|>, its record {len(media)} media and no such image")
            height, width = (int(media[number - 1][side]) for side in ("height", "width"))
            plan = plan_crops(height, width, self.cut.max_crops, self.cut.crop, self.cut.patch)
            images.append({"place": number - 1, "tokens": plan.tokens, "crops": 1 + plan.rows * plan.cols})
        return images


def _number(part: Segment) -> int:
    """Of the image that a part stands for, from 1; 0: for none."""
    match = PLACEHOLDER.fullmatch(part.text) if part.special else None
    return int(match[1]) if match else 0


def _repeated(encoded: Encoded, token: int, counts: Sequence[int]) -> Encoded:
    """With the n-th `token`, which no text can spell, so often as `counts` says."""
    at = np.flatnonzero(encoded.ids == token)
    if len(at) != len(counts):
        raise ValueError(f"{len(at)} tokens of images for {len(counts)} images; parts hold them without a number")
    times = np.ones(len(encoded.ids), np.int64)
    times[at] = counts
    ends = np.concatenate([[0], np.cumsum(times)])[np.cumsum(encoded.lengths)]
    return Encoded(
        np.repeat(encoded.ids, times),
        np.repeat(encoded.loss_mask, times),
        np.diff(ends, prepend=0).astype(np.int32),
    )
