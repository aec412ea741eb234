"""The web pipeline reads new files while they are scanned, where that costs nothing: the version is the same, and no
file is read in vain."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import web
from warc_files import members, page

from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.inputs import alongside
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.read.along import ReadAlong
from gristmill.stages.read.listing import Listing
from gristmill.stages.read.scan import Alongside, Scan
from gristmill.stages.read.scans import Scans
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.extract import Extract

TEXT = "The lighthouse keeper climbed the stair, and the wind was with him when he came to the lamp. " * 12
HERE = {"seconds_per_record": None}
"""In this process, where judgements can be counted."""


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The URL of each record that an extraction judges."""
    urls: list[str | None] = []
    original = Extract.judge

    def noted(self, item):
        urls.append(item.url)
        return original(self, item)

    monkeypatch.setattr(Extract, "judge", noted)
    return urls


def crawl(path: Path, *numbers: int) -> Path:
    """A crawl of these pages."""
    path.write_bytes(members([page(number, TEXT + str(number)) for number in numbers]))
    return path


def history(lake: Path, inputs: list[Path], **recipe) -> tuple[Manifest, dict[str, tuple[int, int]]]:
    """The version, and of each stage how many pieces were done before, and how many now."""
    store = open_store(str(lake))
    runner = Runner(store, workers=0)
    manifest = run_pipeline(web.config(list(inputs), **recipe), store, runner).manifest
    return manifest, {title: (before, now) for title, before, now in runner.history}


def test_the_version_of_one_pass_is_that_of_two(sample, tmp_path, monkeypatch) -> None:
    files = web.crawl_files(sample)
    once, along = history(tmp_path / "one", files)
    web.in_two_passes(monkeypatch)
    twice, apart = history(tmp_path / "two", files)
    assert once.content_digest == twice.content_digest and once.run_key == twice.run_key
    assert along["extract"] == (apart["extract"][1], 0) and not apart["extract"][0]


def test_a_list_of_what_was_taken_down_is_known_before_the_scan(sample, tmp_path, monkeypatch) -> None:
    files = web.crawl_files(sample)
    versions = []
    for name in ("one", "two"):
        listed = Suppression.of(domains=["example.org"]).union([Suppression.of(urls=["http://a.example/1"])])
        listed.save(open_store(str(tmp_path / name)), "asked for")
        versions.append(history(tmp_path / name, files, allow_empty=True))
        web.in_two_passes(monkeypatch)
    (once, along), (twice, _) = versions
    assert once.content_digest == twice.content_digest and along["extract"][1] == 0
    assert once.recipe["suppression"]


def test_a_crawl_that_moved_or_grew_is_not_extracted_anew(tmp_path, judged) -> None:
    first = crawl(tmp_path / "monday.warc.gz", 1, 2, 3)
    history(tmp_path / "lake", [first], extract=HERE)
    assert len(judged) == 3
    moved = shutil.move(first, tmp_path / "archive.warc.gz")
    second = crawl(tmp_path / "tuesday.warc.gz", 11, 12, 13, 14)
    grown, _ = history(tmp_path / "lake", [Path(moved), second], extract=HERE, extends="web")
    assert len(judged) == 7, "the pages of the first file were judged once"
    third = crawl(tmp_path / "wednesday.warc.gz", 21, 22)
    moved = [shutil.move(path, tmp_path / f"old-{number}.gz") for number, path in enumerate((Path(moved), second))]
    whole, _ = history(tmp_path / "lake", [*map(Path, moved), third], extract=HERE, extends="web")
    assert len(judged) == 9 and (grown.version, whole.version) == (2, 3)


def test_copies_in_one_listing_are_extracted_once(tmp_path, judged) -> None:
    first = crawl(tmp_path / "a.warc.gz", 1, 2, 3)
    shutil.copy(first, tmp_path / "b.warc.gz")
    history(tmp_path / "lake", [first, tmp_path / "b.warc.gz"], extract=HERE)
    assert len(judged) == 3


def test_a_preview_and_a_plan_read_nothing_along(tmp_path, judged) -> None:
    first = crawl(tmp_path / "a.warc.gz", *range(20))
    with pytest.raises(Exception, match="scan: 0 done, 1 to run"):
        web.run(tmp_path / "lake", [first], plan=True, extract=HERE)
    assert not judged and not list(open_store(str(tmp_path / "lake")).list("objects/"))
    web.run(tmp_path / "lake", [first], limit=3, extract=HERE)
    assert len(judged) == 3


def test_where_a_manifest_is_damaged_nothing_is_read_along_and_who_needs_it_says_so(tmp_path, caplog) -> None:
    first, store = crawl(tmp_path / "a.warc.gz", 1, 2), open_store(str(tmp_path / "lake"))
    history(tmp_path / "lake", [first], extract=HERE)
    assert alongside(store, Extract(), "web") == Alongside(ReadAlong(Extract()), frozenset({first.stat().st_size}))
    manifest = "datasets/web/versions/00000001.json"
    store.put(manifest, store.get(manifest)[:-20])
    caplog.set_level(logging.INFO, "gristmill")
    assert alongside(store, Extract(), "web") is None
    assert "what web has cannot be known" in caplog.text


@pytest.mark.parametrize(
    ("workers", "files", "small", "along"),
    [(0, 1, 0, 1), (1, 1, 0, 1), (2, 3, 0, 0), (2, 4, 0, 4), (2, 4, 1, 5), (2, 1, 2, 2), (8, 3, 0, 0)],
)
def test_files_are_read_along_where_no_worker_waits_for_it(tmp_path, workers, files, small, along) -> None:
    """Of a few large files each is work for many."""
    stage = Scan(chunk_bytes=400)
    for number in range(files):
        (tmp_path / f"large-{number}.warc").write_bytes(page(number, "x" * (500 + number)))
    for number in range(small):
        (tmp_path / f"small-{number}.jsonl").write_bytes(b'{"text":"%s"}' % (b"x" * number))
    reader = ReadAlong(Extract())
    scans = Scans(
        Runner(open_store(str(tmp_path / "lake")), workers=workers), stage, along=lambda: Alongside(reader, ())
    )
    previews = scans._previews(Listing(sorted(str(path) for path in tmp_path.glob("*.*")), []))
    assert len(scans._along(previews)) == along


def test_who_reads_along_is_asked_only_where_there_is_something_new(tmp_path) -> None:
    known = crawl(tmp_path / "a.warc.gz", 1)
    asked: list[int] = []
    runner = Runner(open_store(str(tmp_path / "lake")), workers=0)
    scans = Scans(runner, Scan(), along=lambda: asked.append(1))
    assert scans._along([]) == {}
    (preview,) = scans._previews(Listing([str(known)], []))
    assert scans._along([preview._replace(before=("digest", "warc"))]) == {} and not asked
    assert scans._along([preview]) == {} and asked == [1]
    of_that_size = Scans(runner, Scan(), along=lambda: Alongside(ReadAlong(Extract()), (preview.info.size,)))
    assert of_that_size._along([preview]) == {}
