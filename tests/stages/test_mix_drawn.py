"""Media that windows draw: decoded as they were planned, or an error that says which medium is another."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from speech import clip
from vision import picture

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.model.windows.placeholders import Cut, LogMel
from gristmill.stages.containers.media import MEDIA
from gristmill.stages.mix.drawn import Drawn, DrawnMedia
from gristmill.stages.mix.kinds import kinds_of

KINDS = kinds_of(Cut(max_crops=4, crop=32, patch=8), LogMel())
FILES = {"image": picture(1), "audio": clip(1)}
SAYS = {"image": {"height": 96, "width": 128}, "audio": {"samples": 32_000, "rate": 16_000}}


def arrays_of(store: Store, folder: Path, kind: str, data: bytes, more_tokens: int = 0) -> set[str]:
    """Names of the arrays of a window that draws the one medium of a shard."""
    medium = {"kind": kind, "sha256": kind, "data": data, **SAYS[kind]}
    shard = put_table(store, "shard", pa.table({"media": pa.array([[medium]], MEDIA)}))
    planned = KINDS[kind].planned(medium)
    drawn = Drawn(0, shard.sha256, 0, kind, 0, planned.tokens + more_tokens, planned.units)
    with DrawnMedia(folder / "media", KINDS) as media:
        media.copy(store, shard, {0})
        return set(media.arrays([drawn]))


@pytest.mark.parametrize("kind", FILES)
def test_a_medium_that_is_not_what_its_record_says_is_named(store: Store, tmp_path: Path, kind: str) -> None:
    assert len(arrays_of(store, tmp_path, kind, FILES[kind])) == 2
    for data, more_tokens, says in (
        (b"no file", 0, "it was read when it was taken in, and is not now: "),
        (FILES[kind], 1, rf"[0-9]+ tokens of [0-9]+ {KINDS[kind].unit}, planned were .* another size"),
    ):
        with pytest.raises(ValueError, match=f"{kind} 1 of row 0 of shard [0-9a-f]*: {says}"):
            arrays_of(store, tmp_path, kind, data, more_tokens)
