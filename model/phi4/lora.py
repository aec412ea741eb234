"""Mixture of LoRAs: one linear holds several named adapters, and each token of a batch takes its own, or none.

Text, vision, speech and vision-speech samples share a batch, in training too: an adapter computes only the tokens
that are routed to it. `model.phi4.routing` says which those are. In shapes: I input and O output channels, N tokens
routed. Source: arXiv 2503.01743, section 2.2; LoRA, arXiv 2106.09685; peft for scale and initial values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.model.phi4.config import LoraConfig

Routes = Mapping[str, Tensor | None]
"""For each active adapter the tokens that take it: None for all, int64 [N] as flat places in [B * L], or a bool mask
[B, L] (all tokens are computed and the result chosen: shapes that depend on nothing, for generation)."""


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
        y_BLO = F.linear(x_BLI, self.weight)
        for name, tokens in routes.items():
            adapter = self.adapters[name]
            # Three forms of a route, for three uses: all of a batch of one kind; a batch of many kinds, in training
            # (the last); and generation, where no shape may depend on who takes what.
            if tokens is None:
                y_BLO = (y_BLO + adapter(x_BLI)).to(y_BLO.dtype)
            elif tokens.dtype == torch.bool:
                # Chosen, not multiplied by the mask: an adapter whose output is NaN harms no token of another.
                y_BLO = torch.where(tokens[..., None], (y_BLO + adapter(x_BLI)).to(y_BLO.dtype), y_BLO)
            else:
                # Only the routed tokens are gathered, computed and put back: an adapter costs what its tokens cost.
                # In place is safe for backward: a linear keeps its input and weight, not its output.
                flat_TO = y_BLO.flatten(0, 1)
                sum_NO = flat_TO.index_select(0, tokens) + adapter(x_BLI.flatten(0, 1).index_select(0, tokens))
                flat_TO.index_copy_(0, tokens, sum_NO.to(y_BLO.dtype))
        return y_BLO
