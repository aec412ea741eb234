"""The slots of an engine on their device: logits after each one's last token, the token drawn of them, and the next.

On the CPU, what is drawn is drawn of the slots that want a token, and read at once. On CUDA (`side`) all slots are
drawn and decoded over buffers that stay, and the host reads tokens while the device goes on.
In shapes: S slots, V vocabulary, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.cache import Cache
from gristmill.model.generate.draw import Drawn, choose_next
from gristmill.model.generate.forward import Angles, DeviceSide, Forward, PlainPass, Rows, StaticPass
from gristmill.model.generate.graphs import on_device, put
from gristmill.model.generate.requests import Completion, Options
from gristmill.model.generate.sampling import Way, draw_all, uniforms_of, way_of
from gristmill.model.phi4.multimodal import Multimodal


class Slots:
    """`cache`: in which completions have their pages."""

    def __init__(
        self, model: Multimodal, options: Options, cache: Cache, angles: Angles, side: DeviceSide | None
    ) -> None:
        self._model, self._cache, self._count = model, cache, options.max_num_seqs
        device = model.language.norm.weight.device
        self._logits_SV = torch.zeros(self._count, model.config.text.vocab_size, device=device)
        self._tokens_S = torch.zeros(self._count, dtype=torch.int64, device=device)
        self._pass: Forward = PlainPass(model, cache, angles, self._head)
        self._all: _All | None = None
        if side is not None:
            self._pass = StaticPass(model, cache, angles, self._head, self._logits_SV, side, "decode")
            self._all = _All(self._logits_SV, self._tokens_S, side)

    def begin(self, slot: int, logits_V: Tensor) -> None:
        """The logits after a prompt."""
        self._logits_SV[slot] = logits_V

    def draw(self, completions: Sequence[Completion]) -> Drawn:
        """The next token of each, from the logits of its slot."""
        # A constraint is kept to by a parser on the host: which tokens it allows is another matter in each step, so its
        # completions are drawn apart, outside of a graph.
        apart = [completion for completion in completions if self._all is None or completion.constraint is not None]
        if self._all is not None and len(apart) < len(completions):
            self._all.draw([completion for completion in completions if completion.constraint is None])
        if apart:
            index = on_device(np.array([completion.slot for completion in apart]), self._logits_SV.device)
            self._tokens_S[index] = choose_next(self._logits_SV[index], apart)
        return Drawn(completions, self._logits_SV, self._tokens_S)

    def decode(self, completions: Iterable[Completion], ahead: int = 0) -> None:
        """The token last drawn of each through the model. `ahead`: 1 if the host does not have it yet, else 0. Slots at
        rest are computed and not looked at: shapes never change, since a product of another shape rounds differently.
        """
        rows = Rows.resting(self._count, 1)
        for completion in completions:
            slot = completion.slot
            # The last token drawn is in no page yet: it stands at the end, and its logits are those of the next one.
            self._cache.grow(completion.pages, completion.length + ahead)
            rows.pages[slot] = completion.pages
            rows.positions[slot], rows.long[slot] = completion.length + ahead - 1, completion.long
            if completion.adapter is not None:
                rows.masks.setdefault(completion.adapter, np.zeros((self._count, 1), bool))[slot] = True
        x_S1D = self._model.language.embed_tokens(self._tokens_S[:, None])
        self._logits_SV = self._pass(rows, x_S1D)

    def _head(self, hidden_S1D: Tensor) -> Tensor:
        return self._model.language.head(hidden_S1D[:, 0]).float()


class _All:
    """Draws of all slots at once, into the buffer `tokens_S`."""

    def __init__(self, logits_SV: Tensor, tokens_S: Tensor, side: DeviceSide) -> None:
        self._logits_SV, self._tokens_S, self._side = logits_SV, tokens_S, side
        self._heat_S, self._top_p_S = torch.ones(2, *tokens_S.shape, dtype=torch.float64, device=tokens_S.device)
        self._keys_S, self._places_S = torch.zeros(2, *tokens_S.shape, dtype=torch.int64, device=tokens_S.device)

    def draw(self, completions: Sequence[Completion]) -> None:
        """The next token of each, without waiting for it; of other slots, whatever it may be."""
        count = len(self._tokens_S)
        heat_S, top_p_S = np.ones((2, count))
        keys_S, places_S = np.zeros(count, np.uint64), np.zeros(count, np.int64)
        for completion in completions:
            slot, sampling = completion.slot, completion.request.sampling
            heat_S[slot], top_p_S[slot] = sampling.temperature, sampling.top_p
            keys_S[slot], places_S[slot] = completion.key, len(completion.tokens)
        buffers = self._heat_S, self._top_p_S, self._keys_S, self._places_S
        for buffer, values in zip(buffers, (heat_S, top_p_S, keys_S.view(np.int64), places_S), strict=True):
            put(buffer, values)
        way = way_of(completion.request.sampling for completion in completions)
        self._side.runner.run(("draw", way), lambda: self._draw(way))

    def _draw(self, way: Way) -> None:
        uniforms_S = uniforms_of(self._keys_S, self._places_S)
        self._tokens_S.copy_(draw_all(self._logits_SV, self._heat_S, self._top_p_S, uniforms_S, way))
