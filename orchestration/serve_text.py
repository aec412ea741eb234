"""Text of samples as clients see it: pieces of a stream, names and bytes of tokens, calls of tools.

What was sent cannot be taken back, so a piece is held while it may still turn out otherwise: half a character, or what
a stop text may begin with. Streamed or whole, the text is the same.
Notable choice: calls are found by the ids of special tokens, never in text that spells them.
Source: vLLM's incremental detokenization, for decoding a piece together with the one before it.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from model.processing.text import MissingToken, Tokenizer

BROKEN = "\ufffd"
"""What the bytes of half a character decode to."""

Decode = Callable[[Sequence[int]], str]


class Growing:
    """The text of one sample in pieces that are never taken back: no half characters, no part of a stop text."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._recent = deque[int]()  # tokens of the last piece that ended with a character, and those since
        self._read, self._before = 0, ""  # how many of them are read, and their text
        self._held, self._sent = "", ""

    def add(self, token: int) -> str:
        """What can be said after one more token."""
        self._recent.append(token)
        text = self._decode(list(self._recent))
        if text.endswith(BROKEN):
            return ""
        self._held += text[len(self._before) :]
        # A piece is decoded together with the one before it: some tokenizers drop the space that a text begins with.
        for _ in range(self._read):
            self._recent.popleft()
        self._read, self._before = len(self._recent), self._decode(list(self._recent))
        return self._say(len(self._held) - self._doubtful())

    def end(self, text: str) -> str:
        """The rest of `text`, which is all of it. Raises RuntimeError for a text that goes on otherwise than it began:
        a tokenizer that decodes a token in another way when others follow."""
        if not text.startswith(self._sent):
            at = next((i for i, (a, b) in enumerate(zip(text, self._sent, strict=False)) if a != b), len(text))
            raise RuntimeError(f"this tokenizer cannot be streamed: character {at} changed after it was sent")
        rest, self._held = text[len(self._sent) :], ""
        return rest

    def _say(self, count: int) -> str:
        said, self._held = self._held[:count], self._held[count:]
        self._sent += said
        return said

    def _doubtful(self) -> int:
        """Characters at the end that a stop text may begin with."""
        sizes = (k for stop in self._stops for k in range(1, len(stop)) if self._held.endswith(stop[:k]))
        return max(sizes, default=0)


class Names:
    """What single tokens are called in log-probabilities."""

    def __init__(self, tokenizer: Tokenizer, decode: Decode) -> None:
        self._tokenizer, self._decode = tokenizer, decode

    def of(self, token: int) -> tuple[str, list[int] | None]:
        """A token's text and its bytes. Bytes that are no whole characters stand in the text as \\xe4; bytes are None
        where the tokenizer does not tell them."""
        text = self._decode([token])
        if BROKEN not in text:
            return text, list(text.encode())
        text = self._tokenizer.show([token], [False])[0][0]
        if BROKEN in text:
            return text, None
        return text, list(re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode()))


class Calls:
    """Finds the calls of tools in what a model wrote: `<|tool_call|>`, a JSON list of {name, arguments}, its end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            self.begin, self.end = (tokenizer.special(name) for name in ("<|tool_call|>", "<|/tool_call|>"))
        except MissingToken:  # it writes none; to offer it tools fails where the prompt is made
            self.begin = self.end = -1

    def split(self, tokens: Sequence[int], decode: Decode) -> tuple[str, list[dict[str, Any]]] | None:
        """The text before the calls, and the calls. None: there are none, or they cannot be read, so that what was
        written is to be shown as it is."""
        if self.begin not in tokens:
            return None
        start = tokens.index(self.begin)
        rest = tokens[start + 1 :]
        if self.end not in rest:
            return None
        calls = _read(decode(rest[: rest.index(self.end)]))
        return None if calls is None else (decode(tokens[:start]), calls)


def _read(text: str) -> list[dict[str, Any]] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not found:
        return None
    return found if all(_is_call(one) for one in found) else None


def _is_call(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("arguments"), dict)
