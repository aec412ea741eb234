"""Two ranks train as one: the same weights, also where one of them has nothing of a part, and after a kill."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from train_windows import VOCAB, Tiny, tiny_trainer, write_windows

from gristmill.model.phi4.parts import Part
from gristmill.model.train.objective import Batch
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Settings, Source

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = VOCAB - 1


class Seeing(nn.Module):
    """A frozen language model, and a projector that only tokens IMAGE go through. [T] -> logits [T, VOCAB]."""

    def __init__(self) -> None:
        super().__init__()
        self.language = Tiny().language.requires_grad_(False)
        self.language[1].p = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.vision_projector = nn.Linear(16, 16)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token; without any IMAGE the projector has no part in them."""
        embed, *layers = self.language
        x_TD, places = embed(input_ids), (input_ids == IMAGE).nonzero()[:, 0]
        if len(places):
            x_TD = x_TD.index_copy(0, places, self.vision_projector(x_TD[places]))
        for layer in layers:
            x_TD = layer(x_TD)
        return x_TD


class OfAllTokens(nn.Module):
    """Cross-entropy of every next token, which counts the calls, and kills its process at one of them."""

    def __init__(self, model: nn.Module, last_call: int | None = None) -> None:
        super().__init__()
        self.model, self.last_call, self.calls = model, last_call, 0
        self.without_gradient = 0

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum of losses, number of targets)."""
        if self.calls == self.last_call:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        loss = cross_entropy(self.model(batch.input_ids)[:-1], batch.input_ids[1:], reduction="sum")
        self.without_gradient += not loss.requires_grad
        return loss, torch.tensor(len(batch.input_ids) - 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards, some of which have a token IMAGE."""
    return write_windows(tmp_path_factory.mktemp("windows"))


def trained(source: Source, folder: Path, ranks: Ranks, last_call: int | None = None, **changes: Any) -> None:
    """Trains the projector, 12 steps of 4 windows, and writes weights and what was counted, a file a rank."""
    model = Seeing()
    objective = OfAllTokens(model, last_call)
    fields = {"trainable": frozenset({Part.VISION_PROJECTOR}), "batch": 4, **changes}
    reached = tiny_trainer(source, folder / "c", model=model, objective=objective, stage=fields, ranks=ranks).train()
    counted = torch.tensor([objective.calls, objective.without_gradient])
    order = torch.tensor(list(bytes.fromhex(reached.order)))
    folder.mkdir(exist_ok=True)
    save_file({**model.state_dict(), "counted": counted, "order": order}, folder / f"rank-{ranks.rank}")


def test_two_ranks_are_as_one(source: Source, tmp_path: Path) -> None:
    trained(source, tmp_path / "alone", Ranks())
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "two", ranks)) == [0, 0]
    alone, first, second = (load_file(tmp_path / name) for name in ("alone/rank-0", "two/rank-0", "two/rank-1"))
    for name in ("vision_projector.weight", "vision_projector.bias"):
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], alone[name], atol=1e-6, rtol=0)
        assert not torch.allclose(first[name], Seeing().state_dict()[name], atol=1e-2)
    assert torch.equal(first["language.0.weight"], Tiny().language[0].weight)
    assert torch.equal(first["order"], alone["order"]) and torch.equal(second["order"], alone["order"])
    assert first["counted"][0] + second["counted"][0] == alone["counted"][0] == 48
    assert first["counted"][1] and second["counted"][1]  # each had windows that reach no trained parameter


def test_a_rank_without_any_of_a_part_adds_zeros(source: Source, tmp_path: Path) -> None:
    # Some steps have IMAGE on one rank alone: there nobody may wait for ever.
    alone: list[int] = []

    class Watching(OfAllTokens):
        def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
            alone.append(int((batch.input_ids == IMAGE).any()))
            return super().forward(batch)

    def work(ranks: Ranks) -> None:
        model = Seeing()
        fields = {"trainable": frozenset({Part.VISION_PROJECTOR}), "batch": 2}
        tiny_trainer(source, model=model, objective=Watching(model), stage=fields, ranks=ranks).train()
        others = [torch.zeros(12, dtype=torch.int64) for _ in range(2)]
        dist.all_gather(others, torch.tensor(alone))
        assert bool((others[0] != others[1]).any()), "a step with IMAGE on one rank alone"
        weights = [torch.zeros(16, 16) for _ in range(2)]
        dist.all_gather(weights, model.vision_projector.weight.detach())
        assert torch.equal(*weights)

    assert in_ranks(tmp_path, 2, work) == [0, 0]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_run_and_the_next_has_the_same_bits(source: Source, tmp_path: Path, killed: int) -> None:
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "whole", ranks)) == [0, 0]

    def work(ranks: Ranks) -> None:
        trained(source, tmp_path / "torn", ranks, last_call=11 if ranks.rank == killed else None)

    statuses = in_ranks(tmp_path, 2, work)
    assert os.WIFSIGNALED(statuses[killed]) and statuses[1 - killed] != 0
    assert list((tmp_path / "torn" / "c").glob("step-*"))
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "torn", ranks)) == [0, 0]
    whole, torn = load_file(tmp_path / "whole" / "rank-1"), load_file(tmp_path / "torn" / "rank-1")
    assert all(torch.equal(value, torn[name]) for name, value in whole.items() if name != "counted")
    assert torn["counted"][0] < whole["counted"][0]  # it went on, and did not begin again


def test_another_number_of_ranks_goes_on_with_the_same_windows(source: Source, tmp_path: Path) -> None:
    trained(source, tmp_path / "alone", Ranks())
    with pytest.raises(KeyboardInterrupt):
        stopped(source, tmp_path / "moved" / "c")
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "moved", ranks)) == [0, 0]
    alone, moved = load_file(tmp_path / "alone" / "rank-0"), load_file(tmp_path / "moved" / "rank-1")
    assert torch.equal(alone["order"], moved["order"])
    assert torch.allclose(alone["vision_projector.weight"], moved["vision_projector.weight"], atol=1e-6, rtol=0)


def stopped(source: Source, folder: Path) -> None:
    """The run of `trained` alone, stopped by hand after step 5."""
    model = Seeing()

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    fields = {"trainable": frozenset({Part.VISION_PROJECTOR}), "batch": 4}
    tiny_trainer(source, folder, model=model, objective=OfAllTokens(model), stage=fields, on_step=stop).train()


def test_ranks_that_see_other_checkpoints_are_refused(source: Source, tmp_path: Path) -> None:
    trained(source, tmp_path / "0", Ranks())

    def work(ranks: Ranks) -> None:
        with pytest.raises(ValueError, match=r"the ranks have different newest checkpoints: \[12, 0\], by rank"):
            trained(source, tmp_path / str(ranks.rank), ranks)

    assert in_ranks(tmp_path, 2, work) == [0, 0]


def test_a_process_alone_adds_nothing_up() -> None:
    tensor = torch.ones(3)
    Ranks().add(tensor)
    Ranks().agree(3, "steps")
    assert tensor.tolist() == [1, 1, 1]
    assert replace(Ranks(), world=2) == Ranks(0, 2) and Settings().windows_per_pass == 1
