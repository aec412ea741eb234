"""What training may have done to weights: frozen parts are bit for bit as they were, trained ones have changed.

Both are asked of weights that were read back from where they are stored, not of the trainer's memory. A tensor is
compared by its bits: a weight that is off by its last place, a zero of another sign or a NaN is another weight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of, tensors_of, trainable


class Stored(Mapping[str, Tensor]):
    """The tensors of safetensors files by name, each read when it is asked for, by safetensors alone: so that a fault
    of the loader of models is not in both sides of a comparison."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._places: dict[str, Path] = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                self._places |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def changed_tensors(model: Multimodal, base: Mapping[str, Tensor], part: Part) -> list[str]:
    """Names of the tensors of a part that are not, bit for bit, those of its base; missing and additional ones too."""
    tensors = tensors_of(model, part)
    return sorted(
        name
        for name in {*tensors, *base}
        if name not in tensors or name not in base or not same_bits(tensors[name], base[name])
    )


@dataclass(frozen=True)
class PartChange:
    """Of a trained part: how many tensors it trains; those that are what they were; those with a NaN or an infinity."""

    tensors: int
    unchanged: tuple[str, ...]
    infinite: tuple[str, ...]


def part_changes(
    config: ModelConfig, trained: Collection[Part], start: Callable[[str], Tensor], result: Mapping[str, Tensor]
) -> dict[Part, PartChange]:
    """Of each trained part. `start`: what a tensor was before, by its name; `result`: what it is now.

    Tensors that never reach the output are not trained, and are not looked at; what weight decay alone moved counts as
    unchanged. Raises ValueError for a part that no model of this config has, KeyError for a tensor that `result` lacks.
    """
    with torch.device("meta"):  # names alone
        names = trainable(Multimodal(config), trained)
    changes: dict[Part, PartChange] = {}
    for part in sorted(trained):
        own = [name for name in names if part_of(name) == part]
        unchanged, infinite = [], []
        for name in own:
            value = result[name]
            before = start(name)
            wide = torch.promote_types(value.dtype, before.dtype)  # weights that are trained may be stored wider
            if same_bits(value.to(wide), before.to(wide)) or only_scaled(value, before):
                unchanged.append(name)
            if not bool(torch.isfinite(value).all()):
                infinite.append(name)
        changes[part] = PartChange(len(own), tuple(unchanged), tuple(infinite))
    return changes


def only_scaled(value: Tensor, before: Tensor) -> bool:
    """Whether a tensor is what it was before times one number: weight decay alone makes it so, without a gradient."""
    if value.shape != before.shape or before.numel() < 2:
        return False
    wide, start = value.double().flatten(), before.double().flatten()
    square = start.dot(start)
    if not square > 0:
        return False
    factor = wide.dot(start) / square
    # Each of many steps rounds to float32; what a gradient adds is not in proportion to what was there.
    return bool((wide - factor * start).abs().max() <= 1e-5 * start.abs().max())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.cpu().contiguous().view(torch.uint8), b.cpu().contiguous().view(torch.uint8))
