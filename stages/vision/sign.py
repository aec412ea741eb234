"""Near duplicates of records with images: how their pictures look (stages/media/looks.py, docs/decisions/17)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from gristmill.stages.media.looks import Bands, GatherAlike, SelectAlike, SignLooks
from gristmill.stages.vision.form import SAME, Same

BANDS: Mapping[Same, Bands] = MappingProxyType({"images_and_text": Bands(32, 14), "images": Bands(64, 20)})
"""By which records are linked. Fewer bits find more copies, and link more strangers by chance: among 2^bits / count
records that can be linked at all (those with one text, or all of them) components begin to hang together. Strangers
are compared and stay, so they cost time and no record."""
MIN_SIMILARITY = 0.84
"""10 of 64 bits may differ."""
N_IMAGES = "phash.n_images"


@dataclass(frozen=True)
class SignImages(SignLooks):
    """Signs what passed the filters. `same`: as `FormImages` has it."""

    name: ClassVar[str] = "sign_images"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_IMAGES
    allowed: ClassVar[tuple[str, ...]] = SAME

    same: Same = "images_and_text"

    @property
    def with_text(self) -> bool:
        """Whether texts make two records the same."""
        return self.same == "images_and_text"


@dataclass(frozen=True)
class GatherLooks(GatherAlike):
    """Brings signatures of pictures together, and hashes their bands."""

    name: ClassVar[str] = "collect_looks"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_IMAGES


@dataclass(frozen=True)
class SelectPictures(SelectAlike):
    """Selects survivors among records whose pictures look alike. `min_similarity`: the share of the 64 bits in which
    all pictures of both records agree."""

    name: ClassVar[str] = "choose_pictures"
    VERSION: ClassVar[int] = 2
    decider: ClassVar[str] = "phash"
    index_bands: ClassVar[Bands] = BANDS["images"]

    min_similarity: float | None = MIN_SIMILARITY
