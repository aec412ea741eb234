"""A clip of a record: a file as it came, or a part of one, with what is measured of it.

A part is cut at whole samples of the file, mixed to one channel and stored as FLAC of 16 bits at the file's rate (as
WAV at a rate that FLAC has not): one writer with fixed settings, so that the same part of the same file has the same
bytes. Its origin says what it is of, which is how a takedown of the file finds it. Parts of one file that follow each
other are decoded in one pass over it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile

from gristmill.filters.audio.levels import Levels, levels
from gristmill.filters.audio.sound import sound
from gristmill.lake.inputs.manifests import UNREAD
from gristmill.model.processing.audio_file import MAX_SECONDS, AudioError, Header, audio_header, decode_audio
from gristmill.model.processing.audio_rates import SAMPLES
from gristmill.model.processing.chat.conversation import BadSample
from gristmill.stages.containers.media import Media
from gristmill.stages.speech.ending import check_end
from gristmill.stages.speech.parts import AudioParts

OVERHANG = 0.1
"""Seconds that a manifest may name beyond the end of a file: lengths are rounded, files are not."""
MOST_SECONDS = 1e9
"""That a row can name: 31 years, of which samples can still be counted at any rate."""
MOST_SAMPLES = 7200 * 48_000
"""Of a clip: 2 hours at 48 kHz, a waveform of 1.4 GB. What decoding takes is a matter of samples, not of seconds."""


class Clip(NamedTuple):
    """`medium`: a row of MEDIA; `depth`: bits a sample of the file, 0 of a lossy encoding; `look`: how it sounds;
    `origin`: a row of ORIGINS, None of a whole file."""

    medium: dict[str, Any]
    depth: int
    levels: Levels
    look: int
    origin: dict[str, Any] | None


class Part(NamedTuple):
    """From second `start` to second `end`; None: to the end of the file."""

    start: float
    end: float | None


def part_of(
    row: Mapping[str, Any], starts: Sequence[str], ends: Sequence[str], durations: Sequence[str]
) -> Part | None:
    """The part that a row speaks of; None where it has no start. Raises BadSample: segment."""
    start, end, duration = (_seconds(row, names) for names in (starts, ends, durations))
    if start is None:
        return None
    if end is None and duration is not None:
        end = start + duration
    if start < 0 or (end is not None and end <= start):
        raise BadSample("segment", f"from {start:g} s to {end if end is None else f'{end:g}'} s")
    return Part(start, end)


def _seconds(row: Mapping[str, Any], names: Sequence[str]) -> float | None:
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        # Comparing is exact for whole numbers of any length, and false for NaN.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_SECONDS:
            raise BadSample("segment", f"{name} is no number of seconds up to {MOST_SECONDS:g}")
        return float(value)
    return None


def check_read(row: Mapping[str, Any], id_field: str) -> None:
    """Raises BadSample, unread, for a row that stands for a line that is none, or for the missing end of a manifest,
    which has an id in `id_field` at most."""
    if row.keys() <= {UNREAD, id_field} and isinstance(row.get(UNREAD), str):
        raise BadSample("unread", row[UNREAD][:200])


def check_channel(row: Mapping[str, Any], item: Media) -> None:
    """A row may be of one channel of its file, as supervisions of Lhotse are, and a clip has the mean of all: who
    speaks in another one would be heard too. Raises BadSample: channel; AudioError."""
    value = row.get("channel")
    named = [value] if isinstance(value, int) else value
    if isinstance(value, bool) or not isinstance(named, list) or not all(isinstance(each, int) for each in named):
        return  # a channel of another kind, or none
    channels = audio_header(item.open()).channels
    if channels > 1 and len(set(named)) != channels:
        raise BadSample("channel", f"{value} of a file of {channels}"[:200])


def header_of(item: Media, max_seconds: float) -> Header:
    """Of a file that is all there. Raises AudioError: first for one that is not read at all, whatever its length."""
    stream = item.open()
    header = audio_header(stream, max_seconds)
    check_end(stream)
    return header


class Files:
    """The file of which a part was decoded last, for the parts of it that follow."""

    def __init__(self) -> None:
        self._sha256, self._parts = "", None  # type: tuple[str, AudioParts | None]

    def parts_of(self, item: Media) -> AudioParts:
        """Its parts. Raises AudioError as `header_of`."""
        if self._parts is None or self._sha256 != item.sha256:
            self._parts = None  # not two files at a time
            parts = AudioParts(item.open, MAX_SECONDS)
            check_end(item.open())
            self._sha256, self._parts = item.sha256, parts
        return self._parts


def clip_of(item: Media, part: Part | None, max_seconds: float, files: Files | None = None) -> Clip:
    """Decoded and measured; `files`: for the parts of a file in turn. Raises AudioError; BadSample: segment."""
    parts = None if part is None else (files or Files()).parts_of(item)
    header = header_of(item, max_seconds) if parts is None else parts.header
    place = None if part is None else _place(part, header)
    decoded = header.samples if place is None else place[1]
    if decoded > MOST_SAMPLES:
        raise AudioError("too_long", f"{decoded} samples at {header.rate} Hz, allowed are {MOST_SAMPLES}")
    if parts is None or place is None:
        waveform, _ = decode_audio(item.open(), max_seconds=max_seconds)
        return _clip(item, header, waveform, None)
    (first, samples), rate = place, header.rate
    if samples > max_seconds * header.rate:
        raise AudioError("too_long", f"{samples / header.rate:.1f} seconds, allowed are {max_seconds:g}")
    waveform = parts.part(first, samples)
    data = stored(waveform, rate)
    origin: dict[str, Any] = {"sha256": item.sha256, "url": item.url}
    origin |= {"start": first / rate, "end": (first + samples) / rate}
    return _clip(Media("audio", hashlib.sha256(data).hexdigest(), item.url, data), header, waveform, origin)


def _clip(item: Media, header: Header, waveform: np.ndarray, origin: dict[str, Any] | None) -> Clip:
    rate = header.rate
    medium = item.as_row() | {"kind": "audio", "samples": len(waveform), "rate": rate}
    return Clip(medium, header.depth, levels(waveform, rate), sound(waveform, rate), origin)


def _place(part: Part, header: Header) -> tuple[int, int] | None:
    """(first sample, samples) of a part of a file; None where it is all of it, which is stored as it came. Raises
    BadSample: segment."""
    first, slack = round(part.start * header.rate), OVERHANG * header.rate
    end = header.samples if part.end is None else round(part.end * header.rate)
    if end - header.samples > slack or first >= min(end, header.samples):
        to = "its end" if part.end is None else f"{part.end:g} s"
        raise BadSample("segment", f"from {part.start:g} s to {to} of a file of {header.seconds:.3f} s")
    end = min(end, header.samples)
    return None if first == 0 and header.samples - end <= slack else (first, end - first)


def stored(waveform: np.ndarray, rate: int) -> bytes:
    """A file of 16 bits, of float32 [samples]."""
    whole = np.empty(len(waveform), np.int16)
    for first in range(0, len(waveform), SAMPLES):
        block = waveform[first : first + SAMPLES] * np.float32(32768.0)
        whole[first : first + SAMPLES] = np.clip(np.rint(block), -32768, 32767)
    # A frame's header has 16 bits for a rate of Hz or of tens of Hz (RFC 9639, 9.1.2), and libFLAC writes no others.
    has_flac = rate < 1 << 16 or rate % 10 == 0
    stream = io.BytesIO()
    soundfile.write(stream, whole, rate, format="FLAC" if has_flac else "WAV", subtype="PCM_16")
    return stream.getvalue()
