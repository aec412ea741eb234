"""What a sequence may hold besides text: one row a modality. A new one is a file beside this, its processing, and a row
here, in `model.phi4.parts` and in `model.phi4.config.ModelConfig`.

The order is that of precedence: by sample, the first modality that a sample has decides its adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from gristmill.model.phi4 import audio, vision
from gristmill.model.phi4.config import ModelConfig

Inputs = Mapping[str, Tensor | None]
"""Processed tensors, by the reference's names."""


# `model` is Any below: its class stands in `multimodal`, which imports this table.
class Modality(NamedTuple):
    """`name`: the field of `ModelConfig`, whose `token` stands for each embedding. `inputs`: names of its tensors, the
    first of which says that there are any.

    `parts(config)`: its modules, by part. `encode(model, inputs)`: what its tokens are made of, [tokens, channels], in
    the order of images or clips. `project(model, encoded, beside)`: the embeddings, [tokens, hidden]; `beside(name)`
    tells of each token whether its sample has another modality, bool [tokens].
    """

    name: str
    adapter: str
    inputs: tuple[str, ...]
    parts: Callable[[ModelConfig], dict[str, nn.Module]]
    encode: Callable[[Any, Inputs], Tensor]
    project: Callable[[Any, Tensor, Callable[[str], Tensor]], Tensor]


MODALITIES = (
    Modality("vision", "vision", vision.INPUTS, vision.parts, vision.encode, vision.project),
    Modality("audio", "speech", audio.INPUTS, audio.parts, audio.encode, audio.project),
)
