"""The language model, Phi-4-Mini: a pre-norm decoder with fused projections, grouped queries and fractional RoPE.

Attention is handed in (`model.phi4.attention`, or the cache of `model.generate.engine`), so that the layers know
nothing of masks, packing or caches. Names of parameters are the reference's. Every linear of a layer takes adapters.
Source: arXiv 2503.01743, section 2.1; transformers 5.23, `models/phi3`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.model.phi4.blocks import Run, Stack, plainly
from gristmill.model.phi4.config import LoraConfig, TextConfig
from gristmill.model.phi4.lora import MultiLoRALinear, Routes
from gristmill.model.phi4.rope import rotate

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [B, H, L, D], k and v [B, G, L, D]) -> [B, H, L, D], softmax scale D^-0.5."""


class RMSNorm(nn.Module):
    """Computed in float32 and cast back before the weight: the order matters in bfloat16."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] -> the same shape and type."""
        # In bfloat16 a mean of squares over 3,072 channels would have two digits.
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class SelfAttention(nn.Module):
    """Rows of `qkv_proj`: all queries, then keys, then values. H query heads; G key heads, each of which serves H / G
    query heads; `head_dim` channels of a head."""

    def __init__(self, config: TextConfig, adapters: Sequence[LoraConfig]) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        rows = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
        self.qkv_proj = MultiLoRALinear(config.hidden_size, rows, adapters)
        self.o_proj = MultiLoRALinear(config.hidden_size, config.hidden_size, adapters)

    def projected(self, x_BLD: Tensor, rope: tuple[Tensor, Tensor], routes: Routes) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, hidden] -> q [B, H, L, D], k and v [B, G, L, D], as `Attend` takes them; the rest as `Decoder`."""
        qkv = self.qkv_proj(x_BLD, routes).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        # Heads before positions, as kernels of attention want them. Queries and keys lie side by side: they rotate in
        # one go.
        turning, v_BGLD = qkv.split([self.heads + self.kv_heads, self.kv_heads], 1)
        q_BHLD, k_BGLD = rotate(turning, *rope).split([self.heads, self.kv_heads], 1)
        return q_BHLD, k_BGLD, v_BGLD

    def output(self, y_BHLD: Tensor, routes: Routes) -> Tensor:
        """What heads attended to, [B, H, L, D] -> [B, L, hidden]."""
        y_BLD: Tensor = self.o_proj(y_BHLD.transpose(1, 2).flatten(2), routes)
        return y_BLD


class MLP(nn.Module):
    """down(silu(gate) * up), the gate in the first rows of `gate_up_proj`."""

    def __init__(self, config: TextConfig, adapters: Sequence[LoraConfig]) -> None:
        super().__init__()
        self.gate_up_proj = MultiLoRALinear(config.hidden_size, 2 * config.intermediate_size, adapters)
        self.down_proj = MultiLoRALinear(config.intermediate_size, config.hidden_size, adapters)

    def forward(self, x_BLD: Tensor, routes: Routes) -> Tensor:
        """[B, L, hidden] -> [B, L, hidden]."""
        gate, up = self.gate_up_proj(x_BLD, routes).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up, routes)


class Layer(nn.Module):
    """Attention and MLP, each on the normed input and added to it (pre-norm)."""

    def __init__(self, config: TextConfig, adapters: Sequence[LoraConfig]) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, adapters)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, adapters)

    def forward(
        self,
        layer: int,
        x_BLD: Tensor,
        rope: tuple[Tensor, Tensor],
        attend: Attend,
        routes: Routes,
        run: Run = plainly,
    ) -> Tensor:
        """[B, L, hidden] -> [B, L, hidden]; `layer`: the number of this layer, for `attend`; `run`: what carries out
        its two pieces, before and after attention; the rest as `Decoder`."""
        heads = run(Layer._before, self, x_BLD, rope, routes)
        x_BLD = run(Layer._after, self, x_BLD, attend(layer, *heads), routes)
        return x_BLD

    def _before(self, x_BLD: Tensor, rope: tuple[Tensor, Tensor], routes: Routes) -> tuple[Tensor, Tensor, Tensor]:
        return self.self_attn.projected(self.input_layernorm(x_BLD), rope, routes)

    def _after(self, x_BLD: Tensor, y_BHLD: Tensor, routes: Routes) -> Tensor:
        x_BLD = x_BLD + self.self_attn.output(y_BHLD, routes)
        y_BLD: Tensor = x_BLD + self.mlp(self.post_attention_layernorm(x_BLD), routes)
        return y_BLD


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out; `head` makes logits of them. Tied: the head is the embedding."""

    def __init__(self, config: TextConfig, adapters: Sequence[LoraConfig] = ()) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = Stack((Layer(config, adapters) for _ in range(config.num_hidden_layers)), in_pieces=True)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = MultiLoRALinear(config.hidden_size, config.vocab_size, ())

    def forward(self, x_BLD: Tensor, rope: tuple[Tensor, Tensor], attend: Attend, routes: Routes) -> Tensor:
        """Embeddings [B, L, hidden] -> hidden states [B, L, hidden]. `rope`: cos and sin of `model.phi4.rope.tables`;
        `attend`: how queries attend, masks, packing and caches included; `routes`: which tokens take which adapter."""
        for number in range(len(self.layers)):
            x_BLD = self.layers.call(number, number, x_BLD, rope, attend, routes)
        return self.norm(x_BLD)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of hidden states [..., hidden], in their type."""
        return F.linear(hidden, self.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight)
