"""Training in this process: one rank, or one of several; checkpoints in the folder of the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from torch import nn

from gristmill.lake.store.base import Store
from gristmill.model.phi4.blocks import checkpoint_activations, compile_blocks
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.checkpoint_files import WEIGHTS
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Objective, PolicyObjective, PreferenceObjective
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.stage import LOSSES, TrainStage
from gristmill.model.train.state import Reached
from gristmill.model.warmup.siglip import SiglipObjective
from gristmill.stages.train.folder import RunAbout, RunFolder
from gristmill.stages.train.job import Trained, TrainJob
from gristmill.stages.train.reporting import reporting


def train(store: Store, job: TrainJob, folder: RunFolder) -> Trained:
    """Carries out a stage, from its last checkpoint if there is one. Raises Diverged and what the trainer raises."""
    about = about_run(job, folder)
    with reporting(job.execution.report, about, job.stage, folder.metrics_file) as show:
        return trained(folder, train_rank(store, job, folder, Ranks(), show), world=1)


def about_run(job: TrainJob, folder: RunFolder) -> RunAbout:
    """What the run says of itself."""
    return RunAbout(folder.key, job.stage.name, job.given.dataset, job.given.steps, world=job.execution.ranks)


def train_rank(
    store: Store,
    job: TrainJob,
    folder: RunFolder,
    ranks: Ranks,
    show: Callable[[Progress], None],
    on_checkpoint: Callable[[Reached], None] | None = None,
) -> Reached:
    """What each of the ranks does. `show`: is handed every step, on rank 0; `on_checkpoint`: as of a Trainer."""
    stage, execution = job.stage, job.execution
    model = job.model(store, device_of(execution.device))
    checkpoint_activations(model, execution.settings.recompute)
    if execution.settings.compile:
        compile_blocks(model)

    def on_step(progress: Progress) -> None:
        folder.alive()
        show(progress)

    with ExitStack() as stack:
        if ranks.rank == 0:
            stack.enter_context(folder.written())
            folder.announce(about_run(job, folder))
        ranks.wait()  # nobody looks for the newest checkpoint while an earlier run may still write one
        return Trainer(
            stage,
            model,
            objective_of(stage, model),
            job.source(store),
            config=job.config,
            base=job.given.base,
            folder=folder.checkpoints,
            mirror=folder.mirror,
            settings=execution.settings,
            ranks=ranks,
            on_step=on_step,
            on_checkpoint=on_checkpoint,
            metrics=folder.metrics_file,
        ).train()


def trained(folder: RunFolder, reached: Reached, world: int) -> Trained:
    """What a run that reached its end came to: the trainer leaves a checkpoint of the last step."""
    weights = folder.checkpoints / f"step-{reached.step:09d}" / WEIGHTS
    return Trained(weights, reached.step, reached.position, reached.skipped, reached.order, world)


def objective_of(stage: TrainStage, model: Multimodal) -> nn.Module:
    """What the stage minimises. Raises ValueError for a loss that no stage over windows has."""
    match stage.loss:
        case "cross_entropy":
            return Objective(model)
        case "dpo":
            return PreferenceObjective(model, beta=stage.beta, nll_weight=stage.nll_weight)
        case "grpo":
            return PolicyObjective(model, beta=stage.beta, clip_ratio=stage.clip_ratio)
        case "siglip":
            return SiglipObjective(model, seed=stage.seed)
    raise ValueError(f"loss={stage.loss!r}: no stage trains by it on windows; allowed are {', '.join(LOSSES)}")


def device_of(name: str) -> str:
    """The device as torch names it; of "auto", a GPU where there is one."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
