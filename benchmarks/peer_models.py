"""transformers' models over the very weights of ours, and adapters that begin as ours do: peers of benchmarks on a GPU.

Weights are shared, not copied: they are read alone, and a card of 80 GB has no room for a second set beside the caches.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gristmill.model.hf import names
from gristmill.model.hf.adapters import TARGETS
from gristmill.model.hf.config import to_hf
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal

LIGER = "liger_kernel"


def missing(package: str) -> str | None:
    """Why a peer cannot be run, where its package is not installed."""
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def text_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Multimodal:
    """Random weights, drawn on the device; adapters stay float32, as they are trained."""
    with torch.device(device):
        model = Multimodal.seeded(config, 0)
    for name, parameter in model.named_parameters():
        if not names.is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    return model.eval()


def transformers_model(model: Multimodal, attention: str = "sdpa") -> Any:
    """transformers' model of a text model, on its weights, without its adapters. `attention`: as transformers calls the
    implementation."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    weight = model.language.norm.weight
    values = to_hf(model.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device(weight.device):
        # Weights of its own, which go again: made without any, it would lack the buffers that no checkpoint has.
        reference = AutoModelForCausalLM.from_config(config, dtype=weight.dtype, attn_implementation=attention)
    shared = {names.to_hf(name): tensor for name, tensor in model.state_dict().items() if not names.is_adapter(name)}
    if model.config.text.tie_word_embeddings:
        shared[names.HEAD] = shared[names.to_hf("language.embed_tokens.weight")]
    reference.load_state_dict(shared, assign=True)
    reference.tie_weights()
    return reference.eval().requires_grad_(False)


def with_peft(reference: Any, lora: LoraConfig) -> Any:
    """The model with peft's adapter on the four linears of each layer; its matrices are float32, as peft has it."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    config = PeftConfig(
        r=lora.r, lora_alpha=int(lora.lora_alpha), lora_dropout=lora.lora_dropout, target_modules=TARGETS, bias="none"
    )
    return get_peft_model(reference, config)


def with_liger(reference: Any) -> Any:
    """The model with liger-kernel's norms, MLP and loss, which never has all logits. Not its rotary embedding, which
    turns whole heads, and this model three quarters of each."""
    from liger_kernel.transformers import apply_liger_kernel_to_phi3

    apply_liger_kernel_to_phi3(rope=False, model=reference)
    return reference


def matrices(model: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """The matrices of an adapter by our names, of a model of ours or of peft's."""
    named = ((name, parameter) for name, parameter in model.named_parameters())
    ours_or_peft = ((name if names.is_adapter(name) else names.from_peft(name, adapter), each) for name, each in named)
    return {name: each for name, each in ours_or_peft if f".adapters.{adapter}." in name and names.is_adapter(name)}


@torch.no_grad()
def begin_anew(by_name: Mapping[str, nn.Parameter]) -> None:
    """An adapter as it begins: A drawn by its place among the names, B zero. The same for every arm."""
    for number, name in enumerate(sorted(by_name)):
        parameter = by_name[name]
        if name.endswith(".A"):
            pick = torch.Generator(parameter.device).manual_seed(number)
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=pick)
        else:
            parameter.zero_()


def bytes_of(model: nn.Module) -> int:
    """Of its parameters, each once."""
    return sum(parameter.nbytes for parameter in {id(each): each for each in model.parameters()}.values())
