"""Tokens of records with media: each placeholder becomes as many tokens as its image or clip makes embeddings.

Only measures are read for it, no pixel and no sample: what a medium costs, in tokens and in what its encoder takes, is
known before a mixture is planned. A placeholder is a special token of a sample's parts, so that text which spells one
stays text. The result depends on the shard, the tokenizer and how media are taken, and serves every mixture that takes
them so; shards of text are tokenized by `stages.mix.tokenize` in every mixture alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.placeholders import Cut, LogMel, encode, places_of
from gristmill.stages.core.work import added
from gristmill.stages.mix.fitting import UNITS
from gristmill.stages.mix.kinds import Kind, Refused, kinds_of
from gristmill.stages.mix.tokenize import LENGTHS, SCHEMA, Rows, TextShard, Tokenize, table_of

MEDIA = pa.list_(
    pa.struct([("kind", pa.string()), ("place", pa.int32()), ("tokens", pa.int32()), ("units", pa.int32())])
)
"""Of a record, in the order of its placeholders: where the medium is among its media, from 0, its tokens, and how much
of its unit its encoder takes."""
_TAKEN = [(unit, pa.int32()) for unit in UNITS]
_MEASURES = tuple(f"media.list.element.{name}" for name in ("kind", "height", "width", "samples", "rate"))


class NotTaken(ValueError):
    """A record has media that the mixture has no settings for."""


@dataclass(frozen=True)
class TokenizeMedia(Tokenize):
    """`cut`, `log_mel`: how images and clips are taken; None: there are none."""

    name: ClassVar[str] = "tokenize_media"
    VERSION: ClassVar[int] = 2  # not of requests that nobody has answered
    schema: ClassVar[pa.Schema] = pa.schema([*SCHEMA, ("media", MEDIA), *_TAKEN], SCHEMA.metadata)
    lengths: ClassVar[pa.Schema] = pa.schema([*LENGTHS, *_TAKEN])

    cut: Cut | None = added()
    log_mel: LogMel | None = added()

    @property
    def kinds(self) -> dict[str, Kind]:
        """By name."""
        return kinds_of(self.cut, self.log_mel)

    def columns(self, texts: TextShard) -> list[str]:
        """Measures of media beside the text, not their bytes."""
        return [*texts.columns, *_MEASURES]

    def rows(self, batch: pa.RecordBatch, samples: bool) -> Rows:
        """Without those that have a medium which the settings refuse, and those of which nothing is learned: requests
        that nobody has answered, as the task `unlabelled` has them."""
        rows = super().rows(batch, samples)
        media = batch["media"].to_pylist()
        for i, parts in list(rows.segments.items()):
            assert not isinstance(parts, str), "records with media have parts"
            if not any(part.loss_mask for part in parts):
                rows.refused[i] = ("tokenize.nothing_learned", None)
                del rows.segments[i]
                continue
            try:
                self._planned(parts, media[i])
            except Refused as error:
                rows.refused[i] = (error.reason, error.message)
                del rows.segments[i]
        return rows

    def encoded(self, tokenizer: Tokenizer, batch: pa.RecordBatch, rows: Rows, first: int) -> pa.Table:
        """Each medium is encoded as one token, which then is repeated."""
        media = batch["media"].to_pylist()
        planned, samples = list[list[dict[str, Any]]](), list[Sequence[Segment]]()
        for i, parts in rows.segments.items():
            assert not isinstance(parts, str), "records with media have parts"
            planned.append(self._planned(parts, media[i]))
            samples.append(parts)
        counts = [medium["tokens"] for own in planned for medium in own]
        encoded = encode(tokenizer, samples, {name: kind.token for name, kind in self.kinds.items()}, counts)
        table = table_of(batch, rows, encoded, first).append_column(
            self.schema.field("media"), pa.array(planned, MEDIA)
        )
        units = {name: kind.unit for name, kind in self.kinds.items()}
        for unit in UNITS:
            taken = [sum(medium["units"] for medium in own if units[medium["kind"]] == unit) for own in planned]
            table = table.append_column(self.schema.field(unit), pa.array(taken, pa.int32()))
        return table

    def _planned(self, parts: Sequence[Segment], media: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The media of a sample as MEDIA has them. Raises Refused; NotTaken for a kind without settings; ValueError for
        a placeholder without a medium, which no pipeline writes."""
        kinds, planned = self.kinds, []
        for item, place in places_of(parts, [medium["kind"] for medium in media]):
            if item.kind not in kinds:
                raise NotTaken(
                    f"a record has media of kind {item.kind}, and the mixture takes {', '.join(kinds)} alone"
                )
            tokens, units = kinds[item.kind].planned(media[place])
            planned.append({"kind": item.kind, "place": place, "tokens": tokens, "units": units})
        return planned
