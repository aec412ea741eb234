"""Text of samples as clients see it: pieces of a stream, names and bytes of tokens.

What was sent cannot be taken back, so a piece is held while it may still turn out otherwise: half a character
(`model.processing.detokenize`), or what a stop text may begin with. A whole answer is its pieces put together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from gristmill.model.processing.detokenize import Detokenizer, find_anchor, token_bytes
from gristmill.model.processing.text import Tokenizer

BROKEN = "\ufffd"
"""What the bytes of half a character decode to."""


class Growing:
    """The text of one sample in pieces that are never taken back. `context`: the tokens that it goes on from."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self._text, self._stops = Detokenizer(tokenizer, context), stops
        self._held = ""

    def add(self, token: int) -> str:
        """What can be said after one more token."""
        self.hold(token)
        safe = len(self._held) - self._doubtful()
        text, self._held = self._held[:safe], self._held[safe:]
        return text

    def hold(self, token: int) -> None:
        """One more token, of which nothing is said yet."""
        self._held += self._text.add(token)

    def end(self, stop: str | None = None) -> str:
        """The rest of the text, up to the stop text that ended it."""
        rest, self._held = self._held + self._text.end(), ""
        return rest if stop is None else rest.partition(stop)[0]

    def _doubtful(self) -> int:
        """Characters at the end that a stop text may begin with."""
        sizes = (k for stop in self._stops for k in range(1, len(stop)) if self._held.endswith(stop[:k]))
        return max(sizes, default=0)


def compact(value: Any) -> str:
    """JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event(data: str) -> str:
    """A server-sent event."""
    return f"data: {data}\n\n"


class Named(NamedTuple):
    """What a token is called: its text, its bytes, and both as fields of JSON. Bytes that are no whole characters stand
    in the text as \\xe4. `characters`: those that begin in it."""

    text: str
    data: bytes
    fields: str
    characters: int


class Names:
    """What single tokens are called in log-probabilities."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._anchor = tokenizer, find_anchor(tokenizer)
        self._known: dict[int, Named] = {}

    def of(self, token: int) -> Named:
        """What an id is called, worked out when it is first asked for."""
        named = self._known.get(token)
        if named is None:
            data = token_bytes(self._tokenizer, token, self._anchor)
            text = data.decode("utf-8", "backslashreplace")
            fields = f'"token":{json.dumps(text, ensure_ascii=False)},"bytes":{json.dumps(list(data))}'
            named = Named(text, data, fields, sum(byte & 0xC0 != 0x80 for byte in data))
            self._known[token] = named
        return named
