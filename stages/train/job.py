"""A stage of training on its way to whoever carries it out: what it starts from by pointers, and how it is to be run.

How the weights are computed (`Execution`: ranks, devices, checkpoints) is apart from what decides them, and no part of
any key. In process or on Ray, a trainer is a function of (store, job, folder) that gives a `Trained`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.store.scratch import scratch
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage
from gristmill.model.windows.sound_scale import BandScale
from gristmill.stages.core.work import Resources
from gristmill.stages.mix.windows import source_of
from gristmill.stages.models.model_versions import fetched
from gristmill.stages.models.references import beside_digests, load_beside
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.reporting import Report

if TYPE_CHECKING:  # torch takes seconds to import
    from gristmill.model.phi4.multimodal import Multimodal


@dataclass(frozen=True)
class Execution:
    """How a stage is carried out. `ranks`: processes that train together; `cpus`, `gpus`: that each of them reserves on
    Ray, and as many threads of torch as CPUs; `device`: as torch names it, "auto": a GPU where there is one, on Ray
    where ranks reserve one. `shared_filesystem`: a lake in a folder is one for all nodes. Raises ValueError."""

    trainer: Literal["in_process", "ray"] = "in_process"
    ranks: int = 1
    cpus: int = 1
    gpus: float = 0
    device: str = "auto"
    settings: Settings = Settings()
    report: Report = Report()
    shared_filesystem: bool = False

    def __post_init__(self) -> None:
        for name in ("ranks", "cpus"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: allowed is 1 or more")
        if self.trainer == "in_process" and self.ranks > 1:
            raise ValueError(f"ranks={self.ranks}: one process trains in process; give trainer: ray")
        Resources(self.cpus, self.gpus)


@dataclass(frozen=True)
class TrainInput:
    """Pointers. `windows`: (tar, index) of each shard of the mixture, `steps` on them; `parts`: the weights of each
    part that is taken; `tokenizer`: that of the windows, which becomes the model's; `sidecars`: what lies beside the
    weights; `beside`: of a stage that compares, array of a window -> a table for each shard (stages.models.references);
    `scale`: of the clips of the windows, where an encoder of them is new. `dataset`: that the result becomes a version
    of, for people."""

    dataset: str
    steps: int
    windows: tuple[tuple[ObjectRef, ObjectRef], ...]
    parts: Mapping[Part, tuple[ObjectRef, ...]]
    tokenizer: ObjectRef
    sidecars: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, tuple[ObjectRef, ...]] = field(default_factory=dict)
    scale: BandScale | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all that decides the result."""
        windows = (ref.sha256 for pair in self.windows for ref in pair)
        parts = (ref.sha256 for part in sorted(self.parts) for ref in self.parts[part])
        sidecars = [digest_of(b"sidecars", *(f"{name} {text}" for name, text in sorted(self.sidecars.items())))]
        sidecars = sidecars if self.sidecars else []
        beside = beside_digests(self.beside)
        return (*windows, *parts, self.tokenizer.sha256, *sidecars, *beside, *self.scaled)

    @property
    def base(self) -> str:
        """A digest of the parts that are taken, and the scale of a new encoder."""
        parts = (f"{part} {ref.sha256}" for part in sorted(self.parts) for ref in self.parts[part])
        return digest_of(b"base", *parts, *self.scaled)

    @property
    def scaled(self) -> tuple[str, ...]:
        """The digest of the scale, if there is one."""
        return () if self.scale is None else (f"scale {self.scale.digest}",)


@dataclass(frozen=True)
class TrainJob:
    """A stage, the config of its model, what it starts from, how it is run."""

    stage: TrainStage
    config: ModelConfig
    given: TrainInput
    execution: Execution

    def model(self, store: Store, device: str = "cpu") -> Multimodal:
        """The model that the stage starts from, every file's digest checked. Raises DamagedObject, NotFound."""
        from gristmill.model.assembly.start import starting_model
        from gristmill.model.phi4.conformer import Normalise

        with scratch() as folder:
            stored = [fetched(store, ref, folder) for refs in self.given.parts.values() for ref in refs]
            model = starting_model(
                self.config,
                stored,
                self.given.parts,
                self.stage.trainable,
                seed=self.stage.seed,
                folder=folder,
                device=device,
            )
        if self.given.scale is not None:
            normalise = model.get_submodule("audio_encoder.encoder_embedding")
            assert isinstance(normalise, Normalise)
            normalise.scale_to(self.given.scale.mean, self.given.scale.invstd)
        return model

    def source(self, store: Store) -> Source:
        """The windows, with what lies beside them if the stage compares. Raises DamagedObject."""
        source = source_of(store, self.given.windows)
        if not self.given.beside:
            return source
        return replace(source, beside=load_beside(store, self.given.beside))


@dataclass(frozen=True)
class Trained:
    """What a trainer came to. `weights`: a safetensors file with all trained parameters by name, as a checkpoint has
    it; `step`, `position`, `skipped`, `order`: as in model.train.state.Reached; `world`: ranks."""

    weights: Path
    step: int
    position: int
    skipped: int
    order: str
    world: int


Carry = Callable[[Store, TrainJob, RunFolder], Trained]
"""Carries out a job, from the last checkpoint in the folder if there is one."""
