"""Images of a window from which records are cut: their tiles go, and what the window says of them.

Tiles stand end to end in the order of the stretches that they belong to, and the window's metadata says which image is
of which stretch and how many crops it has. All of it must agree before anything is cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gristmill.model.shards.sample import Sample

ARRAYS = ("tiles", "image_sizes")


class Pictures(NamedTuple):
    """Of a window: `arrays`, none where it has no images; what its metadata says of each."""

    arrays: dict[str, np.ndarray]
    images: list[dict[str, Any]]

    @property
    def meta(self) -> dict[str, Any]:
        """What stands of it in the metadata."""
        return {"images": self.images} if self.images else {}

    @classmethod
    def of(cls, window: Sample) -> Pictures:
        """Those of a window. Raises ValueError where its tiles are not those that its metadata speaks of."""
        images = window.meta.get("images", [])
        arrays = {name: window.arrays[name] for name in ARRAYS if name in window.arrays}
        stretches = [image["stretch"] for image in images]
        tiles, sizes = (len(arrays.get(name, ())) for name in ARRAYS)
        if tiles != sum(image["crops"] - 1 for image in images) or sizes != len(images):
            raise ValueError(
                f"{tiles} tiles and {sizes} image_sizes are not those of the {len(images)} images it names"
            )
        if stretches != sorted(stretches) or not set(stretches) <= set(range(len(window.arrays["cu_seqlens"]) - 1)):
            raise ValueError(f"its images are of stretches {stretches}, not those of the window in order")
        return cls(arrays, images)

    def without(self, goes: np.ndarray) -> Pictures:
        """Those of the stretches that stay. `goes`: bool [stretches]."""
        stays = np.array([not goes[image["stretch"]] for image in self.images], bool)
        if not stays.any():
            return Pictures({}, [])
        number = np.cumsum(~goes) - 1  # of a stretch, among those that stay
        of_tiles = np.repeat(stays, [image["crops"] - 1 for image in self.images])
        images = [
            {**image, "stretch": int(number[image["stretch"]])}
            for image, stay in zip(self.images, stays.tolist(), strict=True)
            if stay
        ]
        return Pictures(
            {"tiles": self.arrays["tiles"][of_tiles], "image_sizes": self.arrays["image_sizes"][stays]}, images
        )
