"""Clips of a chat request: which parts hold them, and what is refused.

A part of type `input_audio` holds a clip, in base64: none is named by an address, so nothing is fetched. Every bound is
known before a sample is decoded: how many clips, bytes of each and of all, and by each header rate, channels, seconds
and tokens. Of which format a clip is, its bytes say; `format` is one of those that clients know. What is wrong with a
clip is a 400 that names it.
Source: OpenAI's API reference, chat completions, content parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.model.processing.audio_file import AudioError, audio_header
from gristmill.model.processing.chat.turns import Shown
from gristmill.model.windows.placeholders import Medium
from gristmill.orchestration.serve.errors import ApiError, refuse
from gristmill.orchestration.serve.images import from_base64

FORMATS = ("wav", "mp3", "flac", "ogg", "aiff")
"""That a part may name: OpenAI's two, and others that libsndfile reads."""


@dataclass(frozen=True)
class AudioLimits:
    """What a request may let the model hear. `max_clips`; `max_bytes` of a clip and `max_total_bytes` of all, as files;
    `max_seconds` of a clip and `max_total_seconds` of all. Rates and channels: `model/processing/audio_rates.py`. By
    default a file may be as large as OpenAI takes one; how large a body may be, follows (server.default_body_limit)."""

    max_clips: int = 16
    max_bytes: int = 25 << 20
    max_total_bytes: int = 25 << 20
    max_seconds: float = 1800.0
    max_total_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("max_clips", "max_bytes", "max_total_bytes", "max_seconds", "max_total_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed is above 0")


@dataclass(frozen=True)
class ClipRef:
    """A clip that a request holds. `number`: from 1, in the order of its parts; `data`: base64."""

    number: int
    data: str


def clip_refs(shown: Sequence[Shown], limits: AudioLimits) -> list[ClipRef]:
    """The clips of a conversation, not decoded. Raises ApiError for too many, and for parts that hold none."""
    if len(shown) > limits.max_clips:
        raise refuse(f"messages: {len(shown)} clips: this server takes {limits.max_clips} a request", "messages")
    return [_ref(number, item.source) for number, item in enumerate(shown, 1)]


def _ref(number: int, part: Mapping[str, Any]) -> ClipRef:
    fields = part.get("input_audio")
    if not isinstance(fields, Mapping) or not isinstance(fields.get("data"), str) or not fields["data"]:
        raise bad_clip(number, "input_audio: allowed is an object with data, the bytes of a file in base64, and format")
    if unknown := sorted((part.keys() - {"type", "input_audio"}) | (fields.keys() - {"data", "format"})):
        raise bad_clip(number, f"{unknown[0]} is not supported; allowed are data and format")
    if fields.get("format") not in FORMATS:
        raise bad_clip(number, f"format={fields.get('format')!r}: allowed are {', '.join(FORMATS)}"[:300])
    return ClipRef(number, fields["data"])


def bad_clip(number: int, message: str) -> ApiError:
    """What is wrong with a clip of a message: 400."""
    return refuse(f"messages: clip {number}: {message}", "messages", "invalid_audio")


def clips_of(refs: Sequence[ClipRef], limits: AudioLimits) -> list[Medium]:
    """The clips as prompts take them, their headers within the limits, no sample decoded. Raises ApiError."""
    media: list[Medium] = []
    size, seconds = 0, 0.0
    for ref in refs:
        data = _data(ref, limits.max_bytes)
        size += len(data)
        if size > limits.max_total_bytes:
            raise bad_clip(ref.number, f"all clips together are larger than {limits.max_total_bytes:,} bytes")
        try:
            seconds += audio_header(data, limits.max_seconds).seconds
        except AudioError as error:
            raise bad_clip(ref.number, error.message[:300]) from error
        if seconds > limits.max_total_seconds:
            raise bad_clip(ref.number, f"all clips together are longer than {limits.max_total_seconds:g} seconds")
        media.append(Medium("audio", data))
    return media


def _data(ref: ClipRef, most: int) -> bytes:
    """The bytes of a clip. Raises ApiError."""
    try:
        data = from_base64(ref.data, most)
    except ValueError as error:
        raise bad_clip(ref.number, f"data: no base64: {error}") from error
    if len(data) > most:
        raise bad_clip(ref.number, f"larger than {most:,} bytes: send a shorter or a compressed clip")
    return data
