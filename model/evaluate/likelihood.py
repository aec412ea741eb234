"""Log-probabilities of tokens under a model, exactly, whatever the length of the texts and the size of the vocabulary.

Sequences stand end to end in passes of a bounded number of tokens, none seeing another, and the head is computed in
chunks: the logits of a pass never exist whole. In shapes: T tokens of a pass, N targets, D channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.engine import evaluating
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.processing.detokenize import find_anchor, token_bytes
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.media import media_inputs

PASS_TOKENS = 8192
CHUNK = 512
"""Targets whose logits exist at a time, as in training."""


class Scored(NamedTuple):
    """Of the tokens of a sequence from its start on: `logprobs` in nats, float64 [N]; `greedy`, bool [N]: whether the
    model would have chosen just this token."""

    logprobs: np.ndarray
    greedy: np.ndarray


class Scoring(NamedTuple):
    """A sequence of tokens, of which those from `start` on are scored. What stands before them is their context: at
    least one token, from which the first of them can be predicted. `media`: images and clips of its tokens, as a window
    holds them."""

    tokens: Sequence[int]
    start: int
    media: Mapping[str, np.ndarray] | None = None


def score(model: Multimodal, scorings: Sequence[Scoring], *, pass_tokens: int = PASS_TOKENS) -> list[Scored]:
    """Each in its order. Adapters as for a user ("auto"). `pass_tokens`: of a pass; a longer sequence is
    a pass of its own.

    Raises ValueError for a sequence without a context or without a token to score, and media of another model.
    """
    for number, (tokens, start, _) in enumerate(scorings):
        if not 1 <= start < len(tokens):
            raise ValueError(f"sequence {number}: {len(tokens)} tokens, scored from {start}: allowed is 1 to the last")
    scored: list[Scored | None] = [None] * len(scorings)
    with evaluating(model.modules()), torch.inference_mode():
        for numbers in _passes([len(scoring.tokens) for scoring in scorings], pass_tokens):
            for number, part in zip(numbers, _pass(model, [scorings[n] for n in numbers]), strict=True):
                scored[number] = part
    return [part for part in scored if part is not None]


def _passes(lengths: Sequence[int], pass_tokens: int) -> Iterator[list[int]]:
    """Numbers of sequences by pass, the long ones first: attention pads the sequences of a pass to the longest."""
    numbers: list[int] = []
    size = 0
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        if numbers and size + lengths[number] > pass_tokens:
            yield numbers
            numbers, size = [], 0
        numbers.append(number)
        size += lengths[number]
    if numbers:
        yield numbers


def _pass(model: Multimodal, scorings: Sequence[Scoring]) -> list[Scored]:
    device = model.language.norm.weight.device
    ids_T = torch.tensor([token for scoring in scorings for token in scoring.tokens], device=device)
    lengths = torch.tensor([len(scoring.tokens) for scoring in scorings], device=device)
    segments_T = torch.repeat_interleave(torch.arange(len(scorings), device=device), lengths)
    inputs = media_inputs([scoring.media for scoring in scorings if scoring.media], model.config, device)
    hidden_TD = model.hidden(ids_T[None], segment_ids=segments_T[None], adapter="auto", **inputs)[0]
    ends = np.cumsum([len(scoring.tokens) for scoring in scorings])
    places = [np.arange(end - len(s.tokens) + s.start, end) for end, s in zip(ends, scorings, strict=True)]
    targets_N = torch.from_numpy(np.concatenate(places)).to(device)
    logprobs, greedy = _targets(model.language.head, hidden_TD[targets_N - 1], ids_T[targets_N])
    cuts = np.cumsum([len(place) for place in places])[:-1]
    return [Scored(*parts) for parts in zip(np.split(logprobs, cuts), np.split(greedy, cuts), strict=True)]


def _targets(head: Callable[[Tensor], Tensor], hidden_ND: Tensor, target_N: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each target and whether it is the most likely token, a chunk of logits at a time."""
    logprobs, greedy = [], []
    for hidden_nD, target_n in zip(hidden_ND.split(CHUNK), target_N.split(CHUNK), strict=True):
        logits_nV = head(hidden_nD).float()
        chosen_n = logits_nV.gather(1, target_n[:, None])[:, 0]
        logprobs.append((chosen_n - logits_nV.logsumexp(1)).double().cpu().numpy())
        greedy.append((logits_nV.argmax(1) == target_n).cpu().numpy())
    return np.concatenate(logprobs), np.concatenate(greedy)


def windows(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(start, first scored, end) of the pieces in which a text of so many tokens is scored, each of `window` at most.

    Every token but the text's first is scored once, in a piece that begins with the token before its first scored one.
    """
    if window < 2:
        raise ValueError(f"window={window}: at least 2, a token and the one before it")
    first = 1
    while first < length:
        end = min(first - 1 + window, length)
        yield first - 1, first, end
        first = end


class Sizes:
    """How many UTF-8 bytes of text tokens stand for; special tokens for none."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._anchor = tokenizer, find_anchor(tokenizer)
        self._known: dict[int, int] = {}

    def of(self, tokens: Sequence[int]) -> int:
        """Of all of them together."""
        return sum(map(self._size, tokens))

    def _size(self, token: int) -> int:
        size = self._known.get(token)
        if size is None:
            special = self._tokenizer.is_special(token)
            size = 0 if special else len(token_bytes(self._tokenizer, token, self._anchor))
            self._known[token] = size
        return size
