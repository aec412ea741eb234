"""Whether an audio file is all there, where libsndfile does not ask: an Ogg stream without its last page, which says
that it is the last; a NIST file with fewer samples than its header promises.

Asked when a clip is taken in: what is said of a whole clip is not said of its beginning. Whoever decodes a clip that is
stored already reads it as far as it goes.
Source: RFC 3533, 6 (a page of Ogg); the SPHERE header of NIST's speech files.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from gristmill.model.processing.audio_file import SLACK_BYTES, AudioError

LONGEST_PAGE = 27 + 255 + 255 * 255
_LAST = 4
"""Flag of a page with which its stream ends."""
_NIST_HEADER = 1024
_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d{1,15})\s", re.MULTILINE)


def check_end(stream: BinaryIO) -> None:
    """Raises AudioError, `truncated`, for a file of one of these kinds that is cut off."""
    stream.seek(0)
    head = stream.read(7)
    if head.startswith(b"OggS"):
        _check_ogg(stream)
    elif head == b"NIST_1A":
        _check_nist(stream)


def _check_ogg(stream: BinaryIO) -> None:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 2 * LONGEST_PAGE))
    tail = stream.read(2 * LONGEST_PAGE)
    at = tail.rfind(b"OggS\0")
    page = tail[at:] if at >= 0 else b""
    whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & _LAST:
        raise AudioError("truncated", f"{size} bytes, of which no last page of its stream is the end (OGG)")


def _check_nist(stream: BinaryIO) -> None:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    fields = {name: int(value) for name, value in _FIELD.findall(stream.read(_NIST_HEADER))}
    if len(fields) == 3:
        says = fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]
        has = size - _NIST_HEADER
        if has + SLACK_BYTES < says:
            raise AudioError("truncated", f"{max(0, has)} bytes, its header says {says} (NIST)")
