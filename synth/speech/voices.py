"""Who speaks in generated clips, and how. Notable choices:

- voices of espeak-ng for English: two accents with variants that differ in pitch and formants;
- three are held out, of which training hears no word: one lower, one higher, one of an accent of its own;
- pace, pitch and loudness are drawn for each clip, so that a word never sounds the same twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gristmill.synth.draw import Draw
from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.tts import Waveform

VOICES = (
    "en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f2", "en-us+f3", "en", "en+m2", "en+f1",
)  # fmt: skip
HELD_OUT_VOICES = ("en-us+m5", "en-us+f4", "en-gb-x-rp+m4")
PAUSE = 0.25
"""Seconds between sentences that are said one by one."""


class Speaker(NamedTuple):
    """An engine, and those of its voices that may be drawn."""

    engine: Espeak
    voices: tuple[str, ...]


class Manner(NamedTuple):
    """`rate`: words a minute; `pitch`: of espeak-ng, 0 to 99; `gain`: what samples are multiplied with."""

    voice: str
    rate: int
    pitch: int
    gain: float


def drawn_manner(draw: Draw, voices: tuple[str, ...]) -> Manner:
    """One of the voices; 150 to 200 words a minute; up to 6 dB softer than it is."""
    return Manner(
        draw.pick(voices), draw.between(150, 200), draw.between(30, 69), round(0.5 + 0.5 * draw.fraction(), 3)
    )


def spoken(engine: Espeak, text: str, manner: Manner) -> Waveform:
    """`text` as it is said in this manner."""
    sound = engine.say(text, manner.voice, manner.rate, manner.pitch)
    return sound._replace(samples=sound.samples * np.float32(manner.gain))


def joined(sounds: Iterable[Waveform]) -> Waveform:
    """One after the other, with pauses between."""
    parts: list[np.ndarray] = []
    rate = 0
    for samples, rate in sounds:
        parts += [np.zeros(round(PAUSE * rate), np.float32)] * bool(parts) + [samples]
    return Waveform(np.concatenate(parts), rate)
