"""Training as Work: its folder in the lake, and a run that stopped goes on there with the same bits."""

from __future__ import annotations

import json
import pickle

import pytest
from pydantic import ValidationError
from training import config, prepare, stage, stop_at, train

from gristmill.lake.accounts.receipt import finished
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import execute
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly
from gristmill.stages.train import work as train_stage
from gristmill.stages.train.folder import RunAbout, RunFolder, RunsElsewhere, read_about, runs
from gristmill.stages.train.job import Execution, TrainInput
from gristmill.stages.train.result import put_result
from gristmill.stages.train.work import train_work


@pytest.fixture
def lake(store):
    """A store with a mixture of tiny windows."""
    prepare(store)
    return store


def test_a_run_that_stopped_goes_on_from_its_checkpoint_with_the_same_bits(lake, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Incomplete, match="the disk is gone"):
            train(lake, stage(steps=6))
    (about,) = runs(lake)
    assert (about.stage, about.dataset, about.steps, about.world) == ("pretrain", "nano.pretrain", 6, 1)
    assert about.alive >= about.started > 0
    folder = RunFolder(lake, about.key)
    # step 4 was written, as every second one; of step 5 all that is left is its line
    assert [path.name for path in sorted(folder.checkpoints.iterdir())] == ["step-000000002", "step-000000004"]
    assert [line["step"] for line in folder.metrics()] == [1, 2, 3, 4, 5]
    assert not verify(lake)

    went_on = train(lake, stage(steps=6)).manifest
    assert not runs(lake) and not folder.local.exists()
    other = open_store(str(tmp_path / "other"))
    prepare(other)
    at_once = train(other, stage(steps=6)).manifest
    assert went_on.digest == at_once.digest and not verify(lake)
    assert went_on.statistics["training"]["order"] == at_once.statistics["training"]["order"]
    lines = [json.loads(line) for line in lake.get(went_on.attachments[0].key).splitlines()]
    assert went_on.attachments[0].kind == "metrics" and [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_gc_spares_the_folder_of_a_run_that_lives_and_takes_that_of_a_dead_one(lake, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Incomplete):
            train(lake, stage(steps=6))
    (about,) = runs(lake)
    with Lease(lake, "nano.pretrain") as lease:
        lease.announce("train", [about.key])
        plan = plan_gc(lake, grace_seconds=0)
        assert not [doomed for doomed in plan.doomed if doomed.kind == "run"]
    plan = plan_gc(lake, grace_seconds=0)
    doomed = [doomed.key for doomed in plan.doomed if doomed.kind == "run"]
    assert f"runs/{about.key}/run.json" in doomed and len(doomed) == 5  # two lines of life, three files of a checkpoint
    assert not [doomed for doomed in plan_gc(lake).doomed if doomed.kind == "run"]  # it is younger than a day
    with Lease(lake, "nano.pretrain") as lease:  # a run that goes on between the plan and the sweep
        lease.announce("train", [about.key])
        assert run_gc(lake, plan).spared["its run is alive"] == 5
    run_gc(lake, plan_gc(lake, grace_seconds=0))
    assert not runs(lake)
    assert train(lake, stage(steps=6)).new  # from the beginning


def test_two_processes_do_not_train_in_one_folder(lake):
    folder = RunFolder(lake, "a" * 64)
    with folder.held():
        folder.announce(RunAbout(folder.key, "pretrain", "nano.pretrain", 6, 1))
        with (
            pytest.raises(RunsElsewhere, match=r"another process trains this very stage \(process \d+ on .*'pretrain'"),
            RunFolder(lake, "a" * 64).held(),
        ):
            pass
    with folder.held():
        pass
    assert read_about(lake, "a" * 64) == runs(lake)[0] and read_about(lake, "b" * 64) is None


def test_a_run_that_waited_for_another_takes_its_result(lake, monkeypatch):
    """A second process looks for the receipt, finds none, and begins when the first one has ended."""
    kept = {}

    def keep(store, job, folder, trained):
        kept["job"], kept["key"] = job, folder.key
        return put_result(store, job, folder, trained)

    monkeypatch.setattr(train_stage, "put_result", keep)
    train(lake, stage(gates=[]))
    job, key = kept["job"], kept["key"]
    receipt = finished(lake, key)
    monkeypatch.setattr(train_stage, "_carry_out", lambda *args: pytest.fail("it was trained again"))
    work = train_work(job.stage, job.config, job.given, job.execution)
    assert work.key == key
    assert execute(lake, work).identity() == receipt.identity()
    with RunFolder(lake, key).held():
        RunFolder(lake, key).close(done=True)  # by the first one, late
        assert RunFolder(lake, key).local.exists()
    RunFolder(lake, key).close(done=True)
    assert not RunFolder(lake, key).local.exists()


def test_a_plan_says_what_would_be_trained_and_trains_nothing(lake):
    runner = Runner(lake, workers=0, plan=True)
    with pytest.raises(PlanOnly) as plan:
        train(lake, stage(), stage("b", init_from={"language": "stage:pretrain"}), runner=runner)
    assert (plan.value.title, plan.value.todo) == ("train", ("pretrain",))
    assert not runs(lake) and not Versions(lake).numbers("nano.pretrain")


def test_the_key_says_what_is_trained_and_not_how(lake):
    windows = Versions(lake).resolve("mix@v1").shards
    given = TrainInput("nano.pretrain", 3, ((windows[0], windows[1]),), {}, windows[0])
    fields = {"trainable": frozenset({"language"}), "data": "mix@v1", "batch": 2, "steps": 3, "optim": Optim(1e-3)}

    def key(config=PRESETS["nano"], execution=Execution(), given=given, **changes):  # noqa: B008 - frozen
        return train_work(TrainStage(**{"name": "a", **fields, **changes}), config, given, execution).key

    assert key() == key(name="b", data="mix@v9", gates=(), execution=Execution(device="cuda", gpus=1))
    others = [
        key(steps=4),
        key(batch=3),
        key(optim=Optim(2e-3)),
        key(seed=1),
        key(precision="bfloat16"),
        key(config=PRESETS["small"]),
        key(given=TrainInput("nano.pretrain", 3, ((windows[0], windows[0]),), {}, windows[0])),
    ]
    assert len({key(), *others}) == 8


def test_work_travels_by_pickle(lake):
    of_adapter = TrainStage("a", {"language"}, "mix@v1", 2, Optim(1e-3), {"language": "lm@v1"}, steps=3)
    work = train_work(
        of_adapter, PRESETS["nano"], TrainInput("x", 3, (), {}, Versions(lake).resolve("bpe@v1").shards[0]), Execution()
    )
    again = pickle.loads(pickle.dumps(work))
    assert again == work and again.key == work.key


def test_a_trainer_in_process_has_one_rank():
    with pytest.raises(ValidationError, match=r"ranks=2: one process trains in process"):
        config(run={"ranks": 2})
