"""Shards of records with clips: the columns of a sample, its task and language, its media and their origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.stages.media.write import CountedMedia, WriteMedia, digests_of
from gristmill.stages.speech.form import SCHEMA
from gristmill.stages.text.instruct import SHARD as SAMPLE

SHARD = pa.schema(
    [*SAMPLE, *(SCHEMA.field(name) for name in ("task", "language", "media", "origins"))],
    metadata={"gristmill.format": "1"},
)


class CountedClips(CountedMedia):
    """Clips, then the files that they are parts of."""

    def digests(self, shard: pa.Table) -> list[list[str]]:
        """Of each row of a shard."""
        columns = (digests_of(shard[name]) for name in ("media", "origins"))
        return [clips + files for clips, files in zip(*columns, strict=True)]


@dataclass(frozen=True)
class WriteClips(WriteMedia):
    """Shards of samples with their clips."""

    name: ClassVar[str] = "clip_shards"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD

    def counted(self) -> CountedClips:
        """Their clips, and the files that these are parts of."""
        return CountedClips()
