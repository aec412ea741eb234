"""Text of token ids one by one: what was given out is never taken back, and all of it is the text of the whole.

A token's text can depend on what follows: bytes of half a character; with byte fallback a whole run of bytes, which the
library shows if all of it is UTF-8. Byte-level tokens are bytes, and Python's own incremental decoder is right for
them. For other decoders a text is decoded from the last place where no token could look back or ahead, if all steps of
the decoder are known to look no further; if one is not, nothing is given out before the end.
Source: tokenizers 0.23, the decoders; sentencepiece's byte fallback.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gristmill.model.processing.text import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_FIRST = 4  # tokens of a context at first


class Detokenizer:
    """The text of one sequence as it grows. `context`: the tokens before it, where the text goes on from them; without,
    it begins a text. Ids that stand for no token are no text."""

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.byte_level else None
        self._steps = _streams(tokenizer.decoder)
        self._settled: list[int] = []  # tokens before a place where the text may be cut, and their text
        self._before = ""
        self._new: list[int] = []
        if self._utf8 is None and self._steps:
            self._settled = _tail(tokenizer, context)
            self._before = tokenizer.decode(self._settled)

    def add(self, token: int) -> str:
        """What can be given out after one more token."""
        if not self._tokenizer.has(token):
            return ""
        if self._utf8 is not None:
            return self._utf8.decode(self._tokenizer.bytes_of(token))
        self._new.append(token)
        if not self._steps or byte_of(self._tokenizer, token) is not None:
            return ""
        return self._cut()

    def end(self) -> str:
        """The rest of the text."""
        return self._utf8.decode(b"", final=True) if self._utf8 is not None else self._cut()

    def _cut(self) -> str:
        """What the new tokens add to the text, and from here on they are what is before."""
        if not self._new:
            return ""
        text = self._tokenizer.decode([*self._settled, *self._new])
        added = text[len(self._before) :]
        # What a decoder strips from the start of a text shows only where something is left of it.
        own = self._tokenizer.decode(self._new)
        self._settled = self._new if own.strip() else [*self._settled, *self._new]
        self._before = own if own.strip() else text
        self._new = []
        return added


def decoded(tokenizer: Tokenizer, tokens: Sequence[int], context: Sequence[int] = ()) -> str:
    """The whole text of tokens that go on from a context."""
    growing = Detokenizer(tokenizer, context)
    return "".join([*map(growing.add, tokens), growing.end()])


def decoder(tokenizer: Tokenizer) -> Callable[[Iterable[int]], str]:
    """`tokenizer.decode` that any model's output can be given, for an engine: a vocabulary is often padded to a round
    number, and a model may draw an id that stands for nothing, which is no text."""
    return lambda ids: tokenizer.decode(token for token in ids if tokenizer.has(int(token)))


def byte_of(tokenizer: Tokenizer, token: int) -> int | None:
    """The byte that a token of byte fallback stands for; None: it is none."""
    if tokenizer.byte_level or not any(step.get("type") == "ByteFallback" for step in _steps_of(tokenizer.decoder)):
        return None
    match = _BYTE.fullmatch(tokenizer.name(token) or "")
    return int(match[1], 16) if match else None


def token_bytes(tokenizer: Tokenizer, token: int, anchor: int | None) -> bytes:
    """The bytes of a token amid a text. `anchor`: any token with text to put before it (see `find_anchor`)."""
    if not tokenizer.has(token):
        return b""
    if tokenizer.byte_level:
        return tokenizer.bytes_of(token)
    if (byte := byte_of(tokenizer, token)) is not None:
        return bytes([byte])
    if anchor is None:
        return tokenizer.decode([token]).encode()
    return tokenizer.decode([anchor, token])[len(tokenizer.decode([anchor])) :].encode()


def find_anchor(tokenizer: Tokenizer) -> int | None:
    """A token whose text is letters, whatever stands beside it."""
    tokens = range(min(tokenizer.vocab_size, 10_000))
    return next((i for i in tokens if tokenizer.has(i) and tokenizer.decode([i]).isalpha()), None)


def _tail(tokenizer: Tokenizer, context: Sequence[int]) -> list[int]:
    """As many tokens at the end of a context as have text; none if a character may be unfinished there."""
    known = [token for token in context if tokenizer.has(token)]
    if not known or byte_of(tokenizer, known[-1]) is not None:
        return []
    size = _FIRST
    while size < len(known) and not tokenizer.decode(known[-size:]).strip():
        size *= 2
    return known[-size:]


def _steps_of(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not decoder:
        return []
    return decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]


def _streams(decoder: dict[str, Any] | None) -> bool:
    """Whether each step of a decoder looks at one token at a time, or at single characters of the text so far.

    A run of bytes counts as one token. What stands at the start of a text may differ.
    """
    fused = False
    for step in _steps_of(decoder):
        kind = step.get("type")
        if kind == "Fuse":
            fused = True
        elif kind == "Replace":
            pattern = step.get("pattern", {}).get("String")
            if fused and (pattern is None or len(pattern) != 1):
                return False
        elif kind == "WordPiece":
            if fused and step.get("cleanup", True):
                return False
        elif kind in ("BPEDecoder", "CTC"):
            if fused:
                return False
        elif kind == "Strip":
            if step.get("stop", 0):
                return False
        elif kind not in ("ByteFallback", "Metaspace"):
            return False
    return True
