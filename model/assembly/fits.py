"""Whether a stage of training, the shape of a model and a mixture fit each other: refused before anything is trained.

Every error names the field of the stage. Facts of a mixture are those of its manifest; nothing here opens a version.
"""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.model.assembly.reached import check_reached
from gristmill.model.assembly.shapes import parts_of
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.train.stage import ON_GRADED, ON_PAIRS, TrainStage, steps_of

LOSS_ARRAYS = {"siglip": "tiles"}
"""What the windows of a mixture have to hold for a loss, beside the tokens."""
LOSS_PASSES_BY = {"siglip": frozenset({Part.VISION_PROJECTOR})}
"""Parts that a model of a stage by a loss has, and the loss does not reach: they may be new and not trained."""


@dataclass(frozen=True)
class DataFacts:
    """What the manifest of a mixture says of it. `window`: tokens of a window; `windows`, `tokens`: how many there are;
    `tokenizer`: its digest; `vocab_size`: entries of it. `crop_size`, `patch_size`: of its images, and `image_token`
    that stands for them; `mels` (bands), `reduction` (frames of a token) and `audio_token`: of its clips, if it has
    any. `arrays`: what a window holds; `pairs`: whether its segments are pairs, chosen and rejected; `graded`:
    whether they are samples with advantages.
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
    graded: bool = False


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
    _check_loss(stage, data, place)
    check_reached(stage.trainable, data.arrays, stage.data)
    stage.schedule.check(steps_of(stage, data.windows, data.tokens))


def _check_loss(stage: TrainStage, data: DataFacts, place: str) -> None:
    """Raises ValueError for windows that the stage's loss is not for."""
    if (needed := LOSS_ARRAYS.get(stage.loss)) is not None and needed not in data.arrays:
        raise ValueError(
            f"loss={stage.loss}: it needs windows with {needed}; those of {place} hold {', '.join(data.arrays)}"
        )
    if stage.spec_augment is not None and "mel" not in data.arrays:
        raise ValueError(
            f"spec_augment: the windows of {place} have no clips, of which it would hide parts; leave it out"
        )
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
    if stage.loss in ON_GRADED and not data.graded:
        raise ValueError(
            f"loss={stage.loss}: it needs windows of samples with advantages, and those of {place} have none; `grist"
            " run conf/grpo.yaml` makes them, round by round"
        )
    if data.graded and stage.loss not in ON_GRADED:
        raise ValueError(
            f"loss={stage.loss}: the windows of {place} are samples with advantages, wrong ones among them; allowed are"
            f" {', '.join(sorted(ON_GRADED))}"
        )


def passed_by(stage: TrainStage, data: DataFacts) -> frozenset[Part]:
    """Parts that nothing of the stage reaches: they may be new and not trained, and stay as the seed made them."""
    parts = LOSS_PASSES_BY.get(stage.loss, frozenset())
    # Sound goes through it where there is an image too.
    return parts if {"tiles", "mel"} <= set(data.arrays) else parts | {Part.AUDIO_PROJECTOR_VISION}
