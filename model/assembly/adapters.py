"""Adapters of a model that is already there: fresh ones on an imported base, and trained ones merged into it.

A base that came without adapters, or with those of somebody else, is trained further by adding adapters of one's own:
beside those it has (unmerged), or after theirs have become part of its weights (merged; peft: `merge_and_unload`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from gristmill.model.phi4.config import LoraConfig
from gristmill.model.phi4.lora import MultiLoRALinear
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import ADAPTERS, check_parts


def add_adapters(model: Multimodal, adapters: Sequence[LoraConfig], seed: int) -> None:
    """Puts fresh adapters in every linear of the decoder's layers, float32, on the device of the weights; they change
    nothing before they are trained. `seed` decides their values alone; the global generator is left as it was.

    Raises ValueError for a name that is not known, or that the model has.
    """
    present = [adapter.name for adapter in model.config.adapters]
    for adapter in adapters:
        if adapter.name not in ADAPTERS:
            raise ValueError(f"adapter {adapter.name!r} is not known; allowed are {sorted(ADAPTERS)}")
        if adapter.name in present:
            raise ValueError(
                f"adapter {adapter.name!r} is there already: merge it first, or train the one that is there"
            )
        present.append(adapter.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for adapter in adapters:
            for linear in _linears(model):
                linear.add(adapter)
    model.config = replace(model.config, adapters=(*model.config.adapters, *adapters))
    check_parts(model)


def merge_adapter(model: Multimodal, name: str) -> None:
    """Makes an adapter part of the language model's weights, for every token, text too: another base than before, and
    its name is free for a fresh adapter. Raises ValueError for an adapter that the model does not have."""
    present = [adapter.name for adapter in model.config.adapters]
    if name not in present:
        raise ValueError(f"adapter {name!r}: this model has {present or 'none'}")
    for linear in _linears(model):
        linear.merge(name)
    model.config = replace(model.config, adapters=tuple(each for each in model.config.adapters if each.name != name))


def _linears(model: Multimodal) -> Iterator[MultiLoRALinear]:
    """Those that take adapters, in the order of the model."""
    return (module for module in model.language.layers.modules() if isinstance(module, MultiLoRALinear))
