"""The folder of a run: one writer at a time, also where a killed run left one; on S3 it is here for a while."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from train_kills import in_child
from waiting import until

from gristmill.lake.store.base import Store
from gristmill.lake.store.s3 import S3Store
from gristmill.model.train.checkpoint_files import OPTIMIZER, STATE, WEIGHTS
from gristmill.stages.train import folder as run_folder
from gristmill.stages.train.folder import RunAbout, RunFolder, RunsElsewhere

KEY = "ab" * 32


def writer(store: Store, began: Path) -> int:
    """A process that writes checkpoints until it is killed. -> Its number, once it does."""
    child = os.fork()
    if child == 0:
        try:
            folder = RunFolder(store, KEY)
            with folder.placed(), folder.written():
                folder.announce(RunAbout(KEY, "pretrain", "nano", steps=3, world=2))
                began.touch()
                signal.pause()
        finally:
            os._exit(1)
    until(began.exists, "a writer")
    return child


def test_a_writer_that_a_killed_run_left_is_waited_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = writer(store, tmp_path / "began")
    folder, looks = RunFolder(store, KEY), []

    def look(seconds: float) -> None:
        """Stands for the time between two looks, in which Ray ends what was left."""
        looks.append(seconds)
        if len(looks) == 3:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    monkeypatch.setattr(run_folder.time, "sleep", look)
    with folder.held(), folder.written():
        assert len(looks) == 3


def test_a_writer_that_stays_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = writer(store, tmp_path / "began")
    monkeypatch.setattr(run_folder, "LAST_WRITES", 0.0)
    folder = RunFolder(store, KEY)
    try:
        message = rf"\(process {child} on .*, stage 'pretrain'\): wait for its end"
        with folder.held(), pytest.raises(RunsElsewhere, match=message), folder.written():
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_on_s3_a_run_is_on_this_machine_for_a_while(s3_lake: str, tmp_path: Path) -> None:
    def work() -> None:  # clients of S3 do not survive a fork: only children use them
        folder = RunFolder(S3Store(s3_lake), KEY)
        with pytest.raises(RuntimeError, match=r"has no place on this machine before `placed`"):
            _ = folder.local
        with folder.held(), folder.written():
            place, local = folder.checkpoints / "step-000000002", folder.local
            place.mkdir()
            for name, text in {WEIGHTS: "w", OPTIMIZER: "o", STATE: "{}"}.items():
                (place / name).write_text(text)
            folder.metrics_file.write_text('{"step": 1}\n{"step": 2}\n')
            assert folder.mirror is not None
            folder.mirror.keep(place)
        assert not local.exists()
        elsewhere = RunFolder(S3Store(s3_lake), KEY)
        with elsewhere.held():
            assert elsewhere.metrics_file.read_text() == '{"step": 1}\n{"step": 2}\n'
            with pytest.raises(ValueError, match=f"checkpoint {s3_lake}/runs/{KEY}/checkpoints/step-000000002: state"):
                elsewhere.fetch(2)
            assert (elsewhere.checkpoints / "step-000000002" / WEIGHTS).read_text() == "w"
        elsewhere.close(done=True)
        assert not list(S3Store(s3_lake).list("runs/"))

    assert in_child(work) == 0
