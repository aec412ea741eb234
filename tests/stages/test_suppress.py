"""Suppress: what is on the list gets its fate where it is read, and its text is written nowhere; what was read before
is not read again because the list grew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forget_lake import readable

from gristmill.lake.accounts.receipt import finished
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.pipelines.frame.inputs import allowed_works
from gristmill.stages.core.work import Work, execute
from gristmill.stages.read.inputs import ScannedInput, scan_inputs
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.reading import read_works
from gristmill.stages.read.scan import Scan
from gristmill.stages.read.suppress import Suppressed, keys_before, suppressed, suppressed_works
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.extract import Extract
from gristmill.stages.text.instruct import Instruct

URLS = [
    "https://example.org/a",
    "https://evil.com/1",
    "https://www.evil.com/2",
    None,
    "https://example.org/b?q=%7ejane+doe",
    "https://example.org/empty",
]
LISTED = Suppression.of(urls=["https://example.org/b?q=~jane%20doe"], domains=["evil.com"])
STAGES = [Extract(), Instruct(form="pair")]
pytestmark = pytest.mark.parametrize("stage", STAGES, ids=["extract", "instruct"])


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Lines that both stages read; the last one has no text to read, and the third no URL but an id that is one."""
    rows = []
    for i, url in enumerate(URLS):
        text = "" if url == URLS[-1] else f"secret-{i} is what this says"
        row = {"text": text, "question": f"what {i}?", "answer": text}
        rows.append({**row, "id": url} if i == 2 else {**row, "url": url})
    path = tmp_path / "crawl.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def inputs(store: Store, crawl: Path) -> list[ScannedInput]:
    return scan_inputs(Runner(store, workers=0), Scan(), Listing([str(crawl)], []), None)


def work_of(store: Store, crawl: Path, stage, listed: Suppression = LISTED, earlier: tuple[str, ...] = ()) -> Work:
    (work,) = suppressed_works(store, read_works(stage, inputs(store, crawl)), listed, earlier)
    return work


def lake(tmp_path: Path, name: str) -> Store:
    return open_store(str(tmp_path / name))


def nobody_reads(monkeypatch, stage) -> None:
    def refused(self, item):
        raise AssertionError("a record was read again")

    monkeypatch.setattr(type(stage), "judge", refused)


def secrets(store: Store) -> list[int]:
    return [i for i in range(len(URLS)) if any(f"secret-{i}".encode() in data for _, data in readable(store))]


def test_what_is_listed_has_a_fate_and_its_text_is_nowhere(store, crawl, stage):
    receipt = execute(store, work_of(store, crawl, stage))
    fates = read_table(store, receipt.output("fates")).to_pylist()
    left_out = [row for row in fates if row["reason"] == "forget.suppressed"]
    assert [row["ordinal"] for row in sorted(left_out, key=lambda row: row["ordinal"])] == [1, 2, 4]
    assert {(row["fate"], row["stage"], row["value"], row["survivor"]) for row in left_out} == {
        ("dropped", "forget", None, None)
    }
    assert receipt.reasons["forget.suppressed"] == 3 and receipt.passed.count == 2 and receipt.received.count == 6
    assert secrets(store) == [0, 3]


def test_texts_of_the_plain_stage_are_taken_over_to_the_same_bytes(tmp_path, crawl, stage, monkeypatch):
    fresh, before = lake(tmp_path, "fresh"), lake(tmp_path, "before")
    direct = execute(fresh, work_of(fresh, crawl, stage))
    (plain,) = read_works(stage, inputs(before, crawl))
    execute(before, plain)
    with monkeypatch.context() as patch:
        nobody_reads(patch, stage)
        taken_over = execute(before, work_of(before, crawl, stage))
    assert taken_over.identity() == direct.identity()


def test_a_longer_list_takes_over_what_a_shorter_one_left(tmp_path, crawl, stage, monkeypatch):
    longer = LISTED.union([Suppression.of(urls=[URLS[0]])])
    fresh, before = lake(tmp_path, "fresh"), lake(tmp_path, "before")
    direct = execute(fresh, work_of(fresh, crawl, stage, longer))
    execute(before, work_of(before, crawl, stage))
    with monkeypatch.context() as patch:
        nobody_reads(patch, stage)
        work = work_of(before, crawl, stage, longer, (LISTED.digest,))
        assert execute(before, work).identity() == direct.identity()
    assert len(keys_before(work)) == 2 and direct.passed.count == 1


def test_where_nothing_is_listed_the_next_list_costs_no_reading(store, crawl, stage, monkeypatch):
    elsewhere, more = (Suppression.of(domains=[name]) for name in ("nowhere.org", "never.org"))
    first = execute(store, work_of(store, crawl, stage, elsewhere))
    (plain,) = read_works(stage, inputs(store, crawl))
    receipt = finished(store, plain.key)
    assert receipt is not None and receipt.outputs == first.outputs and receipt.passed == first.passed
    nobody_reads(monkeypatch, stage)
    assert execute(store, work_of(store, crawl, stage, elsewhere.union([more]))).outputs == first.outputs


def test_where_something_is_listed_no_receipt_says_that_the_plain_stage_is_done(store, crawl, stage):
    execute(store, work_of(store, crawl, stage))
    (plain,) = read_works(stage, inputs(store, crawl))
    assert finished(store, plain.key) is None
    assert execute(store, plain).passed.count == 5  # and its own result is another


def test_without_a_list_everything_stays_as_it_was(store, crawl, stage):
    (plain,) = read_works(stage, inputs(store, crawl))
    runner = Runner(store, workers=0)
    (work,) = allowed_works(runner, stage, inputs(store, crawl), Suppression(), "web")
    (receipt,) = runner.map(stage.name, [work])
    assert receipt.work_key == plain.key and suppressed(stage, "") is stage
    assert "forget.suppressed" not in receipt.reasons


def test_the_key_follows_the_entries_and_nothing_else(store, crawl, stage):
    work = work_of(store, crawl, stage)
    same = work_of(store, crawl, stage, Suppression().union([LISTED]), ("0" * 64,))
    other = work_of(store, crawl, stage, Suppression.of(["ab" * 16]).union([LISTED]))
    assert isinstance(work.stage, Suppressed) and same.key == work.key != other.key


def test_a_request_made_meanwhile_changes_nothing_of_a_run_that_began_before(store, crawl, stage):
    work = work_of(store, crawl, stage)
    Suppression.of(urls=[URLS[0]]).save(store, "later")
    assert execute(store, work).reasons["forget.suppressed"] == 3


def test_the_wrong_list_is_refused(store, crawl, stage):
    work = work_of(store, crawl, stage)
    store.put(work.payload.suppression.key, store.get(Suppression().put(store).key))
    with pytest.raises(ValueError, match="is damaged"):
        execute(store, work)
