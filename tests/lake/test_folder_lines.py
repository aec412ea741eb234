"""Lines of a folder: where each stands, and which files of the folder it names."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from gristmill.lake.inputs import folder_lines
from gristmill.lake.inputs.folder import FolderInputs
from gristmill.lake.inputs.folder_lines import lines_of, names_in, paths_of, quoted
from gristmill.lake.inputs.sources import input_info, open_input, survey, unchanged

FILES = {"a.jpg", "deep/b.png", "deep/c d.png"}


def test_lines_stand_where_they_do(monkeypatch):
    data = b'{"a": 1}\n\n  \r\n{"b": 2}\r\nlast'
    lines = list(lines_of(io.BytesIO(data)))
    assert [line for _, _, line in lines] == [b'{"a": 1}', b'{"b": 2}\r', b"last"]
    assert all(data[at : at + size] == line for at, size, line in lines)
    monkeypatch.setattr(folder_lines, "MAX_LINE", 100)
    monkeypatch.setattr(folder_lines, "_PIECE", 7)
    long = b"x" * 101
    data = b"short\n" + long + b"\nend\n"
    assert list(lines_of(io.BytesIO(data))) == [(0, 5, b"short"), (6, 101, b""), (108, 3, b"end")]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"image": "a.jpg"}, ["a.jpg"]),
        ({"images": ["./deep/b.png", "a.jpg", "a.jpg"]}, ["deep/b.png", "a.jpg"]),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "deep/c d.png"}}]}]}, ["deep/c d.png"]),
        ({"image": "train/2017/deep/b.png"}, ["deep/b.png"]),
        ({"image": "../../a.jpg"}, ["a.jpg"]),
        ({"image": "b.png"}, []),
        ({"image": "https://away.example/a.jpg"}, []),
        ({"image": 7, "text": "a picture of a.jpg", "more": None}, []),
        (["a.jpg"], ["a.jpg"]),
    ],
)
def test_which_files_a_line_names(row, named):
    assert names_in(json.dumps(row).encode(), FILES) == named


@pytest.mark.parametrize("line", [b"", b"no json a.jpg", b'"\xff"', b"[" * 200_000, b'{"n": ' + b"9" * 5000 + b"}"])
def test_a_line_that_is_no_json_names_nothing(line):
    assert names_in(line, FILES) == []


def test_paths_are_bounded_and_quoted_without_a_slash():
    assert list(paths_of("x/deep/b.png")) == ["x/deep/b.png", "deep/b.png", "b.png"]
    assert list(paths_of("a/" * 4000)) == [] == list(paths_of(""))
    assert "/" not in quoted("deep/c d.png")


def test_the_tar_of_lines_can_be_read_from_anywhere(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"A" * 700)
    (tmp_path / "deep" / "b.png").write_bytes(b"B" * 512)
    (tmp_path / "rows.jsonl").write_text('{"image": "a.jpg"}\n{"images": ["deep/b.png", "a.jpg"]}\nbroken\n')
    address = f"folder::{tmp_path}/rows.jsonl"
    assert survey(address).files == [address]
    with open_input(address) as stream:
        data = stream.read()
    assert len(data) == input_info(address).size
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    assert list(members) == [
        "rows/000000000.json", "rows/000000000.a.jpg",
        "rows/000000001.json", "rows/000000001.deep%2Fb.png", "rows/000000001.a.jpg",
        "rows/000000002.json",
    ]  # fmt: skip
    assert members["rows/000000001.deep%2Fb.png"] == b"B" * 512 and members["rows/000000002.json"] == b"broken"
    for offset in (0, 511, 513, 1100, 2000, len(data) - 3):
        with open_input(address, offset) as stream:
            assert stream.read(900) == data[offset : offset + 900]


def test_lines_that_are_not_there_are_no_input(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"A")
    with pytest.raises(FileNotFoundError, match=r"rows\.jsonl' does not exist"):
        survey(f"folder::{tmp_path}/rows.jsonl")


@pytest.fixture
def surveys(monkeypatch):
    """The folders that are listed, one entry each time."""
    listed = []
    listing = FolderInputs._listing
    monkeypatch.setattr(FolderInputs, "_listing", lambda self, uri: listed.append(uri) or listing(self, uri))
    return listed


def test_a_folder_is_listed_once_for_all_its_chunks(tmp_path, surveys):
    for n in range(30):
        (tmp_path / f"{n:02d}.txt").write_bytes(bytes([n]) * 700)
    address = f"folder::{tmp_path}"
    stamp = input_info(address).stamp
    data = b""
    for chunk in range(10):
        assert unchanged(address, stamp)
        with open_input(address, 1 + chunk * 4608) as stream:  # three members
            data += stream.read(4608)
        assert unchanged(address, stamp)
    assert len(surveys) == 1
    with open_input(address) as stream:
        assert stream.read()[1:46081] == data


def test_a_file_that_is_not_what_was_listed_is_not_read(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 3000)
    address = f"folder::{tmp_path}"
    before = input_info(address)
    (tmp_path / "b").write_bytes(b"B" * 3000)
    os.utime(tmp_path / "b", (1, 1))
    assert unchanged(address, before.stamp)  # as far as it was listed: nothing else can be read by that
    with open_input(address, 1) as stream, pytest.raises(OSError, match=r"/b changed since .* was listed: run again"):
        stream.read()
    now = input_info(address)
    assert now.stamp != before.stamp and not unchanged(address, before.stamp)
    with open_input(address, 1) as stream:
        assert b"B" * 3000 in stream.read()


@pytest.mark.parametrize("name", ["a", "a" * 100, "a" * 101, "ä.png", "deep/" * 40 + "a", "\udcff.png"])
def test_sizes_are_known_from_names(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 700)
    with open_input(f"folder::{tmp_path}") as stream:
        data = stream.read()
    assert len(data) == input_info(f"folder::{tmp_path}").size
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        assert [(member.name, member.size) for member in archive] == [(name, 700)]


def test_lines_of_nothing_are_a_tar_of_nothing(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with open_input(f"folder::{tmp_path}/rows.jsonl") as stream:
        assert stream.read() == bytes(1024)
