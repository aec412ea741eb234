"""Who a record is: ids that survive a moved crawl, a recompressed file and a rerun.

An id is 128 bits written as 32 hex characters: 16 of the source key (the normalised URL, else a key of the
source), 16 of the record's own identity. So every capture of a URL shares a prefix, and `grist why URL` is a
prefix scan over a sorted ledger. Paths and hosts never enter. The rules carry a format number that is hashed
in: changing a rule changes every id, on purpose and in the open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes, urlsplit

URL_FORMAT = 1
"""Raise with any change to `normalise_url`: ids of the two formats never mix silently."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"
_HEX = re.compile(r"[0-9a-f]{32}")


def normalise_url(url: str) -> str:
    """The syntax-based normal form of RFC 3986 section 6.2.2, with the scheme-based default port and empty path
    of 6.2.3: scheme and host lower case (other scripts in IDNA, no dot at the end), percent-encodings upper case and
    undone where unreserved, dot segments removed, fragment removed. The query is untouched. A string that is no URL
    comes back stripped. Never raises; what is normal stays as it is.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # e.g. an unclosed IPv6 bracket: no URL, but still a key
        return url
    if not parts.scheme or not parts.netloc:
        return url
    authority = _authority(parts.netloc, parts.hostname or "", port, parts.scheme)
    path = remove_dot_segments(_escapes(quote(parts.path, safe=_PATH_SAFE, errors="surrogatepass"))) or "/"
    query = f"?{parts.query}" if "?" in url.partition("#")[0] else ""  # an empty query is not the same as none
    return f"{parts.scheme}://{authority}{path}{query}".rstrip()


def _authority(netloc: str, host: str, port: int | None, scheme: str) -> str:
    """`user@host:port` in normal form, what may be left out left out."""
    user, _, address = netloc.rpartition("@")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:  # not a legal host name; kept as it stands, it still identifies
            host = quote(host, safe="%", errors="surrogatepass")
    host = _escapes(_escapes(host).lower())  # lower case but for the hex digits of escapes
    host = host.rstrip(".") or host
    if address.startswith("["):
        host = f"[{host}]"
    shown = "" if port is None or port == _DEFAULT_PORTS.get(scheme) else f":{port}"
    return f"{_escapes(user)}@{host}{shown}" if user else f"{host}{shown}"


def _escapes(text: str) -> str:
    """Percent-encodings in normal form; a `%` that begins none is encoded, or it might begin one afterwards."""

    def normal(match: re.Match[str]) -> str:
        char = unquote_to_bytes(match[0]).decode("latin-1")
        return char if char in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(normal, _STRAY.sub("%25", text))


def remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, for an absolute or empty path."""
    out: list[str] = []
    segments = path.split("/")
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "..":
            if len(out) > 1:
                out.pop()
            if last:
                out.append("")
        elif segment == ".":
            if last:
                out.append("")
        else:
            out.append(segment)
    return "/".join(out)


def _h64(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def url_hash(url: str) -> str:
    """The first 16 characters of the id of every record of this URL."""
    return _h64(f"url.{URL_FORMAT}\0{normalise_url(url)}".encode("utf-8", "surrogatepass"))


def key_hash(key: str) -> str:
    """The first 16 characters of the id of every record that has this source key and no URL."""
    return _h64(b"key\0" + key.encode("utf-8", "surrogatepass"))


def record_id(*, url: str | None, source_key: str | None, own: bytes) -> str:
    """The id of a record: `url` where there is one, else `source_key` (an id field, or input and ordinal).

    `own` is the identity of this very record: WARC record id and block digest, else source digest and ordinal.
    """
    if url:
        head = url_hash(url)
    elif source_key:
        head = key_hash(source_key)
    else:
        raise ValueError("record_id: a record needs a url or a source key")
    return head + _h64(b"own\0" + own)


def own_identity(own: bytes, media: Sequence[str]) -> bytes:
    """The identity of a record that has media: its own, and the sha256 (hex) of each medium in order.

    A record without any keeps the identity that it has.
    """
    return own if not media else own + b"\0media\0" + "\0".join(media).encode()


def is_url(text: str) -> bool:
    """Whether the text is an absolute URL with a host."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def is_record_id(text: str) -> bool:
    """Whether the text has the form of a record id: 32 hex characters."""
    return _HEX.fullmatch(text) is not None


def digest_of(*parts: str | bytes) -> str:
    """sha256 (hex) of length-prefixed parts, so that no two lists of parts share an encoding."""
    h = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()
