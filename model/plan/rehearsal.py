"""A step of training without its memory: the model's own code on tensors that have a shape and no numbers.

What a step needs is not written down in formulas, which would be wrong after the next change to a model: its passes
and the optimizer run as they are, on fake tensors, and every storage is counted from when an operation makes it to when
the last reference to it is gone, which is when torch frees it. Tokens, segments and masks are real: they decide shapes.
Scratch memory inside a kernel is not seen. Source: torch's notes on fake tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, counts, part_of
from gristmill.model.plan.operations import Phase, Watch, size
from gristmill.model.train import optim
from gristmill.model.train.gradients import Gradients
from gristmill.model.train.loop import trained_parameters
from gristmill.model.train.objective import Batch, Drawn
from gristmill.model.train.stage import TrainStage


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors. What lives as long as the training: `parameters` by part, `gradients`, `optimizer`; with it one
    batch. On top of that, at the worst moment, `activations`: of a forward and backward pass, with all that comes and
    goes in it; `update`: what the optimizer's step and clipping need in between."""

    parameters: Mapping[Part, int]
    gradients: int
    optimizer: int
    batch: int
    activations: int
    update: int

    @property
    def standing(self) -> int:
        """What lives as long as the training."""
        return sum(self.parameters.values()) + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """The most that is ever live."""
        return self.standing + max(self.batch + self.activations, self.update)


@dataclass(frozen=True)
class Rehearsal:
    """What a step is: `memory`; one pass forward and backward; clipping and optimizer; numbers of parameters by part,
    of all and of those that are trained; and how it was rehearsed."""

    memory: Memory
    of_pass: Phase
    of_update: Phase
    parameters: Mapping[Part, int]
    trained: Mapping[Part, int]
    precision: str
    recompute: float


def rehearse(
    stage: TrainStage,
    config: ModelConfig,
    batch: Batch,
    objective: Callable[[Multimodal], nn.Module],
    *,
    stored: Mapping[Part, torch.dtype] | None = None,
    recompute: float = 0.0,
) -> Rehearsal:
    """A step whose passes are as `batch` each, of which the integers have to be real and the rest may be on the meta
    device. `objective`: what the stage minimises, of a model; `stored`: the types of parts that are not trained, else
    float32; `recompute`: the share of blocks that keep their inputs alone. Raises as `trained_parameters`, and what
    the model raises for a batch that does not fit it."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = _blank_model(config, stage.trainable, stored or {}, fake).train()
    with fake:
        module = objective(model)
    checkpoint_activations(model, recompute)
    trained = trained_parameters(stage, model, module)
    batch = _blank_batch(batch, fake)
    watch = Watch()
    with watch:
        parameters = _standing(model, watch)
        with fake:
            gradients = Gradients(trained)
        grown = watch.live
        optimizer = optim.build(stage.optim, model, trained, module)
        optimizer.step()  # makes its state, which is there in every later step
        state, standing = watch.live - grown, watch.live

        watch.begin()
        loaded = watch.add(*_tensors(batch))
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.precision == "bfloat16"):
            loss, *_ = module(batch)
        if loss.requires_grad:
            loss.backward()
        del loss
        activations, of_pass = watch.peak - standing - loaded, watch.phase()

        del batch
        watch.begin()
        # As `Gradients.mean`, but for the norm, which fake tensors have no number of.
        gradients.flat.div_(1)
        nn.utils.clip_grad_norm_(trained.values(), math.inf if stage.optim.clip is None else stage.optim.clip)
        optimizer.step()
        memory = Memory(parameters, size(gradients.flat), state, loaded, activations, watch.peak - standing)
    numbers = counts(model), _numbers(trained)
    return Rehearsal(memory, of_pass, watch.phase(), *numbers, stage.precision, recompute)


def _blank_model(
    config: ModelConfig, trained: Iterable[Part], stored: Mapping[Part, torch.dtype], fake: FakeTensorMode
) -> Multimodal:
    """A model of fake tensors; parts that are trained are float32."""
    kinds = {**stored, **dict.fromkeys(trained, torch.float32)}
    with torch.device("meta"):
        model = Multimodal(config)
    for owner, module in model.named_modules():
        place = f"{owner}." if owner else ""
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            kind = kinds.get(part_of(place + leaf), torch.float32)
            with fake:
                setattr(module, leaf, nn.Parameter(torch.empty(parameter.shape, dtype=kind)))
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            with fake:
                setattr(module, leaf, torch.empty(buffer.shape, dtype=buffer.dtype))
    return model


def _blank_batch(batch: Batch, fake: FakeTensorMode) -> Batch:
    """The batch with fake images, clips and log-probabilities; masks and sizes decide shapes, and stay."""

    def blank(tensor: Tensor) -> Tensor:
        with fake:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    media = {modality.inputs[0] for modality in MODALITIES}
    inputs = {name: blank(tensor) if name in media else tensor for name, tensor in batch.inputs.items()}
    references = None if batch.reference_logprobs is None else blank(batch.reference_logprobs)
    drawn = None if batch.drawn is None else Drawn(*map(blank, batch.drawn))
    return replace(batch, inputs=inputs, reference_logprobs=references, drawn=drawn)


def _standing(model: Multimodal, watch: Watch) -> dict[Part, int]:
    """Counts parameters and buffers as live -> bytes by part, in the order of `Part`."""
    sizes: dict[Part, int] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        sizes[part_of(name)] = sizes.get(part_of(name), 0) + watch.add(tensor)
    return {part: sizes[part] for part in Part if part in sizes}


def _numbers(trained: Mapping[str, nn.Parameter]) -> dict[Part, int]:
    """Numbers of trained parameters of the model by part, in the order of `Part`."""
    totals: dict[Part, int] = {}
    for name, parameter in trained.items():
        if not name.startswith("objective."):
            totals[part_of(name)] = totals.get(part_of(name), 0) + parameter.numel()
    return {part: totals[part] for part in Part if part in totals}


def _tensors(batch: Batch) -> list[Tensor]:
    every = [batch.input_ids, batch.loss_mask, batch.cu_seqlens, batch.reference_logprobs, *batch.inputs.values()]
    every += batch.drawn or ()
    return [tensor for tensor in every if tensor is not None]
