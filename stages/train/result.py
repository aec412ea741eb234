"""What a stage made, as shards of a version: the parts that it trained or made, all others as the objects they were.

Weights are read back from the file of the last checkpoint, not from a trainer's memory, so that what is stored is what
a run that was killed at its end would store. A part is stored with all its tensors, those that never train included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file, scratch
from gristmill.model.assembly.shapes import parts_of
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.train.stage import COUNTED
from gristmill.stages.models.model_versions import model_statistics, put_part, put_shape
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.job import Trained, TrainJob

METRICS = "metrics"
"""Kind of the object with a line for each step, an attachment of the version."""


@dataclass(frozen=True)
class TrainFacts:
    """What a finished stage says of itself. `tokens`, `targets`: of all steps; `final_loss`: of the last step whose
    loss was a number; `positions`: windows drawn; `order`: a hash of which, in what order; `seconds`: of all steps;
    `model`: parameters by part and type, as of any model version; `counted`: what targets are, which a loss is divided
    by (model.train.stage.COUNTED)."""

    steps: int
    tokens: int
    targets: int
    peak_lr: float
    final_loss: float | None
    skipped: int
    order: str
    world: int
    seconds: float
    positions: int
    model: dict[str, Any]
    counted: str = "tokens"


def put_result(
    store: Store, job: TrainJob, folder: RunFolder, trained: Trained
) -> tuple[tuple[ObjectRef, ...], TrainFacts]:
    """Stores the trained parts, the shape and the metrics. -> Objects, in this order, and facts.

    Raises ValueError where the file of weights is not of this model.
    """
    from safetensors.torch import load_file

    model = job.model(store)
    values = load_file(trained.weights)
    own = {name: value for name, value in values.items() if not name.startswith("objective.")}
    unknown = model.load_state_dict(own, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{trained.weights}: holds {unknown[0]}, which is no parameter of this model")
    new = parts_of(model.config) - set(job.given.parts)  # one that is not trained either is as the seed made it
    weights = [ref for part in Part if part in job.stage.trainable | new for ref in put_part(store, model, part)]
    shape = put_shape(store, model.config, job.given.sidecars)
    lines = folder.metrics()
    losses = [line["loss"] for line in lines if line["loss"] is not None]
    facts = TrainFacts(
        steps=trained.step,
        tokens=sum(line["tokens"] for line in lines),
        targets=sum(line["targets"] for line in lines),
        peak_lr=job.stage.peak,
        final_loss=losses[-1] if losses else None,
        skipped=trained.skipped,
        order=trained.order,
        world=trained.world,
        seconds=round(sum(line["seconds"] for line in lines), 3),
        positions=trained.position,
        model=model_statistics(model),
        counted=COUNTED.get(job.stage.loss, "tokens"),
    )
    return (*weights, shape, _put_metrics(store, folder, len(lines))), facts


def _put_metrics(store: Store, folder: RunFolder, lines: int) -> ObjectRef:
    with scratch() as place:  # a copy: a store may move what it is given
        path = place / "metrics.jsonl"
        path.write_bytes(folder.metrics_file.read_bytes())
        return put_file(store, METRICS, path, lines)


def model_shards(
    taken: Mapping[Part, Sequence[ObjectRef]],
    trained: Sequence[ObjectRef],
    shape: ObjectRef,
    tokenizer: ObjectRef,
) -> tuple[ObjectRef, ...]:
    """The shards of the version, in the order of parts: a part that was trained from what was trained, any other from
    what it was taken from."""
    new: dict[Part, list[ObjectRef]] = {}
    for ref in trained:
        new.setdefault(part_of(ref.first), []).append(ref)
    parts = {**taken, **new}
    weights = [ref for part in Part if part in parts for ref in parts[part]]
    return (*weights, shape, tokenizer)


def part_digest(shards: Sequence[ObjectRef]) -> str:
    """Of the weights of a part."""
    return digest_of(b"part", *(ref.sha256 for ref in shards))
