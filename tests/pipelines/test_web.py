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

from gristmill import lake
from gristmill.stages.run.unfinished import PlanOnly
from gristmill.stages.text import extract

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
    assert result.new and ledger.num_rows == m.received.count == sum(file.records for file in m.inputs)
    keys = list(zip(ledger["input"].to_pylist(), ledger["ordinal"].to_pylist(), strict=True))
    assert sorted(keys) == sorted((file.digest, n) for file in m.inputs for n in range(file.records))


def test_fates_are_those_of_the_truth_file(done, sample):
    folder, result = done
    names = {file.digest: Path(file.names[0]).name for file in result.manifest.inputs}
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
