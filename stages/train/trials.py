"""Small runs as trials of the learning rate's law: from each version its tokens, its peak LR and a loss of one kind.

The loss is that of an evaluation where evaluations are named, and else the mean of the last steps of the training: as
good where no window is seen twice, and noisier. Runs of different models are not compared: B is of one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.lake.query.query import resolve_usable
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.runs.curve import LAST, final_loss
from gristmill.model.runs.lr_fit import Trial
from gristmill.stages.train.seen import metrics_of_version

EVALUATED, ON = "evaluated", "on"
"""Roles of an evaluation's sources: the model, and the data."""


@dataclass(frozen=True)
class Trials:
    """`losses`: which losses these are, in words."""

    trials: tuple[Trial, ...]
    losses: str


def trials_of(versions: Versions, names: Sequence[str]) -> Trials:
    """The trials that versions are: trained models, or evaluations of trained models by their perplexity.

    Raises NoSuchVersion, and ValueError for versions that are neither, or cannot be compared with each other.
    """
    manifests = list(
        {str(manifest): manifest for name in names for manifest in [resolve_usable(versions, name)]}.values()
    )
    evaluated = [_model_of(versions, manifest) for manifest in manifests]
    if all(model is None for model in evaluated):
        models, losses = manifests, [final_loss(metrics_of_version(versions.store, manifest)) for manifest in manifests]
        kind = f"mean of a target over the last {LAST:.0%} of the steps of training"
    elif all(model is not None for model in evaluated):
        models = [model for model in evaluated if model is not None]
        losses = [_perplexity(manifest) for manifest in manifests]
        kind = f"nats a token of {_data_of(manifests)}"
    else:
        plain = next(str(manifest) for manifest, model in zip(manifests, evaluated, strict=True) if model is None)
        raise ValueError(f"{plain} is no evaluation, others are: give models only, or an evaluation of each of them")
    _check_alike(models)
    trials = [_trial(model, loss) for model, loss in zip(models, losses, strict=True)]
    return Trials(tuple(trials), kind)


def _trial(model: Manifest, loss: float) -> Trial:
    training = model.statistics["training"]
    return Trial(str(model), training["tokens"], training["peak_lr"], loss)


def _model_of(versions: Versions, manifest: Manifest) -> Manifest | None:
    """The model that an evaluation is of; None for a version that is none."""
    source = next((source for source in manifest.sources if source.role == EVALUATED), None)
    return None if source is None else versions.manifest(source.dataset, source.version)


def _perplexity(manifest: Manifest) -> float:
    """Nats a token over all sources of an evaluation. Raises ValueError where it has none."""
    for score in manifest.statistics.get("scores", ()):
        if (score["task"], score["metric"], score["source"]) == ("perplexity", "nats_per_token", ""):
            return float(score["value"])
    raise ValueError(f"{manifest} has no perplexity: evaluate the models on held-out documents")


def _data_of(manifests: Sequence[Manifest]) -> str:
    """What all evaluations are on. Raises ValueError where that differs."""
    data = {str(manifest): tuple(sorted(str(s) for s in manifest.sources if s.role == ON)) for manifest in manifests}
    first, *others = data
    if other := next((name for name in others if data[name] != data[first]), None):
        raise ValueError(
            f"{first} is on {', '.join(data[first])}, {other} on {', '.join(data[other])}:"
            " losses on different data cannot be compared"
        )
    return ", ".join(data[first])


def _check_alike(models: Sequence[Manifest]) -> None:
    """Raises ValueError for a model that was not trained here, or differs from the first in size or trained parts."""
    shapes: dict[str, str] = {}
    for model in models:
        if "training" not in model.statistics:
            raise ValueError(f"{model} was not trained by `grist train`: it has no peak LR and no tokens to compare")
        trainable = ", ".join((model.recipe.get("stage") or {}).get("trainable", ()))
        shapes[str(model)] = f"{model.statistics['parameters']:,} parameters, of which {trainable} are trained"
    first, *others = shapes
    for name in others:
        if shapes[name] != shapes[first]:
            raise ValueError(
                f"{first} has {shapes[first]}, {name} has {shapes[name]}:"
                " the law's B is of one model and the same trained parts"
            )
