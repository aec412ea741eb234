"""Inputs through fsspec, and folders as one input: the same answers as of files, and no change unnoticed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gristmill.lake.inputs.files import InputFault
from gristmill.lake.inputs.sources import expand, input_info, open_input
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import is_outage
from gristmill.stages.core.work import Work, execute
from gristmill.stages.read.scan import Scan, ScanPayload

# Over HTTP


class Web(ThreadingHTTPServer):
    """`files` by path. `busy`: the next n requests are answered 503. `drop`: the next n GETs break off. `ranges`,
    `etags`: whether it gives parts of files, and says what changes with them. `ends`: bytes of a file behind which it
    gives no more, though it says that there are some."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.busy = self.drop = 0
        self.ranges = self.etags = True
        self.ends: int | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: readers hang up before the end of a range."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            dropped, self.server.drop = self.server.drop > 0, max(0, self.server.drop - 1)
            self.wfile.write(body[: len(body) // 2] if dropped else body)
            self.close_connection = dropped

    def do_GET(self) -> None:
        if self.server.busy:
            self.server.busy -= 1
            return self.answer(503)
        data = self.server.files.get(self.path)
        if data is None and self.path.endswith("/"):
            links = "".join(f'<a href="{name}">x</a>' for name in self.server.files if name.startswith(self.path))
            return self.answer(200, links.encode(), Content_Type="text/html", ETag='"index"')
        if data is None:
            return self.answer(404)
        about = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'} if self.server.etags else {}
        asked = self.headers["Range"]
        if asked is None or not self.server.ranges:
            return self.answer(200, data, **about, Accept_Ranges="bytes" if self.server.ranges else "none")
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or len(data)) + 1, len(data))
        part = data[start : min(end, self.server.ends or end)]
        return self.answer(206, part, Content_Range=f"bytes {start}-{end - 1}/{len(data)}", **about)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        server.files = {"/crawl/a-1.gz": os.urandom(9 << 20), "/crawl/b.gz": b"b", "/crawl/deep/a-2.gz": b"c"}
        yield server
        server.shutdown()
        thread.join()


def test_files_of_a_server_are_inputs(web: Web) -> None:
    uri, data = f"{web.url}/crawl/a-1.gz", web.files["/crawl/a-1.gz"]
    info = input_info(uri)
    assert (info.uri, info.size) == (uri, len(data)) and info.etag
    for offset in (0, 5 << 20):
        with open_input(uri, offset) as stream:
            assert stream.tell() == offset and stream.read(100) == data[offset : offset + 100]
            assert stream.read() == data[offset + 100 :]
            assert stream.seek(7) == 7 and stream.read(3) == data[7:10]
    assert expand(f"{web.url}/crawl/a-*.gz") == [uri]
    assert expand(uri) == [uri]
    for call in (input_info, open_input, expand):
        with pytest.raises(FileNotFoundError, match=r"none\.gz"):
            call(f"{web.url}/crawl/none.gz")
    with pytest.raises(ValueError, match="offset 2 is outside"):
        open_input(f"{web.url}/crawl/b.gz", 2)


def test_a_change_shows_in_what_is_known_of_a_file(web: Web) -> None:
    uri = f"{web.url}/crawl/b.gz"
    before = input_info(uri)
    assert input_info(uri).stamp == before.stamp
    web.files["/crawl/b.gz"] = b"c"
    assert input_info(uri).size == before.size and input_info(uri).stamp != before.stamp


def test_what_nothing_could_be_known_of_is_refused(web: Web) -> None:
    web.etags = False
    with pytest.raises(InputFault, match="does not say anything that changes with its content"):
        input_info(f"{web.url}/crawl/b.gz")
    web.etags, web.ranges = True, False
    with pytest.raises(InputFault, match="gives no parts of files"), open_input(f"{web.url}/crawl/a-1.gz", 9) as stream:
        stream.read(1)


def test_a_server_that_is_busy_is_an_outage_and_no_missing_file(web: Web) -> None:
    web.busy = 1000
    for call in (input_info, open_input, expand):
        with pytest.raises(ConnectionError) as error:
            call(f"{web.url}/crawl/b.gz")
        assert is_outage(error.value)


def test_nobody_at_an_address_is_an_outage() -> None:
    with Web() as server:
        url = server.url
    with pytest.raises(ConnectionError):
        input_info(f"{url}/a.gz")


def test_a_read_that_breaks_off_is_made_again(web: Web) -> None:
    with open_input(f"{web.url}/crawl/a-1.gz") as stream:
        web.drop = 2
        assert stream.read() == web.files["/crawl/a-1.gz"]
    assert web.drop == 0


# Other schemes


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def test_a_server_that_ends_too_early_loses_no_record_in_silence(web: Web, tmp_path: Path) -> None:
    line = b'{"text": "a line"}\n'
    web.files["/crawl/lines.jsonl"] = line * 10
    work = Work(Scan(), None, ScanPayload(f"{web.url}/crawl/lines.jsonl"))
    store = open_store(str(tmp_path / "lake"))
    web.ends = 7 * len(line)  # whole lines: nothing in them tells that others are missing
    with pytest.raises(OSError, match=r"lines\.jsonl has 190 bytes, and 133 came: run again, or copy it"):
        execute(store, work)
    web.ends = None
    assert execute(store, work).passed.count == 10


def test_a_pattern_means_the_same_in_any_place(memory: Any) -> None:
    for name in ("in/a-1.gz", "in/b.gz", "in/deep/a-2.gz", "in/.hidden.gz", "in/odd[1].gz"):
        memory.pipe(f"/{name}", name.encode())
    assert expand("memory://in/a-?.gz") == ["memory:///in/a-1.gz"]
    assert expand("memory://in/*.gz") == [f"memory:///in/{name}" for name in ("a-1.gz", "b.gz", "odd[1].gz")]
    assert expand("memory://in/**/a-*.gz") == ["memory:///in/a-1.gz", "memory:///in/deep/a-2.gz"]
    assert expand("memory://in/odd[1].gz") == ["memory:///in/odd[1].gz"]
    with open_input("memory://in/b.gz", 3) as stream:
        assert stream.read() == b"b.gz"
    with pytest.raises(IsADirectoryError, match=r"write memory://in/\* for its files"):
        expand("memory://in")
    with pytest.raises(FileNotFoundError, match="matches no file"):
        expand("memory://in/*.zst")


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ValueError, match="`pip install gcsfs` on every node"):
        expand("gs://bucket/a.gz")


@pytest.mark.parametrize(("address", "needs"), [("ftp://x/y", "host"), ("github://x/y", "org, repo")])
def test_a_scheme_that_needs_more_than_an_address_is_refused(address: str, needs: str) -> None:
    with pytest.raises(ValueError, match=f"needs {needs}, which an address cannot say; allowed are a local path"):
        expand(address)


# Folders


def fill(folder: Path) -> None:
    for name, data in (("b.txt", b"two"), ("b.png", b"\x89PNG" * 300), ("sub/a.txt", b"one"), (".hidden", b"x")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def whole(uri: str) -> bytes:
    with open_input(uri) as stream:
        return stream.read()


def test_a_folder_is_read_as_the_tar_that_would_be_made_of_it(tmp_path: Path) -> None:
    fill(tmp_path / "photos")
    (uri,) = expand(f"folder::{tmp_path}/photos/")
    assert uri == f"folder::{tmp_path}/photos"
    data = whole(uri)
    assert input_info(uri).size == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        contents = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
        assert list(contents) == ["b.png", "b.txt", "sub/a.txt"] and contents["sub/a.txt"] == b"one"
    for offset in (0, 100, 512, 1700, 2048, len(data) - 1, len(data)):
        with open_input(uri, offset) as stream:
            assert stream.tell() == offset and stream.read() == data[offset:]


def test_moving_a_folder_changes_nothing_and_a_byte_of_it_something(tmp_path: Path) -> None:
    for name in ("here", "there"):
        fill(tmp_path / name)
    here, there = f"folder::{tmp_path}/here", f"folder::{tmp_path}/there"
    os.utime(tmp_path / "there/b.txt", (1, 1))
    assert whole(here) == whole(there)
    before = input_info(there)
    (tmp_path / "there/b.txt").write_bytes(b"TWO")
    assert input_info(there).size == before.size and input_info(there).stamp != before.stamp
    (tmp_path / "there/c").write_bytes(b"")
    assert input_info(there).size > before.size


def test_a_folder_far_away_is_the_same_input(tmp_path: Path, memory: Any) -> None:
    fill(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            memory.pipe(f"/photos/{path.relative_to(tmp_path)}", path.read_bytes())
    assert whole("folder::memory:///photos") == whole(f"folder::{tmp_path}")


def test_folders_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        expand(f"folder::{tmp_path}/none")
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="is a link to"):
        expand(f"folder::{tmp_path}")
    with pytest.raises(InputFault, match="is a link to"):
        input_info(f"folder::{tmp_path}")


def test_a_member_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(5 << 20))
    with open_input(f"folder::{tmp_path}") as stream:
        stream.read(1000)
        (tmp_path / "a.bin").write_bytes(b"")
        with pytest.raises(OSError, match="became shorter"):
            stream.read()
