"""Generation by continuous batching: a fixed number of slots, each refilled as soon as its completion ends.

What is promised. On one kind of device, with the same weights, options and number of threads, a completion's tokens are
a function of its request, key and number alone: not of its slot, the order of requests, what runs beside it, or what
ran before an interruption. For that, matrix shapes are fixed (slots, prefills, chunk, block), attention adds
up pages in order (`model.generate.cache`, on CUDA `model.generate.kernels`), random numbers are drawn by key, and
tokens by whole numbers, whose sums have no order (`model.generate.sampling`). It rests on this: a row of a product of
one shape has the same bits wherever it stands. Libraries do not say so; on an H100 it held for every sample in
bfloat16, with the attention before these kernels, and in float32 log-probabilities were equal to 1e-3 only
(docs/decisions/14-generation.md). Greedy completions are those of the model without a cache, but where two tokens are
as likely to within rounding.
On CUDA the host is ahead: it reads tokens while the device computes the next ones (`model.generate.slots`).
Source: Orca (OSDI 2022) for iteration-level scheduling; LongRoPE's switch as in the reference: computed anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from gristmill.model.generate.cache import Cache
from gristmill.model.generate.draw import completed_stop
from gristmill.model.generate.forward import Angles, device_side
from gristmill.model.generate.graphs import current
from gristmill.model.generate.prefill import Prefill, Prompt
from gristmill.model.generate.requests import Completion, Options, Request, TokenLogprob, TooLong
from gristmill.model.generate.sampling import sample_key
from gristmill.model.generate.slots import Slots
from gristmill.model.phi4.multimodal import Multimodal

_CHUNKS = 4
"""Chunks of prompts that one step computes at most."""

__all__ = ["Completion", "Engine", "Options", "Request", "TooLong"]


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode for these modules of a model in the block; after it, and after an error in it, each is in the
    mode that it was in."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Engine:
    """Generates with a model as it is in evaluation, and leaves its modules in the modes that they were in: a trainer
    may generate between two steps. `decode` is needed for stop texts. Not for several threads at once.

    A request waits in the queue, then as a prompt that is computed chunk by chunk (`model.generate.prefill`); each of
    its completions takes a slot, which is a row of the decoding batch, and leaves it when it ends.
    """

    def __init__(
        self, model: Multimodal, options: Options | None = None, decode: Callable[[Sequence[int]], str] | None = None
    ) -> None:
        self.model, self.options, self.decode = model, options or Options(), decode
        rows, length, weight = self.options.max_num_seqs, self.options.max_model_len, model.language.norm.weight
        context = model.config.text.max_position_embeddings
        if length > context:
            raise ValueError(f"max_model_len={length}: the model's context is {context}")
        self._side = device_side(model, self.options)
        self._angles = Angles(model, length, weight.dtype, weight.device)
        self._prefill = Prefill(model, self.options, self._angles, self._side)
        self._cache = Cache(model.config.text, rows, length, self.options.block_size, weight.dtype, weight.device)
        self._slots = Slots(model, self.options, self._cache, self._angles, self._side)
        self._active: dict[int, Completion] = {}  # by slot
        self._free = list(range(rows))[::-1]  # slots, the next one last
        self._queue: deque[Prompt] = deque()
        self._modules: list[nn.Module] = []  # at the last `submit`: a walk takes 3% of a step of `nano`

    @torch.inference_mode()
    def submit(self, request: Request) -> list[Completion]:
        """Queues a request; its completions, which grow as `step` is called. Images and audio are embedded here.

        Raises TooLong, and ValueError for tokens, settings or inputs that cannot be.
        """
        self._check(request)
        if self._side is not None and self.idle:
            self._side.runner.watch(self.model.parameters())
        # Keyed by the number in the request, not by when it is drawn: `first=4` goes on where a run of 4 stopped.
        completions = [
            Completion(request, number, sample_key(request.key, number))
            for number in range(request.first, request.first + request.n)
        ]
        long = len(request.tokens) > self._original_context
        for completion in completions:
            completion.long = long
            completion.constraint = None if request.constraint is None else request.constraint.copy()
        # A prompt's first token has nothing before it that could predict it.
        logprobs: list[TokenLogprob] | None = None if request.prompt_logprobs is None else [(None, [])]
        prompt = Prompt(request, request.tokens, deque(completions), long, logprobs=logprobs)
        try:
            self._modules = list(self.model.modules())
            with evaluating(self._modules):
                prompt.prepare(self.model)
        except (torch.OutOfMemoryError, torch.AcceleratorError):  # the device's fault, not the request's
            raise
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"tokens or inputs: {error}") from error
        self._queue.append(prompt)
        return completions

    def _check(self, request: Request) -> None:
        vocab, max_tokens = self.model.config.text.vocab_size, request.sampling.max_tokens
        length, count = self.options.max_model_len, len(request.tokens)
        if not request.tokens or request.n < 1:
            raise ValueError(f"{count} tokens, n={request.n}: allowed are 1 or more")
        if not all(0 <= token < vocab for token in request.tokens):
            raise ValueError(f"tokens: allowed are ids from 0 to {vocab - 1}")
        least = 1 if max_tokens is None else max_tokens
        if count + least > length:
            raise TooLong(f"{count} tokens of prompt and {least} to generate: max_model_len is {length}")
        if request.sampling.stop and self.decode is None:
            raise ValueError("stop texts need the engine to have `decode`")
        adapters = (adapter.name for adapter in self.model.config.adapters)
        if request.adapter not in (None, "auto", "token", *adapters):
            raise ValueError(f"adapter={request.adapter!r}: this model does not have it")

    def cancel(self, completions: Iterable[Completion]) -> None:
        """Takes completions out, wherever they are; they get no `finish_reason`."""
        # By identity: two completions of one greedy request may be equal, and only one of them leaves.
        leaving = {id(completion) for completion in completions}
        for prompt in [*self._queue, *self._prefill.pending, *self._prefill.ready]:
            prompt.waiting = deque(completion for completion in prompt.waiting if id(completion) not in leaving)
        self._queue = deque(prompt for prompt in self._queue if prompt.waiting)
        self._prefill.forget()
        for slot, completion in list(self._active.items()):
            if id(completion) in leaving:
                self._vacate(slot)

    @property
    def slots_used(self) -> int:
        """Completions that are generated now. Another thread may ask: it is the length of a dict."""
        return len(self._active)

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        return not (self._queue or self._prefill.pending or self._prefill.ready or self._active)

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions as they end. Requests are taken as they can be worked on. Raises as `submit`."""
        source, more, running = iter(requests), True, dict[int, Completion]()
        try:
            while more or not self.idle:
                while more and len(self._queue) < self.options.max_num_partial_prefills:
                    if (request := next(source, None)) is None:
                        more = False
                    else:
                        running |= {id(completion): completion for completion in self.submit(request)}
                for completion in self.step():
                    if completion.finish_reason:
                        running.pop(id(completion), None)
                        yield completion
        finally:  # who stops listening, or submits what cannot be, leaves nothing behind
            self.cancel(running.values())

    @torch.inference_mode()
    def step(self) -> list[Completion]:
        """One token for every active completion: those that grew."""
        with evaluating(self._modules), current(self.model.language.norm.weight.device):
            return self._step()

    def _step(self) -> list[Completion]:
        self._refill()
        # Prompts before tokens, as long as slots are empty: a batch costs the same, however many of its rows are in
        # use. But no more than a few chunks, since whoever is under way waits for them.
        for _ in range(_CHUNKS):
            if not self._admit():
                break
            self._prefill.step()
            self._refill()
            if 2 * len(self._active) >= self.options.max_num_seqs:
                break
        return self._tokens_in_turn() if self._side is None else self._tokens_ahead()

    def _tokens_in_turn(self) -> list[Completion]:
        """Tokens, then what follows of them, then the next logits."""
        # The logits of each slot are from the last step, or from the end of its prompt. A completion that ends here
        # makes room for another, which gets its first token in this step too: so all begin alike.
        grown: list[Completion] = []
        fresh = list(self._active.values())
        while fresh:
            if wanting := [completion for completion in fresh if completion.request.sampling.max_tokens != 0]:
                self._slots.draw(wanting).take()
            grown += fresh
            for completion in fresh:
                self._settle(completion)
            fresh = self._refill()
        if self._active:
            self._decode()
        return grown

    def _tokens_ahead(self) -> list[Completion]:
        """Tokens, and the next logits of all that may go on; the host sees the tokens while the device computes. What
        ends was computed once for nothing; its pages are given up in the order of the device's work, so after that."""
        grown = [completion for completion in self._active.values() if completion.request.sampling.max_tokens == 0]
        for completion in grown:
            self._settle(completion)
        if active := list(self._active.values()):
            drawn = self._slots.draw(active)
            if going := [completion for completion in active if not self._leaves(completion)]:
                self._slots.decode(going, ahead=1)
            drawn.take()
            for completion in active:
                self._settle(completion)
        return grown + active

    def _leaves(self, completion: Completion) -> bool:
        """Whether a completion leaves its slot after its next token, whatever that is."""
        tokens, length = len(completion.tokens) + 1, completion.length + 1
        full = tokens == completion.request.sampling.max_tokens or length >= self.options.max_model_len
        return full or (not completion.long and length > self._original_context)

    def _admit(self) -> bool:
        """Takes in prompts for the rows that are free. Whether there is a chunk to compute now."""
        while self._queue and self._prefill.admit(self._queue[0]):
            self._queue.popleft()
        return self._prefill.due(len(self._free))

    @property
    def _original_context(self) -> int:
        return self.model.config.text.original_max_position_embeddings

    def _refill(self) -> list[Completion]:
        """Starts completions whose prompt is computed in free slots: those that began."""
        begun, prefill = list[Completion](), self._prefill
        while prefill.ready and (self._free or not prefill.ready[0].waiting):
            prompt = prefill.ready[0]
            if prompt.waiting:
                begun.append(self._begin(prompt))
            if not prompt.waiting:
                prefill.release(prefill.ready.popleft())
        return begun

    def _begin(self, prompt: Prompt) -> Completion:
        """The next completion of a computed prompt, in a slot, with a copy of the prompt's pages and logits."""
        assert prompt.logits is not None
        completion, slot = prompt.waiting.popleft(), self._free.pop()
        # A copy, not shared pages with a count: each completion writes on in the prompt's last page, and a slot has
        # pages for `max_model_len` tokens whatever the others hold, so that nothing is ever preempted.
        self._cache.grow(completion.pages, len(prompt.tokens))
        self._cache.copy(self._prefill.cache, prompt.pages[: len(completion.pages)], completion.pages)
        self._slots.begin(slot, prompt.logits)
        completion.slot, completion.adapter = slot, prompt.adapter
        completion.prompt_logprobs = prompt.logprobs or completion.prompt_logprobs
        self._active[slot] = completion
        return completion

    def _settle(self, completion: Completion) -> None:
        """Ends a completion, or sends it to be computed anew if it has just outgrown the original context."""
        sampling = completion.request.sampling
        # First what leaves no new token to look at.
        if sampling.max_tokens == 0 or (completion.constraint is not None and completion.constraint.broken):
            completion.finish_reason = "length"  # nothing was asked for; or its rules can no longer be kept to
            self._vacate(completion.slot)
            return
        if sampling.stop:
            assert self.decode is not None
            completion.stop_reason = completed_stop(completion.tokens, sampling.stop, self.decode)
        # An end token counts even as the last one allowed: "stop" says that the model was done, "length" that it was
        # cut off.
        ends_text = completion.tokens[-1] in self.model.config.text.eos_token_id and not sampling.ignore_eos
        if completion.stop_reason is not None or ends_text:
            completion.finish_reason = "stop"
        elif len(completion.tokens) == sampling.max_tokens or completion.length >= self.options.max_model_len:
            completion.finish_reason = "length"
        if completion.finish_reason:
            self._vacate(completion.slot)
        elif not completion.long and completion.length > self._original_context:
            self._compute_anew(completion)

    def _compute_anew(self, completion: Completion) -> None:
        """LongRoPE's long factors turn every key by another angle, those in the cache too. So a completion leaves its
        slot, and prompt and tokens are computed again as one prompt, before all that wait: its length differs, and
        with it the bits, but they depend on this completion alone."""
        self._vacate(completion.slot)
        completion.long = True
        tokens = (*completion.request.tokens, *completion.tokens)
        prompt = Prompt(completion.request, tokens, deque([completion]), long=True)
        prompt.prepare(self.model)
        self._queue.appendleft(prompt)

    def _vacate(self, slot: int) -> None:
        self._cache.release(self._active.pop(slot).pages)
        self._free.append(slot)

    def _decode(self) -> None:
        self._slots.decode(self._active.values())
