"""Checkpoints in a store: a run that lost its machine goes on from there, wherever it was killed."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_kills import LOCAL, REMOTE, in_child, killed_at
from train_windows import Tiny, run_through, tiny_trainer, write_windows
from waiting import PATIENCE

from gristmill.lake.store.base import Store
from gristmill.lake.store.local import LocalStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import is_outage
from gristmill.lake.store.s3 import S3Store
from gristmill.model.train.checkpoint_files import OPTIMIZER, STATE, WEIGHTS
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.state import Reached
from gristmill.stages.train.mirror import CheckpointMirror, NotKept

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, PREFIX = 12, "runs/abc/checkpoints/"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def uninterrupted(source: Source) -> tuple[dict[str, Tensor], Reached]:
    """Weights and end of a run without checkpoints."""
    return run_through(source)


def train(source: Source, store: Store, **changes: Any) -> tuple[dict[str, Tensor], Reached]:
    """A run on a machine that has nothing of the ones before: a new folder, and the store."""
    model = Tiny()
    with tempfile.TemporaryDirectory() as name:
        mirror = CheckpointMirror(store, PREFIX)
        reached = tiny_trainer(source, Path(name) / "c", model=model, mirror=mirror, **changes).train()
    return model.state_dict(), reached


def stored(store: Store) -> list[str]:
    """Keys of what the store has, below the prefix."""
    return [info.key.removeprefix(PREFIX) for info in store.list(PREFIX)]


def whole(*steps: int) -> list[str]:
    """The keys of these checkpoints."""
    return [f"step-{step:09d}/{file}" for step in steps for file in sorted((WEIGHTS, OPTIMIZER, STATE))]


@settings(max_examples=12)
@example([("upload", 2)])  # before the first state.json
@example([("uploaded", 2), ("uploaded", 2)])  # after it, before what is too many is removed
@example([("upload", 7), ("deletion", 4)])
@example([("deletion", 4), ("deletion", 5)])  # before and after a state.json is removed
@example([("step", 11)])
@given(st.lists(st.tuples(st.sampled_from(LOCAL + REMOTE), st.integers(0, STEPS)), min_size=1, max_size=3))
def test_killed_anywhere_and_moved_it_ends_with_the_same_bits(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], kills: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = LocalStore(name)  # what is asked of a store, an S3 store does as well
        for event, count in kills:
            killed_at(event, count, lambda on_step: train(source, store, on_step=on_step), LocalStore)
        weights, reached = train(source, store)
        assert reached == uninterrupted[1]
        assert all(torch.equal(value, weights[key]) for key, value in uninterrupted[0].items())
        assert stored(store) == whole(10, 12)


def test_the_kills_happen_where_they_say(source: Source, tmp_path: Path) -> None:
    def state_after(event: str, count: int) -> list[str]:
        store = LocalStore(str(tmp_path / f"{event}{count}"))
        assert killed_at(event, count, lambda on_step: train(source, store, on_step=on_step), LocalStore)
        return stored(store)

    assert state_after("upload", 2) == [f"step-{2:09d}/{OPTIMIZER}", f"step-{2:09d}/{WEIGHTS}"]
    assert state_after("uploaded", 2) == whole(2)
    assert state_after("uploaded", 8) == whole(2, 4, 6)
    # Each checkpoint begins with a deletion, of a state.json that is not there; so the fourth is of the first that goes
    assert state_after("deletion", 3) == whole(2, 4, 6)
    assert state_after("deletion", 4) == [*[key for key in whole(2) if STATE not in key], *whole(4, 6)]


@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize("kill", [("upload", 2), ("uploaded", 8), ("deletion", 4), ("step", 7)])
def test_on_s3_it_goes_on_where_it_was(
    source: Source,
    uninterrupted: tuple[dict[str, Tensor], Reached],
    s3_lake: str,
    tmp_path: Path,
    kill: tuple[str, int],
) -> None:
    def rest() -> None:
        weights, reached = train(source, S3Store(s3_lake), on_step=steps.append)
        assert reached == uninterrupted[1] and stored(S3Store(s3_lake)) == whole(10, 12)
        save_file({**weights, "steps": torch.tensor(len(steps))}, tmp_path / "weights")

    steps: list[Any] = []
    # Clients of S3 do not survive a fork: only children use them
    assert killed_at(*kill, lambda on_step: train(source, S3Store(s3_lake), on_step=on_step), S3Store)
    assert in_child(rest) == 0
    weights = load_file(tmp_path / "weights")
    assert all(torch.equal(value, weights[key]) for key, value in uninterrupted[0].items())
    # Of step 8, the checkpoint of step 4 was stored when that of step 6 began; that one was, or was under way
    assert int(weights["steps"]) in {"upload": [12], "uploaded": [6], "deletion": [6], "step": [6, 8]}[kill[0]]


@pytest.mark.parametrize(
    ("file", "how", "message"),
    [
        (WEIGHTS, "a changed byte", "weights.safetensors is missing, or not what was written"),
        (OPTIMIZER, "a changed byte", "optimizer.safetensors is missing, or not what was written"),
        (STATE, "cut", "state.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_where_it_is_stored_and_the_one_before_is_good(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path, file: str, how: str, message: str
) -> None:
    store = open_store(str(tmp_path / "lake"))
    train(source, store)
    key = f"{PREFIX}step-000000012/{file}"
    data = store.get(key)
    store.put(key, data[:99] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError) as error:
        train(source, store)
    assert f"checkpoint {store.uri}/{PREFIX}step-000000012: {message}" in str(error.value)
    shutil.rmtree(f"{store.uri}/{PREFIX}step-000000012")  # as the message says
    weights, reached = train(source, store)
    assert reached == uninterrupted[1]
    assert all(torch.equal(value, weights[key]) for key, value in uninterrupted[0].items())


def test_a_checkpoint_that_lacks_a_file_is_none(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "lake"))
    train(source, store)
    store.delete(f"{PREFIX}step-000000012/{WEIGHTS}")
    assert CheckpointMirror(store, PREFIX).names() == ["step-000000010"]
    steps: list[Any] = []
    assert train(source, store, on_step=steps.append)[1] == uninterrupted[1] and len(steps) == 2
    assert stored(store) == whole(10, 12)


def test_a_checkpoint_of_something_else_is_named_where_it_is_stored(source: Source, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    train(source, store)
    with pytest.raises(ValueError, match=f"checkpoint {store.uri}/{PREFIX}step-000000012 is of something else"):
        train(source, store, base="another")


class Away(LocalStore):
    """A store that cannot be written to from the n-th file on."""

    def __init__(self, root: str, files: int) -> None:
        super().__init__(root)
        self.files = files

    def put_file(self, key: str, path: str | Path) -> None:
        """As a LocalStore, so often."""
        self.files -= 1
        if self.files < 0:
            raise EndpointConnectionError(endpoint_url="http://store")
        super().put_file(key, path)


def test_what_cannot_be_stored_ends_the_run_at_the_next_checkpoint(source: Source, tmp_path: Path) -> None:
    store, steps = Away(str(tmp_path), 4), list[Any]()
    with pytest.raises(NotKept) as error:
        train(source, store, on_step=steps.append)
    assert str(error.value).startswith(f"checkpoint {store.uri}/{PREFIX}step-000000004 was not stored: Could not conn")
    assert is_outage(error.value), "a run waits for the store, and is begun again"
    assert len(steps) == 6  # the checkpoint after that of step 4
    assert CheckpointMirror(store, PREFIX).names() == ["step-000000002"]


class Slow(LocalStore):
    """A store that takes the first checkpoint only when it is told to."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.go = threading.Event()

    def put_file(self, key: str, path: str | Path) -> None:
        """As a LocalStore, after it was told."""
        assert self.go.wait(PATIENCE)
        super().put_file(key, path)


def test_training_goes_on_while_a_checkpoint_is_stored(source: Source, tmp_path: Path) -> None:
    store = Slow(str(tmp_path))

    def on_step(progress: Any) -> None:
        if progress.step == 7:  # three steps after the first checkpoint
            assert stored(store) == []
            store.go.set()

    train(source, store, on_step=on_step, settings=Settings(checkpoint_every=4))
    assert stored(store) == whole(8, 12)


def test_what_lies_in_the_folder_does_not_count(
    source: Source, uninterrupted: tuple[dict[str, Tensor], Reached], tmp_path: Path
) -> None:
    # A machine that kept its folder, and another that went on without it: the store is what both know
    store, model = LocalStore(str(tmp_path / "store")), Tiny()
    mirror = CheckpointMirror(store, PREFIX)
    tiny_trainer(source, tmp_path / "c", mirror=mirror).train()
    for step in (10, 12):
        shutil.rmtree(f"{store.uri}/{PREFIX}step-{step:09d}")
    assert tiny_trainer(source, tmp_path / "c", model=model, mirror=mirror).train() == uninterrupted[1]
    assert all(torch.equal(value, uninterrupted[0][key]) for key, value in model.state_dict().items())
    assert [path.name for path in sorted((tmp_path / "c").iterdir())] == ["step-000000010", "step-000000012"]
    assert json.loads(store.get(f"{PREFIX}step-000000012/{STATE}"))["reached"]["step"] == 12
