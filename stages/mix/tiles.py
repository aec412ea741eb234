"""Tiles of a shard's windows: crops of drawn images, made from the bytes that their records hold.

Windows draw records from everywhere in their sources' shards, which hold images in row groups. So what is drawn is
first copied to local disk in one pass over each shard, one row group in memory at a time; then windows are made one by
one, each image decoded when its window is written. Disk holds images as they came, memory one window's tiles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet
from gristmill.model.processing.image_file import MOST_PIXELS, ImageError, decode_image
from gristmill.model.windows.placeholders import Cut


class Image(NamedTuple):
    """An image of a window: the shard and row of its record, its place among the media there, and its plan: tokens, and
    crops with the global view. `stretch`: the number of its record's stretch in the window."""

    stretch: int
    shard: str
    row: int
    place: int
    tokens: int
    crops: int


class _Stored(NamedTuple):
    """Where an image lies in the file, and what its record says of it."""

    start: int
    length: int
    sha256: str
    height: int
    width: int


class DrawnImages:
    """The images of drawn records, in a file: `with DrawnImages(path, cut) as images`."""

    def __init__(self, path: Path, cut: Cut) -> None:
        self.cut = cut
        self._file = path.open("w+b")
        self._stored: dict[tuple[str, int, int], _Stored] = {}

    def __enter__(self) -> DrawnImages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def copy(self, store: Store, shard: ObjectRef, rows: Collection[int]) -> None:
        """Takes the media of these rows of a shard. Raises DamagedObject."""
        wanted = np.array(sorted(rows), np.int64)
        first = 0
        with open_parquet(store, shard) as file:
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                here = wanted[(wanted >= first) & (wanted < end)]
                if len(here):
                    media = file.read_row_group(group, columns=["media"])["media"]
                    for row in here.tolist():
                        self._add(shard.sha256, row, media[row - first].as_py())
                first = end

    def _add(self, shard: str, row: int, media: Sequence[Mapping[str, Any]]) -> None:
        for place, medium in enumerate(media):
            at = self._file.seek(0, 2)
            self._file.write(medium["data"])
            self._stored[shard, row, place] = _Stored(
                at, len(medium["data"]), medium["sha256"], medium["height"], medium["width"]
            )

    def arrays(self, images: Sequence[Image]) -> dict[str, np.ndarray]:
        """`tiles` uint8 [n, S, S, 3] and `image_sizes` int32 [images, 2] of a window. Raises ValueError for an image
        that comes out other than it was planned."""
        from gristmill.model.processing.image import crops  # torch: not for who only looks a mixture up

        side = self.cut.crop
        tiles = np.empty((sum(image.crops - 1 for image in images), side, side, 3), np.uint8)
        sizes = np.empty((len(images), 2), np.int32)
        at = 0
        for number, image in enumerate(images):
            cropped = crops(self._pixels(image), self.cut.max_crops, side, self.cut.patch)
            if (cropped.tokens, len(cropped.tiles)) != (image.tokens, image.crops - 1):
                raise ValueError(
                    f"image {image.place + 1} of row {image.row} of shard {image.shard[:12]}: {cropped.tokens} tokens"
                    f" of {len(cropped.tiles)} crops, planned were {image.tokens} of {image.crops - 1}: its record"
                    " gives another size than its bytes have"
                )
            tiles[at : at + len(cropped.tiles)] = cropped.tiles
            sizes[number] = cropped.image_size
            at += len(cropped.tiles)
        return {"tiles": tiles, "image_sizes": sizes}

    def about(self, images: Sequence[Image]) -> list[dict[str, Any]]:
        """What a window's metadata says of its images, in the order of `image_sizes`."""
        rows = []
        for image in images:
            stored = self._stored[image.shard, image.row, image.place]
            rows.append(
                {
                    "stretch": image.stretch,
                    "sha256": stored.sha256,
                    "height": stored.height,
                    "width": stored.width,
                    "crops": image.crops,
                    "tokens": image.tokens,
                }
            )
        return rows

    def _pixels(self, image: Image) -> np.ndarray:
        stored = self._stored[image.shard, image.row, image.place]
        self._file.seek(stored.start)
        # The recipe that took the image in had a limit of its own, which was at most this one.
        try:
            return decode_image(self._file.read(stored.length), MOST_PIXELS)
        except ImageError as error:
            where = f"image {image.place + 1} of row {image.row} of shard {image.shard}"
            raise ValueError(f"{where} was read when it was taken in, and is not now: {error}") from error
