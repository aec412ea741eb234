"""Folders that nobody else can reach, and a Ray of this process's own that nobody else can speak to."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from strangers import STRANGER, as_a_stranger, is_loopback, listening, needs_root

from gristmill.stages.run import cluster, private


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine" / "here"
    folder.mkdir(parents=True)
    (tmp_path / "mine").chmod(0o755)
    folder.chmod(0o700)
    return folder


def test_a_folder_of_ones_own_is_private(folder):
    assert private.weaknesses(folder) == []


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_an_open_folder_is_not(folder, mode):
    folder.chmod(mode)
    assert any(f"{folder} has mode {mode:04o}, not 0700" in fault for fault in private.weaknesses(folder))


def test_a_parent_where_everybody_can_write_is_a_weakness_unless_it_is_sticky(folder):
    folder.parent.chmod(0o777)
    assert private.weaknesses(folder) == [f"everybody can replace what lies in {folder.parent} (mode 0777)"]
    folder.parent.chmod(0o1777)
    assert private.weaknesses(folder) == []


@needs_root
def test_a_group_of_others_that_can_write_is_a_weakness(folder):
    os.chown(folder.parent, 0, STRANGER)
    folder.parent.chmod(0o775)
    (fault,) = private.weaknesses(folder)
    assert f"can replace what lies in {folder.parent}" in fault


@needs_root
@pytest.mark.parametrize("whose", ["folder", "parent"])
def test_a_folder_or_parent_of_somebody_else_is_a_weakness(folder, whose):
    place = folder if whose == "folder" else folder.parent
    os.chown(place, STRANGER, STRANGER)
    assert any(fault.startswith(f"{place} belongs to ") for fault in private.weaknesses(folder))


@needs_root
def test_links_are_followed_and_their_owner_counts(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    assert private.weaknesses(link / "here") == []
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert [fault.split(" belongs")[0] for fault in private.weaknesses(link / "here")] == [str(link)]
    os.chown(link, 0, 0, follow_symlinks=False)
    folder.parent.chmod(0o777)  # what the link leads through is checked too
    assert private.weaknesses(link / "here")


def test_a_circle_of_links_and_a_missing_folder_are_weaknesses(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "more than 40 links" in private.weaknesses(tmp_path / "a" / "x")[-1]
    assert "No such file" in private.weaknesses(tmp_path / "none")[-1]


def test_a_new_folder_is_short_enough_for_ray_whatever_tmpdir_is(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(private.tempfile, "tempdir", str(long))
    folder = private.new_folder()
    try:
        assert folder.parent == Path("/tmp") and private.weaknesses(folder) == []
        assert len(f"{folder}/r{private._OF_RAY}") <= private.LONGEST_SOCKET
    finally:
        folder.rmdir()
    assert list(long.iterdir()) == []


def test_where_no_folder_is_private_the_message_says_why_and_what_to_do(folder, monkeypatch):
    folder.parent.chmod(0o777)
    monkeypatch.setattr(private.tempfile, "tempdir", str(folder))
    monkeypatch.setattr(private, "LONGEST_RAY_FOLDER", 3)
    with pytest.raises(private.NotPrivate, match=r"everybody can replace.*too long.*Set TMPDIR"):
        private.new_folder()


def test_folders_of_killed_processes_are_removed_and_of_living_ones_are_not():
    code = "from gristmill.stages.run import private\nwith private.locked_folder() as f: print(f, flush=True); input()"
    living, killed = (
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    folders = [Path(child.stdout.readline().strip()) for child in (living, killed)]
    killed.kill()
    killed.wait()
    assert all(folder.is_dir() for folder in folders)
    with private.locked_folder() as mine:
        assert [folder.is_dir() for folder in folders] == [True, False]
    living.communicate("\n")
    assert not mine.exists() and not folders[0].exists()


def test_ray_in_this_process_listens_for_this_process_only():
    cluster.connect(2)
    import ray

    assert ray.get(ray.remote(lambda: 2).remote()) == 2
    addresses = listening(psutil.Process().children(recursive=True))
    assert addresses and not [address for address in addresses if not is_loopback(address)]
    root = Path(ray._private.worker._global_node.get_temp_dir_path())
    assert root.stat().st_mode & 0o777 == 0o777  # Ray's own doing: so what is above it has to be closed
    assert private.weaknesses(root.parent) == []
    with pytest.raises(subprocess.CalledProcessError) as refused:
        join(ray.get_runtime_context().gcs_address, {})
    assert "Unauthenticated" in refused.value.stderr
    join(ray.get_runtime_context().gcs_address, {"RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]})


def test_what_ray_tells_of_a_node_that_died_is_not_on_stdout(capsys: pytest.CaptureFixture[str]):
    cluster.keep_stdout()
    from ray._private import worker

    worker.print_to_stdstream({"lines": ["a node died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    out, err = capsys.readouterr()
    assert out == "" and "a node died" in err


def join(address: str, secret: dict[str, str]) -> None:
    """What another user of this machine would do, with the token or without."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= cluster.LOOPBACK | ({"RAY_AUTH_MODE": "token"} if secret else {}) | secret
    code = f"from ray._raylet import GcsClient; print(GcsClient(address={address!r}).get_all_node_info())"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)


@needs_root
def test_another_user_cannot_enter_what_ray_opens_below_it():
    folder = private.new_folder()
    try:
        session = folder / "r" / "session"
        session.mkdir(parents=True)
        for path in (session.parent, session):
            path.chmod(0o777)
        (session / "code.py").touch()
        (session / "code.py").chmod(0o666)
        attempts = [
            lambda: os.listdir(folder),
            lambda: os.listdir(session),
            lambda: (session / "code.py").write_text("mine"),
            lambda: (session / "new.py").touch(),
            lambda: folder.rename(folder.with_suffix(".gone")),
        ]
        assert as_a_stranger(attempts) == ["PermissionError"] * 5
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("workers", "cpus", "at_once", "warned"), [(16, 2, 2, True), (2, 2, 2, False), (1, 8, 1, False)]
)
def test_more_workers_than_cpus_are_warned_of_and_not_started(workers, cpus, at_once, warned, caplog):
    with caplog.at_level(logging.WARNING, "gristmill"):
        assert cluster._at_once(workers, cpus, "this machine") == at_once
    assert ("run.workers is 16, but this machine has 2 CPUs" in caplog.text) is warned
