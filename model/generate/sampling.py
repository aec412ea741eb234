"""Choosing the next token: temperature, top-p, one random number per token from the completion's own key.

The number depends on the request's key, the completion's number and the place alone, never on what else is generated,
when or where. A row's choice is computed from its row alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_ROWS = 64  # drawn at a time: probabilities are in float64, of the whole vocabulary


@dataclass(frozen=True)
class Sampling:
    """How to sample, and when to stop. `max_tokens` None: until the context is full; 0: nothing, for what a request
    tells of its prompt. `temperature` 0: greedy.

    `stop`: texts that end a completion, and are cut off. `ignore_eos`: go on to `max_tokens`. `logprobs`: also give the
    log-probability of each token (at temperature 1, of all the vocabulary) and of so many most likely ones.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        wrong = [
            (
                "max_tokens",
                self.max_tokens,
                "a whole number from 0",
                not (self.max_tokens is None or _counts(self.max_tokens)),
            ),
            ("temperature", self.temperature, "0 to 100", not 0 <= self.temperature <= 100),
            ("top_p", self.top_p, "above 0, to 1", not 0 < self.top_p <= 1),
            ("stop", self.stop, "texts that are not empty", not all(self.stop)),
            ("logprobs", self.logprobs, "0 to 20", self.logprobs is not None and not 0 <= self.logprobs <= 20),
        ]
        for name, value, allowed, bad in wrong:
            if bad:
                raise ValueError(f"{name}={value!r}: allowed is {allowed}")


def _counts(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def sample_key(key: str, number: int) -> int:
    """64 bits for the random numbers of a request's completion, by the request's key and the completion's number."""
    return int.from_bytes(hashlib.blake2b(f"{key}\0{number}".encode(), digest_size=8).digest(), "little")


def uniforms(keys: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """One number in [0, 1) for each key and place, float64 [N], in steps of 2^-40 (splitmix64)."""
    with np.errstate(over="ignore"):
        # A counter-based generator: the state after `place` steps from `key` is a product, so that any place is reached
        # without drawing those before it, and an interrupted sample goes on with the same numbers.
        x = np.array(keys, np.uint64) + (np.array(places, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(24)) * 2.0**-40


def choose(logits_NV: Tensor, how: Sequence[Sampling], uniforms_N: np.ndarray) -> Tensor:
    """The token of each row, int64 [N]: the most likely, or where the row's number falls among probabilities."""
    tokens, device = logits_NV.argmax(-1), logits_NV.device
    for full in (True, False):  # two ways to draw: which one a row takes is its own matter
        drawn = [row for row, sampling in enumerate(how) if sampling.temperature > 0 and (sampling.top_p == 1) == full]
        for start in range(0, len(drawn), _ROWS):
            rows = drawn[start : start + _ROWS]
            index = torch.tensor(rows, device=device)
            heat_R1 = torch.tensor([[how[row].temperature] for row in rows], dtype=torch.float64, device=device)
            # float64: beside a running sum near 1, float32 rounds probabilities below 3e-8 away, and there are 200,000.
            wide_RV = logits_NV[index].double()
            # Less the largest first: then no temperature, however near 0, overflows.
            probabilities_RV = ((wide_RV - wide_RV.amax(-1, keepdim=True)) / heat_R1).softmax(-1)
            uniforms_R1 = torch.from_numpy(uniforms_N[rows][:, None]).to(device)
            if full:
                tokens[index] = _inverse(probabilities_RV, uniforms_R1)
            else:
                top_p_R1 = torch.tensor([[how[row].top_p] for row in rows], dtype=torch.float64, device=device)
                tokens[index] = _inverse_of_top(probabilities_RV, uniforms_R1, top_p_R1)
    return tokens


def _inverse(probabilities_RV: Tensor, uniforms_R1: Tensor) -> Tensor:
    """Where each row's number falls among its probabilities, laid end to end; these need not add up to 1."""
    upto_RV = probabilities_RV.cumsum(-1)
    # `right`: a number on a border belongs to the token behind it, so one of probability 0 is never drawn.
    places_R1 = torch.searchsorted(upto_RV, uniforms_R1 * upto_RV[:, -1:], right=True)
    return places_R1[:, 0].clamp_(max=probabilities_RV.shape[-1] - 1)


def _inverse_of_top(probabilities_RV: Tensor, uniforms_R1: Tensor, top_p_R1: Tensor) -> Tensor:
    """Of the most likely tokens only, as many as reach top_p together; equal ones in the vocabulary's order."""
    ordered_RV, tokens_RV = probabilities_RV.sort(dim=-1, descending=True, stable=True)
    # Kept while those before it have not reached top_p: the token that crosses the line is in, and so is the first.
    before_RV = ordered_RV.cumsum(-1) - ordered_RV
    kept_RV = ordered_RV.masked_fill(before_RV >= top_p_R1, 0.0)
    return tokens_RV.gather(-1, _inverse(kept_RV, uniforms_R1)[:, None])[:, 0]
