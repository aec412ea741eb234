"""The web pipeline where something is wrong: a stage with a planted fault, damage, inputs of no use, lost objects."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
import web
from warc_files import http, record

from gristmill import lake
from gristmill.lake.accounts.balance import BalanceError
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.containers import read
from gristmill.stages.read import reading
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.text import extract
from gristmill.stages.text.html import PageText

IN_PROCESS = {"seconds_per_record": None}
"""For tests that plant faults in a stage: a child process would not know of them."""


def test_a_reader_that_loses_one_record_and_doubles_another_is_caught(sample, tmp_path, monkeypatch):
    def faulty(*args):
        items = list(read(*args))
        return [*items[:3], items[4], *items[4:]]

    monkeypatch.setattr(extract, "read", faulty)
    with pytest.raises(BalanceError, match="not the same records"):
        web.run(tmp_path, [sample / "crawl" / "part-0000.warc.gz"], extract=IN_PROCESS)
    assert not list(open_store(str(tmp_path)).list("datasets/"))


def test_a_reader_that_stops_early_is_caught(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "read", lambda *args: list(read(*args))[:-1])
    with pytest.raises(BalanceError, match="records went in but"):
        web.run(tmp_path, [sample / "crawl" / "part-0000.warc.gz"], extract=IN_PROCESS)


def test_too_much_damage_fails_the_gate(sample, tmp_path):
    with pytest.raises(GateFailed, match=r"quarantined .*max_quarantine_rate=1.0%"):
        web.run(tmp_path, web.crawl_files(sample), max_quarantine_rate=0.01)
    assert web.run(tmp_path, web.crawl_files(sample), max_quarantine_rate=0.5).new


def test_the_gate_counts_what_is_unreadable_over_all_pieces_of_work(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("not json\n" * (3 if name == "a" else 4))
    with pytest.raises(GateFailed, match=r"mostly read\.unreadable \(7\)"):
        web.run(tmp_path / "lake", sorted(tmp_path.glob("*.jsonl")))


def test_a_page_that_breaks_the_extractor_is_quarantined_and_the_rest_goes_on(sample, tmp_path, monkeypatch):
    seen = []

    def fragile(html, config):
        seen.append(html)
        if len(seen) == 5:
            raise ValueError("no root element")
        return PageText("The quick brown fox and that dog have to be with the others. " * 30)

    monkeypatch.setattr(extract, "page_text", fragile)
    m = web.run(tmp_path, [sample / "crawl" / "part-0000.warc.gz"], extract=IN_PROCESS).manifest
    assert m.quarantined.count == 1 and m.funnel[1].quarantined == {"extract.failed": 1}


def test_a_page_taken_whole_is_marked_and_one_too_complex_says_what_of(tmp_path):
    text = "The lighthouse keeper climbed the stair, and the wind was with him when he came to the lamp. " * 12
    pages = [f"<div class='sidebar-wrapper nav-menu'><p>{text}</p></div>", f"<main><p>The others. {text}</p></main>"]
    pages.append("<body>" + "<rt>" * 100_000)
    records = [record(http(page.encode()), number=i, url=f"http://a.example/{i}") for i, page in enumerate(pages)]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    m = web.run(tmp_path / "lake", [tmp_path / "a.warc"], minhash=None, max_quarantine_rate=1.0).manifest
    rows = lake.open("web", lake=str(tmp_path / "lake")).ledger().sort_by("ordinal").to_pylist()
    assert [(row["fate"], row["reason"]) for row in rows[:2]] == [("kept", None)] * 2
    assert [row["value"] for row in rows[:2]] == [extract.WHOLE_PAGE, None]
    assert (rows[2]["reason"], m.machine_fates) == ("extract.too_complex", 0)
    assert "steps through elements that are never closed; the limit is 200000000" in rows[2]["value"]


def test_an_input_that_changes_under_the_run_is_refused(sample, tmp_path, monkeypatch):
    path = tmp_path / "part.warc.gz"
    shutil.copy(sample / "crawl" / "part-0000.warc.gz", path)
    web.in_two_passes(monkeypatch)
    monkeypatch.setattr(reading, "unchanged", lambda uri, stamp: False)
    with pytest.raises(Incomplete, match="changed since it was scanned"):
        web.run(tmp_path / "lake", [path])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [([], "recipe.inputs is empty"), (["/no/such/*.warc.gz"], "matches no file"), (["/"], "folder")],
)
def test_inputs_that_name_nothing_are_a_bad_config(tmp_path, inputs, message):
    with pytest.raises(BadConfig, match=message):
        web.run(tmp_path, inputs)


def test_all_files_that_are_no_crawls_are_named_before_any_work_begins(sample, tmp_path):
    (tmp_path / "notes.txt").write_text("just some notes\n")
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "nothing.warc").touch()
    (tmp_path / "gone.warc").symlink_to(tmp_path / "elsewhere.warc")
    part = sample / "crawl" / "part-0000.warc.gz"
    with pytest.raises(BadConfig) as failure:
        web.run(tmp_path / "lake", [tmp_path / "*.*", part, tmp_path / "none"])
    message = str(failure.value)
    assert "5 inputs cannot be used" in message and "leave it out of recipe.inputs" in message
    for words in ("gone.warc is a link to ", "none' does not exist"):
        assert words in message
    for words in ("notes.txt starts with", "list.jsonl is one JSON array", "nothing.warc is empty: it has 0 bytes"):
        assert words in message
    assert not list(open_store(str(tmp_path / "lake")).list("receipts/"))


def test_a_run_whose_version_was_withdrawn_does_not_bring_it_back(sample, tmp_path):
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    web.run(tmp_path, part)
    Versions(open_store(str(tmp_path))).withdraw("web", 1, "takedown 17")
    with pytest.raises(GateFailed, match="web@v1 was withdrawn: takedown 17"):
        web.run(tmp_path, part)
    assert web.run(tmp_path, part, gopher_quality={"min_words": 60}).manifest.version == 2


def test_lost_objects_of_a_version_are_made_again_by_the_command_that_made_it(sample, tmp_path):
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    first = web.run(tmp_path, part).manifest
    store = open_store(str(tmp_path))
    store.delete(first.shards[0].key)
    store.delete(first.ledgers[0].key)
    again = web.run(tmp_path, part)
    assert not again.new and again.manifest == first
    assert verify(store, deep=True) == []


def test_a_damaged_intermediate_is_never_read_as_if_it_were_whole(sample, tmp_path):
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    m = web.run(tmp_path, part).manifest
    store = open_store(str(tmp_path))
    kept = {ref.sha256 for ref in m.objects()}
    texts = [info for info in store.list("objects/") if info.key.rpartition("/")[2] not in kept]
    largest = max(texts, key=lambda info: info.size)  # the extracted text
    data = bytearray(store.get(largest.key))
    data[len(data) // 2] ^= 1
    store.put(largest.key, bytes(data))
    with pytest.raises(Incomplete, match=r"DamagedObject: .*delete it"):
        web.run(tmp_path, part, gopher_quality={"min_words": 60})


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.jsonl", b""), ("a.warc.gz", b""), ("a.jsonl.gz", gzip.compress(b"", mtime=0)), ("a.warc", b"")],
)
def test_files_without_a_record_fail_the_run_unless_they_are_allowed(tmp_path, name, data):
    empty = tmp_path / name
    empty.write_bytes(data)
    page = tmp_path / "b.jsonl"
    page.write_text('{"text": "a"}\n')
    for inputs in ([empty], [page, empty]):
        with pytest.raises(GateFailed, match=rf"{name} .*(0 bytes|no record).* recipe.allow_empty=true .*nothing was"):
            web.run(tmp_path / "lake", inputs)
    m = web.run(tmp_path / "lake", [empty], allow_empty=True).manifest
    assert web.summary(m) == (0, 0, 0, 0) and m.version == 1
    assert lake.open("web", lake=str(tmp_path / "lake")).to_arrow().num_rows == 0
