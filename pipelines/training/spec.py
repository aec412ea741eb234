"""A stage of training as a recipe gives it: a stage of the trainer, whose versions may be those that are to be made.

What is wrong with a stage by itself is refused when the config is read, by the name of its field, in the words of
`model.train.stage.TrainStage`; whether it fits its versions, when they are looked up (pipelines/training/lookup.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from pydantic import Field, model_validator

from gristmill.filters.overlap import Overlap
from gristmill.model.augment.spec_augment import SpecAugment
from gristmill.model.phi4.parts import Part
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import Schedule
from gristmill.model.train.stage import TrainStage
from gristmill.pipelines.settings.config import Root

STAGE = "stage:"
"""Before the name of an earlier stage, in place of a version."""
_MADE = "made@v1"
"""Stands for the version of a stage that is still to come: what is checked does not depend on which it is."""


class StageSettings(Root):
    """How a stage is trained, whatever it is trained on: fields of `model.train.stage.TrainStage`, by the same names.
    `epochs`: how long, of the mixture's tokens, in place of `steps` or `tokens`."""

    batch: int
    optim: Optim
    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = Field(default=None, gt=0)
    schedule: Schedule = Schedule()
    gates: tuple[str, ...] = ("frozen_parts", "trained_parts")
    seed: int = 0
    precision: str = "float32"
    max_skipped: int = 3
    beta: float = 0.1
    clip_ratio: float = 0.2


class StageSpec(StageSettings):
    """A stage as a recipe gives it: the fields of `model.train.stage.TrainStage`, by the same names.

    `init_from` may name an earlier stage of the recipe, as `stage:pretrain`, or `stage:a2/audio_projector_speech` for a
    copy of another of its parts, and `reference` too. `held_out`: exact versions of evaluation data, no record of which
    may be in what is trained on, by the gate `contamination`; `overlap`: what counts as being in it.
    """

    name: str
    trainable: tuple[Part, ...]
    data: str
    init_from: dict[Part, str] = {}
    loss: str = "cross_entropy"
    nll_weight: float = 0.0
    reference: str = ""
    spec_augment: SpecAugment | None = None
    held_out: tuple[str, ...] = ()
    overlap: Overlap = Overlap()

    @model_validator(mode="after")
    def _can_be(self) -> StageSpec:
        if self.epochs is not None and (self.steps is not None or self.tokens is not None):
            raise ValueError(f"epochs={self.epochs}: say how long by one of steps, tokens, epochs")
        self.resolved(self.init_from, 1 << 40, self.reference)
        if ("contamination" in self.gates) != bool(self.held_out):
            raise ValueError(
                f"held_out={list(self.held_out)}, gates={list(self.gates)}: the gate contamination looks for records of"
                " held_out; give both, or neither"
            )
        if self.name == "limit":
            raise ValueError("name='limit': names in .limit are for runs with a limit; give another")
        return self

    def resolved(self, init_from: Mapping[Part, str], data_tokens: int, reference: str) -> TrainStage:
        """The stage on a mixture of so many tokens. `init_from`, `reference`: exact versions; of an earlier stage that
        is not done, its name as it stands in the recipe. Raises ValueError."""
        values = {field.name: getattr(self, field.name) for field in fields(TrainStage)}
        if self.epochs is not None:
            values["tokens"] = max(1, round(self.epochs * data_tokens))
        values["reference"] = _exactly(reference)
        values["init_from"] = {part: _exactly(ref) for part, ref in init_from.items()}
        return TrainStage(**{**values, "trainable": frozenset(self.trainable)})


def _exactly(ref: str) -> str:
    """As the trainer takes it: of an earlier stage that is not done, an exact version in place of its name."""
    model, slash, part = ref.partition("/")
    return f"{_MADE}{slash}{part}" if model.startswith(STAGE) else ref
