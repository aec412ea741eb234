"""A takedown and the increments around it: what was forgotten stays out, and what comes later is judged without it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import web

from gristmill import lake
from gristmill.lake.query.sampling import sample
from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import CommitConflict, Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.stages.core.shards import MergeLedger


@pytest.fixture(scope="module")
def files(sample) -> list[Path | str]:
    """Two increments: three files, then two more."""
    return [*web.crawl_files(sample), *sorted((sample / "night2").iterdir())]


def increment(folder: Path, files: list[Path | str], **recipe):
    return web.run(folder, files, extends="web", **recipe)


def test_a_takedown_keeps_records_out_of_later_increments(files, tmp_path, sample):
    increment(tmp_path, files[:3])
    rows = [json.loads(line) for line in (sample / "truth.jsonl").read_text().splitlines()]
    new = [row["url"] for row in rows if row["file"] == "night2/part-0000.warc.gz" and row["expected"] == "kept"]
    store = open_store(str(tmp_path))
    Suppression.of(urls=new[:3]).save(store, "asked to")
    manifest = increment(tmp_path, files).manifest
    dropped = {r: n for row in manifest.funnel for r, n in row.dropped.items()}
    assert dropped["forget.suppressed"] == 3
    for url in new[:3]:
        assert [s.reason for s in why(Versions(store), url).stories] == ["forget.suppressed"]


def test_a_run_over_everything_has_another_key_after_a_takedown(files, tmp_path):
    first = web.run(tmp_path, files[:3]).manifest
    Suppression.of(urls=["https://nowhere.example.org/"]).save(open_store(str(tmp_path)), "asked to")
    second = web.run(tmp_path, files[:3])
    assert second.new and second.manifest.run_key != first.run_key and second.manifest.digest == first.digest


def test_a_takedown_during_a_run_stops_its_commit_and_the_same_command_goes_on(files, tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    page = next(iter(texts_by_url(tmp_path / "other", files[:3])))
    run = MergeLedger.run

    def meanwhile(self, store_, work):
        Suppression.of(urls=[page]).save(store, "asked to")
        return run(self, store_, work)

    with monkeypatch.context() as patch:
        patch.setattr(MergeLedger, "run", meanwhile)
        with pytest.raises(CommitConflict, match="taken down"):
            increment(tmp_path, files[:3])
    assert Versions(store).latest("web") is None
    increment(tmp_path, files[:3])
    assert [s.reason for s in why(Versions(store), page).stories] == ["forget.suppressed"]


def test_a_copy_of_what_was_forgotten_is_new_text_and_so_is_a_copy_of_its_duplicates(files, tmp_path):
    """A page and two near copies; the page is forgotten; later copies come from elsewhere."""
    words_of = {url: text for url, text in texts_by_url(tmp_path / "other", files[:3]).items() if len(text) > 1500}
    text = next(iter(words_of.values()))
    near = text.rsplit(" ", 3)[0]
    pages = {"a": text + " And so on.", "b": text, "c": near}
    write_jsonl(tmp_path / "one.jsonl", {f"https://{k}.example.org/": v for k, v in pages.items()})
    first = increment(tmp_path / "lake", [tmp_path / "one.jsonl"]).manifest
    assert first.kept.count == 1 and first.statistics["clusters"]["largest"] == 3
    store = open_store(str(tmp_path / "lake"))
    request = Suppression.of(urls=["https://a.example.org/"])
    forget(Versions(store), plan_forget(Versions(store), request), "request 1")
    write_jsonl(
        tmp_path / "two.jsonl", {"https://x.example.org/": text + " And so on.", "https://y.example.org/": near}
    )
    grown = increment(tmp_path / "lake", [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]).manifest
    assert grown.kept.count == 1
    assert lake.open("web", lake=str(tmp_path / "lake")).to_arrow()["url"].to_pylist() == ["https://x.example.org/"]
    assert verify(store, deep=True) == []


def texts_by_url(folder: Path, files: list[Path | str], **recipe) -> dict[str, str]:
    increment(folder, files, **recipe)
    table = lake.open("web", lake=str(folder)).to_arrow(["url", "text"]).to_pylist()
    return {row["url"]: row["text"] for row in table if row["url"]}


def write_jsonl(path: Path, texts: dict[str, str]) -> None:
    path.write_text("".join(json.dumps({"url": url, "text": text}) + "\n" for url, text in texts.items()))


def test_a_takedown_in_the_moment_of_the_commit_withdraws_what_was_committed(files, tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    page = next(iter(texts_by_url(tmp_path / "other", files[:2], max_quarantine_rate=1.0)))
    create = Versions.missing

    def meanwhile(self, refs):
        Suppression.of(urls=[page]).save(store, "asked to")
        return create(self, refs)

    with monkeypatch.context() as patch:
        patch.setattr(Versions, "missing", meanwhile)  # what `commit` looks at last
        with pytest.raises(CommitConflict, match="taken down"):
            increment(tmp_path, files[:2], max_quarantine_rate=1.0)
    assert Versions(store).latest("web") is None
    again = increment(tmp_path, files[:2], max_quarantine_rate=1.0)
    assert [s.reason for s in why(Versions(store), page).stories if again.manifest.version in s.versions] == [
        "forget.suppressed"
    ]


def test_sample_shows_no_text_of_what_was_taken_down(files, tmp_path):
    page = next(iter(texts_by_url(tmp_path, files[:2], max_quarantine_rate=1.0)))
    versions = Versions(open_store(str(tmp_path)))
    forget(versions, plan_forget(versions, Suppression.of(urls=[page])), "request 1")
    (record,) = sample(versions, versions.resolve("web"), reason="forget.requested").samples
    assert record.text is None and "taken down" in record.why_no_text and "url" not in record.fields


def test_sample_shows_no_text_of_a_page_that_was_dropped_and_then_taken_down(files, tmp_path):
    """Extraction's text of it is there until gc; so are the texts of the others."""
    increment(tmp_path, files[:2], max_quarantine_rate=1.0)
    versions = Versions(open_store(str(tmp_path)))
    shown = sample(versions, versions.resolve("web"), 500, fate="dropped").samples
    page = next(record for record in shown if record.text is not None)
    forget(versions, plan_forget(versions, Suppression.of(urls=[page.fields["url"]])), "request 1")
    again = {record.id: record for record in sample(versions, versions.resolve("web"), 500, fate="dropped").samples}
    assert again[page.id].text is None and "taken down" in again[page.id].why_no_text
    assert "url" not in again[page.id].fields and again[page.id].reason == page.reason
    assert (
        sum(record.text is not None for record in shown) - 1
        == sum(record.text is not None for record in again.values())
        > 0
    )


def test_a_withdrawn_increment_does_not_come_back(files, tmp_path):
    increment(tmp_path, files[1:2])
    Versions(open_store(str(tmp_path))).withdraw("web", 1, "bad crawl")
    with pytest.raises(GateFailed, match="withdrawn: bad crawl"):
        increment(tmp_path, files[1:2])


def test_a_record_met_again_with_another_extraction_is_not_kept_twice(files, tmp_path):
    increment(tmp_path, files[1:2])
    copy = tmp_path / "copy.warc"
    copy.write_bytes(gzip.decompress(Path(files[1]).read_bytes()))
    html = {"html": {"preserve_formatting": False}}
    grown = increment(tmp_path, [files[1], copy], extract=html).manifest
    ids = lake.open("web", lake=str(tmp_path)).to_arrow()["id"].to_pylist()
    assert grown.version == 2 and len(ids) == len(set(ids))
    assert sum(row.dropped.get("minhash.same_record", 0) for row in grown.funnel) > 0
