"""Reading along that is broken off, by a kill or a file that changes, and what it costs: one opening, and its time."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from reading_along import FILES, Noting, contents, run
from warc_files import gz, page

from gristmill.lake.accounts.receipt import Receipt, read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.core import work as works
from gristmill.stages.read import along as reading_along
from gristmill.stages.read.along import ReadAlong
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.text.extract import Extract


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[Store, Store]:
    once, twice = (open_store(str(tmp_path / name)) for name in ("one-pass", "two-passes"))
    return once, twice


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Members of a record each: some chunks."""
    path = tmp_path / "crawl.warc.gz"
    path.write_bytes(FILES["a.warc.gz"])
    return path


@contextmanager
def killed(when: Callable[[Receipt], bool]) -> Iterator[None]:
    """Within it a run is killed before it writes the first receipt of which `when` is true."""

    def write(store: Store, receipt: Receipt, **options: Any) -> Receipt:
        if when(receipt):
            raise KeyboardInterrupt
        return written(store, receipt, **options)

    written = works.write_receipt
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(works, "write_receipt", write)
        yield


def test_a_run_that_was_killed_before_the_scan_was_proved_judges_nothing_again(
    crawl, lakes, tmp_path, monkeypatch
) -> None:
    once, twice = lakes
    an_hour_ago = time.time() - 3600
    os.utime(crawl, (an_hour_ago, an_hour_ago))
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1e9)  # its change time cannot be set back
    stage = Noting(folder=str(tmp_path))

    with killed(lambda receipt: receipt.stages[-1].name == "scan"):
        run(once, crawl, stage, along=ReadAlong(stage))
    assert len(contents(once)[0]) > 3, "the chunks were proved"
    again = run(once, crawl, stage, along=ReadAlong(stage))
    assert set(stage.judged().values()) == {1} and again.history[-1][2] == 0
    run(twice, crawl, stage, along=None)
    assert contents(once) == contents(twice)


def test_a_run_that_was_killed_between_two_chunks_goes_on(crawl, lakes) -> None:
    once, twice = lakes
    stage = Extract()
    written = count(1)
    with killed(lambda receipt: next(written) == 3):
        run(once, crawl, stage, along=ReadAlong(stage))
    assert len(contents(once)[0]) == 2
    run(once, crawl, stage, along=ReadAlong(stage))
    run(twice, crawl, stage, along=None)
    assert contents(once) == contents(twice)


def test_a_file_that_changes_meanwhile_proves_nothing(crawl, lakes, tmp_path, monkeypatch) -> None:
    original = ReadAlong._answered

    def changing(self, uri, kind, answers):
        result = original(self, uri, kind, answers)
        with crawl.open("ab") as file:
            file.write(gz(page(99)))
        return result

    monkeypatch.setattr(ReadAlong, "_answered", changing)
    stage = Extract()
    with pytest.raises(Incomplete, match="changed while it was read"):
        run(lakes[0], crawl, stage, along=ReadAlong(stage))
    assert contents(lakes[0]) == ({}, set())


def test_records_that_moved_between_a_death_and_the_second_scan_are_not_taken(
    crawl, lakes, tmp_path, monkeypatch
) -> None:
    """The same size and times, which no stamp shows."""
    stage = Noting(folder=str(tmp_path), kills="http://a.example/42")
    original = reading_along.scan

    def other(stream, kind):
        result = original(stream, kind)
        lengths = result.spans["length"].to_pylist()
        moved = result.spans.set_column(
            2, result.spans.schema.field(2), [[lengths[0] + 1, lengths[1] - 1, *lengths[2:]]]
        )
        return result._replace(spans=moved)

    monkeypatch.setattr(reading_along, "scan", other)
    with pytest.raises(Incomplete, match="record 0 is not where it was"):
        run(lakes[0], crawl, stage, along=ReadAlong(stage))


def test_the_receipt_of_a_chunk_says_what_it_took_and_not_what_it_took_to_write(crawl, lakes, monkeypatch) -> None:
    """By these seconds runs are planned and reported."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(reading_along.time, "monotonic", lambda: float(next(clock)))
    stage = Extract(seconds_per_record=None)
    run(lakes[0], crawl, stage, along=ReadAlong(stage))
    receipts = [read_receipt(lakes[0], key) for key in contents(lakes[0])[0]]
    of_chunks = [receipt for receipt in receipts if receipt is not None and receipt.stages[-1].name != "scan"]
    assert len(of_chunks) > 3
    for receipt in of_chunks:
        assert 10 * receipt.received.count <= receipt.info["seconds"] < 10 * receipt.received.count + 10


def test_a_file_is_opened_once(crawl, lakes, monkeypatch) -> None:
    """Beside its first bytes, which tell what it is."""
    opened: list[tuple[str, int]] = []
    original = reading_along.open_input

    def noted(uri: str, offset: int = 0):
        opened.append((uri, offset))
        return original(uri, offset)

    for module in ("along", "scan", "untimed"):
        monkeypatch.setattr(f"gristmill.stages.read.{module}.open_input", noted)
    stage = Extract(seconds_per_record=None)
    run(lakes[0], crawl, stage, along=ReadAlong(stage))
    assert opened == [(str(crawl), 0)] * 2
    run(lakes[1], crawl, stage, along=None)
    assert len(opened) > 6


class FullDisk(io.BytesIO):
    """A scratch file on a disk that takes so many bytes: a write says so, or the end of them."""

    room, late = 20_000, False

    def write(self, data) -> int:
        if self.tell() + len(data) > self.room and not self.late:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)

    def flush(self) -> None:
        if self.late:
            raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("late", [False, True])
def test_a_scratch_disk_that_is_full_costs_a_second_pass_and_no_run(crawl, lakes, monkeypatch, caplog, late) -> None:
    once, twice = lakes
    monkeypatch.setattr(FullDisk, "late", late)
    monkeypatch.setattr(reading_along.tempfile, "SpooledTemporaryFile", lambda in_memory: FullDisk())
    stage = Extract()
    again = run(once, crawl, stage, along=ReadAlong(stage))
    assert again.history[-1][2] > 3, "all chunks are read by their own works"
    assert "No space left on device" in caplog.text
    run(twice, crawl, stage, along=None)
    assert contents(once) == contents(twice)
