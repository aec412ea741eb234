"""Paragraphs that many pages of a host share: what is dropped for them, and what counts as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import repeated_pages
import web
from repeated_pages import NOTICE, ON, OTHERS, TEMPLATES, UNIQUE, fates, line, page, reasons, write

from gristmill import lake
from gristmill.lake.store.objects import read_refs, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.dedup.paragraphs import Paragraphs, comparable, host_of

done = repeated_pages.done


def test_templates_of_a_host_go_and_its_other_pages_and_other_hosts_stay(done):
    folder, m = done
    kept = set(lake.open("web", lake=str(folder)).to_arrow()["url"].to_pylist())
    assert kept == {kept_page["url"] for kept_page in (*UNIQUE, *OTHERS)}
    assert reasons(folder) == {"paragraphs.repeated": 4, "kept": 8}
    row = next(row for row in m.funnel if row.stage == "paragraphs")
    assert (row.received, row.passed, row.dropped) == (12, 8, {"paragraphs.repeated": 4})
    assert [row.stage for row in m.funnel][-2:] == ["exact", "paragraphs"]
    assert verify(open_store(str(folder)), deep=True) == []


def test_the_offending_value_is_the_share_of_bytes_in_repeated_lines(done):
    folder, m = done
    texts = [template["text"].encode().split(b"\n") for template in TEMPLATES]
    shares = sorted(sum(map(len, text[:4])) / sum(map(len, text)) for text in texts)
    values = sorted(value or "" for reason, value in fates(folder).values() if reason != "kept")
    assert values == [f"{share:.4g}" for share in shares]
    measured = _shares(folder, m)
    assert len(measured) == 12 and sorted(measured)[-4:] == pytest.approx(shares)
    assert sum(share == 0 for share in measured) == 4  # the other hosts


def _shares(folder: Path, m: Manifest) -> list[float]:
    store = open_store(str(folder))
    lists = [read_refs(store, ref) for ref in m.attachments if ref.kind == "refs"]
    tables = [read_table(store, ref) for refs in lists for ref in refs if ref.kind == "shares"]
    return pa.concat_tables(tables)["share"].to_pylist()


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
        return [{k: v for k, v in fields.items() if k != "url" and v is not None} for fields in pages]

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
    left, right = comparable(pa.array([text, same])).to_pylist()
    assert left == right


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
