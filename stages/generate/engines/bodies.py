"""The body of an answer, read no further than is allowed, packed or not; and headers that keep answers apart.

A server may send what it likes: a body without an end, a few kilobytes that unpack to gigabytes, two answers to one
request. What is read is bounded as it is unpacked, a connection has one answer, and no cookie is kept.
"""

from __future__ import annotations

import http.cookiejar
import logging
import re
import zlib
from functools import lru_cache

import httpx

from gristmill.stages.generate.engines.replies import Failed

ASKING = {"Accept-Encoding": "gzip", "Connection": "close"}
"""Headers of every request. A second answer that came with the first would be taken for that of the next request on its
connection, which is of another sample: so each has a connection of its own."""
_GZIP = 31
"""What zlib calls a stream with gzip's own head."""

for _name in ("httpx", "httpcore"):  # they write down headers and lines of a server, which may quote the key
    logging.getLogger(_name).setLevel(logging.WARNING)


def no_cookies() -> http.cookiejar.CookieJar:
    """A jar that takes none: one that no header can hold would end every later request."""
    return http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))


async def read_body(response: httpx.Response, most_bytes: int) -> bytes:
    """The body of a response, unpacked. Raises Failed for more than `most_bytes`, and for what cannot be unpacked."""
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip"):
        raise Failed("garbage", "an answer in a coding that was not asked for")
    unpacking = zlib.decompressobj(_GZIP) if coding == "gzip" else None
    content = bytearray()
    async for block in response.aiter_raw():
        try:
            content += block if unpacking is None else unpacking.decompress(block, most_bytes + 1 - len(content))
        except zlib.error:
            raise Failed("garbage", "an answer that is not packed as it says") from None
        if len(content) > most_bytes:
            raise Failed("garbage", f"an answer of more than {most_bytes:,} bytes")
        if unpacking is not None and unpacking.eof:
            break  # what follows is no part of it, and would be kept without a bound
    if unpacking is not None and not unpacking.eof:
        raise Failed("half_body", f"an answer that breaks off after {len(content):,} bytes")
    return bytes(content)


def without_key(content: bytes, key: str) -> bytes:
    """A body in which the key stands nowhere, however JSON writes it: `a\\/b` and `a\\u002fb` are `a/b`."""
    return _key_pattern(key).sub(b"***", content)


@lru_cache(maxsize=4)
def _key_pattern(key: str) -> re.Pattern[bytes]:
    signs = [rf"(?:\\?{re.escape(sign)}|(?i:\\u{ord(sign):04x}))" for sign in key]
    return re.compile("".join(signs).encode())
