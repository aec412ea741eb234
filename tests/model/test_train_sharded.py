"""Two ranks with a share of the weights each train as replicas do, go on from a kill, and leave like checkpoints."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import TEXT
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_windows import stage, write_windows

from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.train import sharded
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Batch, Objective
from gristmill.model.train.optim import Optim
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.state import WEIGHTS
from gristmill.model.windows.batches import passes

pytestmark = pytest.mark.usefixtures("one_thread")
assert sharded  # imported here, it need not be in every process that a test forks

CONFIG = ModelConfig(TEXT, adapters=(LoraConfig("vision", 4, 8.0),))
STEPS = 8
OPTIM = Optim(lr=3e-3, clip=0.5, eps=1e-4)
"""With a small `eps`, Adam would make steps of the rounding errors of gradients that are almost nothing."""


class Killing(Objective):
    """An objective that kills its process at one of its calls."""

    def __init__(self, model: Multimodal, last_call: int | None) -> None:
        super().__init__(model)
        self.calls, self.last_call = 0, last_call

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As of `Objective`."""
        if self.calls == self.last_call:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return super().forward(batch)


def trained(
    source: Source, folder: Path, ranks: Ranks, shard: bool, last_call: int | None = None, **fields: Any
) -> None:
    """Trains the language model, a step of 5 windows by passes of one, and writes losses, calls and what is frozen."""
    model, seen = Multimodal.seeded(CONFIG, 3), list[Progress]()
    frozen = {name: value.clone() for name, value in model.state_dict().items() if ".adapters." in name}
    objective = Killing(model, last_call)
    objective.adapter = fields.pop("adapter", "auto")
    checkpoint_activations(model, fields.pop("recompute", 0.0))
    settings = Settings(checkpoint_every=2, shard=shard)
    chosen = {"batch": 5, "steps": STEPS, "optim": OPTIM, **fields}
    trainer = Trainer(
        stage(**chosen),
        model,
        objective,
        source,
        config=CONFIG,
        base="seed 3",
        folder=folder / "c",
        settings=settings,
        ranks=ranks,
        on_step=seen.append,
    )
    reached = trainer.train()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    if shard and ranks.world > 1:
        local = sum(parameter.to_local().numel() for parameter in trainer.trained.values())  # type: ignore[attr-defined]
        whole = sum(parameter.numel() for parameter in trainer.trained.values())
        assert local < 0.55 * whole
    save_file(
        {
            "loss": torch.tensor([progress.loss for progress in seen], dtype=torch.float64),
            "norm": torch.tensor([progress.norm for progress in seen], dtype=torch.float64),
            "calls": torch.tensor(objective.calls),
            "reached": torch.tensor([reached.step, reached.position]),
        },
        folder / f"rank-{ranks.rank}",
    )


def weights(folder: Path) -> dict[str, Tensor]:
    """Of the last checkpoint."""
    return load_file(folder / "c" / f"step-{STEPS:09d}" / WEIGHTS)


def assert_close(folder: Path, other: Path) -> None:
    """The same weights of the last checkpoints within 1e-6."""
    for name, value in weights(folder).items():
        assert torch.allclose(weights(other)[name], value, atol=1e-6, rtol=0), name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"), length=48, vocab=300)


@pytest.fixture(scope="module")
def replicas(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two replicas come to."""
    folder = tmp_path_factory.mktemp("replicas")
    assert in_ranks(folder, 2, lambda ranks: trained(source, folder, ranks, shard=False)) == [0, 0]
    return folder


def test_shares_train_as_replicas_do(source: Source, replicas: Path, tmp_path: Path) -> None:
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path, ranks, shard=True)) == [0, 0]
    expected, first, second = (
        load_file(folder / name) for folder, name in ((replicas, "rank-0"), (tmp_path, "rank-0"), (tmp_path, "rank-1"))
    )
    for key in ("loss", "norm"):
        assert torch.allclose(first[key], expected[key], atol=1e-6, rtol=0), key
    assert expected["loss"][-1] < expected["loss"][0] and (expected["norm"] > 0.5).any()
    assert_close(tmp_path, replicas)
    of_replicas = [int(load_file(replicas / f"rank-{rank}")["calls"]) for rank in range(2)]
    assert sum(of_replicas) == 5 * STEPS, "a pass a window"
    assert first["calls"] == second["calls"] == 3 * STEPS, "as many on both ranks, of which one has 2 windows a step"
    moved = weights(tmp_path)
    start = Multimodal.seeded(CONFIG, 3).state_dict()
    assert set(moved) == {name for name in start if ".adapters." not in name}
    assert not any(torch.equal(value, start[name]) for name, value in moved.items())


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_run_in_shares_ends_with_the_same_bits(
    source: Source, replicas: Path, tmp_path: Path, killed: int
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, whole, ranks, shard=True)) == [0, 0]

    def work(ranks: Ranks) -> None:
        trained(source, torn, ranks, shard=True, last_call=16 if ranks.rank == killed else None)

    statuses = in_ranks(tmp_path, 2, work)
    assert os.WIFSIGNALED(statuses[killed]) and statuses[1 - killed] != 0
    assert list((torn / "c").glob("step-*"))
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, torn, ranks, shard=True)) == [0, 0]
    for name in ("weights.safetensors", "optimizer.safetensors"):
        expected = load_file(whole / "c" / f"step-{STEPS:09d}" / name)
        result = load_file(torn / "c" / f"step-{STEPS:09d}" / name)
        assert all(torch.equal(result[key], value) for key, value in expected.items())
    assert load_file(torn / "rank-0")["calls"] < 3 * STEPS  # it went on, and did not begin again


def test_a_run_goes_on_in_shares_or_without(source: Source, replicas: Path, tmp_path: Path) -> None:
    """Its checkpoints are the same, whatever wrote them."""

    def stopped(ranks: Ranks, shard: bool, last_call: int) -> None:
        trained(source, tmp_path, ranks, shard=shard, last_call=last_call)

    assert in_ranks(tmp_path, 2, lambda ranks: stopped(ranks, True, 8)) != [0, 0]
    assert (tmp_path / "c" / "step-000000002").is_dir()
    with pytest.raises(KeyboardInterrupt):
        interrupted(source, tmp_path)
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path, ranks, shard=True)) == [0, 0]
    assert_close(tmp_path, replicas)


def interrupted(source: Source, folder: Path) -> None:
    """The run alone, to step 5."""
    model = Multimodal.seeded(CONFIG, 3)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    fields = {"batch": 5, "steps": STEPS, "optim": OPTIM}
    settings = Settings(checkpoint_every=2, shard=True)  # of one rank: there is nothing to share
    Trainer(
        stage(**fields),
        model,
        Objective(model),
        source,
        config=CONFIG,
        base="seed 3",
        folder=folder / "c",
        settings=settings,
        on_step=stop,
    ).train()


@pytest.mark.parametrize(
    "fields",
    [{"recompute": 1.0}, {"precision": "bfloat16"}, {"adapter": "vision", "recompute": 0.5}],
    ids=["recomputed", "bfloat16", "frozen adapter"],
)
def test_activation_checkpointing_autocast_and_frozen_adapters_work_on_shares(
    source: Source, tmp_path: Path, fields: dict[str, Any]
) -> None:
    for shard in (False, True):
        folder = tmp_path / str(shard)
        folder.mkdir()
        assert in_ranks(tmp_path, 2, lambda ranks: trained(source, folder, ranks, shard, **dict(fields))) == [0, 0]  # noqa: B023
    losses = [load_file(tmp_path / str(shard) / "rank-0")["loss"] for shard in (False, True)]
    assert torch.allclose(*losses, atol=1e-6 if "recompute" in fields else 1e-3, rtol=0)


def test_muon_works_on_shares(source: Source, tmp_path: Path) -> None:
    for shard in (False, True):
        folder = tmp_path / str(shard)
        folder.mkdir()
        muon = replace(OPTIM, kind="muon")
        assert in_ranks(tmp_path, 2, lambda ranks: trained(source, folder, ranks, shard, optim=muon)) == [0, 0]  # noqa: B023
    losses = [load_file(tmp_path / str(shard) / "rank-0")["loss"] for shard in (False, True)]
    assert torch.allclose(*losses, atol=1e-3, rtol=0), "it multiplies matrices in bfloat16"


def test_a_step_without_a_finite_number_is_skipped_on_all_ranks(source: Source, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        model, seen = Multimodal.seeded(CONFIG, 3), list[Progress]()

        class Faulty(Objective):
            calls = 0

            def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
                loss, targets = super().forward(batch)
                self.calls += 1
                return (loss * float("nan") if ranks.rank == 1 and self.calls == 4 else loss), targets

        fields = {"batch": 4, "steps": 4, "optim": OPTIM}
        Trainer(
            stage(**fields),
            model,
            Faulty(model),
            source,
            config=CONFIG,
            base="x",
            settings=Settings(shard=True),
            ranks=ranks,
            on_step=seen.append,
        ).train()
        if ranks.rank == 0:
            assert [progress.skipped for progress in seen] == [False, True, False, False]

    assert in_ranks(tmp_path, 2, work) == [0, 0]


@pytest.mark.parametrize("parts", [{Part.LORA_VISION}, {Part.LANGUAGE, Part.LORA_VISION}])
def test_a_stage_that_trains_more_than_language_has_replicas(source: Source, parts: set[Part]) -> None:
    model = Multimodal.seeded(CONFIG, 3)
    trainer = Trainer(
        stage(trainable=parts),
        model,
        Objective(model),
        source,
        config=CONFIG,
        base="x",
        settings=Settings(shard=True),
        ranks=Ranks(0, 2),
    )
    assert not any(hasattr(parameter, "placements") for parameter in trainer.trained.values())


@pytest.mark.parametrize(("count", "most"), [(3, 3), (2, 3), (1, 5), (4, 7)])
@pytest.mark.parametrize("per_pass", [1, 2, 4])
def test_passes_are_equally_many_and_of_all_windows(count: int, most: int, per_pass: int) -> None:
    ranges = passes(count, per_pass, most)
    assert len(ranges) == len(passes(most, per_pass, most))
    assert [number for numbers in ranges for number in numbers] == list(range(count))
    assert all(len(numbers) <= per_pass for numbers in ranges)
    assert [len(numbers) for numbers in passes(5, 2)] == [2, 2, 1]
