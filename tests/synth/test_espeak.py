"""The embedded engine: no state from text to text, reasons for what it cannot say, and others in its place."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from gristmill.synth.speech.engines import engine
from gristmill.synth.speech.tts import NoEngine, NotSpoken, Waveform
from gristmill.synth.speech.voices import HELD_OUT_VOICES, VOICES

espeakng_loader = pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")
from gristmill.synth.speech import espeak  # noqa: E402
from gristmill.synth.speech.espeak import Espeak  # noqa: E402


def centroid(sound: np.ndarray, rate: int) -> float:
    """Hz, of the whole clip."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / rate)).sum() / power.sum())


def test_a_text_sounds_the_same_whatever_was_said_before_and_on_any_thread() -> None:
    """Its own noise is seeded by the clock, and its phases go on from text to text."""
    speaker = Espeak()
    assert speaker.version.startswith("espeak-ng 1.")
    voices = ("en-us", "en-us+f2", "en+whisper", "de", "en-us+klatt2")
    first = [speaker.say("four two seven", voice).samples for voice in voices]
    assert len({len(sound) for sound in first}) > 1
    again = [Espeak().say("four two seven", voice).samples for voice in reversed(voices)][::-1]
    with ThreadPoolExecutor(4) as threads:
        both = list(threads.map(lambda voice: speaker.say("four two seven", voice).samples, voices * 2))
    for sound, others in zip(first, zip(again, both[:5], both[5:], strict=True), strict=True):
        assert all(np.array_equal(sound, other) for other in others)


def test_voices_rates_and_pitches_differ() -> None:
    speaker = Espeak()
    sounds = {voice: speaker.say("red star", voice) for voice in (*VOICES, *HELD_OUT_VOICES)}
    assert len({sound.samples.tobytes() for sound in sounds.values()}) == len(sounds)
    centres = [centroid(*sound) for sound in sounds.values()]
    assert max(centres) > 1.2 * min(centres)
    assert speaker.say("red star", "en", rate=100).seconds > 1.4 * speaker.say("red star", "en", rate=200).seconds
    assert not np.array_equal(speaker.say("red", "en", pitch=10).samples, speaker.say("red", "en", pitch=90).samples)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "nothing_to_say"),
        ("... !", "nothing_to_say"),
        ("a\x01 50S b", "control"),  # a command of the library
        ("a\0b", "control"),
        ("a\ud800", "control"),
        ("x" * 2001, "too_long"),
        ("x" * 300 + " " + "ض" * 1500, "too_many_seconds"),
    ],
)
def test_a_text_that_cannot_be_said_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(NotSpoken) as raised:
        Espeak().say(text, "en")
    assert raised.value.reason == reason and len(raised.value.value) <= 200
    assert Espeak().say("one\ntwo", "en").seconds > 0.2


@pytest.mark.parametrize(("voice", "rate"), [("xx", 170), ("en+nobody", 170), ("en", 5), ("en+../m1", 170)])
def test_a_voice_or_rate_that_it_has_not(voice: str, rate: int) -> None:
    with pytest.raises(ValueError, match=f"{rate}" if rate == 5 else "no voice"):
        Espeak().say("one", voice, rate)


def test_a_library_that_stays_loaded_is_refused() -> None:
    held = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        with pytest.raises(NoEngine, match="stays loaded"):
            Espeak().say("one", "en")
    finally:
        espeak._unload(held)
    assert Espeak().say("one", "en").seconds > 0.1


class Hum:
    """An engine of someone else."""

    version = "hum 1"

    def check(self, voice: str) -> None:
        assert voice

    def say(self, text: str, voice: str, rate: int = 170) -> Waveform:
        return Waveform(np.full(len(text), 0.5, np.float32), 8000)


def test_another_engine_is_named_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "purring", SimpleNamespace(Hum=Hum, Silent=lambda: object()))  # type: ignore[arg-type]
    assert engine("purring:Hum").say("abc", "").seconds == 3 / 8000
    for address, match in (
        ("purring", "module:object"),
        ("purring:Nobody", "cannot be imported"),
        ("nowhere_at_all:Hum", "PYTHONPATH"),
        ("purring:Silent", "version, check and say"),
    ):
        with pytest.raises(NoEngine, match=match):
            engine(address)
