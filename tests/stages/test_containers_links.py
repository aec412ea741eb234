"""Links in a tar that say where their member stands: found from any piece of work, and never taken on trust."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from gristmill.lake.inputs.folder import LINKED
from gristmill.stages.containers import ReadConfig, Record, Unreadable, read, scan

SOUND = b"fLaC" + bytes(20_000)


def tar_of(*links: tuple[str, str], sound: bytes = SOUND) -> bytes:
    """A sample with a clip, at byte 1,024, one without, and one a link: (name of its member, where that is said to
    stand)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        add("0.json", b"{}")
        add("0.flac", sound)
        add("1.json", b"{}")
        for number, (name, at) in enumerate(links, 2):
            add(f"{number}.json", json.dumps({"text": "a"}).encode())
            link = tarfile.TarInfo(f"{number}.flac")
            link.type, link.linkname, link.pax_headers = tarfile.LNKTYPE, name, {LINKED: at}
            archive.addfile(link)
    return stream.getvalue()


def items(data: bytes, first: int = 0, **config: int) -> list[Record | Unreadable]:
    spans = scan(io.BytesIO(data), "tar").spans.slice(first)

    def open_at(offset: int) -> io.BytesIO:
        stream = io.BytesIO(data)
        stream.seek(offset)
        return stream

    return list(read(open_at, spans, "tar", ReadConfig(**config), rows=True))


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_a_link_is_found_from_any_piece_of_work(first):
    got = items(tar_of(("0.flac", "1024"), ("0.flac", "1024")), first)
    assert len(got) == 4 - first
    for item in got[-min(2, len(got)) :]:
        (medium,) = item.media
        assert (medium.data, medium.url, item.row["flac"]) == (SOUND, f"{item.ordinal}.flac", 1)


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (("0.flac", "0"), "another member"),  # stands elsewhere
        (("1.flac", "1024"), "another member"),  # has another name
        (("0.flac", "1500"), "another member"),  # in the middle of the data
        (("0.flac", "999999999"), "no member before it"),
    ],
)
def test_a_link_that_is_wrong_is_a_fault_of_its_sample(link, error):
    (item,) = items(tar_of(link), 2)
    assert isinstance(item, Unreadable) and error in item.error
    (_, other, item) = items(tar_of(link))
    assert isinstance(other, Record) and isinstance(item, Unreadable)


def test_links_without_a_place_are_left():
    (item,) = items(tar_of(("0.flac", "far away")), 2)
    assert isinstance(item, Record) and not item.media


def test_a_file_before_the_piece_is_bounded_too():
    (item,) = items(tar_of(("0.flac", "1024")), 2, max_record_bytes=10_000)
    assert isinstance(item, Unreadable) and "20004 bytes" in item.error and "max_record_bytes=10000" in item.error


def test_parts_of_a_file_that_is_no_medium_are_as_its_first_one_and_it_is_read_once():
    data = tar_of(("0.flac", "1024"), ("0.flac", "1024"), sound=b"no sound at all")
    opened = []
    for first in (0, 1, 2, 3):
        spans = scan(io.BytesIO(data), "tar").spans.slice(first)

        def open_at(offset: int) -> io.BytesIO:
            opened.append(offset)
            stream = io.BytesIO(data)
            stream.seek(offset)
            return stream

        got = list(read(open_at, spans, "tar", ReadConfig(), rows=True))
        assert all(isinstance(item, Record) and not item.media and "flac" not in item.row for item in got)
    assert opened.count(1024) == 3  # once by each piece that does not hold it, whatever it has links


def test_a_file_that_is_too_long_is_looked_at_once():
    links = [("0.flac", "1024")] * 3
    data, opened = tar_of(*links), []

    def open_at(offset: int) -> io.BytesIO:
        opened.append(offset)
        stream = io.BytesIO(data)
        stream.seek(offset)
        return stream

    spans = scan(io.BytesIO(data), "tar").spans.slice(2)
    got = list(read(open_at, spans, "tar", ReadConfig(max_record_bytes=20_000), rows=True))
    assert [("20004 bytes" in item.error) for item in got] == [True] * 3 and opened.count(1024) == 1


def test_headers_that_a_link_names_are_bounded():
    stream = io.BytesIO(tar_of(("0.flac", "1024")))
    with tarfile.open(fileobj=stream, mode="r") as archive:
        end = archive.getmembers()[1].offset
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30  # a pax header of 1 GiB, where the clip should stand
    data = bytearray(stream.getvalue())
    data[end : end + tarfile.BLOCKSIZE] = header.tobuf(tarfile.USTAR_FORMAT)
    opened = {}

    def open_at(offset: int) -> io.BytesIO:
        opened[offset] = io.BytesIO(bytes(data))
        opened[offset].seek(offset)
        opened[offset].close = lambda: None  # so that it can be asked how far it was read
        return opened[offset]

    spans = scan(io.BytesIO(stream.getvalue()), "tar").spans.slice(2)
    (item,) = read(open_at, spans, "tar", ReadConfig(), rows=True)
    assert isinstance(item, Unreadable) and "another member" in item.error
    assert opened[end].tell() == end + tarfile.BLOCKSIZE
