"""The model that a stage starts from: parts as they are stored, and fresh ones that follow from the seed alone.

A fresh part has the same values whatever other parts the model has, so that a stage of text and one of everything
start from the same language model. What is trained is float32, what is not stays as it is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from gristmill.model.assembly.adapters import add_adapters
from gristmill.model.assembly.shapes import parts_of
from gristmill.model.hf.checkpoint import Device, load_parts, part_files
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import ADAPTERS, Part, parameters_of


def starting_model(
    config: ModelConfig,
    stored: Iterable[Path],
    taken: Collection[Part],
    trained: Collection[Part],
    *,
    seed: int,
    folder: Path,
    device: Device = "cpu",
) -> Multimodal:
    """A model of `config`. `stored`: safetensors files of the parts `taken`; all others are fresh, by `seed`. Those of
    `trained` are float32. `folder`: scratch space for fresh parts, no longer needed afterwards.

    Raises ValueError for files that are not of these parts, or of another shape.
    """
    fresh = parts_of(config) - set(taken)
    new_adapters = [adapter for adapter in config.adapters if ADAPTERS[adapter.name] in fresh]
    base = replace(config, adapters=tuple(adapter for adapter in config.adapters if adapter not in new_adapters))
    files = [*stored, *_fresh_files(base, fresh, seed, folder)]
    model = load_parts(base, files, device=device)
    add_adapters(model, new_adapters, seed)
    for part in trained:
        for _, parameter in parameters_of(model, part):
            parameter.data = parameter.data.float()
    return model


def _fresh_files(config: ModelConfig, parts: Collection[Part], seed: int, folder: Path) -> list[Path]:
    """Files of new parts that are no adapters. In files, as the others are: the model that is filled from them has no
    memory of its own before, so that it exists once."""
    files: list[Path] = []
    if Part.LANGUAGE in parts:
        text = ModelConfig(config.text)
        files += part_files(Multimodal.seeded(text, seed), Part.LANGUAGE, folder)
    for modality in MODALITIES:
        if getattr(config, modality.name) is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            modules = modality.parts(config)
        for name, module in modules.items():
            if Part(name) in parts:
                files += part_files(_only(name, module), Part(name), folder)
    return files


def _only(name: str, module: nn.Module) -> nn.Module:
    """A module under the name that it has in the model."""
    holder = nn.Module()
    holder.add_module(name, module)
    return holder
