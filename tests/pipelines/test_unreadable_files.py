"""Files that cannot be read: all are named before any work, or each is quarantined whole and has its row."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import web
from typer.testing import CliRunner
from warc_files import gz, line, page, record

from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig

QUARANTINE = {"unreadable_files": "quarantine", "max_quarantine_rate": 0.9, "minhash": None}
TEXT = "Night {}. " + "The keeper climbed the stair, and the wind was with him when he came to the lamp. " * 9


def texts(*numbers: int) -> bytes:
    return b"".join(line(text=TEXT.format(n), url=f"http://a.example/{n}") for n in numbers)


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """A file that can be read, and one of every kind that cannot: name -> why, as its row says it."""
    folder = tmp_path / "crawl"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(texts(1, 2))
    for name, data in FILES.items():
        (folder / name).write_bytes(data[0])
    return folder


FILES: dict[str, tuple[bytes, str]] = {
    "nothing.warc": (b"", "it has 0 bytes"),
    "notes.txt": (b"call anna.muster@example.org\n", "neither its first bytes nor its name tell of a known format"),
    "list.json": (b"[1, 2]\n", "it is one JSON array"),
    "a.jsonl.bz2": (b"BZh91AY", "it is bzip2"),
    "cut.gz": (b"\x1f\x8b\x08\0\0", "it begins as gzip of which nothing can be decompressed"),
    "nobody.jsonl.gz": (gz(b""), "it holds no record"),
    "error.warc.gz": (b"<html>403 Forbidden</html>", "no WARC record starts here"),
    "clipped.warc.gz": (gz(page(0))[:-30], "cut off by the end of the file"),
}
NAMED_FIRST = ("nothing.warc", "notes.txt", "list.json", "a.jsonl.bz2", "cut.gz")
"""What is seen in the first bytes; of the others a scan tells."""


def run(folder: Path, crawl: Path, **recipe: Any) -> Manifest:
    manifest = web.run(folder, [crawl / "*"], **{**QUARANTINE, **recipe}).manifest
    assert not verify(open_store(str(folder)), deep=True)
    return manifest


def quarantined(folder: Path) -> dict[str, tuple[str, str]]:
    """Name of a file -> reason and value of its row, as `why` has it."""
    versions = Versions(open_store(str(folder)))
    rows = {}
    for name in FILES:
        (story,) = why(versions, name).stories
        assert story.fate == "quarantined" and story.place.names[0].endswith(name)
        rows[name] = (story.reason or "", story.value or "")
    return rows


def test_all_are_named_before_any_work(crawl: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as failure:
        run(tmp_path / "lake", crawl, unreadable_files="fail")
    message = str(failure.value)
    assert "5 inputs cannot be used" in message and "recipe.unreadable_files=quarantine" in message
    assert all(f"/{name} " in message for name in NAMED_FIRST)
    assert not list(open_store(str(tmp_path / "lake")).list("receipts/"))


def test_those_that_only_a_scan_tells_of_are_named_together_too(crawl: Path, tmp_path: Path) -> None:
    for name in NAMED_FIRST:
        (crawl / name).unlink()
    with pytest.raises(GateFailed) as failure:
        run(tmp_path / "lake", crawl, unreadable_files="fail")
    message = str(failure.value)
    assert "3 inputs cannot be used" in message and "unreadable_files=quarantine" in message
    assert all(f"/{name} holds no record" in message for name in FILES if name not in NAMED_FIRST)


def test_each_is_quarantined_and_found_by_its_name(crawl: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = run(tmp_path / "lake", crawl)
    assert "8 inputs cannot be read and are quarantined" in caplog.text
    assert web.summary(manifest) == (10, 2, 0, 8)
    rows = quarantined(tmp_path / "lake")
    for name, (_, words) in FILES.items():
        reason, value = rows[name]
        damaged = name in ("error.warc.gz", "clipped.warc.gz")  # of which a scan says where the damage is
        assert reason == ("read.unreadable" if damaged else "read.unreadable_file") and words in value, name
    assert "anna" not in str(rows)
    sizes = {Path(file.names[0]).name: (file.bytes, file.records) for file in manifest.inputs}
    assert sizes["notes.txt"] == (len(FILES["notes.txt"][0]), 1) and sizes["nothing.warc"] == (0, 1)
    # Nothing of it is part of the recipe: without such files a version is the same, whatever was to become of them.
    assert "unreadable_files" not in manifest.recipe


def test_the_command_answers_for_a_file(crawl: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run(tmp_path / "lake", crawl)
    monkeypatch.chdir(crawl)
    monkeypatch.setenv("GRIST_LAKE", str(tmp_path / "lake"))
    shown = CliRunner().invoke(app, ["why", "notes.txt"])
    assert shown.exit_code == 0 and "1 record, read by web v1" in shown.output
    assert "read.unreadable_file" in shown.output
    assert CliRunner().invoke(app, ["why", "crawl/good.jsonl"]).exit_code == 0
    assert CliRunner().invoke(app, ["why", "otes.txt"]).exit_code == 1


def test_the_same_again_is_no_new_version_however_the_files_are_called(crawl: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "lake", crawl)
    assert not web.run(tmp_path / "lake", [crawl / "*"], **QUARANTINE).new
    for path in crawl.iterdir():  # long ago, so that notes on the files are trusted
        os.utime(path, (1e9, 1e9))
    assert not web.run(tmp_path / "lake", [crawl / "*"], **QUARANTINE).new
    moved = crawl.rename(tmp_path / "elsewhere")
    again = web.run(tmp_path / "lake", [moved / "*"], **QUARANTINE)
    assert not again.new and again.manifest == first


def test_bytes_that_a_name_makes_readable_are_read(tmp_path: Path) -> None:
    """`x.bin` cannot be read, and `x.jsonl` with the same bytes can: one input, and its records are what counts."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    data = b"\0damage\n" + texts(1, 2)
    (crawl / "a.bin").write_bytes(data)
    (crawl / "other.jsonl").write_bytes(texts(3))
    alone = run(tmp_path / "lake", crawl)
    assert web.summary(alone) == (2, 1, 0, 1)
    (crawl / "b.jsonl").write_bytes(data)
    assert web.summary(run(tmp_path / "new", crawl)) == (4, 3, 0, 1)
    # In the lake in which the bytes were unreadable once, too.
    (crawl / "a.bin").unlink()
    (crawl / "more.jsonl").write_bytes(texts(4))
    assert web.summary(run(tmp_path / "lake", crawl)) == (5, 4, 0, 1)


def test_an_increment_takes_what_was_replaced_and_nothing_twice(crawl: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    assert run(lake, crawl, extends="web").version == 1
    assert run(lake, crawl, extends="web").version == 1
    (crawl / "notes.txt").unlink()
    (crawl / "notes.jsonl").write_bytes(texts(7))
    grown = run(lake, crawl, extends="web")
    assert grown.version == 2 and web.summary(grown) == (11, 3, 0, 8)
    assert [Path(file.names[0]).name for file in grown.inputs] == ["notes.jsonl"]


def test_nothing_but_unreadable_files_is_no_version(crawl: Path, tmp_path: Path) -> None:
    for name in ("good.jsonl", "error.warc.gz", "clipped.warc.gz"):
        (crawl / name).unlink()
    with pytest.raises(GateFailed, match="none of 6 files can be read"):
        run(tmp_path / "lake", crawl, max_quarantine_rate=1)


def test_they_count_for_the_limit(crawl: Path, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match=r"8 of 10 records are quarantined.*read\.unreadable_file \(6\)"):
        run(tmp_path / "lake", crawl, max_quarantine_rate=0.5)


def test_what_is_not_there_cannot_be_quarantined(crawl: Path, tmp_path: Path) -> None:
    (crawl / "gone.warc").symlink_to(tmp_path / "elsewhere.warc")
    with pytest.raises(BadConfig, match=r"gone\.warc is a link to .*which does not exist\. Mend it"):
        run(tmp_path / "lake", crawl)


def test_a_crawl_without_a_page_is_no_version_unless_it_is_allowed(tmp_path: Path) -> None:
    wat = record(b"{}", kind="metadata", content_type="application/json")
    (tmp_path / "a.warc.wat.gz").write_bytes(gz(wat) * 3)
    with pytest.raises(
        GateFailed, match=r"not one of 3 records is a page .*read\.not_a_page \(3\).*recipe\.allow_empt"
    ):
        web.run(tmp_path / "lake", [tmp_path / "*.gz"])
    assert web.summary(web.run(tmp_path / "lake", [tmp_path / "*.gz"], allow_empty=True).manifest) == (3, 0, 3, 0)
    assert web.run(tmp_path / "lake", [tmp_path / "*.gz"], limit=2).manifest.kept.count == 0
