"""Ranks on Ray train as processes without it do; which failures are borne, and how the others come back."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import in_ranks
from safetensors.torch import load_file
from train_on_ray import Kill, RaisesAtTheEnd, TinyRun
from train_windows import write_windows

from gristmill.lake.store.scratch import PREFIX
from gristmill.model.train.loop import Diverged
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Source
from gristmill.model.train.state import Reached
from gristmill.stages.run.cluster import TooSmall, connect
from gristmill.stages.train.job import Execution
from gristmill.stages.train.ray_train import SETTINGS, _interruptible, _settings, on_ray

RANKS = Execution(trainer="ray", ranks=2)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    """A folder of 11 windows in two shards."""
    folder = tmp_path_factory.mktemp("windows")
    return folder, write_windows(folder)


def run_in(windows: tuple[Path, Source], folder: Path, kill: Kill | None = None) -> TinyRun:
    """A run below a folder."""
    return TinyRun(windows[0], windows[1].shards, folder, kill)


@pytest.fixture(scope="module")
def uninterrupted(windows: tuple[Path, Source], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run of two ranks without Ray. Forked before Ray has threads in this process."""
    folder = tmp_path_factory.mktemp("uninterrupted")

    def work(ranks: Ranks) -> None:
        torch.set_num_threads(1)
        run_in(windows, folder)(ranks)

    assert in_ranks(folder, 2, work) == [0, 0]
    return load_file(folder / "weights")


@pytest.fixture(scope="module")
def cluster(uninterrupted: dict[str, torch.Tensor]) -> None:
    """Ray, with two CPUs."""
    connect(2)


def same(weights: dict[str, torch.Tensor], folder: Path) -> bool:
    """Whether a run came to these bits."""
    return all(torch.equal(value, weights[name]) for name, value in load_file(folder / "weights").items())


@pytest.mark.usefixtures("cluster")
def test_a_killed_rank_is_borne_with_the_bits_of_ranks_without_ray_and_an_error_ends_all_at_once(
    windows: tuple[Path, Source], uninterrupted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """One run, for the processes of a run import for half a minute of CPU. What comes back of one that ends well:
    tests/test_cluster.py. More kills: tests/soak_train.py."""
    handler, before = signal.getsignal(signal.SIGINT), dict(os.environ)
    run = RaisesAtTheEnd(run_in(windows, tmp_path, Kill(1, "pass", 9)), tmp_path)
    with pytest.raises(ValueError, match=r"^rank 1 was told to raise$"):  # as it is; rank 0 waits for it all the while
        on_ray(run, RANKS)
    assert (tmp_path / "ends-0").read_text() == (tmp_path / "ends-1").read_text() == "12\n", "not tried again"
    assert same(uninterrupted, tmp_path)
    assert (tmp_path / "killed").exists()
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-000000010", "step-000000012"]
    assert signal.getsignal(signal.SIGINT) is handler and dict(os.environ) == before
    assert not [path for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*") if (path / "train").exists()]
    there = {"threads": 1, "cwd": os.getcwd(), "backend": "gloo", "interfaces": ["lo", "lo"]}
    assert [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)] == [there, there]


@pytest.mark.usefixtures("cluster")
def test_more_ranks_than_the_cluster_holds_are_refused_at_once(windows: tuple[Path, Source], tmp_path: Path) -> None:
    with pytest.raises(TooSmall, match=r"run\.ranks=3 need 1 CPUs each, and the cluster holds 2 of them"):
        on_ray(run_in(windows, tmp_path), Execution(trainer="ray", ranks=3))
    with pytest.raises(TooSmall, match="one piece of work needs 1 CPUs and 1 GPUs"):
        on_ray(run_in(windows, tmp_path), Execution(trainer="ray", ranks=1, gpus=1))
    with pytest.raises(ValueError, match="ranks=0: allowed is 1 or more"):
        Execution(trainer="ray", ranks=0)


@pytest.fixture
def borne(cluster: None) -> Any:
    """What bears two deaths of two ranks."""
    from gristmill.stages.train.ray_ranks import Borne

    return Borne(failures=2, ranks=2)


def test_deaths_are_borne_as_long_as_checkpoints_come_between(borne: Any) -> None:
    from ray.exceptions import ActorDiedError

    from gristmill.stages.train.ray_ranks import RankLost

    death = {0: RuntimeError("Connection closed by peer"), 1: ActorDiedError()}
    for step in (100, 200):
        for _ in range(2):
            borne.after_exception(None, death)
        borne.after_report(None, [{"step": step}, {"step": step}], None)
    for _ in range(2):
        borne.after_exception(None, death)
    borne.after_report(None, [{"step": 200}], None)  # the same checkpoint again is no headway
    with pytest.raises(RankLost, match="rank 1 of 2 was lost, 3 times without a new checkpoint after step 200: "):
        borne.after_exception(None, death)


@pytest.mark.parametrize("error", [Diverged("step 3"), OSError(28, "No space left on device"), ConnectionError("away")])
def test_what_no_other_try_mends_ends_the_run(borne: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        borne.after_exception(None, {0: RuntimeError("Connection closed by peer"), 1: error})
    assert raised.value is error


def test_a_rank_alone_loses_no_other(cluster: None) -> None:
    from gristmill.stages.train.ray_ranks import Borne

    with pytest.raises(RuntimeError, match="sizes of tensors"):
        Borne(failures=2, ranks=1).after_exception(None, {0: RuntimeError("sizes of tensors")})


def test_reports_are_seldom(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.stages.train import ray_ranks

    reported: list[dict[str, int]] = []
    clock = iter([0.0, 9.0, 10.0, 25.0])
    monkeypatch.setattr(ray_ranks.ray.train, "report", reported.append)
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        reports = ray_ranks.Reports(Ranks(), clock=lambda: next(clock))
        for step in (10, 20, 30, 40):
            reports(Reached(step))
    finally:
        dist.destroy_process_group()
    assert reported == [{"step": 10}, {"step": 30}, {"step": 40}]


def test_ctrl_c_is_no_success() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _interruptible():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Ray Train, whose handler ends the process like this:
        sys.exit(0)
    assert signal.getsignal(signal.SIGINT) is handler


def test_settings_of_a_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.setenv(name, "7")
    with _settings():
        assert os.environ[name] == "7" and set(SETTINGS) <= set(os.environ)
    assert os.environ[name] == "7" and not (set(SETTINGS) - {name}) & set(os.environ)
