"""What an engine is asked for and how it answers: options, requests, completions.

Names are vLLM's where it has one: max_num_seqs, max_model_len, block_size, prompt_logprobs, finish_reason, stop_reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.cache import Cache
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.config import ModelConfig

if TYPE_CHECKING:  # llguidance takes long to import, and few requests have a constraint
    from gristmill.model.generate.constraint import Constraint

TokenLogprob = tuple[float | None, list[tuple[int, float]]]
"""Of a token of a prompt: its log-probability, and the most likely tokens there; of the first token, None and none."""
FinishReason = Literal["stop", "length"]
"""An end token or a stop text; or `max_tokens`, or the context is full."""


@dataclass(frozen=True)
class Options:
    """`max_num_seqs`: completions generated side by side; `max_model_len`: tokens of the longest, with its prompt.
    `max_num_partial_prefills`: prompts computed side by side, `prefill_chunk_size` tokens of each in a step;
    `block_size`: tokens of a page of the cache, which attention adds up at a time. `graphs`: run the decoder as CUDA
    graphs; None: on CUDA; False: there with the same kernels, launched one by one by the host, which is slow."""

    max_num_seqs: int = 64
    max_model_len: int = 1024
    max_num_partial_prefills: int = 8
    prefill_chunk_size: int = 32
    block_size: int = 128
    graphs: bool | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_partial_prefills", "prefill_chunk_size"):
            if (value := getattr(self, name)) < 4 or value % 4:
                raise ValueError(f"{name}={value}: allowed are multiples of 4, as other products have other bits")
        length, block, chunk = self.max_model_len, self.block_size, self.prefill_chunk_size
        if block < 1 or block % chunk or length < 1 or length % block:
            raise ValueError(
                f"max_model_len={length}, block_size={block}, prefill_chunk_size={chunk}: each must be a multiple of "
                "the next"
            )

    def bytes(self, config: ModelConfig, dtype: torch.dtype) -> int:
        """What the engine's two caches take, of keys and values in `dtype`."""
        rows = (self.max_num_seqs, self.max_num_partial_prefills)
        return sum(Cache.size(config.text, count, self.max_model_len, self.block_size, dtype) for count in rows)


@dataclass(frozen=True)
class Clip:
    """A clip of a prompt that is read as it is computed, so that one of hours is never whole in memory. `blocks` gives
    its log-Mel frames, float [n, bands] at a time, anew at each call: exactly `frames` of them."""

    frames: int
    blocks: Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Request:
    """`n` completions of a prompt. `key` names run and problem: with a completion's number it decides its random
    numbers. `media`: images and clips of this prompt, as a window holds them (`model.windows.media`; `model.windows.
    prompts` makes them of files). `clips`: instead of those in `media`. `inputs`: media as tensors, as
    `Multimodal.embed` takes them. `adapter`: of "token", what is generated takes none. `first`: the number of the first
    completion, to go on after others. `prompt_logprobs`: also give the log-probabilities of the prompt's tokens, and of
    so many most likely ones. `constraint`: the rules that what is generated keeps to; each completion has a copy."""

    key: str
    tokens: tuple[int, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    first: int = 0
    adapter: str | None = "auto"
    media: Mapping[str, np.ndarray] | None = field(default=None, compare=False)
    clips: tuple[Clip, ...] = field(default=(), compare=False)
    inputs: Mapping[str, Tensor] | None = field(default=None, compare=False)
    prompt_logprobs: int | None = None
    constraint: Constraint | None = field(default=None, compare=False)


@dataclass
class Completion:
    """A completion as it grows, and when `finish_reason` is set, as it ended. `tokens` include the token that ended it,
    and those of a stop text. `logprobs` [tokens] and `top_logprobs` [tokens][k] of (id, log-probability), if asked for.
    `stop_reason`: the stop text that ended it. `prompt_logprobs` [tokens of the prompt], if asked for.

    The engine's own: `long`, whether LongRoPE's long factors hold; `slot`, -1 where it has none; `pages` of the cache;
    `adapter` that its new tokens take; `constraint`, its own copy.
    """

    request: Request
    number: int
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None
    long: bool = False
    slot: int = -1
    pages: list[int] = field(default_factory=list)
    adapter: str | None = None
    prompt_logprobs: list[TokenLogprob] | None = None
    constraint: Constraint | None = None

    @property
    def length(self) -> int:
        """Tokens, with those of the prompt."""
        return len(self.request.tokens) + len(self.tokens)

    def text(self, decode: Callable[[Sequence[int]], str], eos_token_ids: Iterable[int]) -> str:
        """What was generated, without the end token or stop text."""
        ended = self.finish_reason == "stop" and self.stop_reason is None and self.tokens[-1] in set(eos_token_ids)
        text = decode(self.tokens[:-1] if ended else self.tokens)
        # A stop text can be in the tail that was looked at and not in the whole: bytes that became no character.
        return text if self.stop_reason is None else text.partition(self.stop_reason)[0]


class TooLong(ValueError):
    """A request that does not fit in the engine's `max_model_len`."""
