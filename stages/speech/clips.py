"""A clip of a record: a file as it came, or a part of one, with what is measured of it.

A part is cut at whole samples of the file, mixed to one channel and stored as FLAC of 16 bits at the file's rate: one
writer with fixed settings, so that the same part of the same file has the same bytes. Its origin says what it is of,
which is how a takedown of the file finds it.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile

from gristmill.filters.audio.levels import Levels, levels
from gristmill.filters.audio.sound import sound
from gristmill.model.processing.audio_file import AudioError, audio_header, decode_audio
from gristmill.model.processing.chat.conversation import BadSample
from gristmill.stages.containers.media import Media

OVERHANG = 0.1
"""Seconds that a manifest may name beyond the end of a file: lengths are rounded, files are not."""


class Clip(NamedTuple):
    """`medium`: a row of MEDIA; `look`: how it sounds; `origin`: a row of ORIGINS, None of a whole file."""

    medium: dict[str, Any]
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
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadSample("segment", f"{name} is no number of seconds")
        return float(value)
    return None


def clip_of(item: Media, part: Part | None, max_seconds: float) -> Clip:
    """Decoded and measured. Raises AudioError, among them too_long and segment_outside."""
    header = audio_header(item.data)
    if part is None:
        _check_length(header.samples / header.rate, max_seconds)
        waveform, rate = decode_audio(item.data)
        medium = item.as_row() | {"kind": "audio", "samples": len(waveform), "rate": rate}
        return Clip(medium, levels(waveform, rate), sound(waveform, rate), None)
    first, samples = _place(part, header.rate, header.samples)
    _check_length(samples / header.rate, max_seconds)
    waveform, rate = decode_audio(item.data, first, samples)
    data = _flac(waveform, rate)
    cut = Media("audio", hashlib.sha256(data).hexdigest(), item.url, data)
    origin = {"sha256": item.sha256, "url": item.url, "start": first / rate, "end": (first + samples) / rate}
    medium = cut.as_row() | {"samples": samples, "rate": rate}
    return Clip(medium, levels(waveform, rate), sound(waveform, rate), origin)


def _check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise AudioError("too_long", f"{seconds:.1f} s, allowed are {max_seconds:g}")


def _place(part: Part, rate: int, samples: int) -> tuple[int, int]:
    """(first sample, samples) of a part of a file of so many."""
    first = round(part.start * rate)
    end = samples if part.end is None else round(part.end * rate)
    if end > samples and end - samples <= OVERHANG * rate:
        end = samples
    if end > samples or first >= end:
        raise AudioError("segment_outside", f"{part.start:g} to {end / rate:g} s of a file of {samples / rate:.3f} s")
    return first, end - first


def _flac(waveform: np.ndarray, rate: int) -> bytes:
    stream = io.BytesIO()
    whole = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(stream, whole, rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()
