"""Choosing the next token: temperature, top-p, one random number per token from the completion's own key.

The number depends on the request's key, the completion's number and the place alone, never on what else is generated,
when or where. A row's choice is computed from its row alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.model.generate.graphs import on_device

ROWS = 64
"""Drawn at a time: weights are in float64, of the whole vocabulary."""
Way = Literal["greedy", "full", "nucleus"]
"""How the hardest of some rows is drawn: the most likely token, of the whole vocabulary, or by top-p."""
RUN = 128
"""Tokens whose weights are added up before a number's place among them is looked for."""


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
    keys_N = torch.from_numpy(np.array(keys, np.uint64).view(np.int64))
    return uniforms_of(keys_N, torch.from_numpy(np.array(places, np.int64))).numpy()


def uniforms_of(keys_N: Tensor, places_N: Tensor) -> Tensor:
    """As `uniforms`, on the device of its arguments, int64 [N]: keys are 64 bits, whatever the sign says."""
    # A counter-based generator: the state after `place` steps from `key` is a product, so that any place is reached
    # without drawing those before it, and an interrupted sample goes on with the same numbers. Integers wrap around.
    x = keys_N + (places_N + 1) * _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    x = x ^ _shifted(x, 31)
    return _shifted(x, 24).double() * 2.0**-40


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, with zeros from the left: torch has no unsigned product, and its shift repeats the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def choose(logits_NV: Tensor, how: Sequence[Sampling], uniforms_N: np.ndarray) -> Tensor:
    """The token of each row, int64 [N]: the most likely, or where the row's number falls among probabilities."""
    tokens, device = logits_NV.argmax(-1), logits_NV.device
    for full in (True, False):  # two ways to draw: which one a row takes is its own matter
        drawn = [row for row, sampling in enumerate(how) if sampling.temperature > 0 and (sampling.top_p == 1) == full]
        for start in range(0, len(drawn), ROWS):
            rows = drawn[start : start + ROWS]
            index = on_device(np.array(rows), device)
            heat_R, top_p_R = (
                on_device(np.array([getattr(how[row], name) for row in rows], np.float64), device)
                for name in ("temperature", "top_p")
            )
            uniforms_R = on_device(uniforms_N[rows], device)
            tokens[index] = draw(logits_NV[index], heat_R, uniforms_R, None if full else top_p_R)
    return tokens


def draw(logits_RV: Tensor, heat_R: Tensor, uniforms_R: Tensor, top_p_R: Tensor | None) -> Tensor:
    """The token where each row's number in [0, 1) falls among its probabilities, laid end to end; with `top_p_R`, of
    the most likely ones alone that reach it together, equal ones in the vocabulary's order. `heat_R`: temperatures
    above 0; all float64 [R] but logits, float32. Waits for nothing, and no shape depends on data."""
    if top_p_R is None:
        return _where_it_falls(_weights(logits_RV, heat_R), uniforms_R)
    ordered_RV, tokens_RV = logits_RV.sort(dim=-1, descending=True, stable=True)
    weights_RV = _weights(ordered_RV, heat_R)
    upto_RV = weights_RV.cumsum(-1)
    enough_R1 = (upto_RV[:, -1:].double() * top_p_R[:, None]).ceil_().long()
    # Kept while those before it have not reached top_p: the token that crosses the line is in, and so is the first.
    kept_RV = weights_RV.masked_fill_(upto_RV.sub_(weights_RV) >= enough_R1, 0)
    return tokens_RV.gather(-1, _where_it_falls(kept_RV, uniforms_R)[:, None])[:, 0]


def _weights(logits_RV: Tensor, heat_R: Tensor) -> Tensor:
    """What probabilities are in proportion to, as whole numbers, int64: a sum of them is exact, in whatever order a
    device adds up; sums of float64 over a vocabulary differ from run to run on CUDA. The largest has as many bits as
    leave room for the sum: 44 for 200,064 tokens, whose least likely ones are worth 6e-14 of it or nothing."""
    bits = min(52, 62 - (logits_RV.shape[-1] - 1).bit_length())
    wide_RV = logits_RV.double()
    # Less the largest first: then no temperature, however near 0, overflows.
    wide_RV = wide_RV.sub_(wide_RV.amax(-1, keepdim=True)).div_(heat_R[:, None]).exp_()
    return wide_RV.mul_(2.0**bits).round_().long()


def _where_it_falls(weights_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """The place of each row's number among its weights; a number on a border belongs to the token behind it, so
    a weight of 0 is never drawn. The sums of many tokens are searched first, then those tokens: one pass over
    the vocabulary."""
    vocab = weights_RV.shape[-1]
    whole_RV = F.pad(weights_RV, (0, -vocab % RUN)) if vocab % RUN else weights_RV
    run_RCK = whole_RV.unflatten(-1, (-1, RUN))
    upto_RC = run_RCK.sum(-1).cumsum_(-1)
    # float64 has 53 bits and a sum 62: a number is moved by 1e-16, the same on every device.
    place_R1 = (upto_RC[:, -1:].double() * uniforms_R[:, None]).long()
    # The clamps are for logits that are no numbers: any token then, but a token.
    run_R1 = (upto_RC <= place_R1).sum(-1, keepdim=True).clamp_(max=upto_RC.shape[-1] - 1)
    within_RK = run_RCK.gather(1, run_R1[:, :, None].expand(-1, 1, RUN))[:, 0].cumsum(-1)
    before_R1 = upto_RC.gather(1, run_R1) - within_RK[:, -1:]
    token_R1 = run_R1 * RUN + (within_RK + before_R1 <= place_R1).sum(-1, keepdim=True)
    return token_R1[:, 0].clamp_(max=vocab - 1)


def draw_all(logits_SV: Tensor, heat_S: Tensor, top_p_S: Tensor, uniforms_S: Tensor, way: Way) -> Tensor:
    """As `choose`, for rows that each are drawn in their own way, in whatever ways are `way` or simpler: shapes depend
    on nothing, and nothing is waited for. A row of no temperature takes the most likely token."""
    tokens_S = logits_SV.argmax(-1)
    if way == "greedy":
        return tokens_S
    for start in range(0, len(tokens_S), ROWS):
        part = slice(start, start + ROWS)
        tokens_R, heat_R, top_p_R = tokens_S[part], heat_S[part], top_p_S[part]
        random_R = heat_R > 0
        inputs = logits_SV[part], heat_R.where(random_R, 1.0), uniforms_S[part]
        tokens_R.copy_(draw(*inputs, None).where(random_R, tokens_R))
        if way == "nucleus":
            tokens_R.copy_(draw(*inputs, top_p_R).where(random_R & (top_p_R < 1), tokens_R))
    return tokens_S


def way_of(how: Iterable[Sampling]) -> Way:
    """The simplest way in which all of these can be drawn."""
    random = [sampling for sampling in how if sampling.temperature > 0]
    if not random:
        return "greedy"
    return "nucleus" if any(sampling.top_p < 1 for sampling in random) else "full"
