"""The trainer against a plain loop of torch, and what it does with passes, skipped steps and chance."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_windows import NextToken, Tiny, stage, tiny_trainer, window, write_windows

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, tensors_of
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.shards.order import Permutation
from gristmill.model.train.loop import Diverged, Trainer, seed_of
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Batch, Objective
from gristmill.model.train.optim import decayed
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import Schedule
from gristmill.model.train.settings import Settings, Source

NANO = replace(PRESETS["nano"], vision=None, audio=None, adapters=())
COUNT, LENGTH, BATCH, STEPS, SEED = 11, 48, 3, 50, 5

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_loop() -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of 50 steps, with nothing of the trainer: only the model, its windows, and the order."""
    model = Multimodal.seeded(NANO, 3).train()
    matrices = [p for name, p in model.named_parameters() if name.endswith("proj.weight")]
    others = [p for name, p in model.named_parameters() if not name.endswith("proj.weight")]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95))
    losses = []
    for step in range(STEPS):
        ids, segments, learn = list[int](), list[int](), list[bool]()
        for position in range(step * BATCH, (step + 1) * BATCH):
            number = Permutation(COUNT, SEED, position // COUNT)[position % COUNT]
            row = window(number, LENGTH - (LENGTH // 3 if number % 5 == 4 else 0), 2048)
            for first, last in itertools.pairwise(row["cu_seqlens"].tolist()):
                segments += [first + 1000 * position] * (last - first)
            ids += row["input_ids"].tolist()
            learn += row["loss_mask"].tolist()
        hidden = model.hidden(torch.tensor([ids]), segment_ids=torch.tensor([segments]))[0]
        places = torch.tensor(learn).nonzero()[:, 0]
        logits = model.language.head(hidden[places - 1])
        loss_sum = F.cross_entropy(logits, torch.tensor(ids)[places], reduction="none").sum()
        targets = len(places)
        optimizer.zero_grad()
        loss_sum.backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad /= targets
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = (step + 1) / 5 if step < 5 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 5) / (STEPS - 5)))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * rate
        optimizer.step()
        losses.append(loss_sum.item() / targets)
    return losses, model.state_dict()


def test_losses_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    source = write_windows(tmp_path / "data", COUNT, LENGTH, 2048)
    model, seen = Multimodal.seeded(NANO, 3), list[Progress]()
    fields = {"steps": STEPS, "seed": SEED, "optim": Optim(lr=2e-3), "schedule": Schedule("cosine", 5, 0.1)}
    Trainer(
        stage(**fields),
        model,
        Objective(model),
        source,
        config=NANO,
        base="seed 3",
        settings=Settings(windows_per_pass=BATCH),
        on_step=seen.append,
    ).train()
    losses, weights = plain_loop()
    assert [progress.loss for progress in seen] == losses
    assert losses[-1] < losses[0] - 1
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def losses_of(trainer_source: Source, **changes: Any) -> list[float]:
    """The losses of a run without a checkpoint."""
    seen: list[float] = []
    tiny_trainer(trainer_source, on_step=lambda progress: seen.append(progress.loss), **changes).train()
    return seen


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"))


def test_what_a_target_weighs_does_not_depend_on_the_passes(source: Source) -> None:
    def still(**changes: Any) -> list[float]:
        model = Tiny()
        model.language[1].p = 0.0  # dropout draws by place, and a place is another one in another pass
        return losses_of(source, model=model, **changes)

    together, apart = still(settings=Settings(windows_per_pass=3)), still(settings=Settings(windows_per_pass=1))
    assert apart == pytest.approx(together, abs=1e-6) and together[-1] < together[0]


def test_chance_is_drawn_from_seed_step_and_rank_alone(source: Source) -> None:
    torch.manual_seed(1)
    first = losses_of(source)
    state = torch.get_rng_state()
    torch.rand(7)
    assert losses_of(source) == first
    torch.rand(7)
    after = torch.get_rng_state()
    assert not torch.equal(state, after)  # our own draws, and no others: the trainer leaves the generator alone
    torch.set_rng_state(state)
    torch.rand(14)
    assert torch.equal(torch.get_rng_state(), after)
    seeds = [seed_of(*numbers) for numbers in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (0, 1, 20), (0, 12, 0))]
    assert len(set(seeds)) == 5 and all(0 <= seed < 1 << 63 for seed in seeds)
    model, dropped = Tiny(), list[Tensor]()
    model.language[1].register_forward_hook(lambda _module, _inputs, output: dropped.append(output[:16] == 0))
    assert losses_of(source, model=model, settings=Settings(windows_per_pass=3)) != first  # the places are others
    assert not any(torch.equal(*pair) for pair in itertools.pairwise(dropped)), "each step draws anew"


def test_precision_is_that_of_the_passes(source: Source) -> None:
    model, kinds = Tiny(), set[torch.dtype]()
    model.language[4].register_forward_hook(lambda _module, _inputs, output: kinds.add(output.dtype))
    rounded = losses_of(source, model=model, stage={"precision": "bfloat16"})
    assert kinds == {torch.bfloat16} and {value.dtype for value in model.parameters()} == {torch.float32}
    exact = losses_of(source)
    assert rounded != exact and rounded == pytest.approx(exact, abs=0.05)


def test_modes_and_gradients_are_left_as_they_were(source: Source) -> None:
    model = Tiny().eval()
    model.language[0].train()
    modes = [module.training for module in model.modules()]
    tiny_trainer(source, model=model).train()
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


class Faulty(NextToken):
    """An objective whose loss is no number in the passes with these numbers."""

    def __init__(self, model: nn.Module, faulty: set[int]) -> None:
        super().__init__(model)
        self.faulty, self.calls = faulty, 0

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, or what spoils every gradient."""
        loss, targets = super().forward(batch)
        self.calls += 1
        return (loss * math.nan if self.calls - 1 in self.faulty else loss), targets


def test_a_step_without_a_finite_number_changes_nothing_and_is_counted(source: Source, tmp_path: Path) -> None:
    model, weights = Tiny(), list[Tensor]()
    seen: list[Progress] = []

    def note(progress: Progress) -> None:
        seen.append(progress)
        weights.append(model.language[4].weight.detach().clone())

    faulty = {3 * 4, 3 * 5 + 2, 3 * 8}  # passes of steps 5, 6 and 9
    trainer = tiny_trainer(source, model=model, objective=Faulty(model, faulty), stage={"max_skipped": 2}, on_step=note)
    reached = trainer.train()
    assert [progress.step for progress in seen if progress.skipped] == [5, 6, 9]
    assert (reached.step, reached.position, reached.skipped, reached.in_a_row) == (12, 36, 3, 0)
    changed = [not torch.equal(before, after) for before, after in itertools.pairwise(weights)]
    assert changed == [step not in (5, 6, 9) for step in range(2, 13)]
    assert all(math.isfinite(progress.loss) != progress.skipped for progress in seen)


def test_too_many_of_them_in_a_row_end_the_run_and_say_where(source: Source, tmp_path: Path) -> None:
    model = Tiny()
    trainer = tiny_trainer(
        source, tmp_path / "c", model=model, objective=Faulty(model, set(range(15, 99))), stage={"max_skipped": 2}
    )
    with pytest.raises(
        Diverged, match=r"step 8: loss nan.* from position 21; that is 3 steps in a row .*max_skipped=2"
    ):
        trainer.train()
    assert [path.name for path in sorted((tmp_path / "c").iterdir())] == ["step-000000004", "step-000000006"]


def test_a_step_without_targets_is_one_of_them(source: Source) -> None:
    class Nothing(NextToken):
        def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
            return torch.zeros(()), torch.tensor(0)

    model = Tiny()
    with pytest.raises(Diverged, match="with 0 targets"):
        tiny_trainer(source, model=model, objective=Nothing(model), stage={"max_skipped": 0}).train()


def test_an_objective_that_takes_the_gradients_away_is_refused(source: Source) -> None:
    class Clearing(NextToken):
        def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
            self.model.zero_grad()
            return super().forward(batch)

    model = Tiny()
    with pytest.raises(RuntimeError, match=r"the gradient of language\.0\.weight was replaced"):
        tiny_trainer(source, model=model, objective=Clearing(model)).train()


def test_a_stage_trains_its_parts_and_nothing_else(tmp_path: Path) -> None:
    source = write_windows(tmp_path, vocab=2048)
    model = Multimodal.seeded(PRESETS["nano"], 3)
    before = {part: {name: value.clone() for name, value in tensors_of(model, part).items()} for part in Part}
    fields = {"trainable": {Part.LORA_VISION}, "steps": 3, "batch": 2}
    objective = Objective(model, adapter="vision")
    Trainer(stage(**fields), model, objective, source, config=PRESETS["nano"], base="seed 3").train()
    for part, tensors in before.items():
        after = tensors_of(model, part)
        unchanged = [torch.equal(after[name], value) for name, value in tensors.items()]
        assert not any(unchanged) if part is Part.LORA_VISION else all(unchanged), part


def test_an_objectives_own_parameters_are_trained_and_resumed(source: Source, tmp_path: Path) -> None:
    class Scaled(NextToken):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
            loss, targets = super().forward(batch)
            return loss * self.scale, targets

    model, again = Tiny(), Tiny(seed=9)
    objective, resumed = Scaled(model), Scaled(again)
    tiny_trainer(source, tmp_path, model=model, objective=objective).train()
    tiny_trainer(source, tmp_path, model=again, objective=resumed).train()
    assert objective.scale.item() == resumed.scale.item() < 1.0


def test_what_cannot_be_trained_is_refused(source: Source) -> None:
    with pytest.raises(ValueError, match="lora_vision: this model has no such part; it has language"):
        tiny_trainer(source, stage={"trainable": {Part.LORA_VISION}})
    with pytest.raises(ValueError, match=r"language\.0\.weight is torch\.bfloat16: trained parts are kept in float32"):
        tiny_trainer(source, model=Tiny().bfloat16()).train()
    with pytest.raises(ValueError, match=r"schedule\.warmup=3: the stage has 2 steps"):
        tiny_trainer(source, stage={"steps": None, "tokens": 100, "schedule": Schedule(warmup=3)})


def test_weight_decay_is_for_matrices_that_are_no_embedding() -> None:
    model = Multimodal.seeded(PRESETS["nano"], 0)
    decaying = decayed(model)
    kept = set(dict(model.named_parameters())) - decaying
    assert {name for name in decaying if name.startswith("language.")} == {
        name for name, _ in model.named_parameters() if name.startswith("language.layers.") and "norm" not in name
    }
    assert "language.embed_tokens.weight" in kept and "language.norm.weight" in kept
    assert all(name in kept for name, value in model.named_parameters() if value.ndim < 2)
    separators = [
        name for name, value in model.named_parameters() if value.ndim > 2 and value.numel() == max(value.shape)
    ]
    assert separators and set(separators) <= kept


def test_clipping_and_the_schedule_reach_the_optimizer(source: Source) -> None:
    seen: list[Progress] = []
    fields = {"schedule": Schedule("wsd", 3, 0.1, 0.25), "optim": Optim(lr=0.5, clip=1e-3, weight_decay=0.0)}
    model = Tiny()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = tiny_trainer(source, model=model, stage=fields, on_step=seen.append)
    trainer.train()
    assert [progress.lr for progress in seen] == [0.5 * trainer.stage.schedule.share(step, 12) for step in range(12)]
    assert all(progress.norm > 1e-3 for progress in seen)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
