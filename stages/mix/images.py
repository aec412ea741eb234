"""Tokens of records with images: each placeholder becomes as many image tokens as the plan of its image has.

Only sizes are read for it, no pixel: what an image costs, in tokens and in crops that the encoder sees, is known before
a mixture is planned. A placeholder is a special token of a sample's parts, so that text which spells one stays text.
The result depends on the shard, the tokenizer and how images are cut, and serves every mixture that cuts them so;
shards of text are tokenized by `stages.mix.tokenize` in every mixture alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.model.processing.segments import Segment, placeholders
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Cut, encode
from gristmill.stages.mix.tokenize import LENGTHS, SCHEMA, Rows, TextShard, Tokenize, table_of

IMAGES = pa.list_(pa.struct([("place", pa.int32()), ("tokens", pa.int32()), ("crops", pa.int32())]))
"""Of a record, in the order of its placeholders: where the image is among its media, from 0, its tokens, and how many
crops the encoder sees, with the global view."""
_SIZES = tuple(f"media.list.element.{name}" for name in ("kind", "height", "width"))


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
        images, samples = list[list[dict[str, int]]](), list[Sequence[Segment]]()
        for i, parts in rows.segments.items():
            assert not isinstance(parts, str), "records with images have parts"
            images.append(self._images(parts, media[i]))
            samples.append(parts)
        counts = [image["tokens"] for own in images for image in own]
        encoded = encode(tokenizer, samples, {"image": self.cut.token}, counts)
        table = table_of(batch, rows, encoded, first)
        crops = [sum(image["crops"] for image in own) for own in images]
        table = table.append_column(self.schema.field("images"), pa.array(images, IMAGES))
        return table.append_column(self.schema.field("crops"), pa.array(crops, pa.int32()))

    def _images(self, parts: Sequence[Segment], media: Sequence[Mapping[str, Any]]) -> list[dict[str, int]]:
        """The images of a sample as IMAGES has them. Raises ExtremeRatio, and ValueError for a placeholder without an
        image, which no pipeline writes."""
        from gristmill.model.processing.image import plan_crops

        images = []
        for number in (item.number for item in placeholders(parts) if item.kind == "image"):
            if not 1 <= number <= len(media) or media[number - 1]["kind"] != "image":
                raise ValueError(f"a text has <|image_{number}|>, its record {len(media)} media and no such image")
            height, width = (int(media[number - 1][side]) for side in ("height", "width"))
            plan = plan_crops(height, width, self.cut.max_crops, self.cut.crop, self.cut.patch)
            images.append({"place": number - 1, "tokens": plan.tokens, "crops": 1 + plan.rows * plan.cols})
        return images
