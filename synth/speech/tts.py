"""Text to speech, as whoever generates clips needs it: an engine that says a text in a voice. Notable choices:

- one method; what it returns depends on its arguments alone, so that a clip can be made again anywhere;
- a text that cannot be said is a `NotSpoken` with a reason, never a silent or shortened clip;
- `espeak` is embedded (espeak.py); any other engine is named `module:object`, and called to make one.
"""

from __future__ import annotations

from importlib import import_module
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


def engine(address: str) -> TTS:
    """`module:object`, which is called without arguments. Raises NoEngine where it is none."""
    module, colon, name = address.partition(":")
    if not (module and colon and name.isidentifier()):
        raise NoEngine(f"tts={address!r}: `espeak`, or module:object, an engine of your own (synth/speech/tts.py)")
    try:
        made_by = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NoEngine(
            f"tts={address!r} cannot be imported: {error}. Is it on the PYTHONPATH of the workers?"
        ) from error
    speaker = made_by()
    if not isinstance(speaker, TTS):
        raise NoEngine(f"tts={address!r} gives a {type(speaker).__name__}, which has not version, check and say")
    return speaker
