"""What a video file is by its first bytes, and whether it is all there by the sizes that its container declares.

MP4 (and MOV) is a row of boxes, Matroska (and WebM) one segment, AVI one RIFF: each says how long it is, so that a file
that was cut off is known before a decoder meets it, and never as a shorter video. Nothing else of a header is believed.
"""

from __future__ import annotations

import struct

from gristmill.model.processing.medium_error import MediumError


class VideoError(MediumError):
    """Frames of a video that cannot be had. `reason`: `video.` and one of the words below; the message says which
    value.

    too_many_pixels, too_long, too_many_frames: beyond a limit. no_video: sound alone, or nothing. empty: a video
    without a picture. truncated: the file ends early. damaged: decoding stops within. unsupported: a codec that is not
    read. unreadable: no container that is known, or a header that makes no sense.
    """

    kind, noun = "video", "video"


def container_of(data: bytes) -> str:
    """FFmpeg's name of the format of a file that is complete. Raises VideoError."""
    if data[4:8] == b"ftyp":
        name, end = "mp4", _end_of_boxes(data)
    elif data[:4] == b"\x1a\x45\xdf\xa3":
        name, end = "matroska", _end_of_segment(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        name, end = "avi", 8 + int.from_bytes(data[4:8], "little")
    else:
        raise VideoError("unreadable", "no format of videos is known that begins as this one does")
    if end > len(data):
        raise VideoError("truncated", f"{len(data)} bytes, its header says {end} ({name})")
    return name


def _end_of_boxes(data: bytes) -> int:
    """Where the last box of an MP4 ends by its own account. Raises VideoError: truncated, where the one that says what
    the others hold is not among them."""
    at, indexed = 0, False
    while at + 8 <= len(data):
        indexed |= data[at + 4 : at + 8] == b"moov"
        (size,) = struct.unpack_from(">I", data, at)
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
        if size < 8:  # 0: to the end of the file; others make no sense, and whoever reads it says so
            return len(data)
        at += size
    if not indexed and at <= len(data):
        raise VideoError("truncated", f"{len(data)} bytes, which end before the box moov (mp4)")
    return at


def _end_of_segment(data: bytes) -> int:
    """Where the segment of a Matroska file ends by its own account; a stream that was recorded does not know."""
    head = _sized(data, 4)
    if head is None or data[head[0] + head[1] :][:4] != b"\x18\x53\x80\x67":
        return len(data)
    segment = _sized(data, head[0] + head[1] + 4)
    return len(data) if segment is None else segment[0] + segment[1]


def _sized(data: bytes, at: int) -> tuple[int, int] | None:
    """(first byte of content, its bytes) of the element of EBML whose size stands at `at`; None: of unknown size."""
    if at >= len(data) or data[at] == 0:
        return None
    length = 9 - data[at].bit_length()
    bits = 7 * length
    size = int.from_bytes(data[at : at + length], "big") & ((1 << bits) - 1)
    return None if size == (1 << bits) - 1 else (at + length, size)
