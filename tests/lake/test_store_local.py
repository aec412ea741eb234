"""The folder store: writers killed at the worst point, file systems without links, durability, lazy walks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE

from gristmill.lake.store.base import NotFound, UnsafeStore
from gristmill.lake.store.local import STALE_S
from gristmill.lake.store.opening import open_store

VICTIM = """
import os, signal, sys
from gristmill.lake.store import local as store_local
from gristmill.lake.store.opening import open_store

root, verb, point = sys.argv[1:]

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def half(path, data):
    with open(path, "xb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        die()

store = open_store(root, probe=False)
if point == "half written":
    store_local._write = half
elif point == "before visible":
    os.link = os.rename = die
else:
    store_local._sync_folder = lambda path: die() if path.endswith("slots") else None
if verb == "put_file":
    with open(root + ".shard", "wb") as stream:
        stream.write(b"new" * 1000)
    store.put_file("slots/1", root + ".shard")
else:
    getattr(store, verb)("slots/1", b"new" * 1000)
"""


def kill_while(root: Path, verb: str, point: str) -> None:
    command = [sys.executable, "-c", VICTIM, str(root), verb, point]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("verb", ["create", "put"])
@pytest.mark.parametrize("point", ["half written", "before visible"])
def test_a_writer_killed_before_the_end_leaves_nothing_visible(tmp_path: Path, verb: str, point: str) -> None:
    root = tmp_path / "lake"
    store = open_store(str(root))
    before = [info.key for info in store.list("")]
    kill_while(root, verb, point)
    assert len(list((root / ".tmp").iterdir())) == 1, "the kill came after the write began"
    assert [info.key for info in store.list("")] == before
    assert store.info("slots/1") is None
    with pytest.raises(NotFound):
        store.get("slots/1")
    assert store.create("slots/1", b"retry")


def test_a_put_killed_before_the_end_leaves_the_old_object_whole(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "lake"))
    store.put("slots/1", b"old")
    for verb in ("put", "put_file"):
        kill_while(tmp_path / "lake", verb, "before visible")
        assert store.get("slots/1") == b"old"


@pytest.mark.parametrize("verb", ["create", "put", "put_file"])
def test_a_writer_killed_after_the_name_appeared_left_a_whole_object(tmp_path: Path, verb: str) -> None:
    root = tmp_path / "lake"
    store = open_store(str(root))
    store.put("slots/0", b"the folder is there already")
    kill_while(root, verb, "after visible")
    assert store.get("slots/1") == b"new" * 1000
    assert store.create("slots/1", b"new" * 1000), "the retry of the killed create finds its own bytes"
    assert not store.create("slots/1", b"another's")


def test_leftovers_of_killed_writers_are_swept_after_a_day_not_before(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    open_store(str(root))
    for name, age in (("old", STALE_S + 60), ("young", STALE_S - 3600)):
        path = root / ".tmp" / name
        path.touch()
        stamp = path.stat().st_mtime - age
        os.utime(path, (stamp, stamp))
    open_store(str(root))
    assert [path.name for path in (root / ".tmp").iterdir()] == ["young"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV])
def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UnsafeStore, match=r"cannot hard-link into .*Allowed: an absolute folder"):
        open_store(str(tmp_path / "lake"))
    assert list((tmp_path / "lake" / ".tmp").iterdir()) == []


def test_a_folder_that_takes_a_second_create_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", os.replace)  # a mount whose link overwrites
    with pytest.raises(UnsafeStore, match="one would be lost"):
        open_store(str(tmp_path / "lake"))


def test_every_object_and_every_new_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "lake"))
    synced: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}/lake"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    store.create("a/b/one", b"1")
    assert [path for path in synced if not path.startswith("/.tmp/")] == ["", "/a", "/a/b"]
    assert sum(path.startswith("/.tmp/") for path in synced) == 1
    synced.clear()
    assert not store.create("a/b/one", b"2")
    assert synced[-1] == "/a/b", "the winner is durable before the loser acts on it"
    synced.clear()
    (tmp_path / "file").write_bytes(b"x")
    store.put_file("a/b/two", tmp_path / "file")
    assert [os.path.basename(path) for path in synced] == ["file", "b"]


def test_put_file_from_another_file_system_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "lake"))
    source = tmp_path / "shard"
    source.write_bytes(b"data")
    rename = os.rename

    def over_the_border(old: str, new: str) -> None:
        if old == str(source):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), old, None, new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", over_the_border)
    store.put_file("shard", source)
    assert store.get("shard") == b"data"
    assert not source.exists()
    assert list((tmp_path / "lake" / ".tmp").iterdir()) == []


def test_listing_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "lake"))
    for key in ("a/1", "b/1", "c/1"):
        store.put(key, b"")
    seen: list[str] = []
    scandir = os.scandir

    def record(path: str) -> object:
        seen.append(os.path.basename(path.rstrip("/")))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record)
    assert next(store.list("")).key == "a/1"
    assert seen == ["lake", "a"]


def test_opening_a_folder_does_not_import_boto3(tmp_path: Path) -> None:
    code = """
import sys
from gristmill.lake.inputs.sources import expand
from gristmill.lake.store.opening import open_store

store = open_store(sys.argv[1])
store.put("k", b"")
expand(sys.argv[1] + "/*")
sys.exit("boto3" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lake")]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 0
