"""Generation that can only become JSON: which tokens may come next, by the rules of an object or of a JSON schema.

llguidance keeps the state of a parser over bytes and says, before each token, which of the vocabulary keep the text a
beginning of something allowed; an end token is allowed when the text is whole. The model chooses among them as it
would: a completion that ends by itself is valid; one that `max_tokens` cuts is not, and has `finish_reason` "length".
Schemas come from strangers: what the library cannot keep to is refused, and its limits bound the work of each step.
Source: llguidance 1.9; arXiv 2502.11176 (JSONSchemaBench) for what it covers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from gristmill.model.processing.detokenize import find_anchor, token_bytes
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer

_LOG = logging.getLogger(__name__)
_SPACES = r"(?: |\n {0,12})?"
"""Between tokens of JSON: without a bound, a model can write blanks until it is cut."""
_OPTIONS: Any = {"whitespace_flexible": False, "whitespace_pattern": _SPACES}


class Constraint:
    """The state of one completion. Not for several threads at once."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def copy(self) -> Constraint:
        """The same rules, as far as they have come."""
        return Constraint(self._matcher.deep_copy())

    @property
    def broken(self) -> bool:
        """Whether the rules cannot be kept to any more: their limits of work are used up."""
        return bool(self._matcher.is_error())

    def allowed(self, vocab: int) -> Tensor:
        """Which token may come next, bool [vocab]; where that is not known any more, all of them."""
        # To work the mask out may itself use the limits up: so `broken` is asked before and after.
        bits = np.frombuffer(b"" if self.broken else self._matcher.compute_bitmask(), np.uint8)
        if self.broken:
            _LOG.warning("a constraint could not be kept to: %s", self._matcher.get_error().partition("\n")[0])
            return torch.ones(vocab, dtype=torch.bool)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[:vocab].astype(bool))

    def take(self, token: int) -> None:
        """Goes on by one token."""
        if not self.broken:
            self._matcher.consume_token(token)


class Grammars:
    """What can be asked for, over one tokenizer. `vocab`: ids of the model; `eos`: tokens that end a text."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos: Sequence[int]) -> None:
        self._text, self._vocab, self._eos = tokenizer, vocab, list(eos)

    def json_object(self) -> Constraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: dict[str, Any]) -> Constraint:
        """JSON that keeps to a schema. Raises ValueError for one that cannot be kept to."""
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"this schema cannot be kept to: {error}") from None
        matcher = LLMatcher(self._library, grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some that no text keeps to, as {"$ref": "#"}, show only now
        if matcher.is_error():
            raise ValueError(f"this schema cannot be kept to: {matcher.get_error().splitlines()[0]}")
        return Constraint(matcher)

    @cached_property
    def _library(self) -> LLTokenizer:
        """The library's view of the vocabulary, made when first needed: it takes a second."""
        return LLTokenizer(TokenizerWrapper(_Bytes(self._text, self._vocab, self._eos)), eos_token=self._eos)


class _Bytes:
    """What the library wants to know of a tokenizer: the bytes of each token, and which are special."""

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos: Sequence[int]) -> None:
        anchor = find_anchor(tokenizer)
        special = {token for token in range(vocab) if tokenizer.is_special(token) or not tokenizer.has(token)}
        self.eos_token_id, self.bos_token_id = eos[0], None
        self.special_token_ids = sorted(special | set(eos))
        self.tokens = [
            f"<|{token}|>".encode() if token in special else token_bytes(tokenizer, token, anchor)
            for token in range(vocab)
        ]

        self._tokenizer = tokenizer
        self._ids = {data: token for token, data in enumerate(self.tokens) if data and token not in special}

    def __call__(self, text: str) -> list[int]:
        """Tokens of what a schema forces, such as the name of a property."""
        if not isinstance(text, str):
            raise TypeError(f"a {type(text).__name__}: allowed is a text")
        if self._tokenizer.byte_level:
            ids: list[int] = self._tokenizer.encode([[Segment(text)]]).ids.tolist()
            return ids
        return self._longest(text.encode())  # others mark the start of a text, and this one stands amid it

    def _longest(self, data: bytes) -> list[int]:
        # The longest token at each place, which is not how BPE would cut it: any tokens with these bytes are the text.
        ids: list[int] = []
        most, at = max(map(len, self._ids)), 0
        while at < len(data):
            size = next((k for k in range(min(most, len(data) - at), 0, -1) if data[at : at + k] in self._ids), 0)
            if not size:
                raise ValueError(f"no token has the byte {data[at]:#x}")
            ids.append(self._ids[data[at : at + size]])
            at += size
        return ids
