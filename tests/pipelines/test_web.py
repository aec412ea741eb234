"""The web pipeline on the generated crawl: one fate for every record, one digest for every way of running it."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from pathlib import Path

import pyarrow.compute as pc
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
from gristmill.stages.run.runner import Incomplete, PlanOnly
from gristmill.stages.text import extract
from gristmill.stages.text.html import PageText

IN_PROCESS = {"seconds_per_record": None}
"""For tests that plant faults in a stage: a child process would not know of them."""


@pytest.fixture(scope="module")
def done(sample, tmp_path_factory):
    """A finished run over the whole crawl: (lake, result)."""
    folder = tmp_path_factory.mktemp("lake")
    return folder, web.run(folder, web.crawl_files(sample))


def test_every_record_of_every_file_has_one_fate(done):
    folder, result = done
    m = result.manifest
    ledger = lake.open("web@v1", lake=str(folder)).ledger()
    assert result.new and ledger.num_rows == m.received.count == sum(one.records for one in m.inputs)
    keys = list(zip(ledger["input"].to_pylist(), ledger["ordinal"].to_pylist(), strict=True))
    assert sorted(keys) == sorted((one.digest, n) for one in m.inputs for n in range(one.records))


def test_fates_are_those_of_the_truth_file(done, sample):
    folder, result = done
    names = {one.digest: Path(one.names[0]).name for one in result.manifest.inputs}
    ledger = lake.open("web", lake=str(folder)).ledger().to_pylist()
    fate = {(names[row["input"]], row["ordinal"]): row for row in ledger}
    kinds = {"spam", "http_error", "not_html", "pii", "text"}  # what this thin pipeline decides for sure
    checked = 0
    for line in (sample / "truth.jsonl").read_text().splitlines():
        truth = json.loads(line)
        if truth["file"].startswith("crawl/") and truth["ordinal"] is not None and truth["kind"] in kinds:
            row = fate[Path(truth["file"]).name, truth["ordinal"]]
            assert row["fate"] == truth["expected"], (truth, row)
            checked += 1
    assert checked > 20


def test_shards_hold_exactly_the_kept_records(done):
    folder, _ = done
    data = lake.open("web", lake=str(folder))
    table, ledger = data.to_arrow(), data.ledger()
    kept = ledger.filter(pc.equal(ledger["fate"], "kept"))
    assert sorted(table["id"].to_pylist()) == kept["id"].to_pylist()
    assert len(data.manifest.shards) > 1
    assert set(table["language"].to_pylist()) == {"en"} and min(table["language_score"].to_pylist()) >= 0.65
    assert len(set(table["text"].to_pylist())) == table.num_rows
    assert table.schema.names == ["id", "url", "text", "language", "language_score", "date", "source"]


def test_a_duplicate_names_a_survivor_that_was_kept(done):
    folder, _ = done
    ledger = lake.open("web", lake=str(folder)).ledger()
    duplicates = ledger.filter(pc.equal(ledger["reason"], "exact.duplicate"))
    kept = set(ledger.filter(pc.equal(ledger["fate"], "kept"))["id"].to_pylist())
    assert duplicates.num_rows and set(duplicates["survivor"].to_pylist()) <= kept


def test_the_funnel_adds_up_to_the_ledger(done):
    m = done[1].manifest
    assert m.funnel[0].received == m.received.count and m.funnel[-1].passed == m.kept.count
    assert sum(n for row in m.funnel for n in row.dropped.values()) == m.dropped.count
    assert sum(n for row in m.funnel for n in row.quarantined.values()) == m.quarantined.count > 0


def test_two_workers_on_ray_give_the_digest_of_one_process(done, sample, tmp_path):
    result = web.run(tmp_path / "lake", web.crawl_files(sample), workers=2)
    assert result.manifest.digest == done[1].manifest.digest
    assert result.manifest.run_key == done[1].manifest.run_key


def test_the_order_in_which_inputs_are_listed_does_not_matter(done, sample, tmp_path):
    assert web.run(tmp_path, web.crawl_files(sample)[::-1]).manifest.digest == done[1].manifest.digest


def test_the_same_command_again_is_a_no_op(done, sample):
    folder, first = done
    again = web.run(folder, web.crawl_files(sample))
    assert not again.new and again.manifest == first.manifest


def test_a_copy_at_another_path_is_the_same_input(done, sample, tmp_path):
    folder, first = done
    copy = shutil.copytree(sample / "crawl", tmp_path / "moved")
    for path in copy.iterdir():
        path.rename(path.with_name("renamed-" + path.name))
    again = web.run(folder, sorted(copy.iterdir()))
    assert not again.new and again.manifest == first.manifest


def test_a_file_listed_twice_adds_nothing(done, sample, tmp_path):
    folder, first = done
    files = web.crawl_files(sample)
    copy = shutil.copy(files[1], tmp_path / "copy.warc.gz")
    again = web.run(folder, [*files, files[0], copy])
    assert not again.new and again.manifest == first.manifest


def recompress(path: Path, to: Path) -> Path:
    """The same content in one gzip member of another level: other bytes, same records."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    to.write_bytes(packer.compress(gzip.decompress(path.read_bytes())) + packer.flush())
    return to


@pytest.mark.parametrize("name", ["part-0000.warc.gz", "extra.jsonl.gz"])
def test_a_recompressed_copy_adds_nothing_and_says_so(sample, tmp_path, name):
    original = sample / "crawl" / name
    copy = recompress(original, tmp_path / f"other-{name}")
    alone = web.run(tmp_path / "a", [original], max_quarantine_rate=1).manifest
    both = web.run(tmp_path / "b", [original, copy], max_quarantine_rate=1).manifest
    assert len(both.inputs) == 2 and both.received.count == 2 * alone.received.count
    assert both.kept.count == alone.kept.count
    ids = [sorted(lake.open("web", lake=str(tmp_path / at)).to_arrow()["id"].to_pylist()) for at in "ab"]
    assert ids[0] == ids[1]
    again = [sum(row.dropped.get("exact.same_record", 0) for row in m.funnel) for m in (alone, both)]
    near = sum(row.dropped.get("minhash.duplicate", 0) for row in alone.funnel)
    assert again[1] - again[0] == alone.kept.count + near


def test_limit_goes_to_a_dataset_of_its_own_and_the_full_run_follows(done, sample, tmp_path):
    files = web.crawl_files(sample)
    limited = web.run(tmp_path, files, limit=10).manifest
    assert str(limited) == "web.limit@v1" and limited.received.count == 10
    full = web.run(tmp_path, files).manifest
    assert str(full) == "web@v1" and full.digest == done[1].manifest.digest


def test_a_changed_threshold_extracts_nothing_again(sample, tmp_path, monkeypatch):
    files = web.crawl_files(sample)
    first = web.run(tmp_path, files, extract=IN_PROCESS).manifest
    monkeypatch.setattr(extract, "page_text", lambda *_: pytest.fail("extracted again"))
    second = web.run(tmp_path, files, extract=IN_PROCESS, gopher_quality={"min_words": 150}).manifest
    assert second.version == 2 and second.kept.count < first.kept.count


def test_plan_says_what_would_run_and_commits_nothing(sample, tmp_path):
    files = web.crawl_files(sample)
    with pytest.raises(PlanOnly, match="scan: 0 done"):
        web.run(tmp_path, files, plan=True)
    web.run(tmp_path, files)
    with pytest.raises(PlanOnly, match="screen: 0 done"):
        web.run(tmp_path, files, plan=True, language={"min_score": 0.9})


# Planted faults


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
    original = reading.input_info
    monkeypatch.setattr(reading, "input_info", lambda uri: original(uri)._replace(size=1))
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
    assert "5 inputs cannot be used" in message and message.endswith("leave it out of recipe.inputs")
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
