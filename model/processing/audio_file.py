"""Bytes of an audio file, from whoever it may be, to samples: blocks of float32 [samples, channels], full scale at 1.

libsndfile reads (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, NIST, ...); here stand the bounds. What a file costs is
known from its header, before a sample is decoded: rate, channels, length; a decoder that goes on beyond is stopped.
Blocks are decoded as they are asked for, so a file of hours takes no more memory than one of seconds. An error has one
type and a reason of a few letters, so that a record has a fate. What libsndfile notes down of a file tells whether its
header says more than there is; of Ogg, NIST and VOC it does not, and a cut one is read as far as it goes.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile

from gristmill.model.processing.audio_rates import BANDS, LOUDEST, MOST_CHANNELS, SAMPLES, ratio_of
from gristmill.model.processing.medium_error import MediumError

MAX_SECONDS = 4 * 3600.0
MAX_VALUES = 4 * 3600 * 48_000 * 2
"""Samples of all channels: 4 hours of stereo, which take some ten seconds to decode."""
UNKNOWN = (1 << 31) - 1 - (1 << 16)
"""Sizes from here on are what programs write that do not know it yet, as when they write to a pipe."""
SLACK_BYTES, SLACK_SAMPLES = 64, 4 * 1152
"""How much less than a header says is no damage: a byte of padding, and of MP3 what its encoder puts around a sound."""
DEPTHS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 24, "DOUBLE": 53,
          "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32}  # fmt: skip
"""Bits of a sample by libsndfile's name of an encoding that loses none; of floats those of the fraction."""
IN_MEMORY = 1 << 24
"""Samples of a waveform that is held in memory: 64 MB, 17 minutes at 16,000 Hz."""
OTHERS = (
    (4, b"ftyp", "MP4, as of .m4a and .mov"), (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"#!AMR", "AMR"), (0, b"MAC ", "Monkey's Audio"), (0, b"wvpk", "WavPack"), (0, b"ajkg", "Shorten"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF, as of .wma"), (0, b"TTA", "True Audio"), (0, b"DSD ", "DSF"),
)  # fmt: skip
"""Formats with sound that libsndfile does not read: where their mark stands, and what they are."""
UNSUPPORTED = 4
"""libsndfile's SF_ERR_UNSUPPORTED_ENCODING."""
_SHORT = re.compile(r"^.*?:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)


class AudioError(MediumError):
    """A clip that cannot be had. `reason`: `audio.` and one of the words below; the message says which value.

    too_long, too_many_channels, rate: beyond a limit. empty: no sample. truncated: less than the header says.
    damaged: decoding stops within. not_finite, too_loud: samples that are no sound. unsupported: an encoding that is
    not read. unreadable: no format that is known, or a header that makes no sense.
    """

    kind, noun = "audio", "clip"


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `format` and `subtype`: libsndfile's names, as WAV and PCM_16; `rate`: Hz; `samples`:
    a channel; of MP3 that may be a few too many."""

    format: str
    subtype: str
    rate: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """How long the clip is."""
        return self.samples / self.rate

    @property
    def depth(self) -> int:
        """Bits of a sample; 0 of an encoding that loses some."""
        return DEPTHS.get(self.subtype, 0)


def audio_header(source: bytes | BinaryIO, max_seconds: float = MAX_SECONDS) -> Header:
    """Rate, channels and length of an audio file; no sample is decoded. Raises AudioError as `audio_blocks`, for what a
    header shows."""
    with _opened(source) as file:
        return _checked(file, max_seconds)


def audio_blocks(
    source: bytes | BinaryIO, start: int = 0, samples: int | None = None, max_seconds: float = MAX_SECONDS
) -> Iterator[np.ndarray]:
    """Samples of an audio file, float32 [samples, channels] a block: so many from sample `start` on, or None: all that
    follow. Raises AudioError, some of it at the end only; ValueError for a part that begins outside of the file."""
    with _opened(source) as file:
        header, read = _checked(file, max_seconds), 0
        if not 0 <= start < header.samples or (samples is not None and samples < 1):
            raise ValueError(f"{samples} samples from {start} on: the file has {header.samples}")
        if start:
            file.seek(start)
        wanted = header.samples - start if samples is None else samples
        while len(block := file.read(SAMPLES if samples is None else min(SAMPLES, samples - read), "float32", True)):
            read += len(block)
            _check_length(header, start + read, max_seconds)
            _check_values(block, start + read)
            yield block
        if read < wanted - SLACK_SAMPLES or not read:
            raise AudioError("truncated", f"{start + read} samples of {start + wanted} ({header.format})")


def decode_audio(
    source: bytes | BinaryIO, start: int = 0, samples: int | None = None, max_seconds: float = MAX_SECONDS
) -> tuple[np.ndarray, int]:
    """The mean of all channels, float32 [samples], and their rate in Hz; of a long clip a map of a file. Arguments and
    errors as those of `audio_blocks`."""
    header, at = audio_header(source, max_seconds), 0
    blocks = (block.mean(axis=1) for block in audio_blocks(source, start, samples, max_seconds))
    expected = header.samples - start if samples is None else samples
    if expected > IN_MEMORY:
        return _mapped(blocks), header.rate
    waveform = np.empty(expected, np.float32)
    for block in blocks:
        if at + len(block) > len(waveform):  # more than its header says
            waveform = np.concatenate([waveform[:at], np.empty(2 * at + len(block), np.float32)])
        waveform[at : at + len(block)] = block
        at += len(block)
    return waveform[:at], header.rate


def _mapped(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """All float32 [samples] of these, as a map of a file of no name. They are written and not mapped first: a disk that
    is full raises OSError then, and does not kill the process."""
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            file.write(block.data)
        file.flush()
        return np.memmap(file, np.float32, "r+")


def file_mel(source: bytes | BinaryIO, max_seconds: float = MAX_SECONDS, *, exact: bool = False) -> np.ndarray:
    """Log-Mel of an audio file, float32 [frames, 80], without all of its samples in memory: see `log_mel`. A clip of
    less than 25 ms has no frames. Raises AudioError."""
    # it imports torch, which takes seconds and is not needed to decode
    from gristmill.model.processing.audio import frames_of, log_mel_blocks

    header = audio_header(source, max_seconds)
    mel_FM, at = np.empty((frames_of(header.samples, header.rate), BANDS), np.float32), 0
    blocks = audio_blocks(source, max_seconds=max_seconds)
    for block in log_mel_blocks(blocks, header.rate, exact=exact):
        if at + len(block) > len(mel_FM):  # more than its header says
            mel_FM = np.concatenate([mel_FM[:at], np.empty((2 * at + len(block), BANDS), np.float32)])
        mel_FM[at : at + len(block)] = block
        at += len(block)
    return mel_FM[:at]


class _Seekable:
    """A file for libsndfile, which a damaged one sends to a place before its beginning: it stays where it is then. An
    error in its callback would be printed, and nobody could catch it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As that of a file."""
        try:
            return self._stream.seek(offset, whence)
        except (ValueError, OSError):
            return self._stream.tell()


@contextmanager
def _opened(source: bytes | BinaryIO) -> Iterator[soundfile.SoundFile]:
    """An audio file whose samples are not decoded yet; errors of libsndfile in the block as AudioError."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    stream.seek(0)
    try:
        file = soundfile.SoundFile(_Seekable(stream))
    except soundfile.LibsndfileError as error:
        word = "unsupported" if error.code == UNSUPPORTED else "unreadable"
        if other := _other(stream):
            raise AudioError(
                "unsupported", f"{other}, which libsndfile does not read: convert it, to FLAC say"
            ) from None
        raise AudioError(word, f"libsndfile does not read it: {error.error_string}") from None
    with file:
        try:
            yield file
        except soundfile.LibsndfileError as error:
            text = f"decoding stops after {max(0, file.tell())} samples of {file.frames}: cut off, or damaged"
            raise AudioError("damaged", f"{text} ({error.error_string or error.code})") from None


def _other(stream: BinaryIO) -> str | None:
    """What a file is that libsndfile does not read, where its first bytes tell."""
    stream.seek(0)
    head = stream.read(16)
    return next((name for at, mark, name in OTHERS if head[at:].startswith(mark)), None)


def _checked(file: soundfile.SoundFile, max_seconds: float) -> Header:
    """Raises AudioError where decoding would cost more than it may, or gives less than the header says."""
    header = Header(file.format, file.subtype, file.samplerate, file.channels, file.frames)
    try:
        ratio_of(header.rate)
    except ValueError as error:
        raise AudioError("rate", str(error)) from None
    if header.channels > MOST_CHANNELS:
        raise AudioError("too_many_channels", f"{header.channels} channels, allowed are {MOST_CHANNELS}")
    _check_length(header, header.samples, max_seconds)
    if header.samples < 1:
        raise AudioError("empty", f"a file of {header.format} without a sample")
    for says, has in _SHORT.findall(file.extra_info):
        if int(has) + SLACK_BYTES < int(says) < UNKNOWN:
            raise AudioError("truncated", f"{has} bytes, its header says {says} ({header.format})")
    return header


def _check_length(header: Header, samples: int, max_seconds: float) -> None:
    if samples > max_seconds * header.rate:
        raise AudioError("too_long", f"{samples / header.rate:.1f} seconds, allowed are {max_seconds:g}")
    if samples * header.channels > MAX_VALUES:
        raise AudioError(
            "too_long", f"{samples} samples of {header.channels} channels, allowed are {MAX_VALUES} of all"
        )


def _check_values(block: np.ndarray, read: int) -> None:
    least, most = float(block.min()), float(block.max())  # of NaN both are NaN
    where = f"samples {read - len(block)} to {read}"
    if not (np.isfinite(least) and np.isfinite(most)):
        raise AudioError("not_finite", f"{where} are not all numbers: from {least} to {most}")
    if max(-least, most) > LOUDEST:
        raise AudioError("too_loud", f"{where} reach from {least} to {most}, where full scale is -1 to 1")
