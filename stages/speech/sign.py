"""Near duplicates of records with clips: how these sound (filters/audio/sound.py, stages/media/looks.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.media.looks import BANDS, GatherAlike, SignLooks
from gristmill.stages.speech.form import SAME, Same

BAND_BITS: Mapping[Same, int] = MappingProxyType({"clips_and_text": 20, "clips": 24, "text": 20})
"""As of pictures (stages/vision/sign.py): the more records can be linked at all, the more values a band hashes."""
MIN_SIMILARITY = 0.87
"""8 of 64 bits may differ. Of real clips those of other words differ in 19 and more, copies in another codec, at
another rate, softer, with noise or some silence around them in at most 8, nearly all of them in at most 3."""
N_CLIPS = "sound.n_clips"


@dataclass(frozen=True)
class SignClips(SignLooks):
    """Signs what passed the filters. `same`: as `FormSpeech` has it."""

    name: ClassVar[str] = "sign_clips"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_CLIPS

    same: Same = "clips_and_text"

    def __post_init__(self) -> None:
        if self.same not in SAME:
            raise ValueError(f"same={self.same!r}: one of {', '.join(SAME)}")

    @property
    def with_text(self) -> bool:
        """Whether records with other texts are never alike."""
        return self.same != "clips"


@dataclass(frozen=True)
class GatherSounds(GatherAlike):
    """Brings signatures of clips together, and hashes their bands."""

    name: ClassVar[str] = "collect_sounds"
    VERSION: ClassVar[int] = 1
    counted: ClassVar[str] = N_CLIPS

    @classmethod
    def of(cls, same: Same, survivor: tuple[str, ...]) -> Self:
        """As records are signed."""
        return cls(BANDS, BAND_BITS[same], survivor)


@dataclass(frozen=True)
class SelectClips(SelectSurvivors):
    """Selects survivors among records whose clips sound alike. `min_similarity`: the share of the 64 bits in which
    all clips of both records agree."""

    name: ClassVar[str] = "choose_clips"
    VERSION: ClassVar[int] = 1
    decider: ClassVar[str] = "sound"
    estimated: ClassVar[bool] = False

    min_similarity: float | None = MIN_SIMILARITY
