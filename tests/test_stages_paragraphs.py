"""Paragraphs that many pages of a host share: what is dropped for them, and that nothing but the text decides it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import web
from forget_lake import do

import lake
from lake.identity import url_hash
from lake.manifest import Manifest
from lake.objects import read_refs, read_table
from lake.store import open_store
from lake.suppress import Suppression
from lake.verify import verify
from lake.versions import Versions
from pipelines.web_recipe import Recipe
from stages import repeated
from stages.paragraphs import Paragraphs, comparable, host_of

ON: dict[str, Any] = {"paragraphs": {}, "minhash": None}
BLURB = "The house by the sea has been with the family for years, and the guests that come to it have their own garden."
NOTICE = "All of this is the work of our writers and it may be read by all who have an interest in the sea."


def line(n: int) -> str:
    """A sentence that no other number has, of words, because digits count as equal."""
    words = ["red", "blue", "green", "grey", "white", "black", "brown", "pink", "gold", "teal"]
    name = " ".join(words[int(digit)] for digit in f"{n:05d}")
    return f"This is the story of the {name} boat and of the people that have to be with it when the wind is up."


def page(host: str, n: int, shared: int, own: int, **fields: Any) -> dict[str, Any]:
    """`shared` lines that all pages of its kind have, `own` ones that no other page has."""
    common = [f"{BLURB} {line(80_000 + i)}" for i in range(shared)]
    lines = [*common, *(line(n * 20 + i) for i in range(own))]
    return {"url": f"https://{host}/{n}", "text": "\n".join(lines), "id": str(n), **fields}


def write(path: Path, pages: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in pages))
    return path


def fates(folder: Path, name: str = "web") -> dict[str, tuple[str, str | None]]:
    """id -> (reason or "kept", value)."""
    rows = lake.open(name, lake=str(folder)).ledger().to_pylist()
    return {row["id"]: (row["reason"] or "kept", row["value"]) for row in rows}


def reasons(folder: Path) -> dict[str, int]:
    return dict(Counter(reason for reason, _ in fates(folder).values()))


TEMPLATES = [page("inn.example", n, shared=4, own=1) for n in range(4)]
UNIQUE = [page("inn.example", n, shared=1, own=6) for n in range(10, 14)]
OTHERS = [page(f"inn{n}.example", n, shared=4, own=1) for n in range(20, 24)]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("paragraphs")
    path = write(folder / "pages.jsonl", [*TEMPLATES, *UNIQUE, *OTHERS])
    return folder / "lake", web.run(folder / "lake", [path], **ON).manifest


def test_templates_of_a_host_go_and_its_other_pages_and_other_hosts_stay(done):
    folder, m = done
    kept = set(lake.open("web", lake=str(folder)).to_arrow()["url"].to_pylist())
    assert kept == {one["url"] for one in (*UNIQUE, *OTHERS)}
    assert reasons(folder) == {"paragraphs.repeated": 4, "kept": 8}
    row = next(row for row in m.funnel if row.stage == "paragraphs")
    assert (row.came_in, row.passed, row.dropped) == (12, 8, {"paragraphs.repeated": 4})
    assert [row.stage for row in m.funnel][-2:] == ["exact", "paragraphs"]
    assert verify(open_store(str(folder)), deep=True) == []


def test_the_offending_value_is_the_share_of_bytes_in_repeated_lines(done):
    folder, m = done
    texts = [one["text"].encode().split(b"\n") for one in TEMPLATES]
    shares = sorted(sum(map(len, text[:4])) / sum(map(len, text)) for text in texts)
    values = sorted(value or "" for reason, value in fates(folder).values() if reason != "kept")
    assert values == [f"{share:.4g}" for share in shares]
    measured = _shares(folder, m)
    assert len(measured) == 12 and sorted(measured)[-4:] == pytest.approx(shares)
    assert sum(one == 0 for one in measured) == 4  # the other hosts


def _shares(folder: Path, m: Manifest) -> list[float]:
    store = open_store(str(folder))
    lists = [read_refs(store, ref) for ref in m.attachments if ref.kind == "refs"]
    found = [read_table(store, ref) for refs in lists for ref in refs if ref.kind == "shares"]
    return pa.concat_tables(found)["share"].to_pylist()


@pytest.mark.parametrize(
    ("config", "dropped"),
    [
        ({"min_documents": 8}, 0),  # the first line stands in eight pages: a fifth of a template
        ({"min_documents": 8, "max_repeated": 0.15}, 8),
        ({"max_repeated": 0.0}, 8),
        ({"max_repeated": 1.0}, 0),
        ({"min_paragraph_bytes": 10_000}, 0),
    ],
)
def test_every_threshold_decides(done, config, dropped):
    folder, _ = done  # what does not depend on the threshold is done there
    m = web.run(folder, [folder.parent / "pages.jsonl"], dataset="other", paragraphs=config, minhash=None).manifest
    assert m.dropped.count == dropped


def test_copies_and_captures_of_a_page_do_not_make_its_text_repeated(tmp_path):
    text = TEMPLATES[0]["text"]
    copies = [{**TEMPLATES[0], "url": f"https://inn.example/copy{n}"} for n in range(5)]
    captures = [{**TEMPLATES[0], "text": f"{text}\n{line(90_000 + n)}", "id": f"c{n}"} for n in range(5)]
    web.run(tmp_path / "lake", [write(tmp_path / "pages.jsonl", [*copies, *captures])], **ON)
    assert reasons(tmp_path / "lake") == {"exact.duplicate": 4, "kept": 6}
    two_more = [page("inn.example", n, shared=4, own=1) for n in (30, 31)]
    web.run(tmp_path / "other", [write(tmp_path / "more.jsonl", [*captures, *two_more])], **ON)
    assert reasons(tmp_path / "other") == {"paragraphs.repeated": 7}  # three pages now


def test_without_a_url_the_source_speaks_and_without_both_nothing_is_judged(tmp_path):
    def of(source: str | None, first: int) -> list[dict[str, Any]]:
        pages = [page("", n, 4, 1, source=source) for n in range(first, first + 3)]
        return [{k: v for k, v in one.items() if k != "url" and v is not None} for one in pages]

    path = write(tmp_path / "pages.jsonl", [*of("books", 0), *of(None, 10)])
    m = web.run(tmp_path / "lake", [path], **ON).manifest
    assert reasons(tmp_path / "lake") == {"paragraphs.repeated": 3, "kept": 3}
    assert _shares(tmp_path / "lake", m).count(None) == 3


def test_short_lines_are_text_but_never_repeated(tmp_path):
    verses = [line(n * 20)[25:70] for n in range(3)]
    poems = [
        {"url": f"https://poems.example/{n}", "text": "\n".join(["and the sea of the mind"] * 25 + [v, NOTICE])}
        for n, v in enumerate(verses)
    ]
    path = write(tmp_path / "poems.jsonl", poems)
    web.run(tmp_path / "lake", [path], **ON)
    assert reasons(tmp_path / "lake") == {"kept": 3}
    web.run(tmp_path / "all", [path], paragraphs={"min_paragraph_bytes": 1}, minhash=None)
    assert reasons(tmp_path / "all") == {"paragraphs.repeated": 3}


# Growing, and every way of running it


def night(folder: Path, paths: list[Path], **recipe: Any) -> Manifest:
    return web.run(folder, paths, extends="web", **{**ON, **recipe}).manifest


def test_two_nights_count_as_one_run_over_both(tmp_path):
    pages = [page("inn.example", n, shared=4, own=1) for n in range(4)]
    more = [page("bar.example", n, shared=3, own=1) for n in range(10, 13)]
    first = write(tmp_path / "a.jsonl", [*pages[:2], more[0], UNIQUE[0]])
    second = write(tmp_path / "b.jsonl", [*pages[2:], *more[1:], UNIQUE[1]])
    one = night(tmp_path / "nights", [first])
    assert one.kept.count == 4  # of no paragraph three pages yet
    grown = night(tmp_path / "nights", [first, second])
    whole = web.run(tmp_path / "whole", [first, second], **ON).manifest
    nights, batch = fates(tmp_path / "nights"), fates(tmp_path / "whole")
    new = {row["id"] for row in _ledger(tmp_path / "nights") if row["input"] == grown.inputs[0].digest}
    assert {i: nights[i] for i in new} == {i: batch[i] for i in new}
    assert Counter(reason for reason, _ in (nights[i] for i in new)) == {"paragraphs.repeated": 4, "kept": 1}
    assert whole.kept.count == 2 and grown.kept.count == 5  # what was kept before stays, versions are immutable
    tables = [_paragraphs(tmp_path / at, m) for at, m in (("nights", grown), ("whole", whole))]
    assert set(tables[0]) >= set(tables[1]) and {p for p, _ in tables[0]} == {p for p, _ in tables[1]}
    assert verify(open_store(str(tmp_path / "nights")), deep=True) == []


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
        m = night(tmp_path / "lake", paths)
    assert (m.version, m.kept.count) == (4, 4)
    assert sum(ref.kind == "paragraphs" for ref in m.attachments) < 4  # compacted


def test_a_night_after_one_without_the_option_says_what_it_does_not_count(tmp_path, caplog):
    first, second = write(tmp_path / "a.jsonl", TEMPLATES[:2]), write(tmp_path / "b.jsonl", TEMPLATES[2:])
    night(tmp_path / "lake", [first], paragraphs=None)
    with caplog.at_level(logging.WARNING, "gristmill"):
        m = night(tmp_path / "lake", [first, second])
    assert m.kept.count == 4 and "web@v1 was made without it" in caplog.text


def test_a_night_with_the_option_off_makes_the_next_one_forget_nothing(tmp_path, caplog):
    paths = [write(tmp_path / f"{n}.jsonl", [one]) for n, one in enumerate([*TEMPLATES[:2], UNIQUE[0], *TEMPLATES[2:]])]
    night(tmp_path / "lake", paths[:2])
    night(tmp_path / "lake", paths[:3], paragraphs=None)
    with caplog.at_level(logging.WARNING, "gristmill"):
        m = night(tmp_path / "lake", paths)
    # the two of the first night count for those of the third, which are dropped
    assert (m.version, m.kept.count, m.dropped.count) == (3, 3, 2) and "it was off when web@v2 was made" in caplog.text


def test_a_takedown_leaves_no_paragraph_of_the_page_and_the_next_night_goes_on(tmp_path):
    first, second = write(tmp_path / "a.jsonl", TEMPLATES[:2]), write(tmp_path / "b.jsonl", TEMPLATES[2:])
    before = night(tmp_path / "lake", [first])
    gone = url_hash(TEMPLATES[0]["url"])
    assert any(i.startswith(gone) for _, i in _paragraphs(tmp_path / "lake", before))
    store = open_store(str(tmp_path / "lake"))
    do(store, Suppression.of(urls=[TEMPLATES[0]["url"]]))
    clean = Versions(store).manifest("web", 2)
    left = _paragraphs(tmp_path / "lake", clean)
    assert left and not any(i.startswith(gone) for _, i in left)
    grown = night(tmp_path / "lake", [first, second])  # one page of before and two of tonight have the blurb
    assert (grown.parent.version, grown.kept.count, grown.dropped.count) == (2, 1, 3)


def test_however_the_work_is_cut_the_fates_are_the_same(done, tmp_path, monkeypatch):
    monkeypatch.setattr(repeated, "ROWS_PER_GROUP", 7)
    monkeypatch.setattr(repeated, "ROWS_PER_RANGE", 5)
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
    assert "paragraphs" not in " ".join(stage.name for stage in Recipe().stages()) + str(off.funnel)


def test_near_duplicates_are_looked_for_among_what_is_left(tmp_path):
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


# Its parts


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Read  the NEWS, of 12 May!", "read the news of 99 may"),
        ("« Été » \u2014 l\u2019\u00c9T\u00c9", "été l'été"),
        ("\u0661\u0662 \uff11 5\u00a0km", "0005km"),
        ("tab\tand\u2028break\u200b", "tabandbreak"),
        ("$5 + 3 = 8", "$5+3=8"),
    ],
)
def test_what_counts_as_one_paragraph(text, same):
    one, other = comparable(pa.array([text, same])).to_pylist()
    assert one == other


def test_comparable_is_the_definition_in_one_expression():
    lines = pa.array([chr(c) for c in range(1, 0x3000) if chr(c) != "\n" and not 0xD800 <= c < 0xE000])
    plain = pc.replace_substring_regex(pc.utf8_lower(lines), r"[\p{P}\p{C}\p{Z}]+", "")
    assert comparable(lines).equals(pc.replace_substring_regex(plain, r"\p{Nd}", "0"))
    assert comparable(pa.array([], pa.string())).to_pylist() == []


@pytest.mark.parametrize(
    ("url", "source", "host"),
    [
        ("https://WWW.Example.org:8080/a", "dump", "www.example.org"),
        ("http://[", "dump", "dump"),
        (None, "dump", "dump"),
        (None, None, None),
    ],
)
def test_whose_paragraphs_are_compared(url, source, host):
    assert host_of(url, source) == host


def test_a_setting_that_makes_no_sense_says_what_is_allowed():
    for name, value, allowed in (("min_documents", 1, "at least 2"), ("max_repeated", 1.5, "0 to 1")):
        with pytest.raises(ValueError, match=f"{name}={value}: .*{allowed}"):
            Paragraphs(**{name: value})
