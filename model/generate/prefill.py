"""Prompts on their way into the cache: chunk by chunk, several side by side, each once for all of its completions.

A prompt waits here, computed, until all its completions have begun; its pages are copied for each of them.
Rows and chunk are fixed, so that a prompt's bits do not depend on what is computed beside it.
In shapes: R rows, C tokens of a chunk, D channels, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.cache import Cache
from gristmill.model.generate.clips import ClipEmbeddings, clips_of
from gristmill.model.generate.clips import tokens_of as tokens_of_clips
from gristmill.model.generate.forward import Angles, DeviceSide, Forward, PlainPass, Rows, StaticPass
from gristmill.model.generate.graphs import on_device
from gristmill.model.generate.requests import Clip, Completion, Options, Request, TokenLogprob
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.routing import masks, tokens_of
from gristmill.model.windows.media import IMAGES, media_inputs

_NO_TOKEN = -1  # of no modality


@dataclass
class Prompt:
    """Tokens to compute, and the completions that wait for them. A completion that outgrows the original context comes
    back here with all its tokens: it is computed again from its start, with the other frequencies.

    `done`: tokens computed so far. `logits` [V]: of the token that comes next, once all are computed. `x` [tokens, D]:
    embeddings, where they are more than those of the tokens. `clips`: what its tokens of audio are, which stand where
    `heard` says, bool [tokens asked]. `masks`: of each adapter the tokens that take it, bool [tokens]. `logprobs`: of
    the tokens so far, where they are asked for.
    """

    request: Request
    tokens: tuple[int, ...]
    waiting: deque[Completion]
    long: bool
    done: int = 0
    row: int = -1
    pages: list[int] = field(default_factory=list)
    logits: Tensor | None = None
    x: Tensor | None = None
    clips: ClipEmbeddings | None = None
    heard: np.ndarray | None = None
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    logprobs: list[TokenLogprob] | None = None

    def prepare(self, model: Multimodal) -> None:
        """Embeds images, alone, and finds the tokens of each adapter; clips are embedded when their tokens' turn comes.
        Raises as `Multimodal.embed`, and ValueError for media that are of another model."""
        # What follows from tokens alone stays on the host: it decides shapes, and a device would be waited for.
        ids_1L = torch.tensor([self.tokens])
        own = len(self.request.tokens)  # of what was asked; the rest was generated
        inputs = dict(self.request.inputs or {})
        device = model.language.norm.weight.device
        if self.request.media:
            images = {name: self.request.media[name] for name in IMAGES if name in self.request.media}
            inputs |= media_inputs([images], model.config, device)
        if inputs:
            there_1L = ids_1L.to(device)
            start_1LD = model.embed(there_1L[:, :own], **inputs)
            self.x = torch.cat([start_1LD, model.language.embed_tokens(there_1L[:, own:])], 1)[0]
        if clips := clips_of(self.request, model):
            self._hear(model, clips, ids_1L[0, :own])
        routed_1L = ids_1L.clone()
        routed_1L[:, own:] = _NO_TOKEN  # a completion may write an image's token: it makes no image
        by_adapter = masks(model.config, self.request.adapter, routed_1L, torch.zeros_like(ids_1L))
        self.masks = {name: mask_1L[0].numpy() for name, mask_1L in by_adapter.items() if bool(mask_1L.any())}

    def _hear(self, model: Multimodal, clips: tuple[Clip, ...], own_L: Tensor) -> None:
        self.heard = tokens_of(model.config, "audio", own_L).numpy()
        if (count := int(self.heard.sum())) != (needed := tokens_of_clips(clips, model)):
            raise ValueError(f"the prompt has {count} tokens of audio, its clips make {needed}")
        self.clips = ClipEmbeddings(model, clips, bool(tokens_of(model.config, "vision", own_L).any()))

    @property
    def adapter(self) -> str | None:
        """What the tokens after the prompt take: what all of the prompt takes, but by token, none."""
        if self.request.adapter == "token":
            return None
        return next((name for name, mask in self.masks.items() if bool(mask.all())), None)


class Prefill:
    """Up to `options.max_num_partial_prefills` prompts side by side, `options.prefill_chunk_size` tokens of each in a
    step. `pending` are under way, each in a row of its own; `ready` are computed and wait for slots, in pages alone."""

    def __init__(self, model: Multimodal, options: Options, angles: Angles, side: DeviceSide | None) -> None:
        self.model = model
        self.rows, self.chunk = options.max_num_partial_prefills, options.prefill_chunk_size
        weight = model.language.norm.weight
        text, length, block = model.config.text, options.max_model_len, options.block_size
        self.cache = Cache(text, self.rows, length, block, weight.dtype, weight.device)
        self.pending: list[Prompt] = []
        self.ready: deque[Prompt] = deque()
        self._free = list(range(self.rows))[::-1]
        self._pass: Forward = PlainPass(model, self.cache, angles, _hidden)
        if side is not None:
            shape = (self.rows, self.chunk, text.hidden_size)
            result_RCD = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
            self._pass = StaticPass(model, self.cache, angles, _hidden, result_RCD, side, "prefill")

    def admit(self, prompt: Prompt) -> bool:
        """False: there is no row free, or not enough pages, since other prompts wait in them for slots."""
        length = -(-len(prompt.tokens) // self.chunk) * self.chunk  # the last chunk is written whole
        if not self._free or not self.cache.grow(prompt.pages, length):
            return False
        prompt.row = self._free.pop()
        self.pending.append(prompt)
        return True

    def release(self, prompt: Prompt) -> None:
        """After the last of its completions has begun."""
        self.cache.release(prompt.pages)

    def forget(self) -> None:
        """Gives up prompts that no completion waits for any more."""
        for prompt in (*self.pending, *self.ready):
            if not prompt.waiting:
                self.release(prompt)
        self._free.extend(prompt.row for prompt in self.pending if not prompt.waiting)
        self.pending = [prompt for prompt in self.pending if prompt.waiting]
        self.ready = deque(prompt for prompt in self.ready if prompt.waiting)

    def due(self, slots: int) -> bool:
        """Whether to compute a chunk, with so many slots free: they have nothing to begin with, or all rows are taken
        and what is ready will not last."""
        # A chunk costs the same however few rows have a prompt, and whoever is generating waits for it: so chunks are
        # put off until slots would be idle, or until there are rows enough to make one worth it.
        ready = sum(len(prompt.waiting) for prompt in self.ready)
        full = len(self.pending) == self.rows
        return bool(self.pending) and (slots > ready or (full and ready < self.rows))

    def step(self) -> None:
        """One chunk of every pending prompt. Rows without a prompt are computed too, on token 0 and no pages, and a
        prompt's last chunk is filled up with it: shapes never change, and nobody looks at what comes of that."""
        ids_RC = np.zeros((self.rows, self.chunk), np.int64)
        last_R = np.zeros(self.rows, np.int64)
        rows = Rows.resting(self.rows, self.chunk)
        for prompt in self.pending:
            tokens = prompt.tokens[prompt.done : prompt.done + self.chunk]
            ids_RC[prompt.row, : len(tokens)] = tokens
            # Pages that no token of the chunk sees are not looked at: what is hidden adds nothing, and takes time.
            rows.pages[prompt.row] = prompt.pages[: -(-(prompt.done + self.chunk) // self.cache.block)]
            rows.positions[prompt.row] = np.arange(prompt.done, prompt.done + self.chunk)
            rows.long[prompt.row], last_R[prompt.row] = prompt.long, len(tokens) - 1
            for name, mask in prompt.masks.items():
                mask_RC = rows.masks.setdefault(name, np.zeros(ids_RC.shape, bool))
                mask_RC[prompt.row, : len(tokens)] = mask[prompt.done : prompt.done + self.chunk]
        hidden_RCD = self._pass(rows, self._embedded(ids_RC))
        for prompt in self.pending:
            if prompt.logprobs is not None:
                self._add_logprobs(prompt, hidden_RCD[prompt.row])
            prompt.done += self.chunk
        self._move_computed(hidden_RCD, last_R)

    def _embedded(self, ids_RC: np.ndarray) -> Tensor:
        """Embeddings of a chunk, [R, C, D], those of images and audio included."""
        device = self.model.language.norm.weight.device
        x_RCD = self.model.language.embed_tokens(on_device(ids_RC, device))
        for prompt in self.pending:
            if prompt.x is not None:
                x_LD = prompt.x[prompt.done : prompt.done + self.chunk]
                x_RCD[prompt.row, : len(x_LD)] = x_LD.to(x_RCD.dtype)
            if prompt.clips is not None and prompt.heard is not None:
                places = np.flatnonzero(prompt.heard[prompt.done : prompt.done + self.chunk])
                if len(places):
                    x_RCD[prompt.row, on_device(places, device)] = prompt.clips.take(len(places)).to(x_RCD.dtype)
        return x_RCD

    def _move_computed(self, hidden_RCD: Tensor, last_R: np.ndarray) -> None:
        """Makes those prompts ready that have no token left, with the logits after their last one: at `last_R` of their
        row's chunk. The head is computed for all rows, since a product of fewer rows may round differently."""
        computed = [prompt for prompt in self.pending if prompt.done >= len(prompt.tokens)]
        if not computed:
            return
        device = hidden_RCD.device
        ends_RD = hidden_RCD[torch.arange(self.rows, device=device), on_device(last_R, device)]
        logits_RV = self.model.language.head(ends_RD).float()
        for prompt in computed:
            prompt.logits = logits_RV[prompt.row].clone()
        self._free.extend(prompt.row for prompt in computed)
        self.ready.extend(computed)
        self.pending = [prompt for prompt in self.pending if prompt.done < len(prompt.tokens)]

    def _add_logprobs(self, prompt: Prompt, hidden_CD: Tensor) -> None:
        """Log-probabilities of the tokens that a chunk predicts: those after each of its own, within the prompt."""
        assert prompt.logprobs is not None
        # Hidden state i predicts token i + 1: so a chunk scores its tokens but the first, and the next chunk's first.
        tokens = prompt.tokens[prompt.done + 1 : prompt.done + self.chunk + 1]
        if not tokens:
            return
        logprobs_LV = self.model.language.head(hidden_CD).float().log_softmax(-1)[: len(tokens)]
        own = logprobs_LV.gather(-1, torch.tensor(tokens, device=logprobs_LV.device)[:, None])[:, 0].tolist()
        count = min(prompt.request.prompt_logprobs or 0, logprobs_LV.shape[-1])
        values, ids = (top.tolist() for top in logprobs_LV.topk(count))
        for logprob, top_ids, top_values in zip(own, ids, values, strict=True):
            prompt.logprobs.append((logprob, list(zip(top_ids, top_values, strict=True))))


def _hidden(hidden_RCD: Tensor) -> Tensor:
    return hidden_RCD
