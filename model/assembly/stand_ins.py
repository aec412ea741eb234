"""Encoders that a model lacks and its format asks for: transformers' phi4_multimodal sees and hears, or is no such.

A model that has learnt to see and not to hear is written with a stand-in for what it lacks: as small as the format
allows, from a fixed seed, never trained. Nothing that the model can do depends on it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from gristmill.model.phi4.config import AudioConfig, ModelConfig, VisionConfig
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import check_parts

_WIDTH = 16  # of encoders that nothing goes through


def add_stand_ins(model: Multimodal) -> tuple[str, ...]:
    """Gives a model with one of images and sound the other, in the type of its language model. -> The parts that were
    added, none where it has both or neither."""
    config = model.config
    if (config.vision is None) == (config.audio is None):
        return ()
    whole = _completed(config)
    added: list[str] = []
    kind, device = model.language.norm.weight.dtype, model.language.norm.weight.device
    for modality in MODALITIES:
        if getattr(config, modality.name) is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                modules = modality.parts(whole)
            for name, module in modules.items():
                model.add_module(name, module.to(device, kind).eval())
                added.append(name)
    model.config = whole
    check_parts(model)
    return tuple(added)


def _completed(config: ModelConfig) -> ModelConfig:
    """With the token beside that of the other modality, as in the release, where images come first."""
    if config.audio is None:
        assert config.vision is not None
        token = _beside(config.vision.token_id, 1, config.text.vocab_size)
        small = {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "nemo_conv_channels": _WIDTH}
        return replace(config, audio=AudioConfig(**small, num_blocks=1, num_attention_heads=1, audio_token_id=token))
    token = _beside(config.audio.token_id, -1, config.text.vocab_size)
    small = {"hidden_size": _WIDTH, "intermediate_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": 1}
    return replace(config, vision=VisionConfig(**small, image_token_id=token))


def _beside(token: int, step: int, vocab: int) -> int:
    return token + step if 0 <= token + step < vocab else token - step
