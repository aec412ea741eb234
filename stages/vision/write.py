"""Shards of records with images: the columns of a sample, their media, and the videos that frames are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.stages.media.write import CountedParts, WriteMedia
from gristmill.stages.text.instruct import SHARD as SAMPLE
from gristmill.stages.vision.form import SCHEMA
from gristmill.stages.vision.frames import ORIGINS

SHARD = pa.schema([*SAMPLE, SCHEMA.field("media")], metadata={"gristmill.format": "1"})


@dataclass(frozen=True)
class WriteImages(WriteMedia):
    """Shards of samples with their images."""

    name: ClassVar[str] = "image_shards"
    VERSION: ClassVar[int] = 2  # the table of media is made where records are read, of all of them
    schema: ClassVar[pa.Schema] = SHARD


@dataclass(frozen=True)
class WriteFrames(WriteMedia):
    """Shards of samples with their images, and the videos that these are frames of."""

    name: ClassVar[str] = "frame_shards"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD.append(pa.field("origins", ORIGINS))

    def counted(self) -> CountedParts:
        """Their images, and the videos that these are frames of."""
        return CountedParts()
