"""Near duplicates of records with clips: how these sound (filters/audio/sound.py, stages/media/looks.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from gristmill.stages.media.looks import Bands, GatherAlike, SelectAlike, SignLooks
from gristmill.stages.speech.form import SAME, Same

BANDS: Mapping[Same, Bands] = MappingProxyType(
    {"clips_and_text": Bands(32, 20), "clips": Bands(32, 24), "text": Bands(32, 20)}
)
"""As of pictures (stages/vision/sign.py): the more records can be linked at all, the more values a band hashes."""
MIN_SIMILARITY = 0.87
"""8 of 64 bits may differ. Other words differ in 17 and more; of copies in another codec, at another rate,
softer, with noise 20 dB below or half a second of silence around them 97% in at most 8, nearly all in at most 3."""
N_CLIPS = "sound.n_clips"


@dataclass(frozen=True)
class SignClips(SignLooks):
    """Signs what passed the filters. `same`: as `FormSpeech` has it."""

    name: ClassVar[str] = "sign_clips"
    VERSION: ClassVar[int] = 2  # clips sound by a window around their loud centre
    counted: ClassVar[str] = N_CLIPS
    allowed: ClassVar[tuple[str, ...]] = SAME

    same: Same = "clips_and_text"

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


@dataclass(frozen=True)
class SelectClips(SelectAlike):
    """Selects survivors among records whose clips sound alike. `min_similarity`: the share of the 64 bits in which
    all clips of both records agree."""

    name: ClassVar[str] = "choose_clips"
    VERSION: ClassVar[int] = 1
    decider: ClassVar[str] = "sound"
    index_bands: ClassVar[Bands] = BANDS["clips"]

    min_similarity: float | None = MIN_SIMILARITY
