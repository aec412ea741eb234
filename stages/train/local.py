"""Training in this process: one rank, checkpoints in the folder of the run."""

from __future__ import annotations

from gristmill.lake.store.base import Store
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Objective, PreferenceObjective
from gristmill.model.train.stage import TrainStage
from gristmill.model.train.state import WEIGHTS, Reached
from gristmill.stages.train.folder import RunAbout, RunFolder
from gristmill.stages.train.job import Trained, TrainJob
from gristmill.stages.train.reporting import reporting


def train(store: Store, job: TrainJob, folder: RunFolder) -> Trained:
    """Carries out a stage, from its last checkpoint if there is one. Raises Diverged and what the trainer raises."""
    stage, given, execution = job.stage, job.given, job.execution
    model = job.model(store, device_of(execution.device))
    about = RunAbout(folder.key, stage.name, given.dataset, given.steps, world=1)
    folder.announce(about)
    with reporting(execution.report, about) as show:

        def on_step(progress: Progress) -> None:
            folder.alive()
            show(progress)

        trainer = Trainer(
            stage,
            model,
            objective_of(stage, model),
            job.source(store),
            config=job.config,
            base=given.base,
            folder=folder.checkpoints,
            settings=execution.settings,
            on_step=on_step,
            metrics=folder.metrics_file,
        )
        reached = trainer.train()
    return trained(folder, reached, world=1)


def trained(folder: RunFolder, reached: Reached, world: int) -> Trained:
    """What a run that reached its end came to: the trainer leaves a checkpoint of the last step."""
    weights = folder.checkpoints / f"step-{reached.step:09d}" / WEIGHTS
    return Trained(weights, reached.step, reached.position, reached.skipped, reached.order, world)


def objective_of(stage: TrainStage, model: Multimodal) -> Objective:
    """What the stage minimises. Raises ValueError for a loss that no stage over windows has."""
    match stage.loss:
        case "cross_entropy":
            return Objective(model)
        case "dpo":
            return PreferenceObjective(model, beta=stage.beta, nll_weight=stage.nll_weight)
    raise ValueError(f"loss={stage.loss!r}: no stage trains by it on windows; allowed are cross_entropy, dpo")


def device_of(name: str) -> str:
    """The device as torch names it; of "auto", a GPU where there is one."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
