"""Shards of records with clips: columns of a sample, its task and languages, its media, their origins, its parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.stages.media.write import CountedParts, WriteMedia
from gristmill.stages.speech.form import SCHEMA
from gristmill.stages.text.instruct import SHARD as SAMPLE

SHARD = pa.schema(
    [
        *SAMPLE,
        *(SCHEMA.field(name) for name in ("task", "language", "learned_language", "media", "origins", "parent")),
    ],
    metadata={"gristmill.format": "1"},
)


@dataclass(frozen=True)
class WriteClips(WriteMedia):
    """Shards of samples with their clips."""

    name: ClassVar[str] = "clip_shards"
    VERSION: ClassVar[int] = 2  # the parent of spoken text, the language of what is learned
    schema: ClassVar[pa.Schema] = SHARD

    def counted(self) -> CountedParts:
        """Their clips, and the files that these are parts of."""
        return CountedParts()
