"""Generation by continuous batching: a fixed number of slots, each refilled as soon as its sample ends.

What is promised. On one kind of device, with the same weights, options and number of threads, a sample's tokens are a
function of its request, key and number alone: not of its slot, the order of requests, what runs beside it, or what ran
before an interruption. For that, matrix shapes are fixed (slots, prompts, chunk, block), attention adds
up pages in order (`model.cache`) and random numbers are drawn by key (`model.sampling`). Greedy samples are those of
the model without a cache, but where two tokens are as likely to within rounding.
Source: Orca (OSDI 2022) for iteration-level scheduling; LongRoPE's switch as in the reference: computed anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from model.cache import Cache
from model.multimodal import Multimodal
from model.prefill import Angles, Prefill, Prompt
from model.requests import Options, Request, Sample, Score, TooLong
from model.sampling import choose, sample_key, uniforms

BROKEN = "\ufffd"
"""What the bytes of half a character decode to."""
_CHUNKS = 4
"""Chunks of prompts that one step computes at most."""

__all__ = ["Engine", "Options", "Request", "Sample", "TooLong"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in the block; after it, and after an error in it, each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Engine:
    """Generates with a model as it is in evaluation, and leaves its modules in the modes that they were in: a trainer
    may generate between two steps. `decode` is needed for stop texts. Not for several threads at once."""

    def __init__(
        self, model: Multimodal, options: Options | None = None, decode: Callable[[Sequence[int]], str] | None = None
    ) -> None:
        self.model, self.options, self.decode = model, options or Options(), decode
        one, weight = self.options, model.language.norm.weight
        limit = model.config.text.rope.max_positions
        if one.length > limit:
            raise ValueError(f"length={one.length}: the model's context is {limit}")
        self._angles = Angles(model, one.length, weight.dtype, weight.device)
        self._prefill = Prefill(model, one, self._angles)
        self._cache = Cache(model.config.text, one.slots, one.length, one.block, weight.dtype, weight.device)
        self._logits_SV = torch.zeros(one.slots, model.config.text.vocab, device=weight.device)
        self._active: dict[int, Sample] = {}
        self._free = list(range(one.slots))[::-1]
        self._queue: deque[Prompt] = deque()

    @torch.inference_mode()
    def submit(self, request: Request) -> list[Sample]:
        """Queues a request; its samples, which grow as `step` is called. Images and audio are embedded here.

        Raises TooLong, and ValueError for tokens, settings or inputs that cannot be.
        """
        vocab, asked = self.model.config.text.vocab, request.sampling.max_tokens
        room = self.options.length - len(request.tokens)
        if not request.tokens or request.n < 1:
            raise ValueError(f"{len(request.tokens)} tokens, n={request.n}: allowed are 1 or more")
        if not all(0 <= token < vocab for token in request.tokens):
            raise ValueError(f"tokens: allowed are ids from 0 to {vocab - 1}")
        least = 1 if asked is None else asked
        if room < least:
            raise TooLong(
                f"{len(request.tokens)} tokens of prompt and {least} to generate: the length is {self.options.length}"
            )
        if request.sampling.stop and self.decode is None:
            raise ValueError("stop texts need the engine to have `decode`")
        if request.adapter not in (None, "auto", "token", *(one.name for one in self.model.config.adapters)):
            raise ValueError(f"adapter={request.adapter!r}: this model does not have it")
        numbers = range(request.first, request.first + request.n)
        samples = [Sample(request, number, sample_key(request.key, number)) for number in numbers]
        long = len(request.tokens) > self._original
        for one in samples:
            one.long = long
            one.constraint = None if request.constraint is None else request.constraint.copy()
        scores: list[Score] | None = None if request.scored is None else [(None, [])]
        prompt = Prompt(request, request.tokens, deque(samples), long, scores=scores)
        try:
            with evaluating(self.model):
                prompt.prepare(self.model)
        except (torch.OutOfMemoryError, torch.AcceleratorError):  # the device's fault, not the request's
            raise
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"tokens or inputs: {error}") from error
        self._queue.append(prompt)
        return samples

    def cancel(self, samples: Iterable[Sample]) -> None:
        """Takes samples out, wherever they are; they get no `finish`."""
        gone = {id(one) for one in samples}
        for prompt in [*self._queue, *self._prefill.pending, *self._prefill.ready]:
            prompt.waiting = deque(one for one in prompt.waiting if id(one) not in gone)
        self._queue = deque(one for one in self._queue if one.waiting)
        self._prefill.forget()
        for slot, one in list(self._active.items()):
            if id(one) in gone:
                self._vacate(slot)

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        return not (self._queue or self._prefill.pending or self._prefill.ready or self._active)

    def run(self, requests: Iterable[Request]) -> Iterator[Sample]:
        """Samples in the order in which they end. Requests are taken as they can be worked on. Raises as `submit`."""
        source, more, ours = iter(requests), True, dict[int, Sample]()
        try:
            while more or not self.idle:
                while more and len(self._queue) < self.options.prompts:
                    if (request := next(source, None)) is None:
                        more = False
                    else:
                        ours |= {id(one): one for one in self.submit(request)}
                for one in self.step():
                    if one.finish:
                        ours.pop(id(one), None)
                        yield one
        finally:  # who stops listening, or submits what cannot be, leaves nothing behind
            self.cancel(ours.values())

    @torch.inference_mode()
    def step(self) -> list[Sample]:
        """One token for every active sample: those that grew."""
        with evaluating(self.model):
            return self._step()

    def _step(self) -> list[Sample]:
        self._refill()
        for _ in range(_CHUNKS):  # and no more: those that are under way wait, and so does who comes
            if not self._admit():
                break
            self._prefill.step()
            self._refill()
            if 2 * len(self._active) >= self.options.slots:
                break
        grown, fresh = [], list(self._active.values())
        while fresh:  # what takes the slot of a sample that ends gets its first token in the same step
            asked = [one for one in fresh if one.request.sampling.max_tokens != 0]
            if asked:
                self._sample(asked)
            grown += fresh
            for one in fresh:
                self._settle(one)
            fresh = self._refill()
        if self._active:
            self._decode()
        return grown

    def _admit(self) -> bool:
        """Takes in prompts for the rows that are free. Whether there is a chunk to compute now."""
        while self._queue and self._prefill.admit(self._queue[0]):
            self._queue.popleft()
        return self._prefill.due(len(self._free))

    @property
    def _original(self) -> int:
        return self.model.config.text.rope.original_positions

    def _refill(self) -> list[Sample]:
        """Starts samples whose prompt is computed in free slots."""
        begun, prefill = [], self._prefill
        while prefill.ready and (self._free or not prefill.ready[0].waiting):
            prompt = prefill.ready[0]
            if prompt.waiting:
                assert prompt.logits is not None
                one, slot = prompt.waiting.popleft(), self._free.pop()
                self._cache.grow(one.pages, len(prompt.tokens))
                self._cache.copy(prefill.cache, prompt.pages[: len(one.pages)], one.pages)
                self._logits_SV[slot] = prompt.logits
                one.slot, one.adapter = slot, prompt.adapter
                one.scores = prompt.scores or one.scores
                self._active[slot] = one
                begun.append(one)
            if not prompt.waiting:
                prefill.release(prefill.ready.popleft())
        return begun

    def _sample(self, samples: list[Sample]) -> None:
        """The next token of each, from the logits of its slot."""
        logits_NV = self._logits_SV[torch.tensor([one.slot for one in samples], device=self._logits_SV.device)]
        how = [one.request.sampling for one in samples]
        drawn = [one for one in samples if one.request.sampling.temperature > 0]
        numbers = np.zeros(len(samples))
        if drawn:
            places = [len(one.tokens) for one in drawn]
            numbers[[one.temperature > 0 for one in how]] = uniforms([one.key for one in drawn], places)
        tokens = choose(self._constrained(logits_NV, samples), how, numbers)
        for one, token in zip(samples, tokens.tolist(), strict=True):
            one.tokens.append(token)
            if one.constraint is not None:
                one.constraint.take(token)
        asked = [i for i, one in enumerate(samples) if one.request.sampling.logprobs is not None]
        if asked:
            chances = logits_NV[asked].log_softmax(-1)
            own = chances.gather(-1, tokens[asked][:, None])[:, 0].tolist()
            most = max(samples[i].request.sampling.logprobs or 0 for i in asked)
            values, ids = (one.tolist() for one in chances.topk(min(most, chances.shape[-1])))
            for row, i in enumerate(asked):
                count = samples[i].request.sampling.logprobs
                samples[i].logprobs.append(own[row])
                samples[i].top.append(list(zip(ids[row][:count], values[row][:count], strict=True)))

    @staticmethod
    def _constrained(logits_NV: Tensor, samples: list[Sample]) -> Tensor:
        """The logits without what a sample's constraint forbids. Log-probabilities are of all the vocabulary still."""
        bound = [i for i, one in enumerate(samples) if one.constraint is not None]
        if not bound:
            return logits_NV
        masked = logits_NV.clone()
        for i in bound:
            constraint = samples[i].constraint
            assert constraint is not None
            allowed = constraint.allowed(masked.shape[-1]).to(masked.device)
            masked[i] = masked[i].masked_fill(~allowed, -torch.inf)
        return masked

    def _settle(self, one: Sample) -> None:
        """Ends a sample, or sends it to be computed anew if it has just outgrown the original context."""
        sampling = one.request.sampling
        if sampling.max_tokens == 0 or (one.constraint is not None and one.constraint.broken):
            one.finish = "length"  # nothing was asked for; or its rules can no longer be kept to
            self._vacate(one.slot)
            return
        token = one.tokens[-1]
        one.stop = self._stopped_by(one)
        if one.stop is not None or (token in self.model.config.text.eos and not sampling.ignore_eos):
            one.finish = "stop"
        elif len(one.tokens) == sampling.max_tokens or one.length >= self.options.length:
            one.finish = "length"
        if one.finish:
            self._vacate(one.slot)
        elif not one.long and one.length > self._original:
            self._vacate(one.slot)
            one.long = True
            tokens = (*one.request.tokens, *one.tokens)
            prompt = Prompt(one.request, tokens, deque([one]), long=True)
            prompt.prepare(self.model)
            self._queue.appendleft(prompt)

    def _vacate(self, slot: int) -> None:
        self._cache.release(self._active.pop(slot).pages)
        self._free.append(slot)

    def _stopped_by(self, one: Sample) -> str | None:
        """The stop text that the last token completed; of several, the first in the text."""
        stops = one.request.sampling.stop
        if not stops:
            return None
        assert self.decode is not None
        longest, some = max(map(len, stops)), 4
        # As many of the last tokens as hold the longest stop text, of which the last one has a character at least: some
        # tokens are no text.
        while some < len(one.tokens) and len(self.decode(one.tokens[-some:-1])) <= longest + 4:
            some *= 2
        while some < len(one.tokens) and BROKEN in self.decode(one.tokens[-some : len(one.tokens) - some + 1]):
            some += 1  # not from within a character, or a run of bytes that is read as one
        tail = self.decode(one.tokens[-some:])
        found = [(tail.find(stop), stop) for stop in stops if stop in tail]
        return min(found)[1] if found else None

    def _decode(self) -> None:
        """The token just drawn of every active sample through the model. Slots at rest are computed and not looked at:
        shapes never change."""
        slots, device = self.options.slots, self._logits_SV.device
        ids, places, long = [0] * slots, [0] * slots, [False] * slots
        names: dict[str, list[bool]] = {}
        pages: list[list[int]] = [[] for _ in range(slots)]
        for slot, one in self._active.items():
            self._cache.grow(one.pages, one.length)
            pages[slot] = one.pages
            ids[slot], places[slot], long[slot] = one.tokens[-1], one.length - 1, one.long
            if one.adapter is not None:
                names.setdefault(one.adapter, [False] * slots)[slot] = True
        positions_S1 = torch.tensor(places, device=device)[:, None]
        x_S1D = self.model.language.embed_tokens(torch.tensor(ids, device=device)[:, None])
        rope = self._angles.at(positions_S1, torch.tensor(long, device=device)[:, None])
        routes = {name: torch.tensor(rows, device=device)[:, None] for name, rows in sorted(names.items())}
        hidden = self.model.language(x_S1D, rope, self._cache.at(pages, positions_S1), routes)
        self._logits_SV = self.model.language.head(hidden[:, 0]).float()
