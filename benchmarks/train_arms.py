"""Contestants of a step of training: ours and transformers' with peft, over the same base, adapters and tokens.

All train one adapter of the four linears of each layer with AdamW, in bfloat16 over a bfloat16 base, adapters in
float32. An arm's optimizer is there for its turn alone, so that each has the card to itself but for the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peer_models import begin_anew, bytes_of, matrices
from gristmill.model.phi4.blocks import checkpoint_activations, compile_blocks
from gristmill.model.phi4.config import TextConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, trainable
from gristmill.model.train import optim
from gristmill.model.train.objective import Batch, Objective, collate
from gristmill.model.train.optim_config import Optim

ADAPTER = "speech"
RATE = 1e-4
NOT_A_TARGET = -100
"""transformers' label of a token whose prediction does not count."""


@dataclass(frozen=True)
class Rows:
    """`count` rows of as many tokens, each of `shares` samples (how much of the row each has; one: not packed)."""

    count: int
    tokens: int
    shares: tuple[float, ...] = (1.0,)

    @property
    def ends(self) -> list[int]:
        """Where the samples of a row end."""
        return [round(self.tokens * sum(self.shares[: number + 1])) for number in range(len(self.shares))]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample of a row."""
        return np.diff([0, *self.ends]).tolist()

    @property
    def targets(self) -> int:
        """Of all rows: every token but the first of a sample."""
        return self.count * (self.tokens - len(self.shares))

    def windows(self, vocab: int) -> list[dict[str, np.ndarray]]:
        """As shards hold them: random tokens, the same each time."""
        ids = np.random.default_rng(0).integers(16, vocab, (self.count, self.tokens)).astype(np.int32)
        ends = np.array([0, *self.ends], np.int32)
        return [{"input_ids": row, "loss_mask": np.ones(len(row), bool), "cu_seqlens": ends} for row in ids]


def flops_a_token(text: TextConfig, rank: int, rows: Rows) -> float:
    """Operations of forward and backward of a token, recomputation not counted.

    The base is frozen: a weight costs a multiplication and an addition forward, and as much backward for the gradient
    of its input, 4 in all. An adapter's weight has a gradient of its own too, 6. The head counts like the base, for
    each target. Attention: a token sees half of its sample; two products (queries with keys, weights with values) of
    2 operations a channel, twice as much backward. With rank 320 and rows of 4,096 tokens, at the shape of Phi-4-Mini:
    12.88e9 + 2.77e9 + 2.46e9 + 2.42e9 = 20.53e9.
    """
    hidden, inner = text.hidden_size, text.intermediate_size
    fused = (text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim
    shapes = ((hidden, fused), (hidden, hidden), (hidden, 2 * inner), (inner, hidden))
    base = sum(inputs * outputs for inputs, outputs in shapes)
    adapters = sum(rank * (inputs + outputs) for inputs, outputs in shapes)
    seen = sum(length**2 for length in rows.lengths) / (2 * rows.tokens)
    attention = 3 * 2 * 2 * seen * hidden
    head = 4 * hidden * text.vocab_size * rows.targets / (rows.count * rows.tokens)
    return text.num_hidden_layers * (4 * base + 6 * adapters + attention) + head


@dataclass
class Arm:
    """A contestant. `turn`: a context in which `step` trains a step and gives the loss of a target before it, float32
    []; `model`: whose parameters are its own; `rows`: what a step is on; `peer`: not ours."""

    name: str
    rows: Rows
    model: nn.Module
    turn: Callable[[], Any]
    peer: bool = False
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def bytes(self) -> int:
        """Of all its parameters."""
        return bytes_of(self.model)


Step = Callable[[], Tensor]


def own_arm(model: Multimodal, rows: Rows, name: str, *, backend: str | None = None, recompute: bool = False) -> Arm:
    """Ours. `backend`: of torch.compile for the blocks; `recompute`: of activations in the backward pass."""
    device = model.language.norm.weight.device
    batch: Batch = collate(rows.windows(model.config.text.vocab_size), model.config, device)
    objective = Objective(model, adapter=ADAPTER)

    @contextmanager
    def turn() -> Iterator[Step]:
        compile_blocks(model, backend)
        checkpoint_activations(model, recompute)
        begin_anew(matrices(model, ADAPTER))
        model.train()
        trained = trainable(model, {Part.LORA_SPEECH})
        optimizer = optim.build(Optim(lr=RATE), model, trained, objective)

        def step() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                loss, count, *_ = objective(batch)
            return _stepped(loss / count, optimizer)

        try:
            yield step
        finally:
            optimizer.zero_grad(set_to_none=True)
            compile_blocks(model, None)
            checkpoint_activations(model, False)

    return Arm(name, rows, model, turn)


def peer_arm(model: Any, rows: Rows, name: str, *, recompute: bool = False) -> Arm:
    """transformers' model in peft's. What is packed is told by places, as its collator does it."""
    device = next(model.parameters()).device
    vocab = model.config.vocab_size
    windows = rows.windows(vocab)
    ids = torch.from_numpy(np.stack([window["input_ids"] for window in windows])).long().to(device)
    labels, firsts = ids.clone(), [0, *rows.ends[:-1]]
    labels[:, firsts] = NOT_A_TARGET
    places = torch.cat([torch.arange(length) for length in rows.lengths]).to(device).expand_as(ids)
    packed = {"position_ids": places} if len(rows.shares) > 1 else {}
    by_name = matrices(model, ADAPTER)

    @contextmanager
    def turn() -> Iterator[Step]:
        begin_anew(by_name)
        model.train()
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        fused = {"fused": True} if device.type == "cuda" else {}  # as its Trainer has it
        adamw = Optim(lr=RATE)
        optimizer = torch.optim.AdamW(
            by_name.values(), lr=RATE, betas=adamw.betas, eps=adamw.eps, weight_decay=adamw.weight_decay, **fused
        )

        def step() -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(input_ids=ids, labels=labels, use_cache=False, **packed).loss
            return _stepped(loss, optimizer)

        try:
            yield step
        finally:
            optimizer.zero_grad(set_to_none=True)
            if recompute:
                model.gradient_checkpointing_disable()

    return Arm(name, rows, model, turn, peer=True)


def _stepped(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach().float()
