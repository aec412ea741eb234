"""The pipelines there are, by name: what a config's `pipeline` may say. There is no other list.

A pipeline is its config class: name, recipe and all that the recipe can do (pipelines/recipe.py). A new one is a module
with such a class, a line here and a file in conf/.
"""

from __future__ import annotations

from pipelines.instruct import InstructConfig
from pipelines.mixture import MixtureConfig
from pipelines.model import ModelRunConfig
from pipelines.recipe import PipelineConfig
from pipelines.tokenizer import TokenizerConfig
from pipelines.web import WebConfig

PIPELINES: dict[str, type[PipelineConfig]] = {
    "web": WebConfig,
    "instruct": InstructConfig,
    "tokenizer": TokenizerConfig,
    "mixture": MixtureConfig,
    "model": ModelRunConfig,
}
