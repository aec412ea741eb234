"""What an engine is asked for and how it answers: options, requests, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from model.cache import Cache
from model.config import ModelConfig
from model.sampling import Sampling

if TYPE_CHECKING:
    from model.constraint import Constraint

Score = tuple[float | None, list[tuple[int, float]]]
"""Of a token of a prompt: its log-probability, and the most likely tokens there; of the first, none."""
Finish = Literal["stop", "length"]
"""An end token or a stop text; or `max_tokens`, or the context is full."""


@dataclass(frozen=True)
class Options:
    """`slots`: samples at a time; `length`: the longest, with its prompt. `prompts`: prompts computed side by side,
    `chunk` tokens of each in a step; `block`: tokens that attention adds up at a time."""

    slots: int = 64
    length: int = 1024
    prompts: int = 8
    chunk: int = 32
    block: int = 128

    def __post_init__(self) -> None:
        for name in ("slots", "prompts", "chunk"):
            if (value := getattr(self, name)) < 4 or value % 4:
                raise ValueError(f"{name}={value}: allowed are multiples of 4, as other products have other bits")
        if self.block < 1 or self.block % self.chunk or self.length < 1 or self.length % self.block:
            raise ValueError(
                f"length={self.length}, block={self.block}, chunk={self.chunk}: each must be a multiple of the next"
            )

    def bytes(self, config: ModelConfig, dtype: torch.dtype) -> int:
        """What the engine's caches take."""
        return sum(Cache.size(config.text, n, self.length, self.block, dtype) for n in (self.slots, self.prompts))


@dataclass(frozen=True)
class Request:
    """`n` samples of a prompt. `key` names run and problem: it decides, with a sample's number, its random numbers.
    `inputs`: processed tensors of this prompt's images and audio, as `Multimodal.embed` takes them. `adapter`: of
    "token", what is generated takes none. `first`: the number of the first sample, to go on after others. `scored`:
    also give the log-probabilities of the prompt's tokens, and of so many most likely ones. `constraint`: the rules
    that what is generated keeps to; each sample has a copy."""

    key: str
    tokens: tuple[int, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    first: int = 0
    adapter: str | None = "auto"
    inputs: Mapping[str, Tensor] | None = field(default=None, compare=False)
    scored: int | None = None
    constraint: Constraint | None = field(default=None, compare=False)


@dataclass
class Sample:
    """A sample as it grows, and when `finish` is set, as it ended. `tokens` include the token that ended it,
    and those of a stop text. `logprobs` and `top` [tokens][k] (id, log-probability) if asked for. `stop`: the stop text
    that ended it. `scores`: of the prompt's tokens, if asked for."""

    request: Request
    number: int
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    finish: Finish | None = None
    stop: str | None = None
    long: bool = False
    slot: int = -1
    pages: list[int] = field(default_factory=list)
    adapter: str | None = None
    scores: list[Score] | None = None
    constraint: Constraint | None = None

    @property
    def length(self) -> int:
        return len(self.request.tokens) + len(self.tokens)

    def text(self, decode: Callable[[Sequence[int]], str], eos: Iterable[int]) -> str:
        """What was generated, without the end token or stop text."""
        ended = self.finish == "stop" and self.stop is None and self.tokens[-1] in set(eos)
        found = decode(self.tokens[:-1] if ended else self.tokens)
        # A stop text can be in the tail that was looked at and not in the whole: bytes that became no character.
        return found if self.stop is None else found.partition(self.stop)[0]


class TooLong(ValueError):
    """A request that does not fit in the engine's length."""
