"""The loop of every stage: windows in, gradients of the trained parts added up over ranks, one step of the optimizer.

The loss is a sum, and the gradient is divided by the targets that were really there on all ranks, so that neither how
windows are divided among passes nor among ranks changes what a target weighs. All chance is drawn from (seed, step,
rank), and the rest follows from the step, so that a run that goes on from a checkpoint ends with the same bits: at an
equal number of ranks, windows a pass, threads and device. Which windows a step has depends on none of these.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gristmill.model.augment.masking import Masking
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part, trainable
from gristmill.model.shards.files import ShardReader
from gristmill.model.train import optim
from gristmill.model.train.checkpoint_files import Mirror
from gristmill.model.train.gradients import Gradients, ShardedGradients
from gristmill.model.train.metrics import MetricsFile, Progress, utilisation
from gristmill.model.train.objective import collate
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage, steps_of
from gristmill.model.train.state import Checkpoints, Reached, restore
from gristmill.model.windows import batches
from gristmill.model.windows.cost import Cost


class Diverged(ArithmeticError):
    """More steps in a row than the stage allows had a loss or gradient that is no finite number."""


class Trainer:
    """Carries out a stage: `Trainer(stage, model, objective, source, base=..., folder=...).train()`.

    `model`: has the parts that the stage trains, which alone require a gradient from then on; `objective`: a module
    over it whose forward takes a `Batch` and gives (sum of losses, what to divide it by), two scalars, and behind them
    the sums of what its attribute `measures` names, if it has one; parameters of its own are trained along. `base`:
    what the model was before, a digest or name, with which a checkpoint must agree.
    `folder`: of the checkpoints, None: without any; `mirror`: what keeps them too. `on_step` is handed every step's
    `Progress`, `metrics` is a file for them; both by rank 0 alone. `on_checkpoint` is called after each step whose
    checkpoint rank 0 begins to write, and on every rank, so that it may wait for the others. A model that was trained
    in shares (`Settings.shard`) stays in them: its weights are in the last checkpoint. Raises ValueError for a part
    that the model does not have, and a schedule that does not fit the steps; what the reader of shards raises.
    """

    def __init__(
        self,
        stage: TrainStage,
        model: nn.Module,
        objective: nn.Module,
        source: Source,
        *,
        config: ModelConfig,
        base: str,
        folder: Path | None = None,
        settings: Settings | None = None,
        ranks: Ranks | None = None,
        on_step: Callable[[Progress], None] | None = None,
        metrics: Path | None = None,
        mirror: Mirror | None = None,
        on_checkpoint: Callable[[Reached], None] | None = None,
    ) -> None:
        self.stage, self.objective, self.config = stage, objective, config
        self.settings, self.ranks = settings or Settings(), ranks or Ranks()
        self.trained = trained_parameters(stage, model, objective)
        self.device = next(iter(self.trained.values())).device
        self._measures: tuple[str, ...] = getattr(objective, "measures", ())
        self._source, self._masking = source, Masking.of(stage.spec_augment, model, stage.seed)
        self._lines: MetricsFile | None = None
        self._reader = ShardReader(source.shards, source.open, seed=stage.seed)
        self.steps = steps_of(stage, len(self._reader), self._reader.tokens)
        stage.schedule.check(self.steps)
        self._cost = Cost.of(config, stage.trainable, decodes=stage.loss != "siglip")
        # Of what else is trained a rank may have nothing in a step, and would wait for it: replicas, whatever is set.
        self._sharded = self.settings.shard and self.ranks.world > 1 and stage.trainable == {Part.LANGUAGE}
        if self._sharded:
            from gristmill.model.train.sharded import shard  # a second to import, of no use to replicas

            self.trained = shard(model, objective, self.trained, self.ranks)
        self._optimizer = optim.build(stage.optim, model, self.trained, objective)
        self._on_step, self._metrics = on_step, metrics
        self._folder, self._mirror, self._on_checkpoint = folder, mirror, on_checkpoint
        self._identity = {"stage": stage.identity(), "base": base, "data": source.sha256}

    def train(self) -> Reached:
        """Trains to the end of the stage, from the newest checkpoint if there is one. -> How far it is: at its end.

        The model's modes and torch's generators are left as they were. Raises Diverged, and ValueError for a
        checkpoint that is damaged or of something else, and a trained parameter that is not float32; the checkpoints
        before the error stay.
        """
        with ExitStack() as stack:
            stack.callback(self._reader.close)
            stack.enter_context(_in_training(self.objective))
            stack.enter_context(torch.random.fork_rng([self.device] if self.device.type == "cuda" else []))
            checkpoints = None
            if self._folder is not None:
                settings, writes = self.settings, self.ranks.rank == 0
                checkpoints = Checkpoints(self._folder, self._identity, settings.keep, self._mirror, writes=writes)
                stack.enter_context(checkpoints)
            reached = self._resumed(checkpoints)
            gradients = (ShardedGradients if self._sharded else Gradients)(self.trained)
            stack.callback(gradients.release)
            show = stack.enter_context(self._shown(reached.step))
            return self._steps(reached, gradients, checkpoints, show)

    def _resumed(self, checkpoints: Checkpoints | None) -> Reached:
        """Where to go on, with weights and optimizer as they were there."""
        newest = checkpoints.newest() if checkpoints is not None else None
        if checkpoints is not None and self.ranks.rank == 0:
            checkpoints.tidy()
        self.ranks.agree(newest.reached.step if newest is not None else 0, "newest checkpoints")
        if newest is None:
            return Reached()
        restore(newest, self.trained, self._optimizer)
        return newest.reached

    def _steps(
        self,
        reached: Reached,
        gradients: Gradients | ShardedGradients,
        checkpoints: Checkpoints | None,
        show: Callable[[Progress], None],
    ) -> Reached:
        """The steps that are left."""
        settings, first, began = self.settings, reached.step, time.perf_counter()
        ranks, batch = self.ranks, self.stage.batch
        cost = self._cost
        shares = batches.shares(
            self._reader, cost, batch, reached.position, rank=ranks.rank, world=ranks.world, ahead=settings.ahead
        )
        try:
            while reached.step < self.steps:
                start = time.perf_counter()
                share = next(shares)
                result = self._step(reached.step, share, gradients)
                reached = self._advanced(reached, share, result)
                now = time.perf_counter()
                left = (now - began) / (reached.step - first) * (self.steps - reached.step)
                due = reached.step == self.steps or reached.step % settings.checkpoint_every == 0
                if ranks.rank == 0:
                    show(self._progress(reached, share, result, now - start, left))
                if checkpoints is not None and due and (ranks.rank == 0 or self._sharded):
                    # After the line of its last step is in the metrics, and on disk.
                    if self._lines is not None:
                        self._lines.sync()
                    checkpoints.save(reached, self.trained, self._optimizer)
                if self._on_checkpoint is not None and checkpoints is not None and due:
                    self._on_checkpoint(reached)
        finally:
            shares.close()
        return reached

    def _step(self, step: int, share: batches.Share, gradients: Gradients | ShardedGradients) -> _Result:
        """Forward and backward of this rank's windows, the sum over ranks, and the optimizer if all is finite."""
        torch.manual_seed(seed_of(self.stage.seed, step, self.ranks.rank))
        gradients.clear()
        # loss, targets, measures
        totals = torch.zeros(2 + len(self._measures), dtype=torch.float64, device=self.device)
        most = share.most if self._sharded else None
        for numbers in batches.passes(len(share.windows), self.settings.windows_per_pass, most):
            # A pass of no windows is made with one of them, which then counts nothing: other ranks wait for it.
            own = [(share.windows[number], share.epochs[number]) for number in numbers or (0,)]
            windows = [self._masking.masked(self._source.arrays(window), window.key, epoch) for window, epoch in own]
            batch = collate(windows, self.config, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.stage.precision == "bfloat16"):
                loss, *counts = self.objective(batch)
            if not numbers:
                loss, counts = loss * 0, [torch.zeros(())] * len(counts)
            if loss.requires_grad:  # a pass may reach no trained parameter
                loss.backward()
            sums = (loss.detach(), *counts)
            totals += torch.stack([torch.as_tensor(each, device=self.device).double() for each in sums])
        gradients.add_up(self.ranks)
        self.ranks.add(totals)
        loss_sum, target_count, *measured = totals.tolist()
        norm = gradients.mean(int(target_count), self.stage.optim.clip)
        lr = self.stage.peak * self.stage.schedule.share(step, self.steps)
        mean = loss_sum / target_count if target_count else math.nan
        finite = math.isfinite(mean) and math.isfinite(norm)
        if finite:
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            self._optimizer.step()
        measures = {name: each / max(target_count, 1) for name, each in zip(self._measures, measured, strict=True)}
        return _Result(mean, norm, lr, int(target_count), not finite, measures)

    def _advanced(self, reached: Reached, share: batches.Share, result: _Result) -> Reached:
        """How far the run is after a step. Raises Diverged."""
        in_a_row = reached.in_a_row + 1 if result.skipped else 0
        if in_a_row > self.stage.max_skipped:
            raise Diverged(
                f"stage {self.stage.name!r}, step {reached.step + 1}: loss {result.loss}, norm of the gradient"
                f" {result.norm} with {result.targets} targets, in windows from position {share.position}; that is"
                f" {in_a_row} steps in a row without a finite number, max_skipped={self.stage.max_skipped}. Look at"
                f" these windows ({', '.join(share.keys[:3])}, ...), or train with a lower optim.lr or longer warm-up"
            )
        return Reached(
            reached.step + 1,
            share.position + self.stage.batch,
            reached.skipped + result.skipped,
            in_a_row,
            batches.extended(reached.order, share),
        )

    def _progress(
        self, reached: Reached, share: batches.Share, result: _Result, seconds: float, left: float
    ) -> Progress:
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return Progress(
            step=reached.step,
            steps=self.steps,
            position=reached.position,
            loss=result.loss,
            lr=result.lr,
            norm=result.norm,
            targets=result.targets,
            tokens=share.tokens,
            skipped=result.skipped,
            seconds=seconds,
            tokens_per_second=share.tokens / seconds,
            seconds_left=left,
            mfu=utilisation(share.flops, seconds, device, self.ranks.world),
            measures=result.measures,
        )

    @contextmanager
    def _shown(self, step: int) -> Iterator[Callable[[Progress], None]]:
        """What to hand each `Progress` to."""
        with ExitStack() as stack:
            sinks: list[Callable[[Progress], None]] = []
            if self.ranks.rank == 0 and self._metrics is not None:
                self._lines = stack.enter_context(MetricsFile(self._metrics, step))
                sinks.append(self._lines.write)
            if self._on_step is not None:
                sinks.append(self._on_step)

            def show(progress: Progress) -> None:
                progress = replace(progress, since=step)
                for sink in sinks:
                    sink(progress)

            yield show


@dataclass(frozen=True)
class _Result:
    """What a step gave: the mean loss of a target, the norm of the gradient before it was clipped, means of what the
    objective measures."""

    loss: float
    norm: float
    lr: float
    targets: int
    skipped: bool
    measures: Mapping[str, float]


def trained_parameters(stage: TrainStage, model: nn.Module, objective: nn.Module) -> dict[str, nn.Parameter]:
    """What the stage trains, by name: its parts of the model, which alone require a gradient from now on, and under
    `objective.` what the objective has of its own, as a temperature. Raises ValueError for a part that is not there."""
    trained = trainable(model, stage.trainable)
    of_model = {id(parameter) for parameter in model.parameters()}
    for name, parameter in objective.named_parameters():
        if id(parameter) not in of_model and parameter.requires_grad:
            trained[f"objective.{name}"] = parameter
    return trained


def seed_of(seed: int, step: int, rank: int) -> int:
    """What torch's generators start a step from, 0 to 2^63 - 1."""
    digest = hashlib.blake2b(f"gristmill dropout 1 {seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _in_training(objective: nn.Module) -> Iterator[None]:
    """The module in training mode, each of its modules in its own again afterwards."""
    modes = [(module, module.training) for module in objective.modules()]
    objective.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
