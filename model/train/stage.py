"""A stage of training as data: what it starts from, which parts it trains, on which version, by which loss, how long.

What can be refused of a stage alone is refused here, before a worker starts, by the name of the field; whether it fits
a model and a mixture, `model.assembly.fits` says. Versions are exact, so a stage says the same in a year. Nothing here
opens a version: names are resolved above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from gristmill.model.augment.spec_augment import SpecAugment
from gristmill.model.phi4.parts import Part
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import PeakLaw, Schedule

LOSSES = ("cross_entropy", "dpo", "grpo", "siglip")
"""On targets; of preferences against precomputed references; of samples that were drawn, by their advantages; of images
and what is said of them, matched."""
ON_PAIRS = frozenset({"dpo"})
"""Losses of windows whose segments are pairs; all others learn what windows hold."""
ON_GRADED = frozenset({"grpo"})
"""Losses of windows whose segments are samples with advantages, wrong ones among them."""
COMPARES = ON_PAIRS | ON_GRADED
"""Losses for which models are asked of the windows before the training."""
COUNTED = {"dpo": "pairs", "grpo": "samples", "siglip": "images"}
"""What a loss is divided by, where that is not tokens to learn."""
LOSS_TRAINS = {"siglip": frozenset({Part.VISION_ENCODER})}
"""What a stage by a loss trains, and nothing else."""
BUILT_ALIKE = frozenset({Part.AUDIO_PROJECTOR_SPEECH, Part.AUDIO_PROJECTOR_VISION})
"""Parts of equal shape, of which one may start as a copy of another."""
PRECISIONS = ("float32", "bfloat16")
"""Of the operations of a pass; weights that are trained, gradients and the optimizer are float32 in any case."""
GATES = ("frozen_parts", "text", "vision", "speech", "trained_parts", "contamination", "preference")
"""What can be asked of a stage's result before it is committed."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_VERSION = re.compile(r"[^@\s]+@v[1-9][0-9]*")


class Origin(NamedTuple):
    """Where a part comes from: a part of a model, mostly the same one. `model`: a version, or a stage of a recipe."""

    model: str
    part: Part

    @classmethod
    def of(cls, part: Part, ref: str) -> Origin:
        """`ref`: `MODEL`, or `MODEL/PART` for a copy of another part. Raises ValueError for a part that is none, or of
        another shape."""
        model, slash, name = ref.partition("/")
        if not slash:
            return cls(model, part)
        source = _part(f"init_from.{part}", name)
        if part == source or not {part, source} <= BUILT_ALIKE:
            raise ValueError(
                f"init_from.{part}={ref!r}: allowed are copies of one of {', '.join(sorted(BUILT_ALIKE))} as the other"
            )
        return cls(model, source)


@dataclass(frozen=True)
class TrainStage:
    """One stage. Raises ValueError that names the field.

    `init_from`: the exact version of each part that it starts from, `hear.a2@v1/audio_projector_speech` for a copy of
    another part; parts not named here start from `seed`.
    `trainable`: parts that it trains, all others stay the same bytes. `data`: the exact version of its mixture.
    `batch`: windows of a step, on all ranks together. `steps` or `tokens`: how long, one of them; a rate that follows
    the law needs tokens. `precision`: of a pass through the model, by autocast. `max_skipped`: steps in a row whose
    loss or gradient may be no finite number. `beta`, `nll_weight`: of the loss `dpo`; `beta`, `clip_ratio`: of `grpo`
    (model.train.objective), whose `reference` is the exact version of a model that it is held to; "": the one that the
    stage starts from. `spec_augment`: what is hidden of clips; None: nothing.
    """

    name: str
    trainable: frozenset[Part]
    data: str
    batch: int
    optim: Optim
    init_from: Mapping[Part, str] = field(default_factory=dict)
    loss: str = "cross_entropy"
    steps: int | None = None
    tokens: int | None = None
    schedule: Schedule = Schedule()
    gates: tuple[str, ...] = ("frozen_parts", "trained_parts")
    seed: int = 0
    precision: str = "float32"
    max_skipped: int = 3
    beta: float = 0.1
    nll_weight: float = 0.0
    clip_ratio: float = 0.2
    reference: str = ""
    spec_augment: SpecAugment | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r}: allowed are 1 to 60 of 0-9 a-z _ -, the first one of 0-9 a-z")
        object.__setattr__(self, "trainable", frozenset(_part("trainable", part) for part in self.trainable))
        if not self.trainable:
            raise ValueError(f"trainable is empty: stage {self.name!r} trains nothing; allowed are {', '.join(Part)}")
        sources = {_part("init_from", part): version for part, version in self.init_from.items()}
        for part, version in sources.items():
            _exact(f"init_from.{part}", Origin.of(part, version).model)
        object.__setattr__(self, "init_from", MappingProxyType(sources))
        _exact("data", self.data)
        _chosen("loss", (self.loss,), LOSSES)
        if (trains := LOSS_TRAINS.get(self.loss)) is not None and self.trainable != trains:
            raise ValueError(
                f"trainable={sorted(map(str, self.trainable))}: a stage with loss={self.loss} trains"
                f" {', '.join(sorted(trains))}, and nothing else"
            )
        _chosen("precision", (self.precision,), PRECISIONS)
        _chosen("gates", self.gates, GATES)
        for name, least in (("batch", 1), ("steps", 1), ("tokens", 1), ("max_skipped", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value}: allowed is {least} or more")
        self._check_comparison()
        if isinstance(self.optim.lr, PeakLaw) and self.tokens is None:
            raise ValueError(
                "tokens is not given: optim.lr is a law of the tokens of the stage; say how many, not steps"
            )
        if (self.steps is None) == (self.tokens is None):
            raise ValueError(f"steps={self.steps}, tokens={self.tokens}: say how long by one of them")
        if self.steps is not None:
            self.schedule.check(self.steps)

    def _check_comparison(self) -> None:
        """Raises ValueError for what the losses that compare models cannot have."""
        is_free = self.loss in ON_GRADED and self.beta == 0
        if not (self.beta > 0 or is_free):
            raise ValueError(f"beta={self.beta}: allowed is above 0{', or 0' if self.loss in ON_GRADED else ''}")
        if not self.nll_weight >= 0:
            raise ValueError(f"nll_weight={self.nll_weight}: allowed is 0 or more")
        if not 0 < self.clip_ratio < 1:
            raise ValueError(f"clip_ratio={self.clip_ratio}: allowed is above 0, below 1")
        if self.reference:
            _exact("reference", self.reference)
            if self.loss not in ON_GRADED:
                raise ValueError(f"reference={self.reference!r}: for loss=grpo; the reference of {self.loss} is no key")

    def __reduce__(self) -> tuple[Any, ...]:
        """How it travels to workers: what keeps `init_from` from being changed cannot be pickled."""
        return _rebuilt, ({**vars(self), "init_from": dict(self.init_from)},)

    @property
    def peak(self) -> float:
        """The largest learning rate of the stage."""
        lr = self.optim.lr
        if not isinstance(lr, PeakLaw):
            return float(lr)
        assert self.tokens is not None, "refused when the stage was made"
        return lr.peak(self.tokens)

    def identity(self) -> dict[str, Any]:
        """What of it decides the weights, beside the data and what it starts from: names and gates do not."""
        values = self.to_dict()
        for name in ("name", "data", "init_from", "gates", "reference"):
            values.pop(name, None)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file; the same stage, the same values."""
        values = {**vars(self), "trainable": sorted(self.trainable), "init_from": dict(sorted(self.init_from.items()))}
        values |= {"optim": asdict(self.optim), "schedule": asdict(self.schedule), "gates": list(self.gates)}
        values["optim"]["betas"] = list(self.optim.betas)
        # Keys that came later: a stage without them is the stage that it was.
        if self.loss not in ON_GRADED:
            del values["clip_ratio"], values["reference"]
        if self.spec_augment is None:
            del values["spec_augment"]
        else:
            values["spec_augment"] = asdict(self.spec_augment)
        return values


def _rebuilt(values: dict[str, Any]) -> TrainStage:
    return TrainStage(**values)


def steps_of(stage: TrainStage, windows: int, tokens: int) -> int:
    """How many steps the stage has, on a mixture of so many windows with so many tokens in all: as many as give at
    least its `tokens`, counted with the mixture's mean. Raises ValueError if that counts none."""
    if stage.steps is not None:
        return stage.steps
    assert stage.tokens is not None, "refused when the stage was made"
    if tokens < 1:
        raise ValueError(f"tokens={stage.tokens}: the shards of data={stage.data} count none; give steps instead")
    return -(-stage.tokens * windows // (stage.batch * tokens))


def _part(field_name: str, name: str) -> Part:
    try:
        return Part(name)
    except ValueError:
        raise ValueError(f"{field_name} names {name!r}, which is no part; allowed are {', '.join(Part)}") from None


def _exact(field_name: str, version: str) -> None:
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(
            f"{field_name}={version!r}: allowed is an exact version, as in web@v12; `latest` is for looking"
        )


def _chosen(field_name: str, values: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    if unknown := [value for value in values if value not in allowed]:
        raise ValueError(f"{field_name}={unknown[0]!r}: allowed are {', '.join(allowed)}")
