"""Prompts of requests as the engine takes them: what cannot fit is refused before it costs anything.

A text is at least so many tokens as its bytes say, before it is encoded; images are as many as their headers say,
before one is decoded.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence

import numpy as np

from gristmill.model.processing.chat.template import answered
from gristmill.model.processing.chat.turns import Conversation
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.pieces import WHITESPACE
from gristmill.model.windows.placeholders import BadMedium, Medium
from gristmill.model.windows.prompts import Prompted, Prompts, cut_of
from gristmill.orchestration.serve.engine import HostedEngine
from gristmill.orchestration.serve.errors import refuse, too_long
from gristmill.orchestration.serve.images import ImageLimits, wrong

_LOG = logging.getLogger(__name__)


class PromptReader:
    """For one engine and its tokenizer. `kinds` of media that the model takes."""

    def __init__(self, hosted: HostedEngine, tokenizer: Tokenizer, images: ImageLimits) -> None:
        self._tokenizer, self._max_length = tokenizer, hosted.options.max_model_len
        try:
            cut = cut_of(hosted.config, tokenizer, images.max_crops)
        except ValueError as error:  # it can still be asked in words
            _LOG.warning("no images are taken: %s", error)
            cut = None
        self._prompts = Prompts(tokenizer, cut, images.max_pixels)
        self.kinds = () if cut is None else ("image",)

    def chat(self, conversation: Conversation, media: Sequence[Medium], asked: int | None) -> Prompted:
        """A conversation with its images. `asked`: tokens to generate, None: as many as fit. Raises ApiError."""
        try:
            parts = answered(conversation)
            self.check_length(self._least_tokens(parts), "messages", asked)
            tokens = self._prompts.tokens(parts, media)
            self.check_length(len(tokens), "messages", asked)
            return Prompted(tokens, self._prompts.arrays(parts, media))
        except BadMedium as error:
            raise wrong(error.number, error.message[:300]) from error
        except ValueError as error:  # no Unicode, or a tokenizer without the tokens of a chat
            raise refuse(f"messages: {error}", "messages") from error

    def text(self, prompt: str | list[int], asked: int | None) -> tuple[int, ...]:
        """Token ids of a prompt in words or in ids. Raises ApiError."""
        if not isinstance(prompt, str):
            self.check_length(len(prompt), "prompt", asked)
            return tuple(prompt)
        try:
            segments = [Segment(prompt)]
            self.check_length(self._least_tokens(segments), "prompt", asked)
            return tuple(self._tokenizer.encode([segments]).ids.tolist())
        except ValueError as error:  # no Unicode
            raise refuse(f"prompt: {error}", "prompt") from error

    def check_length(self, tokens: int, param: str, asked: int | None) -> None:
        """Raises ApiError for a prompt of at least so many tokens, if it leaves no room for what is asked for."""
        least = 1 if asked is None else asked
        if tokens + least > self._max_length:
            message = f"at least {tokens} tokens of prompt and {least} to generate: the length is {self._max_length}"
            raise too_long(message, param)

    def _least_tokens(self, segments: Sequence[Segment]) -> int:
        """How many tokens these segments are at least; special ones may eat the blanks beside them."""
        special, most = sum(segment.special for segment in segments), self._tokenizer.most_bytes
        if most is None:
            return special
        eaten = WHITESPACE if special and self._tokenizer.eats_space else ""
        ordinary = (segment.text for segment in segments if not segment.special)
        texts = (text.strip(eaten) if eaten else text for text in ordinary)
        return special + sum(-(-len(text.encode("utf-8", "surrogatepass")) // most) for text in texts)


def random_key(seed: int | None, tokens: Sequence[int], media: Mapping[str, np.ndarray] | None = None) -> str:
    """What decides the random numbers: seed and prompt, or nothing that comes again."""
    if seed is None:
        return secrets.token_hex(16)
    digest = hashlib.sha256(np.array(tokens, np.int64).tobytes())
    for name, array in sorted((media or {}).items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"{seed}/{digest.hexdigest()}"
