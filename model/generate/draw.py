"""The next token of each completion from its logits: what a constraint allows, drawn by key, with its log-probability.

Log-probabilities are of the model, at temperature 1 and of all the vocabulary, whatever a constraint forbids.
Stop texts are looked for in the text of the last tokens only: what the whole text would show, at a bounded price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.requests import Completion
from gristmill.model.generate.sampling import choose, uniforms

BROKEN = "\ufffd"
"""What the bytes of half a character decode to."""


def draw_next(logits_NV: Tensor, completions: Sequence[Completion]) -> None:
    """Appends to each of N completions its next token, of logits [N, vocab], float32; and the token's log-probability
    beside those of the most likely ones, if asked for."""
    sampling = [completion.request.sampling for completion in completions]
    random = [completion for completion in completions if completion.request.sampling.temperature > 0]
    uniforms_N = np.zeros(len(completions))
    if random:
        places = [len(completion.tokens) for completion in random]
        uniforms_N[[settings.temperature > 0 for settings in sampling]] = uniforms([c.key for c in random], places)
    tokens_N = choose(_constrained(logits_NV, completions), sampling, uniforms_N)
    for completion, token in zip(completions, tokens_N.tolist(), strict=True):
        completion.tokens.append(token)
        if completion.constraint is not None:
            completion.constraint.take(token)
    _add_logprobs(logits_NV, tokens_N, completions)


def _constrained(logits_NV: Tensor, completions: Sequence[Completion]) -> Tensor:
    """The logits with minus infinity for what a completion's constraint forbids."""
    rows = [row for row, completion in enumerate(completions) if completion.constraint is not None]
    if not rows:
        return logits_NV
    masked_NV = logits_NV.clone()
    for row in rows:
        constraint = completions[row].constraint
        assert constraint is not None
        allowed_V = constraint.allowed(masked_NV.shape[-1]).to(masked_NV.device)
        masked_NV[row] = masked_NV[row].masked_fill(~allowed_V, -torch.inf)
    return masked_NV


def _add_logprobs(logits_NV: Tensor, tokens_N: Tensor, completions: Sequence[Completion]) -> None:
    """Log-probabilities of the tokens just drawn, for those completions that ask."""
    counts = {row: c.request.sampling.logprobs for row, c in enumerate(completions)}
    rows = [row for row, count in counts.items() if count is not None]
    if not rows:
        return
    logprobs_RV = logits_NV[rows].log_softmax(-1)
    own = logprobs_RV.gather(-1, tokens_N[rows][:, None])[:, 0].tolist()
    # One search for as many as the most demanding wants; the others take the head of their row.
    most = max(counts[row] or 0 for row in rows)
    values, ids = (top.tolist() for top in logprobs_RV.topk(min(most, logprobs_RV.shape[-1])))
    for at, row in enumerate(rows):
        completion, count = completions[row], counts[row]
        completion.logprobs.append(own[at])
        completion.top_logprobs.append(list(zip(ids[at][:count], values[at][:count], strict=True)))


def completed_stop(tokens: Sequence[int], stops: Sequence[str], decode: Callable[[Sequence[int]], str]) -> str | None:
    """The stop text that the last token completed; of several, the first in the text; None: none did."""
    if not stops:
        return None
    longest, size = max(map(len, stops)), 4
    # As many of the last tokens as hold the longest stop text, and the last token has a character of it at least. So
    # those before the last one are measured, with room for a few characters; tokens that are no text make it grow.
    while size < len(tokens) and len(decode(tokens[-size:-1])) <= longest + 4:
        size *= 2
    # A tail that begins within a character, or within a run of bytes that is read as one, would read it wrongly.
    while size < len(tokens) and BROKEN in decode(tokens[-size : len(tokens) - size + 1]):
        size += 1
    tail = decode(tokens[-size:])
    places = [(tail.find(stop), stop) for stop in stops if stop in tail]
    return min(places)[1] if places else None
