"""Media: the images, clips and videos that a record has, as bytes, known by the digest of these.

What a thing is, its first bytes say and not its name, where they say anything (those of Targa and the like do not).
A file of hours is not held in memory (bytes/long_file.py). Nothing is decoded here: sizes and rates belong to pipelines
that look inside. Known are all images that Pillow reads, and some that it does not read, or should not, which get a
reason where they are decoded. Columns are those of every dataset with media, so that a record goes into one unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from gristmill.stages.containers.bytes.long_file import Content, head_of, sha256_of, stream_of

MEDIA = pa.list_(
    pa.struct(
        [
            ("kind", pa.string()),  # image, audio, video
            ("sha256", pa.string()),
            ("url", pa.string()),  # or the name that it has in its container
            ("data", pa.binary()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("samples", pa.int64()),
            ("rate", pa.int32()),
        ]
    )
)

_IMAGES = (
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{12}|RIFF.{4}WEBP",
    rb"II[*+]\0|MM\0[*+]|\0\0\0\x0cjP  |\xff\x4f\xff\x51",  # TIFF, JPEG 2000
    rb"P[1-6]\s{1,16}[\d#]|Pf\s{1,16}\d|(?:P0CMYK|PyP|PyRGBA|PyCMYK)\s|P7 332",  # PPM and its kin
    rb"8BPS|qoif|DDS \x7c|SIMPLE  =|FTEX|BLP[12]|DanM|LinS|/\* XPM \*/|\x59\xa6\x6a\x95",  # the last: SUN
    rb"\x01\xda[\0\1][\1\2]|\n[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]|\xb1\x68\xde\x3a",  # SGI, PCX, DCX
    rb".{4}[\x11\x12]\xaf.{8}[\0\3]\0|\0{7}\x04|\x80\xe8\0\0|.{4}\0\0\0\x02.{12}GIMP",  # FLI, McIDAS, PIXAR, GBR
    rb"%!PS|\xc5\xd0\xd3\xc6|\xd7\xcd\xc6\x9a\0\0|icns",  # EPS, WMF, ICNS: known, and refused by who decodes
)
_MAGIC = (
    (re.compile(b"|".join(_IMAGES), re.DOTALL), "image"),
    (re.compile(rb"(?:RIFF|RIFX|RF64).{4}WAVE|fLaC|OggS|ID3|\xff[\xe3\xf2\xf3\xfa\xfb]", re.DOTALL), "audio"),
    (re.compile(rb"FORM.{4}AIF|NIST_1A|\.snd|caff", re.DOTALL), "audio"),
    (re.compile(rb".{4}ftyp(avif|avis|heic|heix|heim|heis|hevc|mif1|msf1)", re.DOTALL), "image"),
    (re.compile(rb".{4}ftyp(M4A |M4B )", re.DOTALL), "audio"),
    (re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", re.DOTALL), "video"),
)


HEAD = 32
NAMED = frozenset({"cur", "dib", "gbr", "ico", "icb", "im", "pcd", "tga", "vda", "vst", "xbm"})
"""Extensions of images whose beginning says too little: for these the name counts."""


class Media(NamedTuple):
    """`kind`: image, audio or video; `url`: its name in the container, or its address; `sha256`: in hex."""

    kind: str
    sha256: str
    url: str | None
    content: Content

    @property
    def data(self) -> bytes:
        """All of its bytes, in memory."""
        return self.content if isinstance(self.content, bytes) else self.content.read()

    def open(self) -> BinaryIO:
        """A stream of its bytes, with a position of its own."""
        return stream_of(self.content)

    def without_data(self) -> Media:
        """Its digest alone, and where it came from."""
        return self._replace(content=b"")

    def as_row(self) -> dict[str, Any]:
        """An element of a column MEDIA; what only a decoder can know is null."""
        row = {"kind": self.kind, "sha256": self.sha256, "url": self.url, "data": self.data}
        return row | dict.fromkeys(("height", "width", "samples", "rate"))


def kind_of(data: bytes, name: str | None = None) -> str | None:
    """What these bytes are by the first HEAD of them, else by the name of their file; None: no medium that is known."""
    head = data[:HEAD]
    for magic, kind in _MAGIC:
        if magic.match(head):
            return kind
    return "image" if data and name and name.rpartition(".")[2].lower() in NAMED else None


def medium(content: Content, url: str | None) -> Media | None:
    """None where the bytes are none."""
    kind = kind_of(head_of(content, HEAD), url)
    return None if kind is None else Media(kind, sha256_of(content), url, content)


def digests(media: Iterable[Media]) -> list[str]:
    """What enters the identity of the record that has them."""
    return [item.sha256 for item in media]
