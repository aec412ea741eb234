"""The next token of each completion from its logits: what a constraint allows, drawn by key, with its log-probability.

Log-probabilities are of the model, at temperature 1 and of all the vocabulary, whatever a constraint forbids.
Stop texts are looked for in the text of the last tokens only: what the whole text would show, at a bounded price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.graphs import Fetched, on_device
from gristmill.model.generate.requests import Completion
from gristmill.model.generate.sampling import choose, uniforms

BROKEN = "\ufffd"
"""What the bytes of half a character decode to."""


def choose_next(logits_NV: Tensor, completions: Sequence[Completion]) -> Tensor:
    """The next token of each of N completions, int64 [N], of logits [N, vocab], float32."""
    sampling = [completion.request.sampling for completion in completions]
    random = [completion for completion in completions if completion.request.sampling.temperature > 0]
    uniforms_N = np.zeros(len(completions))
    if random:
        places = [len(completion.tokens) for completion in random]
        uniforms_N[[settings.temperature > 0 for settings in sampling]] = uniforms([c.key for c in random], places)
    return choose(_constrained(logits_NV, completions), sampling, uniforms_N)


def _constrained(logits_NV: Tensor, completions: Sequence[Completion]) -> Tensor:
    """The logits with minus infinity for what a completion's constraint forbids."""
    rows = [row for row, completion in enumerate(completions) if completion.constraint is not None]
    if not rows:
        return logits_NV
    # All of them before the device is asked for anything, so that parsers work while it does.
    allowed_RV = np.stack([_allowed(completions[row], logits_NV.shape[-1]) for row in rows])
    index, forbidden_RV = (on_device(array, logits_NV.device) for array in (np.array(rows), ~allowed_RV))
    return logits_NV.index_put((index,), logits_NV[index].masked_fill_(forbidden_RV, -torch.inf))


def _allowed(completion: Completion, vocab: int) -> np.ndarray:
    assert completion.constraint is not None
    return completion.constraint.allowed(vocab).numpy()


class Drawn:
    """Tokens just drawn, and the log-probabilities of those completions that ask, on their way to the host.

    `tokens_S`: of each slot, and `logits_SV` of which they were drawn; both may change as soon as this is made.
    """

    def __init__(self, completions: Sequence[Completion], logits_SV: Tensor, tokens_S: Tensor) -> None:
        self._completions = completions
        self._asking = [c for c in completions if c.request.sampling.logprobs is not None]
        tensors = [tokens_S]
        if self._asking:
            index = on_device(np.array([completion.slot for completion in self._asking]), logits_SV.device)
            logprobs_RV = logits_SV[index].log_softmax(-1)
            own_R1 = logprobs_RV.gather(-1, tokens_S[index][:, None])
            # One search for as many as the most demanding wants; the others take the head of their row.
            most = max(completion.request.sampling.logprobs or 0 for completion in self._asking)
            tensors += [own_R1, *logprobs_RV.topk(min(most, logprobs_RV.shape[-1]))]
        self._fetched = Fetched(*tensors)

    def take(self) -> None:
        """Waits for them, and appends to each completion its token; and the token's log-probability beside those of
        the most likely ones, if asked for."""
        tokens_S, *logprobs = (tensor.tolist() for tensor in self._fetched.wait())
        for completion in self._completions:
            completion.tokens.append(tokens_S[completion.slot])
            if completion.constraint is not None:
                completion.constraint.take(completion.tokens[-1])
        for completion, own, values, ids in zip(self._asking, *logprobs, strict=True) if logprobs else ():
            count = completion.request.sampling.logprobs
            completion.logprobs.append(own[0])
            completion.top_logprobs.append(list(zip(ids[:count], values[:count], strict=True)))


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
