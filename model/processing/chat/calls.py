"""Calls of tools in what a model wrote, told by the ids of special tokens, never by text that spells them.

`<|tool_call|>`, a JSON list of {name, arguments}, `<|/tool_call|>`: the form in which `template` shows them. Whether a
tool exists and arguments fit its schema is for the reader to ask: a server passes on what was written, an evaluation
judges it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from gristmill.model.processing.chat.messages import torn
from gristmill.model.processing.text import MissingToken, Tokenizer


class Calls:
    """Finds the calls of tools in what a model wrote: `<|tool_call|>`, a JSON list of {name, arguments}, its end."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        try:
            self.begin, self.end = (tokenizer.special(name) for name in ("<|tool_call|>", "<|/tool_call|>"))
        except MissingToken:  # it writes none; to offer it tools fails where the prompt is made
            self.begin = self.end = -1

    def split(self, tokens: Sequence[int]) -> tuple[list[int], list[dict[str, Any]]] | None:
        """Tokens that are text, and the calls, from the first `begin` on. None: something there is no list of calls, so
        that what was written is to be shown as it is."""
        outside: list[int] = []
        calls: list[dict[str, Any]] = []
        at = 0
        while at < len(tokens):
            if tokens[at] != self.begin:
                outside.append(tokens[at])
                at += 1
                continue
            if self.end not in tokens[at + 1 :]:
                return None
            end = tokens.index(self.end, at + 1)
            inside = self._read(tokens[at + 1 : end])
            if inside is None:
                return None
            calls += inside
            at = end + 1
        return outside, calls

    def _read(self, tokens: Sequence[int]) -> list[dict[str, Any]] | None:
        text = self._tokenizer.decode(token for token in tokens if self._tokenizer.has(token))
        try:
            calls = json.loads(text, parse_constant=_no_json)
            again = json.dumps(calls, ensure_ascii=False, allow_nan=False)  # as it is sent
        except (ValueError, RecursionError):
            return None
        if not isinstance(calls, list) or not calls or torn(again):
            return None
        return calls if all(map(_is_call, calls)) else None


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _is_call(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("arguments"), dict)
