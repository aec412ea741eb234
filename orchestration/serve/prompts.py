"""Prompts of requests as the engine takes them: what cannot fit is refused before it costs anything.

A text is at least so many tokens as its bytes say, before it is encoded; images and clips are as many as their headers
say, before one is decoded.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gristmill.model.processing.chat.template import answered
from gristmill.model.processing.chat.turns import Conversation
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.pieces import WHITESPACE
from gristmill.model.windows.placeholders import BadMedium, LogMel, Medium
from gristmill.model.windows.prompts import Prompted, Prompts, cut_of, log_mel_of
from gristmill.orchestration.serve.clips import AudioLimits, bad_clip
from gristmill.orchestration.serve.engine import HostedEngine
from gristmill.orchestration.serve.errors import refuse, too_long
from gristmill.orchestration.serve.images import ImageLimits, wrong

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class PromptReader:
    """For one engine and its tokenizer. `kinds` of media that the model takes."""

    def __init__(self, hosted: HostedEngine, tokenizer: Tokenizer, images: ImageLimits, audio: AudioLimits) -> None:
        self._tokenizer, self._max_length = tokenizer, hosted.options.max_model_len
        cut = _or_none(lambda: cut_of(hosted.config, tokenizer, images.max_crops))
        log_mel = _or_none(lambda: log_mel_of(hosted.config, tokenizer, LogMel(max_seconds=audio.max_seconds)))
        self._prompts = Prompts(tokenizer, cut, images.max_pixels, log_mel)
        self.kinds = tuple(self._prompts.names)

    def chat(
        self, conversation: Conversation, media: Sequence[Medium], asked: int | None, param: str = "messages"
    ) -> Prompted:
        """A conversation with its images and clips. `asked`: tokens to generate, None: as many as fit; `param`: the
        field of the request that it is of. Raises ApiError."""
        try:
            parts = answered(conversation)
            self.check_length(self._least_tokens(parts), param, asked)
            self.check_length(len(self._prompts.tokens(parts, media)), param, asked)
            return self._prompts.of(parts, media)
        except BadMedium as error:
            if param != "messages":
                raise refuse(f"{param}: {error.message[:300]}", param, "invalid_audio") from error
            raise (wrong if error.kind == "image" else bad_clip)(error.number, error.message[:300]) from error
        except ValueError as error:  # no Unicode, or a tokenizer without the tokens of a chat
            raise refuse(f"{param}: {error}", param) from error

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


def _or_none(form: Callable[[], _T]) -> _T | None:
    """How media are taken; None: not, since the tokenizer is another model's. It can still be asked in words."""
    try:
        return form()
    except ValueError as error:
        _LOG.warning("media are not taken: %s", error)
        return None


def random_key(seed: int | None, tokens: Sequence[int], media: Mapping[str, np.ndarray] | None = None) -> str:
    """What decides the random numbers: seed and prompt, or nothing that comes again."""
    if seed is None:
        return secrets.token_hex(16)
    digest = hashlib.sha256(np.array(tokens, np.int64).tobytes())
    for name, array in sorted((media or {}).items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return f"{seed}/{digest.hexdigest()}"
