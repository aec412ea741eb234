"""The language model, Phi-4-Mini: a pre-norm decoder with fused projections, grouped queries and fractional RoPE.

Attention is handed in (`model.attention`, or the cache of `model.generate`), so that the layers know nothing of masks,
packing or caches. Names of parameters are the reference's. Every linear of a layer takes adapters.
Source: arXiv 2503.01743, section 2.1; transformers 5.23, `models/phi3`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import AdapterConfig, TextConfig
from model.lora import RoutedLinear, Routes
from model.rope import rotate

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [B, H, L, D], k and v [B, G, L, D]) -> [B, H, L, D], softmax scale D^-0.5."""


class RMSNorm(nn.Module):
    """Computed in float32 and cast back before the weight: the order matters in bfloat16."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class SelfAttention(nn.Module):
    """Rows of `qkv_proj`: all queries, then keys, then values; a key head serves heads / kv_heads query heads."""

    def __init__(self, config: TextConfig, adapters: Sequence[AdapterConfig]) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        rows = (config.heads + 2 * config.kv_heads) * config.head_dim
        self.qkv_proj = RoutedLinear(config.hidden, rows, adapters)
        self.o_proj = RoutedLinear(config.hidden, config.hidden, adapters)

    def forward(self, layer: int, x_BLD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend, routes: Routes) -> Tensor:
        qkv = self.qkv_proj(x_BLD, routes).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        turning, v_BGLD = qkv.split([self.heads + self.kv_heads, self.kv_heads], 1)
        q_BHLD, k_BGLD = rotate(turning, *rope).split([self.heads, self.kv_heads], 1)
        y_BHLD = attend(layer, q_BHLD, k_BGLD, v_BGLD)
        return self.o_proj(y_BHLD.transpose(1, 2).flatten(2), routes)


class MLP(nn.Module):
    """down(silu(gate) * up), the gate in the first rows of `gate_up_proj`."""

    def __init__(self, config: TextConfig, adapters: Sequence[AdapterConfig]) -> None:
        super().__init__()
        self.gate_up_proj = RoutedLinear(config.hidden, 2 * config.inner, adapters)
        self.down_proj = RoutedLinear(config.inner, config.hidden, adapters)

    def forward(self, x_BLD: Tensor, routes: Routes) -> Tensor:
        gate, up = self.gate_up_proj(x_BLD, routes).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up, routes)


class Layer(nn.Module):
    def __init__(self, config: TextConfig, adapters: Sequence[AdapterConfig]) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.eps)
        self.self_attn = SelfAttention(config, adapters)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.eps)
        self.mlp = MLP(config, adapters)

    def forward(self, layer: int, x_BLD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend, routes: Routes) -> Tensor:
        x_BLD = x_BLD + self.self_attn(layer, self.input_layernorm(x_BLD), rope, attend, routes)
        return x_BLD + self.mlp(self.post_attention_layernorm(x_BLD), routes)


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out; `head` makes logits of them. Tied: the head is the embedding."""

    def __init__(self, config: TextConfig, adapters: Sequence[AdapterConfig] = ()) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, adapters) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.eps)
        if not config.tied:
            self.lm_head = RoutedLinear(config.hidden, config.vocab, ())

    def forward(self, x_BLD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend, routes: Routes) -> Tensor:
        """x [B, L, hidden] as embeddings; `rope` from `model.rope.tables`; -> hidden states [B, L, hidden]."""
        for number, layer in enumerate(self.layers):
            x_BLD = layer(number, x_BLD, rope, attend, routes)
        return self.norm(x_BLD)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab]."""
        return F.linear(hidden, self.embed_tokens.weight if self.config.tied else self.lm_head.weight)
