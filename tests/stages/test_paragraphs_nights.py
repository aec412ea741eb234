"""Repeated paragraphs over several increments and other ways of running: nothing but the text decides."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import repeated_pages
import web
from forget_lake import do
from repeated_pages import ON, OTHERS, TEMPLATES, UNIQUE, fates, line, page, write

from gristmill import lake
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.web import WebRecipe
from gristmill.stages.dedup import pieces

done = repeated_pages.done


def increment(folder: Path, paths: list[Path], **recipe: Any) -> Manifest:
    return web.run(folder, paths, extends="web", **{**ON, **recipe}).manifest


def test_two_increments_count_as_one_run_over_both(tmp_path):
    pages = [page("inn.example", n, shared=4, own=1) for n in range(4)]
    more = [page("bar.example", n, shared=3, own=1) for n in range(10, 13)]
    first = write(tmp_path / "a.jsonl", [*pages[:2], more[0], UNIQUE[0]])
    second = write(tmp_path / "b.jsonl", [*pages[2:], *more[1:], UNIQUE[1]])
    first_version = increment(tmp_path / "grown", [first])
    assert first_version.kept.count == 4  # of no paragraph three pages yet
    grown = increment(tmp_path / "grown", [first, second])
    whole = web.run(tmp_path / "whole", [first, second], **ON).manifest
    increments, batch = fates(tmp_path / "grown"), fates(tmp_path / "whole")
    new = {row["id"] for row in _ledger(tmp_path / "grown") if row["input"] == grown.inputs[0].digest}
    assert {i: increments[i] for i in new} == {i: batch[i] for i in new}
    assert Counter(reason for reason, _ in (increments[i] for i in new)) == {"paragraphs.repeated": 4, "kept": 1}
    assert whole.kept.count == 2 and grown.kept.count == 5  # what was kept before stays, versions are immutable
    tables = [_paragraphs(tmp_path / at, m) for at, m in (("grown", grown), ("whole", whole))]
    assert set(tables[0]) >= set(tables[1]) and {p for p, _ in tables[0]} == {p for p, _ in tables[1]}
    assert verify(open_store(str(tmp_path / "grown")), deep=True) == []


def _ledger(folder: Path) -> list[dict[str, Any]]:
    return lake.open("web", lake=str(folder)).ledger().to_pylist()


def _paragraphs(folder: Path, m: Manifest) -> list[tuple[str, str]]:
    store = open_store(str(folder))
    rows = [r for ref in m.attachments if ref.kind == "paragraphs" for r in read_table(store, ref).to_pylist()]
    return [(row["paragraph"], row["id"]) for row in rows]


def test_a_page_captured_every_night_is_one_page(tmp_path):
    paths = []
    for n in range(4):
        capture = {**TEMPLATES[0], "text": f"{TEMPLATES[0]['text']}\n{line(90_000 + n)}", "id": f"c{n}"}
        paths.append(write(tmp_path / f"{n}.jsonl", [capture]))
        m = increment(tmp_path / "lake", paths)
    assert (m.version, m.kept.count) == (4, 4)
    assert sum(ref.kind == "paragraphs" for ref in m.attachments) < 4  # compacted


def test_a_night_after_one_without_the_option_says_what_it_does_not_count(tmp_path, caplog):
    first, second = write(tmp_path / "a.jsonl", TEMPLATES[:2]), write(tmp_path / "b.jsonl", TEMPLATES[2:])
    increment(tmp_path / "lake", [first], paragraphs=None)
    with caplog.at_level(logging.WARNING, "gristmill"):
        m = increment(tmp_path / "lake", [first, second])
    assert m.kept.count == 4 and "web@v1 was made without it" in caplog.text


def test_an_increment_with_the_option_off_makes_the_next_one_forget_nothing(tmp_path, caplog):
    paths = [write(tmp_path / f"{n}.jsonl", [row]) for n, row in enumerate([*TEMPLATES[:2], UNIQUE[0], *TEMPLATES[2:]])]
    increment(tmp_path / "lake", paths[:2])
    increment(tmp_path / "lake", paths[:3], paragraphs=None)
    with caplog.at_level(logging.WARNING, "gristmill"):
        m = increment(tmp_path / "lake", paths)
    # the two of the first increment count for those of the third, which are dropped
    assert (m.version, m.kept.count, m.dropped.count) == (3, 3, 2) and "it was off when web@v2 was made" in caplog.text


def test_a_takedown_leaves_no_paragraph_of_the_page_and_the_next_increment_goes_on(tmp_path):
    first, second = write(tmp_path / "a.jsonl", TEMPLATES[:2]), write(tmp_path / "b.jsonl", TEMPLATES[2:])
    before = increment(tmp_path / "lake", [first])
    gone = url_hash(TEMPLATES[0]["url"])
    assert any(i.startswith(gone) for _, i in _paragraphs(tmp_path / "lake", before))
    store = open_store(str(tmp_path / "lake"))
    do(store, Suppression.of(urls=[TEMPLATES[0]["url"]]))
    clean = Versions(store).manifest("web", 2)
    left = _paragraphs(tmp_path / "lake", clean)
    assert left and not any(i.startswith(gone) for _, i in left)
    grown = increment(tmp_path / "lake", [first, second])  # one page of before and two of this increment have the blurb
    assert (grown.parent.version, grown.kept.count, grown.dropped.count) == (2, 1, 3)


def test_however_the_work_is_cut_the_fates_are_the_same(done, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "ROWS_PER_GROUP", 7)
    monkeypatch.setattr(pieces, "ROWS_PER_RANGE", 5)
    path = write(tmp_path / "pages.jsonl", [*TEMPLATES, *UNIQUE, *OTHERS])
    m = web.run(tmp_path / "lake", [path], scan={"chunk_bytes": 3_000}, **ON).manifest
    assert fates(tmp_path / "lake") == fates(done[0])
    assert sum(ref.kind == "paragraphs" for ref in m.attachments) > 4
    assert sorted(_paragraphs(tmp_path / "lake", m)) == sorted(_paragraphs(*done))


def test_the_same_run_elsewhere_has_the_same_digest_and_off_is_the_default(done, tmp_path):
    path = write(tmp_path / "pages.jsonl", [*TEMPLATES, *UNIQUE, *OTHERS])
    again = web.run(tmp_path / "again", [path], **ON).manifest
    assert (again.digest, again.attachments[-1]) == (done[1].digest, done[1].attachments[-1])
    off = web.run(tmp_path / "off", [path], minhash=None).manifest
    never = web.run(tmp_path / "never", [path], paragraphs={"max_repeated": 1.0}, minhash=None).manifest
    assert off.digest == never.digest != again.digest
    assert "paragraphs" not in {ref.kind for ref in off.attachments} and off.run_key != never.run_key
    assert "paragraphs" not in " ".join(stage.name for stage in WebRecipe().stages()) + str(off.funnel)


def test_near_duplicates_are_searched_among_what_is_left(tmp_path):
    path = write(tmp_path / "pages.jsonl", [*TEMPLATES, *UNIQUE])
    m = web.run(tmp_path / "lake", [path], paragraphs={}).manifest
    assert sum(ref.records for ref in m.attachments if ref.kind == "signatures") == len(UNIQUE)
    assert [row.stage for row in m.funnel if row.dropped] == ["paragraphs"]


def test_a_real_site_loses_the_page_that_is_its_menu_and_its_news(shared_data, tmp_path):
    path = shared_data / "1_crawl" / "real" / "aut__example.warc.gz"
    web.run(tmp_path / "lake", [path], language={"min_score": 0.3}, **ON)
    lost = [row for row in _ledger(tmp_path / "lake") if row["reason"] == "paragraphs.repeated"]
    credits = url_hash("http://www.archive.org/about/credits.php")  # a sentence under a menu and ten headlines
    assert {row["id"][:16]: row["value"] for row in lost} == {credits: "0.6131"}
