"""Inputs from folders and from S3: the same patterns, the same errors, streams that resume."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from fake_s3 import FakeS3, run_fake_s3

from gristmill.lake.inputs.sources import expand, input_info, open_input
from tests.conftest import use_s3

NAMES = [
    "crawl/a-1.warc.gz",
    "crawl/a-2.warc.gz",
    "crawl/b-1.warc.gz",
    "crawl/odd[1].jsonl",
    "crawl/deep/er/a-3.warc.gz",
    "crawl/deep/a-4.warc.gz",
    "crawl/.hidden.warc.gz",
    "crawl/.cache/a-5.warc.gz",
    "top.parquet",
]
PATTERNS = [
    "*",
    "*.parquet",
    "crawl/*",
    "crawl/*.warc.gz",
    "crawl/a-?.warc.gz",
    "crawl/[!a]*.warc.gz",
    "crawl/**/*.warc.gz",
    "**/*.warc.gz",
    "crawl/**",
    "**",
    "**/deep/**/a-*.gz",
    "*/*/*",
    "crawl/.*",
    "crawl/.*/*",
    "crawl/odd[[]1].jsonl",
]


@pytest.fixture(params=["local", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder or prefix that holds NAMES, each with its own name as content."""
    if request.param == "local":
        fill_folder(tmp_path)
        return str(tmp_path)
    uri: str = request.getfixturevalue("s3_lake")
    bucket, prefix = uri.removeprefix("s3://").split("/")
    client = boto3.client("s3")
    for name in NAMES:
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=name.encode())
    return uri


def fill_folder(folder: Path) -> None:
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_patterns_mean_what_glob_means_in_both_places(base: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    oracle = tmp_path_factory.mktemp("oracle")
    fill_folder(oracle)
    for pattern in PATTERNS:
        hits = {os.path.abspath(hit) for hit in glob.glob(f"{oracle}/{pattern}", recursive=True) if os.path.isfile(hit)}
        expected = sorted(hit.replace(str(oracle), base) for hit in hits)
        assert expected, pattern
        assert expand(f"{base}/{pattern}") == expected, pattern


def test_a_plain_name_is_itself_even_with_brackets(base: str) -> None:
    for name in ("top.parquet", "crawl/odd[1].jsonl", "crawl/.hidden.warc.gz"):
        assert expand(f"{base}/{name}") == [f"{base}/{name}"]


def test_nothing_found_is_an_error_that_names_it(base: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"crawl/\*\.zst' matches no file"):
        expand(f"{base}/crawl/*.zst")
    with pytest.raises(FileNotFoundError, match=r"crawl/none' does not exist"):
        expand(f"{base}/crawl/none")
    for call in (input_info, open_input):
        with pytest.raises(FileNotFoundError, match="crawl/none"):
            call(f"{base}/crawl/none")


@pytest.mark.parametrize("folder", ["crawl", "crawl/", "crawl/deep"])
def test_a_folder_says_what_to_write_instead(base: str, folder: str) -> None:
    with pytest.raises(IsADirectoryError, match=rf"write .*/{folder.rstrip('/')}/\* for its files"):
        expand(f"{base}/{folder}")


def test_info_and_streams(base: str) -> None:
    uri = f"{base}/crawl/a-1.warc.gz"
    info = input_info(uri)
    assert (info.uri, info.size, info.etag is None) == (uri, 17, base.startswith("/"))
    assert info.modified > 1_700_000_000
    with open_input(uri) as stream:
        assert stream.read(5) == b"crawl"
        assert stream.tell() == 5
        assert stream.read() == b"/a-1.warc.gz"
    with open_input(uri, 6) as stream:
        assert stream.tell() == 6
        assert stream.readline() == b"a-1.warc.gz"
    with open_input(uri, 17) as stream:
        assert stream.read() == b""
    for offset in (-1, 18):
        with pytest.raises(ValueError, match=f"offset {offset} is outside"):
            open_input(uri, offset)


def test_local_names_become_absolute_and_file_uris_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert expand("crawl/b*") == [f"{tmp_path}/crawl/b-1.warc.gz"]
    assert expand(f"file://{tmp_path}/top.parquet") == [f"{tmp_path}/top.parquet"]


@pytest.mark.parametrize("call", [expand, input_info, open_input])
@pytest.mark.parametrize("uri", ["nowhere://example.org/x.warc.gz", "folder::nowhere://x"])
def test_other_schemes_are_refused(call: Callable[[str], object], uri: str) -> None:
    with pytest.raises(ValueError, match="allowed are a local path, file:///path, s3://"):
        call(uri)


def test_files_of_another_machine_are_not_read() -> None:
    with pytest.raises(ValueError, match="another machine's files are not read"):
        expand("file://host/x")


def test_a_stream_goes_to_any_place(base: str) -> None:
    with open_input(f"{base}/crawl/a-1.warc.gz", 3) as stream:
        assert stream.read(2) == b"wl"
        assert stream.seek(0) == 0 and stream.read(5) == b"crawl"
        assert stream.seek(-3, os.SEEK_END) == 14 and stream.read() == b".gz"
        assert stream.seek(6) == 6 and stream.read(1) == b"a"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with run_fake_s3() as (server, address):
        use_s3(address, monkeypatch)
        server.objects["in.warc.gz"] = os.urandom(3 << 20)
        yield server


@pytest.mark.parametrize("offset", [0, 1_000_003])
def test_a_dropped_connection_is_taken_up_where_it_broke(fake: FakeS3, offset: int) -> None:
    fake.cut_gets = 3
    with open_input("s3://fake-bucket/in.warc.gz", offset) as stream:
        assert stream.read(100) == fake.objects["in.warc.gz"][offset : offset + 100]
        assert stream.read() == fake.objects["in.warc.gz"][offset + 100 :]
    assert fake.cut_gets == 0


def test_an_object_replaced_while_it_is_read_is_an_error_not_a_splice(fake: FakeS3) -> None:
    fake.cut_gets = 1
    with open_input("s3://fake-bucket/in.warc.gz") as stream:
        stream.read(100)
        fake.objects["in.warc.gz"] = os.urandom(3 << 20)
        with pytest.raises(OSError, match="replaced or deleted while it was read"):
            stream.read()


def test_a_store_that_stays_silent_is_an_error_after_bounded_tries(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.lake.store.s3_connection.ATTEMPTS", 2)
    fake.objects["in.warc.gz"] = b"x"  # half of one byte is none: no progress
    fake.cut_gets = 1000
    with (
        open_input("s3://fake-bucket/in.warc.gz") as stream,
        pytest.raises(OSError, match="stopped at byte 0 of 1"),
    ):
        stream.read()
