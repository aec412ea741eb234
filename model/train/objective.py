"""What a step of training minimises: a batch of packed windows in, a sum of losses and what to divide it by out.

Sums, not means: the loop divides by the targets of all accumulated batches and all ranks, so that how windows were
dealt out changes nothing. A batch is its windows end to end, one row without padding: segments do not see each other.
In shapes: T tokens of a batch, S segments, N targets, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.routing import Adapter
from gristmill.model.train.losses import clipped_losses, dpo_losses, kl_estimates, preference_margins, token_losses
from gristmill.model.windows.media import media_inputs

CHUNK = 512
"""Targets whose logits exist at a time: 410 MB in float32 with the vocabulary of the release."""


class Drawn(NamedTuple):
    """Of segments that a policy drew: `advantages` float32 [S]; of each target, in order, what it was to the policy
    that drew it and to the reference that the learner is held to, log-probabilities in nats, float32 [N]."""

    advantages: Tensor
    old_logprobs: Tensor
    base_logprobs: Tensor

    @classmethod
    def of(cls, windows: Sequence[Mapping[str, np.ndarray]]) -> Drawn | None:
        """Of windows end to end; None where they have no advantages."""
        if not any("advantages" in window for window in windows):
            return None
        arrays = (np.concatenate([window[name] for window in windows]) for name in cls._fields)
        return cls(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))

    def to(self, device: torch.device | str) -> Drawn:
        """The same on another device."""
        return Drawn(*(values.to(device) for values in self))


@dataclass(frozen=True)
class Batch:
    """Windows end to end, in the form of one: `input_ids` int64 [T]; `loss_mask` bool [T], whether the prediction *of*
    a token counts; `cu_seqlens` int64 [S + 1], where segments begin and the last one ends.

    `inputs`: of images and clips, as `Multimodal.embed` takes them. `reference_logprobs` float32 [S], for DPO: of each
    segment's targets together, by the reference model. `windows` int64 [S]: the number of each segment's window, for
    losses over windows; None: all are of one. `drawn`: for GRPO. `on_host`: the batch as it was on the CPU, where this
    is a copy of it on another device: what decides shapes is asked of it, which nobody waits for.
    """

    input_ids: Tensor
    loss_mask: Tensor
    cu_seqlens: Tensor
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    reference_logprobs: Tensor | None = None
    windows: Tensor | None = None
    drawn: Drawn | None = None
    on_host: Batch | None = None

    def __post_init__(self) -> None:
        tokens, ends = len(self.input_ids), self.cu_seqlens
        if len(self.loss_mask) != tokens:
            raise ValueError(f"loss_mask of {len(self.loss_mask)} tokens, input_ids of {tokens}: needed are as many")
        if ends.is_cpu and (len(ends) < 1 or ends[0] != 0 or ends[-1] != tokens or bool((ends.diff() < 0).any())):
            raise ValueError(f"cu_seqlens {ends.tolist()}: needed is 0, rising to the {tokens} tokens of input_ids")
        if self.reference_logprobs is not None and len(self.reference_logprobs) != len(ends) - 1:
            raise ValueError(f"reference_logprobs of {len(self.reference_logprobs)} segments, of {len(ends) - 1}")

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        leaves = self.input_ids.is_cpu and torch.device(device).type != "cpu"
        return replace(
            self,
            on_host=self if leaves else self.on_host,
            input_ids=self.input_ids.to(device, non_blocking=True),
            loss_mask=self.loss_mask.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            inputs={name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            reference_logprobs=None if self.reference_logprobs is None else self.reference_logprobs.to(device),
            windows=None if self.windows is None else self.windows.to(device),
            drawn=None if self.drawn is None else self.drawn.to(device),
        )

    @property
    def segments(self) -> Tensor:
        """The number of each token's segment, int64 [T]."""
        numbers_S = torch.arange(len(self.cu_seqlens) - 1, device=self.cu_seqlens.device)
        return torch.repeat_interleave(numbers_S, self.cu_seqlens.diff(), output_size=len(self.input_ids))

    @property
    def targets(self) -> Tensor:
        """Places of the tokens whose prediction counts, int64 [N]. The first token of a segment never is one: what
        stands before it is the end of another."""
        if self.on_host is not None:
            return self.on_host.targets.to(self.input_ids.device, non_blocking=True)
        segments_T, counts_T = self.segments, torch.zeros_like(self.loss_mask, dtype=torch.bool)
        counts_T[1:] = self.loss_mask[1:].bool() & (segments_T[1:] == segments_T[:-1])
        return counts_T.nonzero()[:, 0]


def collate(
    windows: Sequence[Mapping[str, np.ndarray]],
    config: ModelConfig | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """A batch, on a device, of windows as shards hold them: arrays `input_ids`, `loss_mask`, `cu_seqlens`, those of
    images and clips (`model.windows.media`), for which the config of the model is needed, and, for DPO,
    `reference_logprobs`, for GRPO those of `Drawn`. Raises ValueError for no window, and for media that do not fit;
    KeyError for a window without an array."""
    if not windows:
        raise ValueError("a batch of no windows: needed is 1 or more")
    starts = np.cumsum([0, *(len(window["input_ids"]) for window in windows)])
    ends = [window["cu_seqlens"][1:] + start for window, start in zip(windows, starts, strict=False)]
    references: Tensor | None = None
    if any("reference_logprobs" in window for window in windows):
        logprobs = np.concatenate([window["reference_logprobs"] for window in windows])
        references = torch.from_numpy(logprobs.astype(np.float32))
    batch = Batch(
        input_ids=torch.from_numpy(np.concatenate([window["input_ids"] for window in windows]).astype(np.int64)),
        loss_mask=torch.from_numpy(np.concatenate([window["loss_mask"] for window in windows]).astype(bool)),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], *ends]).astype(np.int64)),
        reference_logprobs=references,
        windows=torch.arange(len(windows)).repeat_interleave(torch.tensor([len(own) for own in ends])),
        drawn=Drawn.of(windows),
    ).to(device)
    return replace(batch, inputs=media_inputs(windows, config, device))


class Objective(nn.Module):
    """Cross-entropy of a batch's targets. `model` is its only child; `adapter` as `Multimodal.forward` takes it;
    `chunk`: targets whose logits exist at a time."""

    measures: tuple[str, ...] = ()
    """What `forward` gives beside the loss and what that is divided by, in this order: sums over the same, shown in the
    metrics as means."""

    def __init__(self, model: Multimodal, *, adapter: Adapter = "auto", chunk: int = CHUNK) -> None:
        super().__init__()
        self.model, self.adapter, self.chunk = model, adapter, chunk

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The loss in nats, float32 [], and how many targets it is the sum of, int64 []. A batch without targets has a
        loss of 0, whose gradients are 0."""
        losses_N, _ = self.losses(batch)
        return losses_N.sum(), torch.tensor(len(losses_N), device=losses_N.device)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The cross-entropy of each target, float32 [N], and its place in the batch, int64 [N]. Only the hidden states
        that predict targets reach the head."""
        host = batch.on_host or batch
        hidden_1TD = self.model.hidden(
            batch.input_ids[None],
            segment_ids=batch.segments[None],
            adapter=self.adapter,
            ids_on_host=host.input_ids[None],
            segments_on_host=host.segments[None],
            **batch.inputs,
        )
        targets_N = batch.targets
        hidden_ND = hidden_1TD[0].index_select(0, targets_N - 1)
        ids_N = batch.input_ids[targets_N]
        return token_losses(self.model.language.head, hidden_ND, ids_N, self.chunk), targets_N


class PreferenceObjective(Objective):
    """DPO on pairs: segments 2i and 2i + 1 of a batch are the chosen and the rejected answer to one prompt.

    `beta`: how dear it is to leave the reference. `nll_weight`: of the chosen side's mean cross-entropy, which keeps
    its probability from falling along with the rejected one's; 0: plain DPO.
    Source: arXiv 2305.18290; the NLL term, arXiv 2404.19733, equation 1.
    """

    measures = ("margin", "accuracy", "chosen_logprob", "nll")
    """Of a pair: beta times how much more than the reference the policy prefers the chosen side (the difference of the
    implicit rewards); 1 where that is above 0; the log-probability of the chosen side, and its cross-entropy a token,
    in nats."""

    def __init__(
        self,
        model: Multimodal,
        *,
        beta: float = 0.1,
        nll_weight: float = 0.0,
        adapter: Adapter = "auto",
        chunk: int = CHUNK,
    ) -> None:
        super().__init__(model, adapter=adapter, chunk=chunk)
        self.beta, self.nll_weight = beta, nll_weight

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The loss in nats, float32 [], how many pairs it is the sum of, int64 [], and the sums of `measures`. Raises
        ValueError for a batch without `reference_logprobs`, or whose segments are not pairs."""
        segments = len(batch.cu_seqlens) - 1
        if batch.reference_logprobs is None or segments % 2:
            given = "none" if batch.reference_logprobs is None else "there"
            raise ValueError(
                f"{segments} segments, reference_logprobs {given}: DPO needs both sides of each pair, chosen first, "
                "and what the reference model says of them"
            )
        policy_S, count_S = self.logprobs(batch)
        margin_P = preference_margins(policy_S, batch.reference_logprobs, self.beta)
        losses_P, chosen_P = dpo_losses(margin_P), policy_S[::2]
        nll_P = -chosen_P / count_S[::2].clamp(min=1)
        if self.nll_weight:
            losses_P = losses_P + self.nll_weight * nll_P
        measures = (margin_P, (margin_P > 0).float(), chosen_P, nll_P)
        pairs = torch.tensor(segments // 2, device=losses_P.device)
        return losses_P.sum(), pairs, *(values.detach().sum() for values in measures)

    def logprobs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of each segment the log-probability of its targets together, float32 [S], and how many they are, int64 [S].
        With the reference model, without gradients: what `Batch.reference_logprobs` holds."""
        losses_N, targets_N = self.losses(batch)
        segment_N = batch.segments[targets_N]
        sums_S = losses_N.new_zeros(len(batch.cu_seqlens) - 1).index_add(0, segment_N, -losses_N)
        return sums_S, torch.bincount(segment_N, minlength=len(sums_S))


class PolicyObjective(Objective):
    """GRPO: each segment is an answer that a policy drew, with its advantage over the others to the same prompt.

    The loss of an answer is the mean over its tokens of the clipped loss and `beta` times the KL estimate. `beta`: how
    dear it is to leave the reference; 0: it is free. `clip_ratio`: by which factor a token may become likelier or less
    likely than it was when it was drawn, before the gradient ends.
    Source: DeepSeekMath, arXiv 2402.03300, equations 3 and 4; outcome supervision, section 4.1.2.
    """

    measures = ("kl", "clipped", "drift")
    """Of an answer, means over its tokens: the KL estimate in nats; the share that clipping held; by how much less
    likely than when it was drawn a token has become, in nats."""

    def __init__(
        self,
        model: Multimodal,
        *,
        beta: float = 0.1,
        clip_ratio: float = 0.2,
        adapter: Adapter = "auto",
        chunk: int = CHUNK,
    ) -> None:
        super().__init__(model, adapter=adapter, chunk=chunk)
        self.beta, self.clip_ratio = beta, clip_ratio

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The loss in nats, float32 [], how many answers it is the sum of, int64 [], and the sums of `measures`. An
        answer without a target counts for nothing. Raises ValueError for a batch without `drawn`, or one that does not
        fit it."""
        losses_N, targets_N = self.losses(batch)
        segments, drawn = len(batch.cu_seqlens) - 1, batch.drawn
        there = None if drawn is None else [len(values) for values in drawn]
        if drawn is None or there != [segments, len(losses_N), len(losses_N)]:
            of = "none" if there is None else "of {}, {} and {}".format(*there)
            raise ValueError(
                f"{segments} segments with {len(losses_N)} targets, advantages, old and base log-probabilities {of}:"
                " GRPO needs the advantage of each segment, and what each target was when it was drawn and to the"
                " reference"
            )
        segment_N, policy_N = batch.segments[targets_N], -losses_N
        clipped_N, held_N = clipped_losses(policy_N, drawn.old_logprobs, drawn.advantages[segment_N], self.clip_ratio)
        kl_N = kl_estimates(policy_N, drawn.base_logprobs)
        counts_S = torch.bincount(segment_N, minlength=segments)
        weight_N = 1 / counts_S[segment_N]  # the mean over an answer's tokens
        if self.beta:
            clipped_N = clipped_N + self.beta * kl_N
        loss = (clipped_N * weight_N).sum()
        measures = (kl_N, held_N.float(), drawn.old_logprobs - policy_N)
        return loss, (counts_S > 0).sum(), *((values.detach() * weight_N).sum() for values in measures)


@torch.no_grad()
def token_logprobs(model: Multimodal, window: Mapping[str, np.ndarray], config: ModelConfig, precision: str) -> Tensor:
    """What a model says of the targets of a window, in order: log-probabilities in nats, float32 [N]. `precision`: as
    of a stage of training."""
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return -Objective(model).losses(collate([window], config, device))[0]


@torch.no_grad()
def segment_logprobs(
    model: Multimodal, window: Mapping[str, np.ndarray], config: ModelConfig, precision: str
) -> tuple[Tensor, Tensor]:
    """What a model, as a reference, says of the segments of a window: the log-probability of the targets of each
    together in nats, float32 [S], and how many they are, int64 [S]. `precision`: as of a stage of training."""
    device = next(model.parameters()).device
    batch = collate([window], config, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return PreferenceObjective(model).logprobs(batch)
