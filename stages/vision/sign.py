"""Near duplicates of records with images: how their pictures look (stages/media/looks.py, docs/decisions/17)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.media.looks import BANDS, GatherAlike, SignLooks
from gristmill.stages.vision.form import SAME, Same

BAND_BITS: Mapping[Same, int] = MappingProxyType({"images_and_text": 20, "images": 24})
"""Values that a band hashes. Fewer find more copies, and link more strangers by chance: among so many records that can
be linked at all (those with one text, or all of them) that each has about one such link, 2^bits / BANDS, components
begin to hang together: 32,000 and 500,000."""
MIN_SIMILARITY = 0.87
"""8 of 64 bits may differ."""
N_IMAGES = "phash.n_images"


@dataclass(frozen=True)
class SignImages(SignLooks):
    """Signs what passed the filters. `same`: as `FormImages` has it."""

    name: ClassVar[str] = "sign_images"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_IMAGES

    same: Same = "images_and_text"

    def __post_init__(self) -> None:
        if self.same not in SAME:
            raise ValueError(f"same={self.same!r}: one of {', '.join(SAME)}")

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

    @classmethod
    def of(cls, same: Same, survivor: tuple[str, ...]) -> Self:
        """As records are signed."""
        return cls(BANDS, BAND_BITS[same], survivor)


@dataclass(frozen=True)
class SelectPictures(SelectSurvivors):
    """Selects survivors among records whose pictures look alike. `min_similarity`: the share of the 64 bits in which
    all pictures of both records agree."""

    name: ClassVar[str] = "choose_pictures"
    VERSION: ClassVar[int] = 1
    decider: ClassVar[str] = "phash"
    estimated: ClassVar[bool] = False

    min_similarity: float | None = MIN_SIMILARITY
