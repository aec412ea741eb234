"""Mixture of LoRAs: one linear holds several named adapters, and each token of a batch takes its own, or none.

Text, vision, speech and vision-speech samples share a batch, in training too: an adapter computes only the tokens
that are routed to it. `model.phi4.routing` says which those are. In shapes: I input and O output channels, T tokens of
a flattened batch, N tokens routed, R the rank.

Where gradients are computed, a linear and its adapters are one operation (`_Adapted`). By FLOPs an adapter of rank R on
all tokens makes forward and backward pass (1 + 3R(I + O) / 2IO) as dear, 1.21 for the released shape. By bytes it is
the other way round: a product with R columns reads and writes about as long as it multiplies, so what counts is how
often the wide tensors are passed over. Each is read once for each product that needs it, and nothing else: scale and
sum are the alpha and beta of the products, y and dx are added to in place, and tokens of an adapter lie side by side
(`model.phi4.routing.side_by_side`), so that its rows are a view. Gathering and putting back in each linear, or a
`grouped_mm` behind a gather, would pass over x, y and dy once more; one product for all adapters side by side would
compute each token's other adapters too.

Source: arXiv 2503.01743, section 2.2; LoRA, arXiv 2106.09685; peft for scale and initial values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gristmill.model.phi4.config import LoraConfig


class Span(NamedTuple):
    """Tokens `start` to `stop` - 1 of a flattened batch."""

    start: int
    stop: int


Routes = Mapping[str, Tensor | Span | None]
"""For each active adapter the tokens that take it: None for all; a `Span` of them; int64 [N] as flat places in
[B * L]; or a bool mask [B, L] (all tokens are computed and the result chosen: shapes that depend on nothing, for
generation)."""


class LoRA(nn.Module):
    """An adapter of one linear: `A` [rank, inputs], `B` [outputs, rank]; B starts at zero, which changes nothing."""

    def __init__(self, config: LoraConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.scaling, self.dropout = config.scaling, config.lora_dropout
        self.A = nn.Parameter(torch.empty(config.r, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, config.r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], in the wider type of `x` and the adapter, as in peft, whose adapters are
        float32 on any base."""
        wide = torch.promote_types(x.dtype, self.A.dtype)
        x = F.dropout(x.to(wide), self.dropout, self.training)
        return F.linear(F.linear(x, self.A.to(wide)), self.B.to(wide)) * self.scaling


class MultiLoRALinear(nn.Module):
    """y = Wx, plus what the adapter of a token adds. No bias, as nowhere in the decoder. y has the type of Wx, whatever
    the adapter's: the sum is rounded once, as in peft."""

    def __init__(self, inputs: int, outputs: int, adapters: Sequence[LoraConfig]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=0.02)
        self.adapters = nn.ModuleDict({config.name: LoRA(config, inputs, outputs) for config in adapters})

    def add(self, config: LoraConfig) -> None:
        """A fresh adapter, in float32 on a base of any type: steps of an optimiser would round away in bfloat16."""
        outputs, inputs = self.weight.shape
        self.adapters[config.name] = LoRA(config, inputs, outputs).to(self.weight.device)

    @torch.no_grad()
    def merge(self, name: str) -> None:
        """Adds an adapter's product to the weight, rounded once, and takes it away: all tokens have it from then on."""
        adapter = self.adapters.pop(name)
        assert isinstance(adapter, LoRA)
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        change_OI = adapter.B.to(wide) @ adapter.A.to(wide) * adapter.scaling
        self.weight.copy_(self.weight.to(wide) + change_OI)

    def forward(self, x_BLI: Tensor, routes: Routes) -> Tensor:
        """[B, L, inputs] -> [B, L, outputs]."""
        spans = _spans(routes, x_BLI.shape[0] * x_BLI.shape[1]) if torch.is_grad_enabled() else None
        if spans:
            return self._fused(x_BLI, spans)
        y_BLO = F.linear(x_BLI, self.weight)
        for name, tokens in routes.items():
            adapter = self.adapters[name]
            # Forms of a route, for as many uses: all of a batch of one kind; a batch of many kinds; and generation,
            # where no shape may depend on who takes what.
            if tokens is None:
                y_BLO = (y_BLO + adapter(x_BLI)).to(y_BLO.dtype)
            elif isinstance(tokens, Span) or tokens.dtype != torch.bool:
                # Only the routed tokens are gathered, computed and put back: an adapter costs what its tokens cost.
                # In place is safe for backward: a linear keeps its input and weight, not its output.
                places_N = torch.arange(*tokens, device=x_BLI.device) if isinstance(tokens, Span) else tokens
                flat_TO = y_BLO.flatten(0, 1)
                sum_NO = flat_TO.index_select(0, places_N) + adapter(x_BLI.flatten(0, 1).index_select(0, places_N))
                flat_TO.index_copy_(0, places_N, sum_NO.to(y_BLO.dtype))
            else:
                # Chosen, not multiplied by the mask: an adapter whose output is NaN harms no token of another.
                y_BLO = torch.where(tokens[..., None], (y_BLO + adapter(x_BLI)).to(y_BLO.dtype), y_BLO)
        return y_BLO

    def _fused(self, x_BLI: Tensor, spans: Mapping[str, Span]) -> Tensor:
        """As `forward`, where gradients are computed and each adapter has a stretch of the tokens."""
        low = wide = x_BLI.dtype
        if torch.is_autocast_enabled(x_BLI.device.type):
            low = wide = torch.get_autocast_dtype(x_BLI.device.type)
        sides: list[_Side] = []
        matrices: list[Tensor] = []
        for name, span in spans.items():
            adapter = self.adapters[name]
            assert isinstance(adapter, LoRA)
            if not torch.is_autocast_enabled(x_BLI.device.type):
                wide = torch.promote_types(wide, adapter.A.dtype)
            sides.append((*span, adapter.scaling, adapter.dropout if adapter.training else 0.0))
            matrices += [adapter.A, adapter.B]
        # Flattened, and cast for good, outside of the operation: what it keeps for backward is what it is given.
        x_TI = x_BLI.flatten(0, 1).to(low)
        y_TO: Tensor = _Adapted.apply(x_TI, self.weight, wide, tuple(sides), *matrices)
        return y_TO.unflatten(0, x_BLI.shape[:2])


def _spans(routes: Routes, tokens: int) -> dict[str, Span] | None:
    """Of each adapter the stretch of tokens that take it; None if any has no stretch."""
    spans: dict[str, Span] = {}
    for name, route in routes.items():
        if isinstance(route, Tensor):
            return None
        spans[name] = Span(0, tokens) if route is None else route
    return spans


_Side = tuple[int, int, float, float]
"""How an adapter takes part: its first token, the one after its last, its scaling, its dropout."""


class _Adapted(torch.autograd.Function):
    """y = x W^T, and for the rows of each adapter y += s (x A^T) B^T; what it keeps for backward is x and h = x A^T.

    Products of adapters are of type `wide`, and what they add is rounded once, to the type of y, which is that of x.
    Parameters are kept as they are and cast again in the backward pass: a step's casts together would weigh as much as
    half the adapters. `matrices`: A and B of each side in turn.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, weight_OI: Tensor, wide: torch.dtype, sides: tuple[_Side, ...], *matrices: Tensor
    ) -> Tensor:
        """[T, I] -> [T, O]."""
        y_TO = F.linear(x_TI, weight_OI.to(x_TI.dtype))
        _, weight_trains, _, _, *trains = ctx.needs_input_grad
        kept: list[Tensor | None] = [x_TI if weight_trains or any(trains[::2]) else None, weight_OI]
        for number, (start, stop, scaling, dropout) in enumerate(sides):
            a_RI, b_OR = matrices[2 * number : 2 * number + 2]
            rows_NI, mask_NI = x_TI[start:stop].to(wide), None
            if dropout:
                rows_NI, mask_NI = torch.native_dropout(rows_NI, dropout, True)
            h_NR = rows_NI @ a_RI.to(wide).T
            _add_product(y_TO[start:stop], h_NR, b_OR.to(wide).T, scaling)
            kept += [a_RI, b_OR, h_NR if trains[2 * number + 1] else None, mask_NI]
        ctx.save_for_backward(*kept)
        ctx.wide, ctx.sides = wide, sides
        return y_TO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TO: Tensor) -> tuple[Tensor | None, ...]:
        """Of x, the weight, and A and B of each side; of what is frozen None."""
        x_TI, weight_OI, *kept = ctx.saved_tensors
        wide: torch.dtype = ctx.wide
        x_trains, weight_trains, _, _, *trains = ctx.needs_input_grad
        dx_TI = dy_TO @ weight_OI.to(dy_TO.dtype) if x_trains else None
        dweight_OI = (dy_TO.T @ x_TI).to(weight_OI.dtype) if weight_trains else None
        gradients: list[Tensor | None] = []
        for number, (start, stop, scaling, dropout) in enumerate(ctx.sides):
            a_RI, b_OR, h_NR, mask_NI = kept[4 * number : 4 * number + 4]
            a_trains, b_trains = trains[2 * number : 2 * number + 2]
            dy_NO, wide_RI = dy_TO[start:stop].to(wide), a_RI.to(wide)
            dh_NR = _product(dy_NO, b_OR.to(wide), scaling)
            da_RI = None
            if a_trains:
                rows_NI = _dropped(x_TI[start:stop].to(wide), mask_NI, dropout)
                da_RI = (dh_NR.T @ rows_NI).to(a_RI.dtype)
            gradients += [da_RI, _product(dy_NO.T, h_NR, scaling).to(b_OR.dtype) if b_trains else None]
            if dx_TI is not None and mask_NI is None:
                _add_product(dx_TI[start:stop], dh_NR, wide_RI, 1.0)
            elif dx_TI is not None:
                dx_TI[start:stop] += _dropped(dh_NR @ wide_RI, mask_NI, dropout)
        return dx_TI, dweight_OI, None, None, *gradients


def _product(left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """scaling * left @ right, of matrices, in one product."""
    return torch.addmm(left.new_zeros(()), left, right, beta=0, alpha=scaling)


def _add_product(rows: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """rows += scaling * left @ right in place, summed in the type of the factors and rounded once."""
    if rows.dtype == left.dtype:
        rows.addmm_(left, right, alpha=scaling)
    else:
        rows.copy_(torch.addmm(rows.to(left.dtype), left, right, alpha=scaling))


def _dropped(x: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """x as dropout had it that drew this mask; None: it drew none."""
    return x if mask is None else torch.ops.aten.native_dropout_backward(x, mask, 1 / (1 - dropout))
