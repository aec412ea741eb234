"""What is asked about runs: which run, are silent or ended, how far each is; trials of the learning rate's law."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from trained import commit_evaluation, commit_model, put_run, steps
from waiting import PATIENCE

from gristmill.lake.store.base import Store
from gristmill.lake.versions.lease import LEASE_SECONDS, Lease
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.model.runs.lr_fit import Trial
from gristmill.stages.train.seen import SILENT, find_run, metrics_of_run, metrics_of_version, run_rows
from gristmill.stages.train.trials import trials_of

KEY, OTHER = "ab" * 32, "ac" * 32


def gone() -> int:
    """The number of a process that was, and is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(PATIENCE)
    return child.pid


def test_a_run_is_alive_as_long_as_a_lease_names_its_work_and_its_process_is_there(store: Store) -> None:
    alive = put_run(store, KEY, steps([4.0, 3.0], planned=40, skipped=True)).alive
    assert [row.state for row in run_rows(store)] == ["ended"]  # nobody says that it is under way
    with Lease(store, "nano.pretrain") as lease:
        lease.announce("train", [KEY])
        assert [row.state for row in run_rows(store)] == ["running"]
        (silent,) = run_rows(store, now=alive + SILENT + 1)
        assert silent.state == "silent" and silent.silent_for == SILENT + 1
        (dead,) = run_rows(store, now=alive + 2 * LEASE_SECONDS)
        assert dead.state == "ended"
        put_run(store, KEY, steps([4.0]), pid=gone())
        assert [row.state for row in run_rows(store)] == ["ended"]  # killed a moment ago: its lease is not old yet
        put_run(store, KEY, steps([4.0]), pid=gone(), host=f"not-{platform.node()}")
        assert [row.state for row in run_rows(store)] == ["running"]  # another machine's processes are its own affair
        for field in ("boot", "namespace"):  # as a container's are that shares the name of this host
            put_run(store, KEY, steps([4.0]), pid=gone(), **{field: "another"})
            assert [row.state for row in run_rows(store)] == ["running"]
    assert [row.state for row in run_rows(store)] == ["ended"]


def test_a_run_says_how_far_it_is(store: Store) -> None:
    put_run(store, KEY, steps([4.0, 3.0, 2.0], planned=40, tokens=100, seconds=0.5, seconds_left=18.5), started=5.0)
    put_run(store, OTHER, [], dataset="nano.other", started=9.0, world=2)
    newest, row = run_rows(store)
    assert (newest.dataset, newest.step, newest.loss, newest.tokens_per_second) == ("nano.other", 0, None, None)
    assert newest.seconds_left is None and newest.world == 2
    assert (row.dataset, row.stage, row.step, row.steps) == ("nano.pretrain", "pretrain", 3, 40)
    assert row.loss is not None and 2.0 < row.loss < 3.0
    assert row.tokens_per_second == pytest.approx(200) and row.seconds_left == 18.5 and row.skipped == 0
    assert run_rows(store, now=row.started) and row.host == platform.node()


def test_a_run_is_match_the_beginning_of_its_key(store: Store) -> None:
    put_run(store, KEY, steps([4.0]))
    put_run(store, OTHER, steps([4.0]))
    match = find_run(store, "abab" * 3)
    assert match is not None and match.key == KEY
    assert find_run(store, "f" * 8) is None and find_run(store, "abc") is None and find_run(store, "web@v1") is None
    put_run(store, "abababff" * 8, steps([4.0]))
    with pytest.raises(ValueError, match=r"ababab: several runs begin so: ab.{10} \(nano.pretrain\), ab.* give more"):
        find_run(store, "ababab")
    assert metrics_of_run(store, KEY) == steps([4.0])


def test_metrics_of_a_version_are_those_of_its_training(store: Store) -> None:
    manifest = commit_model(store, "nano.pretrain", steps([4.0, 3.0]))
    assert metrics_of_version(store, manifest) == steps([4.0, 3.0])
    assert metrics_of_version(store, commit_model(store, "imported", [])) == []


def test_trials_have_the_mean_loss_of_the_last_steps_or_that_of_an_evaluation(store: Store) -> None:
    versions = Versions(store)
    losses = [9.0] * 38 + [3.0, 1.0]
    models = [
        commit_model(store, f"m{i}", steps([*losses[:-1], 1.0 + i]), tokens=1000 * i, peak_lr=i / 100) for i in (1, 2)
    ]
    trained = trials_of(versions, ["m1@v1", "m2", "m1"])
    assert trained.trials == (Trial("m1@v1", 1000, 0.01, 2.5), Trial("m2@v1", 2000, 0.02, 3.0))
    assert trained.losses == "mean of a target over the last 5% of the steps of training"
    for model, nats in zip(models, (3.25, 3.5), strict=True):
        commit_evaluation(store, model, nats)
    judged = trials_of(versions, ["m1.eval@v1", "m2.eval@v1"])
    assert judged.trials == (Trial("m1@v1", 1000, 0.01, 3.25), Trial("m2@v1", 2000, 0.02, 3.5))
    assert judged.losses == "nats a token of held@v1"


def test_what_cannot_be_compared_is_refused(store: Store, tmp_path: Path) -> None:
    versions = Versions(store)
    model = commit_model(store, "m", steps([2.0]))
    commit_model(store, "imported", [])
    commit_model(store, "large", steps([2.0]), parameters=9000)
    commit_model(store, "adapter", steps([2.0]), trainable=("lora_vision",))
    commit_evaluation(store, model, 3.0)
    commit_evaluation(store, commit_model(store, "other", steps([2.0])), 3.0, on="elsewhere")
    commit_evaluation(store, commit_model(store, "answers", steps([2.0])), None)
    for names, message in (
        (["m", "imported"], "imported@v1 was not trained by `grist train`"),
        (
            ["m", "large"],
            r"m@v1 has 500 parameters, of which language .*, large@v1 has 9,000 parameters.* of one model",
        ),
        (["m", "adapter"], "adapter@v1 has 500 parameters, of which lora_vision are trained"),
        (["m.eval", "m"], "m@v1 is no evaluation, others are"),
        (["m.eval", "other.eval"], "m.eval@v1 is on held@v1, other.eval@v1 on elsewhere@v1: losses on different data"),
        (["answers.eval"], "answers.eval@v1 has no perplexity"),
    ):
        with pytest.raises(ValueError, match=message):
            trials_of(versions, names)
    with pytest.raises(NoSuchVersion):
        trials_of(versions, ["nope"])
