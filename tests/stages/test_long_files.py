"""Long files are read from a scratch file, and are what they would be in memory; what they cost does not grow."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from vision import folder_of

from gristmill.lake.inputs.sources import open_input
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_table
from gristmill.stages.containers import Item, ReadConfig, Unreadable, read, scan
from gristmill.stages.containers.bytes import long_file
from gristmill.stages.containers.bytes.long_file import LongFile
from gristmill.stages.containers.media import MEDIA
from gristmill.stages.core.exclusions import store_exclusions
from gristmill.stages.core.records import Chunk
from gristmill.stages.media import write
from gristmill.stages.media.write import WriteMedia
from gristmill.stages.read import reading, rows
from gristmill.stages.read.rows import Rows

WAV = b"RIFF\0\0\0\0WAVE"
CONFIG = ReadConfig(max_record_bytes=1 << 28)


def sound(seed: int, size: int) -> bytes:
    return WAV + np.random.default_rng(seed).bytes(size)


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def spans_of(address: str) -> pa.Table:
    with open_input(address) as stream:
        return scan(stream, "tar").spans


def items_of(address: str, first: int = 0, spans: pa.Table | None = None) -> list[Item]:
    spans = spans_of(address) if spans is None else spans
    return list(read(partial(open_input, address), spans.slice(first), "tar", CONFIG, rows=True))


@pytest.fixture
def all_long(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(long_file, "IN_MEMORY", 1000)
    yield


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "manifest"])
def test_a_long_file_is_read_as_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    files = {"1.wav": sound(1, 5000), "2.wav": sound(2, 100), "3.wav": sound(3, 200_000)}
    if kind == "manifest":
        lines = [{"audio": f"{n}.wav", "start": s, "end": s + 1} for n in (1, 2, 3) for s in range(3)]
        address = folder_of(tmp_path / "in", lines, files)
    else:
        texts = {f"{n}.json": b'{"text": "A mill."}' for n in (1, 2, 3)}
        path = tar(tmp_path / "a.tar", dict(sorted((files | texts).items())))
        if kind == "tar.gz":
            path = tmp_path / "a.tar.gz"
            path.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        address = str(path)
    short = items_of(address)
    later = items_of(address, 2)
    monkeypatch.setattr(long_file, "IN_MEMORY", 1000)
    for expected, got in ((short, items_of(address)), (later, items_of(address, 2))):
        assert len(got) == len(expected) and not any(isinstance(item, Unreadable) for item in got)
        for from_memory, from_file in zip(expected, got, strict=True):
            media = [medium._replace(content=medium.data) for medium in from_file.media]
            assert from_file._replace(media=tuple(media)) == from_memory
            assert [isinstance(medium.content, LongFile) for medium in from_file.media] == [
                len(medium.data) > 1000 for medium in from_memory.media
            ]


@pytest.mark.parametrize("end", [b"\0" * 10_240, b"\0" * 5000 + b"x" + b"\0" * 5239, b""])
def test_what_stands_behind_a_long_member_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    path = tar(tmp_path / "a.tar", {"1.wav": sound(1, 5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 10_240 * 10_240 - 10_240] + end if end else whole[:3000])
    short = items_of(str(path))
    monkeypatch.setattr(long_file, "IN_MEMORY", 1000)
    for from_memory, from_file in zip(short, items_of(str(path)), strict=True):
        assert type(from_memory) is type(from_file)
        assert getattr(from_memory, "error", "") == getattr(from_file, "error", "")


def test_streams_of_a_part_have_positions_of_their_own(all_long: None) -> None:
    data = sound(1, 5000)
    part = LongFile.of(data[at : at + 700] for at in range(0, len(data), 700)).part(100, 3000)
    first, second = part.open(), part.open()
    assert first.read(50) == data[100:150] and second.read() == data[100:3100] and first.read() == data[150:3100]
    assert (second.seek(-10, io.SEEK_END), second.read()) == (2990, data[3090:3100])
    assert (first.seek(4000), first.read()) == (4000, b"")
    assert part.head(5) == data[100:105] and len(part.part(2999, 1)) == 1
    for start, length in ((0, 3001), (-1, 5), (3000, 1)):
        with pytest.raises(ValueError, match="there are 3000"):
            part.part(start, length)


def test_reading_a_long_file_takes_no_memory_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_file, "IN_MEMORY", 1 << 20)
    peaks = []
    for megabytes in (4, 40):
        address = str(tar(tmp_path / f"{megabytes}.tar", {"1.wav": WAV + b"\1" * (megabytes << 20)}))
        spans = spans_of(address)
        tracemalloc.start()
        try:
            (item,) = items_of(address, spans=spans)
            assert len(item.media[0].content) == len(WAV) + (megabytes << 20)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 20)


SCHEMA = pa.schema([*reading.RECORD, ("media", MEDIA)])


def row_of(n: int, size: int) -> dict[str, object]:
    medium = {"kind": "audio", "sha256": f"{n:064x}", "url": None, "data": sound(n, size), "samples": n, "rate": 1}
    keys = {"id": f"{n:032x}", "input": "a", "ordinal": n, "start": n, "length": 1}
    return keys | {"media": [medium] * (n % 3)}


def test_rows_hold_no_media_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 7)
    expected = [row_of(n, 1000 * (n % 5)) for n in range(20)]
    collected = Rows(SCHEMA)
    for row in expected:
        collected.append(row)
    table = collected.table()
    assert [row["media"] for row in table.to_pylist()][1][0]["data"] == sound(1, 1000)
    whole = pa.concat_tables(pa.Table.from_pylist(expected[at : at + 7], schema=SCHEMA) for at in (0, 7, 14))
    assert table.schema == SCHEMA and table.equals(whole) and table["media"].num_chunks == whole["media"].num_chunks
    table.validate(full=True)

    large, before = Rows(SCHEMA), pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        for n in range(60):
            large.append(row_of(n, 200_000))
        table = large.table()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.nbytes > 12_000_000 and peak < 2_000_000 and pa.total_allocated_bytes() - before < 1_000_000


def test_a_row_beyond_what_a_column_holds_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_BYTES", 5000)
    collected, expected = Rows(SCHEMA), [row_of(n, 2000) for n in (1, 2, 4, 5)]
    for row in expected:  # of 2,012 and 4,024 bytes: no two lie in one column
        collected.append(row)
    with pytest.raises(rows.TooLarge, match="6,024 bytes of media: a record can have 5,000"):
        collected.append(row_of(2, 3000))
    table = collected.table()
    table.validate(full=True)
    assert table.equals(pa.Table.from_pylist(expected, schema=SCHEMA))


def test_records_without_media_are_looked_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.stages.core.records.ROW_GROUP_ROWS", 8)
    looked_at = []

    def counted(table: pa.Table) -> np.ndarray:
        looked_at.append(table.num_rows)
        return media_bytes(table)

    media_bytes = write.media_bytes
    monkeypatch.setattr(write, "media_bytes", counted)
    table = pa.Table.from_pylist([row_of(3 * n, 0) for n in range(800)], schema=SCHEMA)
    assert not any(row["media"] for row in table.to_pylist())
    content = put_table(store, "text", table, groups=(table.slice(at, 8) for at in range(0, 800, 8)))
    looked_at.clear()
    kept = list(WriteMedia().kept(store, Chunk(content, None, 0), []))  # type: ignore[arg-type]
    assert pa.concat_tables(kept).equals(table)
    assert sum(looked_at) <= 2 * 800, "once as they come, once as they are cut into groups"


@pytest.mark.parametrize("group_bytes", [1, 3000, 10_000, 1 << 20])
def test_shards_do_not_depend_on_how_the_content_is_grouped(
    store: Store, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(write, "ROW_GROUP_BYTES", 10_000)
    monkeypatch.setattr("gristmill.stages.core.records.ROW_GROUP_ROWS", 16)
    table = pa.Table.from_pylist([row_of(n, 800 * (n % 7)) for n in range(60)], schema=SCHEMA)
    left = store_exclusions(store, pa.table({"input": ["a", "a", "a"], "ordinal": [3, 4, 50]}))

    def groups(size: int) -> Iterator[pa.Table]:
        monkeypatch.setattr(write, "ROW_GROUP_BYTES", size)
        whole = list(write.groups_of(table))
        monkeypatch.setattr(write, "ROW_GROUP_BYTES", 10_000)
        yield from whole

    content = put_table(store, "text", table, groups=groups(group_bytes))
    assert read_table(store, content).equals(table)
    kept = list(WriteMedia().kept(store, Chunk(content, None, 0), [left]))  # type: ignore[arg-type]
    whole = table.filter(pa.array([n not in (3, 4, 50) for n in range(60)]))
    assert pa.concat_tables(kept).equals(whole)
    assert [part.num_rows for part in kept] == [part.num_rows for part in write.groups_of(whole)]
    # What a table of blocks of 16 rows has in a chunk, a group has.
    edges = {15 - 2, 31 - 2, 47 - 2}
    at = 0
    for part in kept:
        chunks = [len(chunk) for chunk in part["media"].chunks]
        inside = [edge + 1 - at for edge in sorted(edges) if at < edge + 1 < at + part.num_rows]
        assert np.cumsum(chunks).tolist()[:-1] == inside
        at += part.num_rows
