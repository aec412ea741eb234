"""Parts of the model: every parameter belongs to exactly one, so that "frozen" can be asserted and stages can be data.

The children of `Multimodal` are named as parts; an adapter's matrices lie beside the linears that they adapt, and
belong to the part of their adapter. A new modality is a row in each table here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to import, and a recipe that names parts needs none
    from torch import Tensor, nn


class Part(StrEnum):
    """What a training stage may train, a checkpoint may replace and a digest may freeze."""

    LANGUAGE = "language"
    VISION_ENCODER = "vision_encoder"
    VISION_PROJECTOR = "vision_projector"
    LORA_VISION = "lora_vision"
    AUDIO_ENCODER = "audio_encoder"
    AUDIO_PROJECTOR_SPEECH = "audio_projector_speech"
    AUDIO_PROJECTOR_VISION = "audio_projector_vision"
    LORA_SPEECH = "lora_speech"


ADAPTERS = {"vision": Part.LORA_VISION, "speech": Part.LORA_SPEECH}
"""Adapters by name; other names are refused."""

_ADAPTER = re.compile(r"\.adapters\.(\w+)\.")


def part_of(name: str) -> Part:
    """The part of a parameter or buffer, by its name in `Multimodal.state_dict()`. Raises ValueError if it has none."""
    adapter = _ADAPTER.search(name)
    try:
        return ADAPTERS[adapter[1]] if adapter else Part(name.split(".", 1)[0])
    except (KeyError, ValueError):
        raise ValueError(f"{name}: belongs to no part; parts are {', '.join(Part)}") from None


def parameters_of(model: nn.Module, part: Part) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of a part, by name, in the order of the model."""
    return ((name, parameter) for name, parameter in model.named_parameters() if part_of(name) == part)


def tensors_of(model: nn.Module, part: Part) -> dict[str, Tensor]:
    """All that a checkpoint holds of a part: parameters and persistent buffers, by name."""
    return {name: tensor for name, tensor in model.state_dict().items() if part_of(name) == part}


def trainable(model: nn.Module, parts: Collection[Part]) -> dict[str, nn.Parameter]:
    """Makes the parameters of `parts` trainable and freezes all others, gradients that they have included: those that
    are trained, by name, in the order of the model. What never reaches the output stays frozen whatever its part: an
    optimiser that decays weights would move it without a gradient.

    Raises ValueError for no part, and for one that is none or that the model does not have.
    """
    wanted, present = {Part(part) for part in parts}, set(counts(model))
    if not wanted or (lacking := sorted(wanted - present)):
        lack = "no part is to be trained" if not wanted else f"{lacking[0]}: this model has no such part"
        raise ValueError(f"{lack}; it has {', '.join(part for part in Part if part in present)}")
    never = {id(parameter) for parameter in _never_computed(model)}
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in wanted and id(parameter) not in never)
        if parameter.requires_grad:
            trained[name] = parameter
        else:
            parameter.grad = None
    return trained


def _never_computed(model: nn.Module) -> Iterator[nn.Parameter]:
    from gristmill.model.phi4.vision import VisionEncoder

    for encoder in model.modules():
        if isinstance(encoder, VisionEncoder):
            for module in encoder.unused:
                yield from module.parameters()


def counts(model: nn.Module) -> dict[Part, int]:
    """Numbers of parameters of each part that the model has, in the order of `Part`."""
    totals: dict[Part, int] = {}
    for name, parameter in model.named_parameters():
        totals[part_of(name)] = totals.get(part_of(name), 0) + parameter.numel()
    return {part: totals[part] for part in Part if part in totals}


def check_parts(model: nn.Module) -> None:
    """Raises ValueError if a parameter or buffer belongs to no part, or two parts share a tensor or its memory."""
    owners: dict[object, tuple[str, Part]] = {}
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in tensors:
        part = part_of(name)
        # A tied parameter is one object under two names; a view is another object over the same memory. On the meta
        # device there is no memory to compare.
        for key in (id(tensor), None if tensor.is_meta else tensor.untyped_storage().data_ptr()):
            owner, owning_part = owners.setdefault(key, (name, part)) if key else (name, part)
            if owning_part != part:
                raise ValueError(f"{name} of {part} is the same tensor as {owner} of {owning_part}")
