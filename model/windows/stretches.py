"""Media of a window by the stretch that they belong to: for whoever cuts stretches out, shows or scores them.

Media stand end to end in the order of their stretches. A window's metadata lists those of each kind: of which stretch
they are, and how many rows of their large array (crops beside the global view, frames) are theirs; the small array has
an entry for each. All of it has to agree before anything is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gristmill.model.shards.sample import Sample


class Layout(NamedTuple):
    """Where media of a kind stand: `listed` in the metadata, in the array `large` by rows and in `small` by entries.
    `unit`: what the list counts; `unstored`: so many of it have no row, as the global view of an image, which is made
    of its crops. `is_ends`: `small` says where media begin and the last one ends; else it has a row for each."""

    listed: str
    large: str
    small: str
    unit: str
    unstored: int
    is_ends: bool

    def rows(self, about: Mapping[str, Any]) -> int:
        """Of the large array, that a medium has."""
        return int(about[self.unit]) - self.unstored

    def count(self, small: np.ndarray) -> int:
        """Media that the small array speaks of."""
        return len(np.diff(small)) if self.is_ends else len(small)

    def of(self, small: np.ndarray, stays: np.ndarray) -> np.ndarray:
        """The small array of these media alone. `stays`: bool [media]."""
        if not self.is_ends:
            return small[stays]
        return np.cumsum([0, *np.diff(small)[stays]]).astype(small.dtype)


LAYOUTS = (
    Layout("images", "tiles", "image_sizes", unit="crops", unstored=1, is_ends=False),
    Layout("clips", "mel", "cu_frames", unit="frames", unstored=0, is_ends=True),
)
ARRAYS = tuple(name for layout in LAYOUTS for name in (layout.large, layout.small))
LISTS = tuple(layout.listed for layout in LAYOUTS)


@dataclass(frozen=True)
class WindowMedia:
    """Of a window: `arrays`, and `lists`, what its metadata says of each medium; none of either where it has none."""

    arrays: Mapping[str, np.ndarray]
    lists: Mapping[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, window: Sample) -> WindowMedia:
        """Raises ValueError where its arrays are not those that its metadata speaks of."""
        arrays = {name: window.arrays[name] for name in ARRAYS if name in window.arrays}
        lists = {name: window.meta[name] for name in LISTS if window.meta.get(name)}
        stretches = range(len(window.arrays["cu_seqlens"]) - 1)
        for layout in LAYOUTS:
            about = lists.get(layout.listed, [])
            large, small = arrays.get(layout.large, np.zeros(0)), arrays.get(layout.small, np.zeros(0))
            rows = [layout.rows(medium) for medium in about]
            if layout.count(small) != len(about) or len(large) != sum(rows):
                raise ValueError(
                    f"{len(large)} {layout.large} and {layout.small} of {layout.count(small)} are not those of the"
                    f" {len(about)} {layout.listed} it names"
                )
            if layout.is_ends and np.diff(small).tolist() != rows:
                raise ValueError(f"its {layout.small} are not those of the {layout.listed} it names")
            whose = [medium["stretch"] for medium in about]
            if whose != sorted(whose) or not set(whose) <= set(stretches):
                raise ValueError(f"its {layout.listed} are of stretches {whose}, not those of the window in order")
        return cls(arrays, lists)

    @property
    def stretches(self) -> list[int]:
        """Those that have any, by number."""
        return sorted({medium["stretch"] for about in self.lists.values() for medium in about})

    def only(self, stays: np.ndarray) -> WindowMedia:
        """Those of the stretches that stay, which are counted anew. `stays`: bool [stretches]."""
        number = np.cumsum(stays) - 1  # of a stretch, among those that stay
        arrays: dict[str, np.ndarray] = {}
        lists: dict[str, list[dict[str, Any]]] = {}
        for layout in LAYOUTS:
            about = self.lists.get(layout.listed, [])
            kept = np.array([stays[medium["stretch"]] for medium in about], bool)
            if not kept.any():
                continue
            rows = np.repeat(kept, [layout.rows(medium) for medium in about])
            arrays[layout.large] = self.arrays[layout.large][rows]
            arrays[layout.small] = layout.of(self.arrays[layout.small], kept)
            lists[layout.listed] = [
                {**medium, "stretch": int(number[medium["stretch"]])}
                for medium, stay in zip(about, kept.tolist(), strict=True)
                if stay
            ]
        return WindowMedia(arrays, lists)

    def counts(self) -> dict[str, int]:
        """How many media of each kind, and how much of their units: images, crops, clips, frames."""
        counts: dict[str, int] = {}
        for layout in LAYOUTS:
            about = self.lists.get(layout.listed, [])
            counts |= {layout.listed: len(about), layout.unit: sum(medium[layout.unit] for medium in about)}
        return counts
