"""Scratch folders: what a killed process left is taken away by the next, and nothing that anybody still uses."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from gristmill.lake.store import scratch as module
from gristmill.lake.store.scratch import PREFIX, scratch

HOLD = """
import sys
from gristmill.lake.store.scratch import scratch
with scratch() as folder:
    (folder / "half.parquet").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A place for temporary files of this test's own, not swept yet."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module._swept.cache_clear()
    yield tmp_path
    module._swept.cache_clear()


def holder() -> tuple[subprocess.Popen[bytes], Path]:
    """A process that is in the middle of writing, and its folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().decode().strip())


def test_a_folder_is_there_and_then_it_is_not(temporary):
    with scratch() as folder, scratch() as other:
        assert folder != other and folder.parent == temporary and os.stat(folder).st_mode & 0o077 == 0
        (folder / "sub").mkdir()
    assert list(temporary.iterdir()) == []
    with pytest.raises(KeyError), scratch():
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_taken_away_and_what_a_live_one_has_is_not(temporary):
    (dead, left), (alive, used) = holder(), holder()
    try:
        dead.kill()
        dead.wait()
        assert (left / "half.parquet").exists()
        with scratch():
            assert not left.exists() and (used / "half.parquet").exists()
        alive.communicate(b"")
        assert alive.returncode == 0 and list(temporary.iterdir()) == []
    finally:
        for process in (dead, alive):
            process.kill()
            process.communicate()


def test_what_is_not_ours_stays(temporary, monkeypatch):
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    (temporary / f"{PREFIX}file").write_text("somebody's notes")
    (temporary / "grist-1000-abcdef01").mkdir()  # sessions of Ray lie there
    (temporary / f"{PREFIX}strangers").mkdir()
    before = sorted(temporary.iterdir())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with scratch():
        pass
    assert sorted(temporary.iterdir()) == before


@pytest.mark.parametrize("moment", ["before the folder is opened", "before it is locked", "while it is swept"])
def test_a_sweeper_that_comes_between_a_folder_and_its_lock_costs_a_second_folder(temporary, monkeypatch, moment):
    folders: list[Path] = []
    held: list[int] = []
    open_, make = os.open, tempfile.mkdtemp

    def swept(path: str, flags: int, *more: Any, **named: Any) -> int:
        if Path(path) not in folders[:1]:
            return open_(path, flags, *more, **named)
        if moment == "before the folder is opened":
            os.rmdir(path)
        descriptor = open_(path, flags, *more)
        if moment == "while it is swept":
            held.append(open_(path, flags))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        os.rmdir(path)
        return descriptor

    def noted(prefix: str) -> str:
        folders.append(Path(make(prefix=prefix)))
        return str(folders[-1])

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", swept)
        patch.setattr(module.tempfile, "mkdtemp", noted)
        with scratch() as folder:
            assert folders[1:] == [folder] and folder.is_dir()
    for descriptor in held:
        os.close(descriptor)


def test_without_locks_nothing_is_taken_away(temporary, monkeypatch):
    (temporary / f"{PREFIX}old").mkdir()

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    with scratch() as folder:
        assert folder.is_dir()
    assert [path.name for path in temporary.iterdir()] == [f"{PREFIX}old"]
