"""Parts of one file: what the whole has there, in any order, and no more decoded than has to be."""

from __future__ import annotations

import io

import numpy as np
import pytest
from speech import encoded, waveform

from gristmill.model.processing.audio_file import AudioError, decode_audio
from gristmill.stages.speech import parts as audio_parts
from gristmill.stages.speech.parts import AudioParts

FORMATS = [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", None), ("WAV", "IMA_ADPCM")]


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_each_part_is_that_of_the_whole(format: str, subtype: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_parts, "HELD_SECONDS", 2)
    samples = np.stack([waveform(seed, 20.0) for seed in range(2)], axis=1)
    data = encoded(samples, 16_000, format, subtype)
    whole, _ = decode_audio(data)
    parts = AudioParts(lambda: io.BytesIO(data), 60.0)
    order = [(0, 5), (3, 16_000), (150_000, 20_000), (140_000, 40_000), (10, 9), (300_000, 19_000), (299_999, 1)]
    for first, length in order:
        assert np.array_equal(parts.part(first, length), whole[first : first + length])
    for first, length in ((-1, 5), (len(whole) + 4000, 1), (0, 0)):
        with pytest.raises(ValueError, match="the file has"):
            parts.part(first, length)


def test_parts_in_order_are_decoded_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def counted(*arguments, **limits):
        for block in blocks(*arguments, **limits):
            decoded.append(len(block))
            yield block

    blocks = audio_parts.audio_blocks
    monkeypatch.setattr(audio_parts, "audio_blocks", counted)
    data = encoded(waveform(1, 40.0), format="OGG")
    parts = AudioParts(lambda: io.BytesIO(data), 60.0)
    for first in range(0, 600_000, 10_000):
        assert len(parts.part(first, 20_000)) == 20_000
    assert sum(decoded) <= 640_000
    parts.part(0, 10)  # within the minute that is held
    assert sum(decoded) <= 640_000 and len(parts._held) <= 640_000


def test_a_cut_file_has_its_first_parts() -> None:
    data = encoded(waveform(1, 40.0), format="MP3")
    parts = AudioParts(lambda: io.BytesIO(data[: len(data) // 2]), 60.0)
    assert len(parts.part(16_000, 16_000)) == 16_000
    with pytest.raises((AudioError, ValueError)):
        parts.part(600_000, 16_000)
    assert len(parts.part(16_000, 16_000)) == 16_000
