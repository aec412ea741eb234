"""The shape of the model of a stage: of a whole model's, the parts that the stage trains or starts from, and no other.

A stage of text has a model of text; the one that adds an encoder has the section of the encoder too. A part fits a
stage if the sections of the config that its tensors come from are the same in both. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.parts import ADAPTERS, Part

SECTIONS: Mapping[Part, str] = {
    Part.VISION_ENCODER: "vision",
    Part.VISION_PROJECTOR: "vision",
    Part.AUDIO_ENCODER: "audio",
    Part.AUDIO_PROJECTOR_SPEECH: "audio",
    Part.AUDIO_PROJECTOR_VISION: "audio",
}
"""The optional section of a config that each part of an encoder needs."""
_READS_LANGUAGE = frozenset(Part) - {Part.VISION_ENCODER, Part.AUDIO_ENCODER}
"""Parts whose tensors have sizes of the language model's."""


def parts_of(config: ModelConfig) -> set[Part]:
    """The parts that a model of this config has."""
    adapters = {ADAPTERS[adapter.name] for adapter in config.adapters}
    encoders = {part for part, section in SECTIONS.items() if getattr(config, section) is not None}
    return {Part.LANGUAGE, *encoders, *adapters}


def of_stage(whole: ModelConfig, taken: Collection[Part], trained: Collection[Part]) -> ModelConfig:
    """The config of a stage that starts from the parts `taken` and trains `trained`. Adapters that it makes anew come
    after those that it takes. What `whole` lacks stays away."""
    wanted = {*taken, *trained}
    sections = {SECTIONS[part] for part in wanted if part in SECTIONS}
    known = [adapter for adapter in whole.adapters if ADAPTERS[adapter.name] in taken]
    fresh = [adapter for adapter in whole.adapters if ADAPTERS[adapter.name] in wanted and adapter not in known]
    return replace(
        whole,
        vision=whole.vision if "vision" in sections else None,
        audio=whole.audio if "audio" in sections else None,
        adapters=(*known, *fresh),
    )


def adapter_of(config: ModelConfig, part: Part) -> LoraConfig | None:
    """The adapter that a part is; None: it is none, or the model has not got it."""
    return next((adapter for adapter in config.adapters if ADAPTERS[adapter.name] == part), None)


def differing(part: Part, stored: ModelConfig, needed: ModelConfig) -> Iterator[str]:
    """In what a part of a model of one config does not fit one of another: a line for each field."""
    if part == Part.LANGUAGE:
        yield from _fields("text", stored.text, needed.text)
    elif part in _READS_LANGUAGE:
        for name in ("hidden_size", "num_hidden_layers"):
            yield from _field(f"text.{name}", getattr(stored.text, name), getattr(needed.text, name))
    if (section := SECTIONS.get(part)) is not None:
        yield from _fields(section, getattr(stored, section), getattr(needed, section))
    if part in ADAPTERS.values():
        yield from _fields(f"adapter {part}", adapter_of(stored, part), adapter_of(needed, part))


def _fields(name: str, stored: Any, needed: Any) -> Iterator[str]:
    if stored is None or needed is None:
        yield from _field(name, stored and "there", needed and "there")
        return
    for field in fields(needed):
        yield from _field(f"{name}.{field.name}", getattr(stored, field.name), getattr(needed, field.name))


def _field(name: str, stored: Any, needed: Any) -> Iterator[str]:
    if stored != needed:
        yield f"its {name} is {stored}, the model's is {needed}"
