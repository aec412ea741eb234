<<<<<<< HEAD
"""Shards of records with clips: columns of a sample, its task and language, its media and their origins, its parent."""
=======
"""Shards of records with clips: the columns of a sample, its task and languages, its media and their origins."""
>>>>>>> spuse

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.stages.media.write import CountedParts, WriteMedia
from gristmill.stages.speech.form import SCHEMA
from gristmill.stages.text.instruct import SHARD as SAMPLE

SHARD = pa.schema(
<<<<<<< HEAD
    [*SAMPLE, *(SCHEMA.field(name) for name in ("task", "language", "media", "origins", "parent"))],
=======
    [*SAMPLE, *(SCHEMA.field(name) for name in ("task", "language", "learned_language", "media", "origins"))],
>>>>>>> spuse
    metadata={"gristmill.format": "1"},
)


@dataclass(frozen=True)
class WriteClips(WriteMedia):
    """Shards of samples with their clips."""

    name: ClassVar[str] = "clip_shards"
<<<<<<< HEAD
    VERSION: ClassVar[int] = 2  # the parent of spoken text
=======
    VERSION: ClassVar[int] = 2  # the language of what is learned, by which translations are scored
>>>>>>> spuse
    schema: ClassVar[pa.Schema] = SHARD

    def counted(self) -> CountedParts:
        """Their clips, and the files that these are parts of."""
        return CountedParts()
