"""The pipelines there are, by name: what a config's `pipeline` may say. There is no other list.

A pipeline is its config class: name, recipe and all that the recipe can do (pipelines/frame/recipe.py). A new one is a
module with such a class, a line here and a file in conf/. A module is imported when its pipeline is asked for: each
brings its stages with it, and together they take longer to import than a small run takes.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module

from gristmill.pipelines.frame.recipe import PipelineConfig


class Registry(MutableMapping[str, type[PipelineConfig]]):
    """Name -> config class, in the order of the list. `classes`: name -> "module:Class" of this package."""

    def __init__(self, classes: dict[str, str]) -> None:
        self._classes: dict[str, str | type[PipelineConfig]] = dict(classes)

    def __getitem__(self, name: str) -> type[PipelineConfig]:
        config = self._classes[name]
        if isinstance(config, str):
            module, _, class_name = config.partition(":")
            config = self._classes[name] = getattr(import_module(f"gristmill.pipelines.{module}"), class_name)
        return config

    def __setitem__(self, name: str, config: type[PipelineConfig]) -> None:
        self._classes[name] = config

    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


PIPELINES = Registry(
    {
        "web": "web:WebConfig",
        "instruct": "instruct:InstructConfig",
        "preference": "preference:PreferenceConfig",
        "vision": "vision:VisionConfig",
        "speech": "speech:SpeechConfig",
        "tokenizer": "tokenizer:TokenizerConfig",
        "classifier": "training.classifier:ClassifierConfig",
        "mixture": "mixture:MixtureConfig",
        "model": "model:ModelRunConfig",
        "evaluate": "evaluate:EvaluateConfig",
        "train": "train:TrainConfig",
        "reasoning": "reason.reasoning:ReasoningConfig",
        "grpo": "reason.grpo:GrpoConfig",
    }
)
