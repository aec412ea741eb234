"""Reading along: one pass over a file leaves in the lake what two leave, to the byte, and judges no record twice; what
cannot be read along is read as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading_along import FILES, PAGES, Noting, contents, run

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.stages.read import along as reading_along
from gristmill.stages.read.along import MOST, ReadAlong
from gristmill.stages.read.isolated import child
from gristmill.stages.read.suppress import Listed
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


@pytest.mark.parametrize("seconds", [60.0, None])
def test_one_pass_leaves_in_the_lake_what_two_leave(seconds, tmp_path) -> None:
    stage = Extract(seconds_per_record=seconds)
    for name, data in FILES.items():
        path = tmp_path / name
        path.write_bytes(data)
        once, twice = (open_store(str(tmp_path / f"{name}-{passes}")) for passes in (1, 2))
        read = run(once, path, stage, along=ReadAlong(stage))
        run(twice, path, stage, along=None)
        assert contents(once) == contents(twice) and len(contents(once)[0]) > 5, name
        ((_, before, now),) = [entry for entry in read.history if entry[0] == "extract"]
        assert before > 3 and not now, f"{name}: nothing was left to read"


def test_each_record_is_judged_once_wherever_reading_along_ends(crawl, lakes, tmp_path) -> None:
    twice = lakes[1]
    stage = Noting(folder=str(tmp_path))
    run(twice, crawl, stage, along=None)
    judged = stage.judged()
    assert set(judged.values()) == {1} and len(judged) == len(PAGES)
    (tmp_path / "judged").unlink()
    for most, window in ((MOST, 5_000), (30_000, 1 << 20)):
        store = open_store(str(tmp_path / f"{most}-{window}"))
        read = run(store, crawl, stage, along=ReadAlong(stage, most=most, window=window))
        assert contents(store) == contents(twice)
        assert stage.judged() == judged
        (tmp_path / "judged").unlink()
    assert read.history[-1][0] == "extract" and all(read.history[-1][1:]), "some was done along, some afterwards"


def test_a_file_of_one_member_is_read_behind_its_scan_where_the_window_is_too_small(lakes, tmp_path) -> None:
    path, stage = tmp_path / "one-member.warc.gz", Noting(folder=str(tmp_path))
    path.write_bytes(FILES[path.name])
    once, twice = lakes
    read = run(once, path, stage, along=ReadAlong(stage, window=10_000))
    assert set(stage.judged().values()) == {1}
    assert read.history[-1][:2] == ("extract", 0)
    run(twice, path, stage, along=None)
    assert contents(once) == contents(twice)


def test_a_page_that_kills_costs_itself_and_no_other_is_judged_again(crawl, lakes, tmp_path) -> None:
    once, twice = lakes
    stage = Noting(folder=str(tmp_path), kills="http://a.example/42")
    run(once, crawl, stage, along=ReadAlong(stage))
    judged = stage.judged()
    assert judged.pop(42) == 3, "once along, and the two times that a chunk's work tries it"
    assert set(judged.values()) == {1} and len(judged) == len(PAGES) - 1
    run(twice, crawl, stage, along=None)
    assert contents(once) == contents(twice)


def test_a_page_that_hangs_costs_one_deadline(crawl, lakes, tmp_path) -> None:
    once, twice = lakes
    stage = Noting(folder=str(tmp_path), hangs="http://a.example/42", seconds_per_record=8)
    run(once, crawl, stage, along=ReadAlong(stage))
    assert set(stage.judged().values()) == {1} and len(stage.judged()) == len(PAGES)
    run(twice, crawl, stage, along=None)
    assert contents(once) == contents(twice)


def test_a_child_is_kept_from_file_to_file(crawl, lakes) -> None:
    """To start one takes as long as some hundred pages."""
    run(lakes[0], crawl, Extract(), along=ReadAlong(Extract()))
    pid = child().pid
    run(lakes[1], crawl, Extract(), along=ReadAlong(Extract()))
    assert child().pid == pid is not None


def test_the_scan_itself_has_no_deadline(crawl, lakes, tmp_path, monkeypatch) -> None:
    """The time that a slow store takes between two records is no record's."""
    fed: list[float] = []
    monkeypatch.setattr(reading_along.watchdog, "feed", fed.append)
    stage = Extract(seconds_per_record=7)
    parts = list(reading_along._scan_and_judge(stage, str(crawl), "warc", MOST, 1 << 20))
    assert len(parts) == len(PAGES) + 1
    assert fed[-1] == 0 and fed.count(0) >= 1 and fed.count(7) == len(PAGES) + fed.count(0)


@pytest.mark.parametrize("seconds", [60.0, None])
def test_a_stage_that_fails_is_named_where_it_reads(crawl, lakes, tmp_path, seconds) -> None:
    """The scan did its part, and so did every chunk but one."""
    stage = Noting(folder=str(tmp_path), fails="http://a.example/42", seconds_per_record=seconds)
    with pytest.raises(Incomplete, match=r"^extract: 1 of \d+ pieces of work failed:\n.*the stage has a defect"):
        run(lakes[0], crawl, stage, along=ReadAlong(stage))
    with pytest.raises(Incomplete):
        run(lakes[1], crawl, stage, along=None)
    assert contents(lakes[0]) == contents(lakes[1])


def test_what_was_taken_down_is_left_out_before_it_is_written(crawl, lakes, tmp_path) -> None:
    once, twice = lakes
    stage, listed = Extract(), Suppression.of(urls=["http://a.example/7", "http://a.example/61"])
    read = run(once, crawl, stage, along=ReadAlong(stage, Listed.put(once, listed)), listed=listed)
    run(twice, crawl, stage, along=None, listed=listed)
    assert contents(once) == contents(twice) and read.history[-1][2] == 0
    assert any("forget.suppressed" in store_text(once, key) for key in contents(once)[0])


def store_text(store: Store, work_key: str) -> str:
    """A receipt as it stands in the store."""
    return store.get(f"receipts/{work_key[:2]}/{work_key}.json").decode()


def test_a_list_that_grew_during_the_scan_counts(crawl, lakes) -> None:
    once, twice = lakes
    stage, before = Extract(), Suppression.of(urls=["http://a.example/7"])
    longer = before.union([Suppression.of(urls=["http://a.example/61"])])
    run(once, crawl, stage, along=ReadAlong(stage, Listed.put(once, before)), listed=longer)
    run(twice, crawl, stage, along=None, listed=longer)
    receipts, objects = contents(twice)
    assert receipts.items() <= contents(once)[0].items() and objects <= contents(once)[1]
