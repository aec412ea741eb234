"""What a medium's file is called: by its first bytes, which are what decoders go by. No name of its owner's is used."""

from __future__ import annotations

import re

_BY_HEAD = (
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG\r\n\x1a\n", "png"),
    (rb"GIF8[79]a", "gif"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"BM", "bmp"),
    (rb"II[*+]\0|MM\0[*+]", "tiff"),
    (rb"(?:RIFF|RIFX|RF64).{4}WAVE", "wav"),
    (rb"fLaC", "flac"),
    (rb"OggS", "ogg"),
    (rb"ID3|\xff[\xe3\xf2\xf3\xfa\xfb]", "mp3"),
)
_PATTERNS = tuple((re.compile(head, re.DOTALL), extension) for head, extension in _BY_HEAD)


def extension_of(head: bytes) -> str:
    """`jpg`, `wav`, ...; `bin` for what is none of the common kinds. `head`: 16 bytes or more, where there are any."""
    return next((extension for pattern, extension in _PATTERNS if pattern.match(head)), "bin")
