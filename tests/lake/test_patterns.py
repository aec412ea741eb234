"""Patterns over folders that hold more than files: broken links, circles, what may not be read."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.lake.inputs.files import matches
from gristmill.lake.inputs.patterns import find
from gristmill.lake.inputs.sources import expand
from gristmill.stages.read.listing import find_inputs


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    for name in ("a.warc", "deep/b.warc", "deep/er/c.warc", ".hidden/d.warc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(root: Path, pattern: str) -> list[str]:
    return [os.path.relpath(path, root) for path in find(f"{root}/{pattern}").files]


@pytest.mark.parametrize("pattern", ["*", "*.warc", "**", "**/*.warc", "l*", "link.warc"])
def test_a_broken_link_is_named(crawl, pattern) -> None:
    (crawl / "link.warc").symlink_to("nowhere/x.warc")
    with pytest.raises(OSError, match=r"link\.warc is a link to nowhere/x\.warc, which does not exist"):
        expand(f"{crawl}/{pattern}")


def test_a_broken_link_on_the_way_is_named(crawl) -> None:
    (crawl / "folder").symlink_to("nowhere")
    assert "folder is a link to nowhere" in find(f"{crawl}/*/b.warc").faults[0]
    assert "folder is a link to nowhere" in find(f"{crawl}/folder/b.warc").faults[0]
    assert find(f"{crawl}/d*/*.warc").faults == []  # it could not match


def test_a_pipe_that_matches_no_whole_pattern_hides_nothing(crawl) -> None:
    os.mkfifo(crawl / "worker.pipe")
    for where in ("**/*.jsonl", "*/*.jsonl", "**/nothing"):
        assert find(f"{crawl}/{where}").faults == [], where
    assert len(find(f"{crawl}/**/*.pipe").faults) == 1


def test_a_link_to_itself_and_a_pipe_are_named(crawl) -> None:
    (crawl / "self.warc").symlink_to("self.warc")
    os.mkfifo(crawl / "pipe.warc")
    with socket.socket(socket.AF_UNIX) as door:
        at = os.getcwd()
        os.chdir(crawl)
        try:
            door.bind("door.warc")
        finally:
            os.chdir(at)
    survey = find(f"{crawl}/*.warc")
    assert [fault.removeprefix(f"{crawl}/").split(" (")[0] for fault in survey.faults] == [
        "door.warc is no regular file",
        "pipe.warc is no regular file",
        "self.warc is a link that leads back to itself",
    ]
    assert names(crawl, "*.warc") == ["a.warc"]


@pytest.mark.parametrize("pattern", ["**/*.warc", "*/*.warc", "deep/*", "deep/b*"])
def test_a_folder_that_may_not_be_read_is_named(crawl, pattern, monkeypatch) -> None:
    scandir: Callable[..., object] = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("/deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # root may read everything
    with pytest.raises(OSError, match=r"the folder \S+/deep cannot be read: Permission denied"):
        expand(f"{crawl}/{pattern}")


def test_a_path_into_a_folder_that_may_not_be_entered_is_not_called_missing(crawl, monkeypatch) -> None:
    lstat: Callable[..., object] = os.lstat

    def guarded(path: str) -> object:
        if "/deep/" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", guarded)
    for pattern in ("*/x.warc", "deep/x.warc"):
        with pytest.raises(OSError, match=r"deep/x\.warc cannot be read: Permission denied"):
            expand(f"{crawl}/{pattern}")


def test_a_circle_of_links_is_followed_once_and_named(crawl, caplog) -> None:
    (crawl / "deep" / "round").symlink_to(crawl)
    (crawl / "deep" / "er" / "up").symlink_to("..")
    survey = find(f"{crawl}/**/*.warc")
    assert [os.path.relpath(path, crawl) for path in survey.files] == ["a.warc", "deep/b.warc", "deep/er/c.warc"]
    assert survey.faults == []
    assert survey.again == [
        f"{crawl}/deep/er/up is a link to {crawl}/deep, whose files are read once",
        f"{crawl}/deep/round is a link to {crawl}, whose files are read once",
    ]
    with caplog.at_level(logging.WARNING, "gristmill"):
        assert len(find_inputs([f"{crawl}/**"])) == 3
    assert "deep/round is a link to" in caplog.text


def test_a_link_to_a_folder_elsewhere_is_followed(crawl, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "x.warc").write_text("x")
    (crawl / "more").symlink_to(other)
    assert names(crawl, "**/*.warc") == ["a.warc", "deep/b.warc", "deep/er/c.warc", "more/x.warc"]
    assert names(crawl, "*/x.warc") == ["more/x.warc"]
    (crawl / "z").symlink_to("deep")
    assert names(crawl, "**/b.warc") == ["deep/b.warc"]  # by its own path, not by the link
    assert names(crawl, "*/b.warc") == ["deep/b.warc", "z/b.warc"]


def test_folders_that_all_lead_to_one_another_cost_what_they_are(tmp_path) -> None:
    steps = {}
    for n in (5, 10, 20):
        root = tmp_path / str(n)
        for i in range(n):
            (root / f"d{i}").mkdir(parents=True)
            (root / f"d{i}" / "x.warc").touch()
            for j in range(n):
                (root / f"d{i}" / f"to{j}").symlink_to(root / f"d{j}")
        steps[n] = 0

        def trace(frame: object, event: str, arg: object, n: int = n) -> object:
            steps[n] += 1
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            survey = find(f"{root}/**/**/*.warc")
        finally:
            sys.settrace(None)
        assert len(survey.files) == n
    assert steps[10] < 5 * steps[5] and steps[20] < 5 * steps[10], steps  # there are n * n links


def test_a_deep_folder_and_a_deep_key_are_no_limit(tmp_path) -> None:
    path = str(tmp_path)
    for _ in range(1100):
        path += "/d"
        os.mkdir(path)
    assert find(f"{tmp_path}/**/*.warc").files == []
    while path != str(tmp_path):  # what pytest removes its folders with is recursive
        os.rmdir(path)
        path = os.path.dirname(path)
    key, wanted = ["d"] * 1100, ["**", "d"] * 12 + ["x"]
    assert not matches(key, wanted) and matches([*key, "x"], wanted)


def test_all_patterns_are_looked_at_before_anything_is_refused(crawl) -> None:
    (crawl / "gone.warc").symlink_to("nowhere")
    with pytest.raises(OSError, match="3 inputs cannot be used") as failure:
        find_inputs([f"{crawl}/*.warc", f"{crawl}/none", f"{crawl}/deep"])
    for words in ("gone.warc is a link to nowhere", "none' does not exist", "deep' is a folder; write"):
        assert words in str(failure.value)
