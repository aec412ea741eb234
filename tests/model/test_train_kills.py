"""A run that is killed, wherever, and begun again ends with the bits of one that was not; other runs' are refused."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from train_kills import LOCAL, killed_at
from train_windows import Tiny, run_through, stage, tiny_trainer, write_windows
from waiting import PATIENCE

from gristmill.model.train import state
from gristmill.model.train.checkpoint_files import OPTIMIZER, STATE, WEIGHTS
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.state import Checkpoints, Reached

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def uninterrupted(source: Source) -> tuple[dict[str, Tensor], Reached]:
    """Weights and end of a run without checkpoints."""
    return run_through(source)


def killed(source: Source, folder: Path, event: str, count: int) -> bool:
    """Trains in a process that is killed at that event. -> Whether it came to that."""
    return killed_at(event, count, lambda on_step: tiny_trainer(source, folder, on_step=on_step).train())


@settings(max_examples=25)
@example([("rename", 0)])
@example([("renamed", 0), ("rename", 1)])
@example([("file", 0), ("file", 1), ("file", 2)])
@example([("removal", 0), ("removal", 0)])
@example([("step", 11), ("step", 0)])
@given(st.lists(st.tuples(st.sampled_from(LOCAL), st.integers(0, STEPS)), min_size=1, max_size=3))
def test_killed_anywhere_it_ends_with_the_same_bits(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], kills: list[tuple[str, int]]
) -> None:
    weights, end = uninterrupted
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoints"
        for event, count in kills:
            killed(source, folder, event, count)
        model = Tiny(seed=9)  # not what the run began from, where there is a checkpoint
        if not list(folder.glob("step-*")):
            model = Tiny()
        assert tiny_trainer(source, folder, model=model).train() == end
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
        assert [path.name for path in sorted(folder.iterdir())] == ["step-000000010", "step-000000012"]


def test_the_kills_happen_where_they_say(source: Source, tmp_path: Path) -> None:
    assert killed(source, tmp_path / "rename", "rename", 0)
    (aside,) = (tmp_path / "rename").iterdir()
    assert sorted(path.name for path in aside.iterdir()) == [OPTIMIZER, STATE, WEIGHTS]
    assert killed(source, tmp_path / "renamed", "renamed", 0)
    assert [path.name for path in (tmp_path / "renamed").iterdir()] == ["step-000000002"]
    assert killed(source, tmp_path / "file", "file", 0)
    (aside,) = (tmp_path / "file").iterdir()
    assert [path.name for path in aside.iterdir()] == [WEIGHTS]
    assert killed(source, tmp_path / "removal", "removal", 0)
    assert len(list((tmp_path / "removal").glob(".aside-*"))) == 1
    assert killed(source, tmp_path / "step", "step", 11)
    assert not killed(source, tmp_path / "late", "step", STEPS)


def test_a_finished_run_is_not_run_again(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path
) -> None:
    tiny_trainer(source, tmp_path).train()
    model, seen = Tiny(seed=9), list[Any]()
    assert tiny_trainer(source, tmp_path, model=model, on_step=seen.append).train() == uninterrupted[1]
    assert not seen
    assert all(torch.equal(value, uninterrupted[0][key]) for key, value in model.state_dict().items())


def test_names_and_gates_are_no_part_of_a_checkpoint(source: Source, tmp_path: Path) -> None:
    """What a stage starts from and what it trains on are compared by digests."""
    there = tiny_trainer(source, tmp_path).train()
    other = {"name": "sft", "data": "other@v2", "init_from": {"language": "lm@v2"}, "gates": ()}
    assert tiny_trainer(source, tmp_path, stage=other).train() == there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "other"}, "base is 'tiny' there and 'other' here"),
        ({"stage": {"optim": Optim(2e-2)}}, "stage.optim.lr is 0.01 there and 0.02 here"),
        ({"stage": {"precision": "bfloat16", "seed": 6}}, "'bfloat16' here; stage.seed is 5 there and 6 here"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(
    source: Source, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    tiny_trainer(source, tmp_path, stage={}).train()
    with pytest.raises(ValueError, match=r"checkpoint .*step-000000012 is of something else") as error:
        tiny_trainer(source, tmp_path, **changes).train()
    assert message in str(error.value) and "Train in another folder" in str(error.value)


def test_a_checkpoint_of_other_data_is_refused(source: Source, tmp_path: Path) -> None:
    tiny_trainer(source, tmp_path / "c").train()
    other = write_windows(tmp_path / "other", count=12)
    with pytest.raises(ValueError, match=f"data is '{source.sha256}' there and '{other.sha256}' here"):
        tiny_trainer(other, tmp_path / "c").train()


def damage(place: Path, how: str) -> None:
    """Hurts a checkpoint."""
    document = json.loads((place / STATE).read_bytes())
    if how == "a changed byte":
        data = bytearray((place / OPTIMIZER).read_bytes())
        data[-1] ^= 1
        (place / OPTIMIZER).write_bytes(data)
    elif how == "no weights":
        (place / WEIGHTS).unlink()
    elif how == "no state":
        (place / STATE).unlink()
    elif how == "half a state":
        (place / STATE).write_bytes((place / STATE).read_bytes()[:99])
    elif how == "a later format":
        (place / STATE).write_text(json.dumps({**document, "format": 2}))
    elif how == "another field":
        (place / STATE).write_text(json.dumps({**document, "reached": {"steps": 3}}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a changed byte", "optimizer.safetensors is missing, or not what was written. Remove it"),
        ("half a state", "state.json cannot be read"),
        ("a later format", "has format 2, this release reads up to 1: upgrade"),
        ("another field", "unexpected keyword argument 'steps'. Remove it"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_good(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path, how: str, message: str
) -> None:
    tiny_trainer(source, tmp_path).train()
    newest = tmp_path / "step-000000012"
    damage(newest, how)
    with pytest.raises(ValueError) as error:
        tiny_trainer(source, tmp_path).train()
    assert str(newest) in str(error.value) and message in str(error.value)
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()  # as the message says
    model = Tiny(seed=9)
    assert tiny_trainer(source, tmp_path, model=model).train() == uninterrupted[1]
    assert all(torch.equal(value, uninterrupted[0][key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("how", ["no weights", "no state"])
def test_what_a_killed_gc_left_of_a_checkpoint_is_none(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path, how: str
) -> None:
    tiny_trainer(source, tmp_path).train()
    damage(tmp_path / "step-000000012", how)
    model = Tiny(seed=9)
    assert tiny_trainer(source, tmp_path, model=model).train() == uninterrupted[1]
    assert all(torch.equal(value, uninterrupted[0][key]) for key, value in model.state_dict().items())


def test_an_error_of_the_writer_ends_the_run_with_its_name(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        tiny_trainer(source, tmp_path, settings=Settings(checkpoint_every=100)).train()


def test_an_error_of_the_writer_is_not_lost_behind_another(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def stop(progress: Any) -> None:
        if progress.step == 3:  # the checkpoint of step 2 is under way
            raise KeyboardInterrupt

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(KeyboardInterrupt) as error:
        tiny_trainer(source, tmp_path, on_step=stop).train()
    assert "No space left on device" in error.value.__notes__[0]


def test_what_is_saved_is_what_was_there_when_it_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, changed, honest = Tiny(), threading.Event(), state.save_file

    def late(*arguments: Any) -> None:
        assert changed.wait(PATIENCE)
        honest(*arguments)

    monkeypatch.setattr(state, "save_file", late)
    trained = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: value.detach().clone() for name, value in trained.items()}
    with Checkpoints(tmp_path, {"stage": stage().to_dict()}, 1) as checkpoints:
        checkpoints.save(Reached(3), trained, optimizer)
        with torch.no_grad():
            for value in trained.values():
                value.zero_()
        changed.set()
        checkpoints.wait()
        checkpoint = checkpoints.newest()
    assert checkpoint is not None and checkpoint.reached.step == 3 and not checkpoint.optimizer
    assert all(torch.equal(checkpoint.weights[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="has other parameters: head"):
        state.restore(checkpoint, {**trained, "head": trained["language.0.weight"]}, optimizer)
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, {}, 0)
