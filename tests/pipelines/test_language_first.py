"""The web pipeline with `extract.language_first`: what is kept is the same, what is not wanted is not extracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import web
from warc_files import http, record

from gristmill.lake.query.why import why
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.replay.replay import replay
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.text.extract import Extract
from tests.stages.test_language_first import ENGLISH, FRENCH, GERMAN

FIRST = {"language_first": {}}
PLAIN = {"minhash": None, "gopher_quality": None}


def page(number: int, *texts: str) -> bytes:
    body = "".join(f"<p>{text} {number}</p>" for text in texts)
    return record(http(f"<main>{body}</main>".encode()), number=number, url=f"http://a.example/{number}")


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """Two pages in English, two in German of which one is short, one in French, one in both."""
    pages = [[ENGLISH] * 6, [GERMAN] * 6, [GERMAN], [FRENCH] * 7, [ENGLISH] * 2 + [GERMAN] * 5, [ENGLISH] * 2]
    file = tmp_path / "crawl.warc"
    file.write_bytes(b"".join(page(number, *texts) for number, texts in enumerate(pages)))
    return file


def run(lake: Path, crawl: Path, **recipe: Any) -> Manifest:
    return web.run(lake, [crawl], **PLAIN, **recipe).manifest


def reasons(manifest: Manifest) -> dict[str, int]:
    return {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}


def test_by_default_it_is_off_and_the_version_is_what_it_was(crawl: Path, tmp_path: Path) -> None:
    manifest = run(tmp_path / "lake", crawl)
    assert "language_first" not in manifest.recipe["extract"]
    assert "language_first" not in {stage.name for stage in manifest.stages}
    assert reasons(manifest) == {"language.unwanted": 4}


def test_the_same_is_kept_and_the_ledger_says_where_the_others_went(crawl: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    plain, first = run(lake, crawl), run(lake, crawl, extract=FIRST, dataset="first")
    assert [shard.sha256 for shard in plain.shards] == [shard.sha256 for shard in first.shards]
    assert reasons(first) == {"extract.unwanted_language": 2, "language.unwanted": 2}
    assert [(row.stage, row.received, row.passed) for row in first.funnel][1:3] == [
        ("extract", 6, 4),
        ("language", 4, 2),
    ]
    (story,) = why(Versions(open_store(str(lake))), "http://a.example/3", dataset="first").stories
    assert (story.fate, story.stage, story.reason) == ("dropped", "extract", "extract.unwanted_language")
    label, score = (story.value or "").split()
    assert label == "fr" and 0.9 < float(score) <= 1


def test_a_threshold_extracts_nothing_again_and_a_language_does(
    crawl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted = []
    judge = Extract.judge

    def counted(self: Extract, item: Any) -> Any:
        extracted.append(item)
        return judge(self, item)

    monkeypatch.setattr(Extract, "judge", counted)
    lake, first = tmp_path / "lake", {**FIRST, "seconds_per_record": None}
    run(lake, crawl, extract=first)
    assert len(extracted) == 6
    assert reasons(run(lake, crawl, extract=first, language={"min_score": 1})) == {
        "extract.unwanted_language": 2,
        "language.unwanted": 2,
        "language.low_score": 2,
    }
    assert len(extracted) == 6
    manifest = run(lake, crawl, extract=first, language={"keep": ["en", "fr"]})
    assert reasons(manifest) == {"extract.unwanted_language": 1, "language.unwanted": 2} and len(extracted) == 12


def test_a_replay_knows_thresholds_and_refuses_languages(crawl: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    manifest = run(lake, crawl, extract=FIRST)
    versions = Versions(open_store(str(lake)))
    answer = replay(versions, manifest, ["recipe.language.min_score=1"])
    assert {name: after for name, _, after in answer.verdicts} == {
        **reasons(run(lake, crawl, extract=FIRST, language={"min_score": 1})),
        "kept": 0,
    }
    for keep in ("[en, fr]", "[fr]", "[en, en]"):
        with pytest.raises(BadConfig, match=r"recipe\.language\.keep: with recipe\.extract\.language_first it decides"):
            replay(versions, manifest, [f"recipe.language.keep={keep}"])
    plain = run(lake, crawl, dataset="plain")
    assert replay(versions, plain, ["recipe.language.keep=[en, fr]"]).changes


def test_it_needs_languages_that_are_kept(crawl: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"extract\.language_first: language\.keep is empty"):
        run(tmp_path / "lake", crawl, extract=FIRST, language={"keep": []})


def test_a_crawl_of_unwanted_languages_is_one_of_pages(tmp_path: Path) -> None:
    """Files that hold no page end the run; pages that nobody wants are an empty version, with it and without."""
    file = tmp_path / "german.warc"
    file.write_bytes(b"".join(page(number, *[GERMAN] * 6) for number in range(3)))
    for number, extract in enumerate([{}, FIRST]):
        manifest = run(tmp_path / str(number), file, extract=extract)
        assert (manifest.received.count, manifest.dropped.count) == (3, 3)


def test_a_dataset_grows_with_and_without_it(crawl: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    run(lake, crawl, extends="web")
    more = tmp_path / "more.warc"
    more.write_bytes(page(7, *[GERMAN] * 7) + page(8, *[ENGLISH] * 7))
    manifest = web.run(lake, [crawl, more], **PLAIN, extends="web", extract=FIRST).manifest
    assert manifest.version == 2 and reasons(manifest) == {"extract.unwanted_language": 1, "language.unwanted": 4}
    with pytest.raises(BadConfig, match=r"with recipe\.extract\.language_first it decides"):
        replay(Versions(open_store(str(lake))), manifest, ["recipe.language.keep=[de]"])
