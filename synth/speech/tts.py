"""Text to speech, as whoever generates clips needs it: an engine that says a text in a voice. Notable choices:

- one method; what it returns depends on its arguments alone, so that a clip can be made again anywhere;
- a text that cannot be said is a `NotSpoken` with a reason, never a silent or shortened clip;
- `espeak` is embedded (espeak.py); any other engine is named `module:object` (engines.py).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

WORDS_PER_MINUTE = 170


class Waveform(NamedTuple):
    """`samples`: float32 [samples] of one channel, within -1 and 1; `rate`: samples a second."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate


class NotSpoken(Exception):
    """A text that an engine does not say. `reason`: a word for counting; `value`: what is wrong, at most 200
    characters."""

    def __init__(self, reason: str, value: str) -> None:
        super().__init__(f"{reason}: {value}"[:240])
        self.reason, self.value = reason, value[:200]


class NoEngine(ValueError):
    """An engine that is not there, with what to do."""


@runtime_checkable
class TTS(Protocol):
    """An engine. `version`: all that decides its sound beside the arguments of `say`, such as the release of its
    models: it is part of the identity of what it said."""

    @property
    def version(self) -> str:
        """Name and release."""

    def check(self, voice: str) -> None:
        """Raises ValueError for a voice that it has not."""

    def say(self, text: str, voice: str, rate: int = WORDS_PER_MINUTE) -> Waveform:
        """`text`, by `voice`, at `rate` words a minute: the same for the same arguments, whatever was said before, and
        from any thread. Raises NotSpoken; ValueError for a voice that it has not."""
