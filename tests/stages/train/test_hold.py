"""One holder of a run at a time in a store without locks; a dead one is followed, a stopped one is refused."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from train_kills import in_child
from waiting import PATIENCE

from gristmill.lake.store.base import Store
from gristmill.lake.store.local import LocalStore
from gristmill.lake.store.s3 import S3Store
from gristmill.model.train.checkpoint_files import OPTIMIZER, STATE, WEIGHTS
from gristmill.stages.train import hold as holds
from gristmill.stages.train import process
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.hold import Hold, RunsElsewhere
from gristmill.stages.train.mirror import CheckpointMirror, NotKept

KEY = "ab" * 32
PREFIX = f"runs/{KEY}/"


class Time:
    """A clock that goes on only where a look at a holder is waited for."""

    def __init__(self, on_look: Callable[[int], None] = lambda looks: None) -> None:
        self.now, self.looks, self._on_look = 0.0, 0, on_look

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.looks += 1
        self._on_look(self.looks)


@pytest.fixture
def elsewhere(store: Store, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """A holder on another machine, which writes no sign of life but those that a test makes it write."""
    hold = Hold(store, PREFIX)
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "far-away")
        hold._take()
    return hold


def sign_of_life(hold: Hold, monkeypatch: pytest.MonkeyPatch, *, released: bool = False) -> None:
    """As its thread writes one; a second later by the store's clock, which may have no finer grain."""
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "far-away")
        hold._write(released=released)
    path = Path(hold._store.uri, hold._key(hold.number))
    os.utime(path, (path.stat().st_mtime + 1, path.stat().st_mtime + 1))


def test_a_live_holder_is_left_alone_and_named(store: Store, elsewhere: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "time", Time(lambda looks: sign_of_life(elsewhere, monkeypatch)))
    with (
        pytest.raises(RunsElsewhere, match=rf"\(process {os.getpid()} on far-away\): wait for its end, or stop it"),
        Hold(store, PREFIX).taken(),
    ):
        pass
    elsewhere.check()


def test_a_silent_holder_is_followed_and_refused_from_then_on(
    store: Store, elsewhere: Hold, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Time()
    monkeypatch.setattr(holds, "time", clock)
    caplog.set_level(logging.INFO, logger="gristmill")
    with Hold(store, PREFIX).taken():
        assert clock.now == holds.SILENCE
        with pytest.raises(RunsElsewhere, match="another process has taken over this run"):
            elsewhere.check()
    assert f"held by process {os.getpid()} on far-away; it is taken over after 90 s of silence" in caplog.text


def test_a_holder_that_ends_while_it_is_watched_is_followed_at_once(
    store: Store, elsewhere: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time(lambda looks: sign_of_life(elsewhere, monkeypatch, released=True))
    monkeypatch.setattr(holds, "time", clock)
    with Hold(store, PREFIX).taken():
        assert clock.looks == 1


def test_after_an_end_and_after_a_death_on_this_machine_nobody_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    monkeypatch.setattr(holds, "time", clock)
    with Hold(store, PREFIX).taken():
        pass
    child = os.fork()
    if child == 0:
        Hold(store, PREFIX)._take()
        os._exit(0)  # without releasing it, as a killed process
    os.waitpid(child, 0)
    third = Hold(store, PREFIX)
    with third.taken():
        assert (third.number, clock.looks) == (3, 0)
        assert [info.key for info in store.list(PREFIX)] == [f"{PREFIX}holders/000003.json"]


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_pid_of_another_namespace_says_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Of a live container that shares the name of this host, and whose pids are its own."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(PATIENCE)
    here = process.this_process()._replace(pid=gone.pid)
    assert here.is_gone()
    with monkeypatch.context() as patch:
        patch.setattr(holds, "this_process", lambda: here._replace(**{field: "another"}))
        Hold(store, PREFIX)._take()
    clock = Time()
    monkeypatch.setattr(holds, "time", clock)
    with Hold(store, PREFIX).taken():
        assert clock.now == holds.SILENCE


def test_of_two_that_follow_at_once_one_is_refused(
    store: Store, elsewhere: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Hold(store, PREFIX), Hold(store, PREFIX)

    def other_takes_it(looks: int) -> None:
        """The other one had the last look before, and takes it; a sign of life of it is due later."""
        if clock.now == holds.SILENCE:
            sign_of_life(elsewhere, monkeypatch, released=True)
            first._take()
        if clock.now > holds.SILENCE:
            first._write(released=False)
            path = Path(store.uri, first._key(first.number))
            os.utime(path, (path.stat().st_mtime + looks, path.stat().st_mtime + looks))

    clock = Time(other_takes_it)
    monkeypatch.setattr(holds, "time", clock)
    with pytest.raises(RunsElsewhere), second.taken():
        pass
    first.check()


def test_who_finished_takes_the_folder_only_where_nobody_else_has_the_run(
    store: Store, elsewhere: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Hold(store, PREFIX).take_if_free()
    elsewhere.check()
    sign_of_life(elsewhere, monkeypatch, released=True)
    closing = Hold(store, PREFIX)
    assert closing.take_if_free() and closing.number == 2
    assert not Hold(store, PREFIX).take_if_free()
    for info in list(store.list(PREFIX)):
        store.delete(info.key)
    with pytest.raises(RunsElsewhere, match="another process has finished this run"):
        closing.check()


@pytest.mark.parametrize("lost_after", [0, 2])
def test_a_checkpoint_of_a_run_that_was_taken_over_is_no_checkpoint(
    store: Store, tmp_path: Path, lost_after: int
) -> None:
    folder = tmp_path / "step-000000002"
    folder.mkdir()
    for name in (WEIGHTS, OPTIMIZER, STATE):
        (folder / name).write_text("{}")
    stopped = Hold(store, PREFIX)
    stopped._take()

    class Lake(LocalStore):
        def put_file(self, key: str, path: str | Path) -> None:
            super().put_file(key, path)
            if key.endswith((WEIGHTS, OPTIMIZER)[1]) and lost_after:
                Hold(store, PREFIX)._store.create(f"{PREFIX}holders/{stopped.number + 1:06d}.json", b"another's")

    if not lost_after:
        store.create(f"{PREFIX}holders/{stopped.number + 1:06d}.json", b"another's")
    mirror = CheckpointMirror(Lake(store.uri), f"{PREFIX}checkpoints/", check=stopped.check)
    with pytest.raises(RunsElsewhere):
        mirror.keep(folder)
    stored = [info.key.rpartition("/")[2] for info in store.list(f"{PREFIX}checkpoints/")]
    assert stored == sorted([WEIGHTS, OPTIMIZER][:lost_after])
    assert not issubclass(RunsElsewhere, NotKept)  # which is tried again
    with pytest.raises(RunsElsewhere):
        mirror.remove_others([])


def test_on_s3_two_machines_do_not_train_one_stage(s3_lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:  # clients of S3 do not survive a fork: only children use them
        monkeypatch.setattr(holds, "BEAT", 0.05)
        monkeypatch.setattr(holds, "LOOK", 0.2)
        lake = S3Store(s3_lake)
        first, second = RunFolder(lake, KEY), RunFolder(lake, KEY)
        monkeypatch.setattr(process, "process_exists", lambda pid: True)
        with first.held(), first.written():
            monkeypatch.setattr(platform, "node", lambda: "another")
            with pytest.raises(RunsElsewhere, match="another process trains this very stage"), second.held():
                pass
            first._hold.check()
            rank = RunFolder(lake, KEY, first.holder)
            with rank.placed(), rank.written():
                pass
        with second.held(), second.written():
            second._hold.check()
            RunFolder(lake, KEY).close(done=True)  # as the first one's driver does, whose receipt is written
            second._hold.check()
            late = RunFolder(lake, KEY, first.holder)  # as Ray starts one again of the driver that was followed
            with late.placed(), pytest.raises(RunsElsewhere, match="has taken over this run"), late.written():
                pass

    assert in_child(work) == 0
