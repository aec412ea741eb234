"""Training on preferences in the trainer itself: references beside the windows, means over pairs, two ranks as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import text_model
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from train_windows import tiny_trainer, write_arrays

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import PreferenceObjective, segment_logprobs
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Beside, Settings, Source

pytestmark = pytest.mark.usefixtures("one_thread")


def pairs(number: int) -> dict[str, np.ndarray]:
    """A window of one pair or of two: the same prompt, other answers, which alone are learned."""
    rng = np.random.default_rng(number)
    ids: list[int] = []
    mask: list[bool] = []
    bounds = [0]
    for _ in range(1 + number % 2):
        prompt = rng.integers(1, 300, 4).tolist()
        for _ in ("chosen", "rejected"):
            answer = rng.integers(1, 300, rng.integers(2, 9)).tolist()
            ids += prompt + answer
            mask += [False] * len(prompt) + [True] * len(answer)
            bounds.append(len(ids))
    return {
        "input_ids": np.array(ids, np.int32),
        "loss_mask": np.array(mask),
        "cu_seqlens": np.array(bounds, np.int32),
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """9 windows of pairs, with what the starting model says of them."""
    windows, model = [pairs(number) for number in range(9)], start()
    logprobs = [segment_logprobs(model, window, model.config, "float32")[0].numpy() for window in windows]
    arrays = {f"w{number:04d}": {"reference_logprobs": sums} for number, sums in enumerate(logprobs)}
    return replace(write_arrays(tmp_path_factory.mktemp("windows"), windows), beside=Beside(arrays, ("of a model",)))


def start() -> Multimodal:
    return text_model(adapters=())


def trained(source: Source, folder: Path, ranks: Ranks, **settings: int) -> list[Progress]:
    """8 steps of 4 windows; writes the weights, a file a rank."""
    model, seen = start(), list[Progress]()
    objective = PreferenceObjective(model, nll_weight=0.2)
    how = Settings(checkpoint_every=2, **settings)
    fields = {"batch": 4, "steps": 8, "loss": "dpo"}
    given = {"model": model, "objective": objective, "config": model.config, "stage": fields, "settings": how}
    tiny_trainer(source, folder / "c", ranks=ranks, on_step=seen.append, **given).train()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / f"rank-{ranks.rank}")
    return seen


def test_measures_are_means_over_the_pairs_of_a_step(source: Source, tmp_path: Path) -> None:
    steps = trained(source, tmp_path, Ranks())
    assert all(set(step.measures) == {"margin", "accuracy", "chosen_logprob", "nll"} for step in steps)
    first, last = steps[0], steps[-1]
    assert first.measures["margin"] == pytest.approx(0, abs=1e-5) and 4 < first.targets < 8
    # log 2 for equal preferences, and the NLL term
    assert first.loss == pytest.approx(np.log(2) + 0.2 * first.measures["nll"], rel=1e-5)
    assert last.measures["margin"] > 0.5 and last.measures["accuracy"] == 1
    assert last.measures["nll"] < first.measures["nll"]


def test_two_ranks_and_passes_of_several_windows_are_as_one(source: Source, tmp_path: Path) -> None:
    for name in ("alone", "together", "two"):
        (tmp_path / name).mkdir()
    trained(source, tmp_path / "alone", Ranks())
    trained(source, tmp_path / "together", Ranks(), windows_per_pass=3)
    assert in_ranks(tmp_path, 2, lambda ranks: trained(source, tmp_path / "two", ranks) and None) == [0, 0]
    alone = load_file(tmp_path / "alone/rank-0")
    for other in ("together/rank-0", "two/rank-0", "two/rank-1"):
        weights = load_file(tmp_path / other)
        assert all(torch.allclose(weights[name], alone[name], atol=2e-3) for name in alone), other
    first, second = (load_file(tmp_path / f"two/rank-{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_references_of_another_model_are_another_run(source: Source, tmp_path: Path) -> None:
    trained(source, tmp_path, Ranks())
    other = replace(source, beside=replace(source.beside, digests=("of another",)))
    with pytest.raises(ValueError, match="is of something else: data is"):
        trained(other, tmp_path, Ranks())
    (key, _), *_ = source.beside.arrays.items()
    lacking = {name: arrays for name, arrays in source.beside.arrays.items() if name != key}
    with pytest.raises(KeyError, match=key):
        trained(replace(source, beside=Beside(lacking, ("x",))), tmp_path / "new", Ranks())
