"""The pipelines there are, by name: what a config's `pipeline` may say. There is no other list.

A pipeline is its config class: name, recipe and all that the recipe can do (pipelines/frame/recipe.py). A new one is a
module with such a class, a line here and a file in conf/.
"""

from __future__ import annotations

from gristmill.pipelines.evaluate import EvaluateConfig
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.instruct import InstructConfig
from gristmill.pipelines.mixture import MixtureConfig
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.preference import PreferenceConfig
from gristmill.pipelines.reason.grpo import GrpoConfig
from gristmill.pipelines.reason.reasoning import ReasoningConfig
from gristmill.pipelines.speech import SpeechConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.pipelines.train import TrainConfig
from gristmill.pipelines.vision import VisionConfig
from gristmill.pipelines.web import WebConfig

PIPELINES: dict[str, type[PipelineConfig]] = {
    "web": WebConfig,
    "instruct": InstructConfig,
    "preference": PreferenceConfig,
    "vision": VisionConfig,
    "speech": SpeechConfig,
    "tokenizer": TokenizerConfig,
    "mixture": MixtureConfig,
    "model": ModelRunConfig,
    "evaluate": EvaluateConfig,
    "train": TrainConfig,
    "reasoning": ReasoningConfig,
    "grpo": GrpoConfig,
}
