"""Prompts on their way into the cache: chunk by chunk, several side by side, each once for all of its samples.

A prompt waits here, computed, until all its samples have begun; its pages are copied for each of them.
Rows and chunk are fixed, so that a prompt's bits do not depend on what is computed beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.cache import Cache
from model.multimodal import Multimodal
from model.requests import Options, Request, Sample, Score
from model.rope import tables
from model.routing import masks


class Angles:
    """cos and sin of all positions, computed once: a position has the same bits wherever it stands in a batch."""

    def __init__(self, model: Multimodal, length: int, dtype: torch.dtype, device: torch.device) -> None:
        places = torch.arange(length, device=device).expand(2, length)
        kinds = torch.tensor([[False], [True]], device=device)
        self._cos, self._sin = (one[:, 0] for one in tables(model.config.text, places, kinds, dtype))

    def at(self, positions_BL: Tensor, long_B1: Tensor) -> tuple[Tensor, Tensor]:
        where = (long_B1.long().expand_as(positions_BL), positions_BL)
        return self._cos[where][:, None], self._sin[where][:, None]


@dataclass
class Prompt:
    """Tokens to compute, and the samples that wait for them. More than one token at a time comes back here: a sample
    that outgrows the original context is computed again from its start, with the other frequencies."""

    request: Request
    tokens: tuple[int, ...]
    waiting: deque[Sample]
    long: bool
    done: int = 0
    row: int = -1
    pages: list[int] = field(default_factory=list)
    logits: Tensor | None = None  # [vocab], of the token that comes next
    x: Tensor | None = None  # [tokens, hidden], where embeddings are more than those of the tokens
    masks: dict[str, Tensor] = field(default_factory=dict)
    scores: list[Score] | None = None  # of the tokens so far, where they are asked for

    def prepare(self, model: Multimodal) -> None:
        """Embeds images and audio, alone, and finds the tokens of each adapter."""
        device = model.language.norm.weight.device
        ids = torch.tensor([self.tokens], device=device)
        rows = torch.zeros_like(ids)
        own = len(self.request.tokens)
        if self.request.inputs:
            start = model.embed(ids[:, :own], **dict(self.request.inputs))
            self.x = torch.cat([start, model.language.embed_tokens(ids[:, own:])], 1)[0]
        asked = ids.clone()
        asked[:, own:] = -1  # a sample may write an image's token: it makes no image
        found = masks(model.config, self.request.adapter, asked, rows)
        self.masks = {name: mask[0] for name, mask in found.items() if bool(mask.any())}

    @property
    def adapter(self) -> str | None:
        """What the tokens after the prompt take: what all of the prompt takes, but by token, none."""
        if self.request.adapter == "token":
            return None
        return next((name for name, mask in self.masks.items() if bool(mask.all())), None)


class Prefill:
    """Up to `options.prompts` prompts side by side, `options.chunk` tokens of each in a step."""

    def __init__(self, model: Multimodal, options: Options, angles: Angles) -> None:
        self.model, self.angles = model, angles
        self.rows, self.chunk = options.prompts, options.chunk
        weight = model.language.norm.weight
        text, length, block = model.config.text, options.length, options.block
        self.cache = Cache(text, self.rows, length, block, weight.dtype, weight.device)
        self.pending: list[Prompt] = []
        self.ready: deque[Prompt] = deque()
        self._free = list(range(self.rows))[::-1]

    def admit(self, prompt: Prompt) -> bool:
        """False: there is no row free, or not enough pages, since other prompts wait in them for slots."""
        length = -(-len(prompt.tokens) // self.chunk) * self.chunk
        if not self._free or not self.cache.grow(prompt.pages, length):
            return False
        prompt.row = self._free.pop()
        self.pending.append(prompt)
        return True

    def release(self, prompt: Prompt) -> None:
        """After the last of its samples has begun."""
        self.cache.release(prompt.pages)

    def forget(self) -> None:
        """Gives up prompts that no sample waits for any more."""
        for one in (*self.pending, *self.ready):
            if not one.waiting:
                self.release(one)
        self._free.extend(one.row for one in self.pending if not one.waiting)
        self.pending = [one for one in self.pending if one.waiting]
        self.ready = deque(one for one in self.ready if one.waiting)

    def due(self, slots: int) -> bool:
        """Whether to compute a chunk, with so many slots free: they have nothing to begin with, or all rows are taken
        and what is ready will not last."""
        ready = sum(len(one.waiting) for one in self.ready)
        full = len(self.pending) == self.rows
        return bool(self.pending) and (slots > ready or (full and ready < self.rows))

    def step(self) -> None:
        """One chunk of every pending prompt."""
        weight = self.model.language.norm.weight
        ids = torch.zeros(self.rows, self.chunk, dtype=torch.int64)
        start, last, long = [0] * self.rows, [0] * self.rows, [False] * self.rows
        pages: list[list[int]] = [[] for _ in range(self.rows)]
        for one in self.pending:
            some = one.tokens[one.done : one.done + self.chunk]
            ids[one.row, : len(some)] = torch.tensor(some)
            pages[one.row] = one.pages
            start[one.row], last[one.row], long[one.row] = one.done, len(some) - 1, one.long
        positions = torch.tensor(start)[:, None] + torch.arange(self.chunk)
        ids, positions = ids.to(weight.device), positions.to(weight.device)
        x_RCD = self.model.language.embed_tokens(ids)
        for one in self.pending:
            if one.x is not None:
                some_LD = one.x[one.done : one.done + self.chunk]
                x_RCD[one.row, : len(some_LD)] = some_LD.to(x_RCD.dtype)
        rope = self.angles.at(positions, torch.tensor(long, device=weight.device)[:, None])
        hidden = self.model.language(x_RCD, rope, self.cache.at(pages, positions), self._routes(self.pending))
        for one in self.pending:
            if one.scores is not None:
                self._score(one, hidden[one.row])
            one.done += self.chunk
        done = [one for one in self.pending if one.done >= len(one.tokens)]
        if done:
            ends = hidden[torch.arange(self.rows, device=weight.device), torch.tensor(last, device=weight.device)]
            logits_RV = self.model.language.head(ends).float()
            for one in done:
                one.logits = logits_RV[one.row].clone()
            self._free.extend(one.row for one in done)
            self.ready.extend(done)
            self.pending = [one for one in self.pending if one.done < len(one.tokens)]

    def _score(self, prompt: Prompt, hidden_CD: Tensor) -> None:
        """The log-probabilities of the tokens that a chunk predicts: those after each of its own, within the prompt."""
        assert prompt.scores is not None
        tokens = prompt.tokens[prompt.done + 1 : prompt.done + self.chunk + 1]
        if not tokens:
            return
        chances = self.model.language.head(hidden_CD).float().log_softmax(-1)[: len(tokens)]
        own = chances.gather(-1, torch.tensor(tokens, device=chances.device)[:, None])[:, 0].tolist()
        values, ids = (row.tolist() for row in chances.topk(min(prompt.request.scored or 0, chances.shape[-1])))
        prompt.scores += [(chance, list(zip(*top, strict=True))) for chance, *top in zip(own, ids, values, strict=True)]

    def _routes(self, prompts: Iterable[Prompt]) -> dict[str, Tensor | None]:
        found: dict[str, Tensor | None] = {}
        for one in prompts:
            for name, mask in one.masks.items():
                some = mask[one.done : one.done + self.chunk]
                rows = found.setdefault(name, mask.new_zeros(self.rows, self.chunk))
                assert rows is not None
                rows[one.row, : len(some)] = some
        return found
