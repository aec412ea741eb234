"""Files of kinds of which libsndfile does not say that they are cut off."""

from __future__ import annotations

import io

import numpy as np
import pytest
from speech import encoded, waveform

from gristmill.model.processing.audio_file import AudioError
from gristmill.stages.speech.ending import check_end

KINDS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("NIST", "PCM_16")]


def checked(data: bytes) -> str | None:
    """The reason why a file is none."""
    try:
        check_end(io.BytesIO(data))
    except AudioError as error:
        return error.reason
    return None


@pytest.mark.parametrize(("format", "subtype"), KINDS)
def test_a_file_that_is_cut_off_is_known(format: str, subtype: str) -> None:
    data = encoded(waveform(1, 6.0), format=format, subtype=subtype)
    assert checked(data) is checked(data + b"TAG" + bytes(125)) is None
    for size in (len(data) // 2, len(data) * 9 // 10, len(data) - 100, 1024, 300):
        assert checked(data[:size]) == "audio.truncated"


def test_the_end_of_one_stream_is_not_that_of_the_next() -> None:
    first, second = (encoded(waveform(seed, 1.0), format="OGG", subtype="OPUS") for seed in (1, 2))
    assert checked(first + second) is None
    assert checked(first + second[:200]) == checked(first + second[:27]) == "audio.truncated"


@pytest.mark.parametrize("data", [b"", b"OggS", b"NIST_1A", b"NIST_1A\n   1024\nsample_count -i x\n", b"RIFF" * 9])
def test_other_bytes_are_left_to_who_reads_them(data: bytes) -> None:
    assert checked(data) == ("audio.truncated" if data == b"OggS" else None)


def test_a_header_of_nist_counts_all_channels_and_may_lack_a_number() -> None:
    data = encoded(np.stack([waveform(1, 1.0)] * 2, axis=1), format="NIST", subtype="PCM_16")
    assert checked(data) is None and checked(data[: 1024 + 40_000]) == "audio.truncated"
    assert checked(data[: 1024 + 40_000].replace(b"sample_n_bytes", b"sample_n_bits_")) is None
