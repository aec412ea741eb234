"""A stage of training as data: what it starts from, which parts it trains, on which version, by which loss, how long.

What can be refused is refused here, before a worker starts, by the name of the field: a stage alone when it is made,
and `check` when the shape of the model and the data are known. Versions are exact, so a stage says the same in a year.
Nothing here opens a version: names are resolved above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from gristmill.model.assembly.reached import check_reached
from gristmill.model.assembly.shapes import parts_of
from gristmill.model.augment.spec_augment import SpecAugment
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import PeakLaw, Schedule

LOSSES = ("cross_entropy", "dpo", "siglip")
"""On targets; of preferences against precomputed references; of images and what is said of them, matched."""
ON_PAIRS = frozenset({"dpo"})
"""Losses of windows whose segments are pairs; all others learn what windows hold."""
COUNTED = {"dpo": "pairs", "siglip": "images"}
"""What a loss is divided by, where that is not tokens to learn."""
LOSS_ARRAYS = {"siglip": "tiles"}
"""What the windows of a mixture have to hold for a loss, beside the tokens."""
LOSS_TRAINS = {"siglip": frozenset({Part.VISION_ENCODER})}
"""What a stage by a loss trains, and nothing else."""
LOSS_PASSES_BY = {"siglip": frozenset({Part.VISION_PROJECTOR})}
"""Parts that a model of a stage by a loss has, and the loss does not reach: they may be new and not trained."""
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
    loss or gradient may be no finite number. `beta`, `nll_weight`: of the loss `dpo` (model.train.objective).
    `spec_augment`: what is hidden of clips; None: nothing.
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
        if not self.beta > 0:
            raise ValueError(f"beta={self.beta}: allowed is above 0")
        if not self.nll_weight >= 0:
            raise ValueError(f"nll_weight={self.nll_weight}: allowed is 0 or more")
        if isinstance(self.optim.lr, PeakLaw) and self.tokens is None:
            raise ValueError(
                "tokens is not given: optim.lr is a law of the tokens of the stage; say how many, not steps"
            )
        if (self.steps is None) == (self.tokens is None):
            raise ValueError(f"steps={self.steps}, tokens={self.tokens}: say how long by one of them")
        if self.steps is not None:
            self.schedule.check(self.steps)

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
        for name in ("name", "data", "init_from", "gates"):
            del values[name]
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file; the same stage, the same values."""
        values = {**vars(self), "trainable": sorted(self.trainable), "init_from": dict(sorted(self.init_from.items()))}
        values |= {"optim": asdict(self.optim), "schedule": asdict(self.schedule), "gates": list(self.gates)}
        values["optim"]["betas"] = list(self.optim.betas)
        # A key that came later: a stage without it is the stage that it was.
        if self.spec_augment is None:
            del values["spec_augment"]
        else:
            values["spec_augment"] = asdict(self.spec_augment)
        return values


def _rebuilt(values: dict[str, Any]) -> TrainStage:
    return TrainStage(**values)


@dataclass(frozen=True)
class DataFacts:
    """What the manifest of a mixture says of it. `window`: tokens of a window; `windows`, `tokens`: how many there are;
    `tokenizer`: its digest; `vocab_size`: entries of it. `crop_size`, `patch_size`: of its images, and `image_token`
    that stands for them; `mels` (bands), `reduction` (frames of a token) and `audio_token`: of its clips, if it has
    any. `arrays`: what a window holds; `pairs`: whether its segments are pairs, chosen and rejected.
    """

    window: int
    windows: int
    tokens: int
    tokenizer: str
    vocab_size: int
    crop_size: int | None = None
    patch_size: int | None = None
    image_token: int | None = None
    mels: int | None = None
    reduction: int | None = None
    audio_token: int | None = None
    arrays: tuple[str, ...] = ("input_ids", "loss_mask", "cu_seqlens")
    pairs: bool = False


def check(stage: TrainStage, config: ModelConfig, tokenizer: str, data: DataFacts) -> None:
    """Raises ValueError, which names the field, if the stage does not fit a model of this config and tokenizer digest,
    or the mixture does not."""
    present = parts_of(config)
    for name, parts in (("trainable", stage.trainable), ("init_from", stage.init_from)):
        for part in sorted(set(parts) - present):
            raise ValueError(f"{name} names {part}, which the model has not; it has {', '.join(sorted(present))}")
    for part in sorted(present - stage.trainable - set(stage.init_from) - passed_by(stage, data)):
        raise ValueError(f"init_from.{part} is missing: a part that is not trained needs the version it comes from")
    place = f"data={stage.data}"
    if data.windows < 1 or data.tokens < 1:
        raise ValueError(f"{place}: the mixture has {data.windows} windows of {data.tokens} tokens in all")
    if data.window > (longest := config.text.max_position_embeddings):
        raise ValueError(f"{place}: its windows have {data.window} tokens, the model takes {longest}")
    if data.tokenizer != tokenizer:
        raise ValueError(f"{place}: its tokenizer is {data.tokenizer}, the model's is {tokenizer}; mix it with that")
    if data.vocab_size > config.text.vocab_size:
        raise ValueError(f"{place}: its vocabulary has {data.vocab_size} entries, the model {config.text.vocab_size}")
    for what, value, section, own in (
        ("crops have side", data.crop_size, config.vision, "crop_size"),
        ("crops have patches of", data.patch_size, config.vision, "patch_size"),
        ("images stand at token", data.image_token, config.vision, "image_token_id"),
        ("clips have mel bands", data.mels, config.audio, "input_size"),
        ("clips are reduced by", data.reduction, config.audio, "time_reduction"),
        ("clips stand at token", data.audio_token, config.audio, "audio_token_id"),
    ):
        if value is not None and (section is None or getattr(section, own) != value):
            takes = "none" if section is None else getattr(section, own)
            raise ValueError(f"{place}: its {what} {value}, the model takes {takes}")
    if (needed := LOSS_ARRAYS.get(stage.loss)) is not None and needed not in data.arrays:
        raise ValueError(
            f"loss={stage.loss}: it needs windows with {needed}; those of {place} hold {', '.join(data.arrays)}"
        )
    if stage.spec_augment is not None and "mel" not in data.arrays:
        raise ValueError(
            f"spec_augment: the windows of {place} have no clips, of which it would hide parts; leave it out"
        )
    check_reached(stage.trainable, data.arrays, stage.data)
    if stage.loss in ON_PAIRS and not data.pairs:
        raise ValueError(
            f"loss={stage.loss}: it needs windows of pairs, chosen and rejected, and those of {place} have none; `grist"
            " run conf/preference.yaml` makes pairs of your data, and a mixture of them has such windows"
        )
    if data.pairs and stage.loss not in ON_PAIRS:
        raise ValueError(
            f"loss={stage.loss}: the windows of {place} are pairs, whose rejected sides would be learned too; allowed"
            f" are {', '.join(sorted(ON_PAIRS))}"
        )
    stage.schedule.check(steps_of(stage, data.windows, data.tokens))


def passed_by(stage: TrainStage, data: DataFacts) -> frozenset[Part]:
    """Parts that nothing of the stage reaches: they may be new and not trained, and stay as the seed made them."""
    parts = LOSS_PASSES_BY.get(stage.loss, frozenset())
    # Sound goes through it where there is an image too.
    return parts if {"tiles", "mel"} <= set(data.arrays) else parts | {Part.AUDIO_PROJECTOR_VISION}


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
