"""Reading along: one pass over a file leaves in the lake what two leave, to the byte, and judges no record twice; what
cannot be read along is read as ever."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from warc_files import arc_record, gz, http, line, members, page, record, zst

from gristmill.lake.accounts.receipt import read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.pipelines.frame.inputs import allowed_works
from gristmill.stages.containers import Item
from gristmill.stages.core import work as works
from gristmill.stages.read import along as reading_along
from gristmill.stages.read.along import MOST, ReadAlong
from gristmill.stages.read.inputs import scan_inputs
from gristmill.stages.read.isolated import child
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.read.scan import Alongside, Scan
from gristmill.stages.read.suppress import Listed
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.text.extract import Extract, Text

NOTHING = Suppression()
SCAN = Scan(chunk_bytes=20_000)
TEXT = "The lighthouse keeper climbed the stair, and the wind was with him when he came to the lamp. " * 12
PAGES = [page(n, TEXT) if n % 5 else record(b"x", kind="request", number=n) for n in range(90)]
DAMAGED = bytearray(members(PAGES))
for at in (700, 6_000, 11_000):
    DAMAGED[at] ^= 255
FILES = {
    "a.warc.gz": members(PAGES),
    "b.warc": b"".join(PAGES),
    "c.warc.zst": members(PAGES, zst),
    "one-member.warc.gz": gz(b"".join(PAGES)),
    "d.arc.gz": members([arc_record(http(TEXT.encode()), number=n) for n in range(90)]),
    "e.jsonl": b"".join(line(text=TEXT, url=f"http://a.example/{n}") for n in range(90)),
    "f.jsonl.gz": gz(b"".join(line(text=TEXT, id=str(n)) for n in range(90))),
    "damaged.warc.gz": bytes(DAMAGED),
    "cut.warc.gz": members(PAGES)[:-90],
}


@dataclass(frozen=True)
class Noting(Extract):
    """An extraction that notes each page which it judges, wherever that is; one page kills its process, one hangs, and
    on one it fails."""

    folder: str = ""
    kills: str = ""
    hangs: str = ""
    fails: str = ""

    def judge(self, item: Item) -> Text:
        with (Path(self.folder) / "judged").open("a") as notes:
            notes.write(f"{item.ordinal}\n")
        if item.url == self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.url == self.hangs:
            re.match("(a*)*b", "a" * 100)
        if item.url == self.fails:
            raise ValueError("the stage has a defect")
        return super().judge(item)

    def judged(self) -> Counter[int]:
        """How often, by the ordinal of the record."""
        notes = Path(self.folder) / "judged"
        return Counter(int(ordinal) for ordinal in notes.read_text().split()) if notes.exists() else Counter()


def run(store: Store, path: Path, stage: ReadStage, *, along: ReadAlong | None, listed=NOTHING) -> Runner:
    """Scans and reads a file, in this process; `along`: in one pass as far as can be."""
    runner = Runner(store, workers=0)
    beside = None if along is None else lambda: Alongside(along, ())
    inputs = scan_inputs(runner, SCAN, Listing([str(path)], []), along=beside)
    runner.map(stage.name, allowed_works(runner, stage, inputs, listed, "web"))
    return runner


def contents(store: Store) -> tuple[dict[str, str], set[str]]:
    """Of a lake: work key -> identity of its receipt, and its objects by their hashes."""
    receipts = {}
    for info in store.list("receipts/"):
        receipt = read_receipt(store, info.key.split("/")[-1].removesuffix(".json"))
        assert receipt is not None
        receipts[receipt.work_key] = receipt.identity()
    return receipts, {info.key for info in store.list("objects/")}


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[Store, Store]:
    one, two = (open_store(str(tmp_path / name)) for name in ("one-pass", "two-passes"))
    return one, two


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
        one, two = (open_store(str(tmp_path / f"{name}-{passes}")) for passes in (1, 2))
        read = run(one, path, stage, along=ReadAlong(stage))
        run(two, path, stage, along=None)
        assert contents(one) == contents(two) and len(contents(one)[0]) > 5, name
        ((_, before, now),) = [entry for entry in read.history if entry[0] == "extract"]
        assert before > 3 and not now, f"{name}: nothing was left to read"


def test_each_record_is_judged_once_wherever_reading_along_ends(crawl, lakes, tmp_path) -> None:
    two = lakes[1]
    stage = Noting(folder=str(tmp_path))
    run(two, crawl, stage, along=None)
    once = stage.judged()
    assert set(once.values()) == {1} and len(once) == len(PAGES)
    (tmp_path / "judged").unlink()
    for most, window in ((MOST, 5_000), (30_000, 1 << 20)):
        store = open_store(str(tmp_path / f"{most}-{window}"))
        read = run(store, crawl, stage, along=ReadAlong(stage, most=most, window=window))
        assert contents(store) == contents(two)
        assert stage.judged() == once
        (tmp_path / "judged").unlink()
    assert read.history[-1][0] == "extract" and all(read.history[-1][1:]), "some was done along, some afterwards"


def test_a_file_of_one_member_is_read_behind_its_scan_where_the_window_is_too_small(lakes, tmp_path) -> None:
    path, stage = tmp_path / "one-member.warc.gz", Noting(folder=str(tmp_path))
    path.write_bytes(FILES[path.name])
    one, two = lakes
    read = run(one, path, stage, along=ReadAlong(stage, window=10_000))
    assert set(stage.judged().values()) == {1}
    assert read.history[-1][:2] == ("extract", 0)
    run(two, path, stage, along=None)
    assert contents(one) == contents(two)


def test_a_page_that_kills_costs_itself_and_no_other_is_judged_again(crawl, lakes, tmp_path) -> None:
    one, two = lakes
    stage = Noting(folder=str(tmp_path), kills="http://a.example/42")
    run(one, crawl, stage, along=ReadAlong(stage))
    judged = stage.judged()
    assert judged.pop(42) == 3, "once along, and the two times that a chunk's work tries it"
    assert set(judged.values()) == {1} and len(judged) == len(PAGES) - 1
    run(two, crawl, stage, along=None)
    assert contents(one) == contents(two)


def test_a_page_that_hangs_costs_one_deadline(crawl, lakes, tmp_path) -> None:
    one, two = lakes
    stage = Noting(folder=str(tmp_path), hangs="http://a.example/42", seconds_per_record=8)
    run(one, crawl, stage, along=ReadAlong(stage))
    assert set(stage.judged().values()) == {1} and len(stage.judged()) == len(PAGES)
    run(two, crawl, stage, along=None)
    assert contents(one) == contents(two)


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
    one, two = lakes
    stage, listed = Extract(), Suppression.of(urls=["http://a.example/7", "http://a.example/61"])
    read = run(one, crawl, stage, along=ReadAlong(stage, Listed.put(one, listed)), listed=listed)
    run(two, crawl, stage, along=None, listed=listed)
    assert contents(one) == contents(two) and read.history[-1][2] == 0
    assert any("forget.suppressed" in store_text(one, key) for key in contents(one)[0])


def store_text(store: Store, work_key: str) -> str:
    """A receipt as it stands in the store."""
    return store.get(f"receipts/{work_key[:2]}/{work_key}.json").decode()


def test_a_list_that_grew_during_the_scan_counts(crawl, lakes) -> None:
    one, two = lakes
    stage, before = Extract(), Suppression.of(urls=["http://a.example/7"])
    longer = before.union([Suppression.of(urls=["http://a.example/61"])])
    run(one, crawl, stage, along=ReadAlong(stage, Listed.put(one, before)), listed=longer)
    run(two, crawl, stage, along=None, listed=longer)
    receipts, objects = contents(two)
    assert receipts.items() <= contents(one)[0].items() and objects <= contents(one)[1]


def test_a_run_that_was_killed_before_the_scan_was_proved_judges_nothing_again(
    crawl, lakes, tmp_path, monkeypatch
) -> None:
    one, two = lakes
    an_hour_ago = time.time() - 3600
    os.utime(crawl, (an_hour_ago, an_hour_ago))
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1e9)  # its change time cannot be set back
    stage = Noting(folder=str(tmp_path))

    def killed(work_store: Store, receipt, **options):
        if receipt.stages[-1].name == "scan":
            raise KeyboardInterrupt
        return written(work_store, receipt, **options)

    written = works.write_receipt
    with monkeypatch.context() as patch:
        patch.setattr(works, "write_receipt", killed)
        with pytest.raises(KeyboardInterrupt):
            run(one, crawl, stage, along=ReadAlong(stage))
    assert len(contents(one)[0]) > 3, "the chunks were proved"
    again = run(one, crawl, stage, along=ReadAlong(stage))
    assert set(stage.judged().values()) == {1} and again.history[-1][2] == 0
    run(two, crawl, stage, along=None)
    assert contents(one) == contents(two)


def test_a_run_that_was_killed_between_two_chunks_goes_on(crawl, lakes, tmp_path, monkeypatch) -> None:
    one, two = lakes
    stage = Extract()
    proofs: list[str] = []

    def killed(work_store: Store, receipt, **options):
        proofs.append(receipt.work_key)
        if len(proofs) == 3:
            raise KeyboardInterrupt
        return written(work_store, receipt, **options)

    written = works.write_receipt
    with monkeypatch.context() as patch:
        patch.setattr(works, "write_receipt", killed)
        with pytest.raises(KeyboardInterrupt):
            run(one, crawl, stage, along=ReadAlong(stage))
    assert len(contents(one)[0]) == 2
    run(one, crawl, stage, along=ReadAlong(stage))
    run(two, crawl, stage, along=None)
    assert contents(one) == contents(two)


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
