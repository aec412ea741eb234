"""Shards of records with images: the columns of a sample, and their media."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.stages.media.write import WriteMedia
from gristmill.stages.text.instruct import SHARD as SAMPLE
from gristmill.stages.vision.form import SCHEMA

SHARD = pa.schema([*SAMPLE, SCHEMA.field("media")], metadata={"gristmill.format": "1"})


@dataclass(frozen=True)
class WriteImages(WriteMedia):
    """Shards of samples with their images."""

    name: ClassVar[str] = "image_shards"
    VERSION: ClassVar[int] = 2  # the table of media is made where records are read, of all of them
    schema: ClassVar[pa.Schema] = SHARD
