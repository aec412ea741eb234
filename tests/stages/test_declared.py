"""What pages and rows declare of their use, wherever it stands."""

from __future__ import annotations

import json

import pytest
from warc_files import arc_record, http, line, read_bytes, read_record, record

from gristmill.stages.containers import ReadDeclared
from gristmill.stages.text.declared import Declared, DeclaredFields, declared_of, license_name

READ = ReadDeclared(fields=DeclaredFields().pairs)


def of_page(html: str, *headers: str) -> Declared:
    """Of a page as a crawl has it."""
    item = read_record(record(http(html.encode(), *headers)))
    return declared_of(item.declared, item.payload.decode())


@pytest.mark.parametrize(
    ("headers", "robots"),
    [
        (["X-Robots-Tag: noindex"], "noindex"),
        (["X-Robots-Tag: NoIndex, nofollow", "x-robots-tag: noai"], "noindex, nofollow, noai"),
        (["X-Robots-Tag: none"], "noindex, nofollow"),
        (["X-Robots-Tag: ccbot: noindex, nofollow"], "ccbot:noindex, ccbot:nofollow"),
        (["X-Robots-Tag: unavailable_after: 25 Jun 2010 15:00:00 PST, noarchive"],
         "unavailable_after:25 jun 2010 15:00:00 pst, noarchive"),
        (["X-Robots-Tag: max-snippet:-1, max-image-preview:large"], "max-snippet:-1, max-image-preview:large"),
        (["X-Robots-Tag: , ;;, <b>, \xe9"], None),
    ],
)  # fmt: skip
def test_the_header_of_robots(headers: list[str], robots: str | None) -> None:
    assert of_page("<p>", *headers).robots == robots


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<META NAME="robots" CONTENT="noindex,NOFOLLOW">', Declared(robots="noindex, nofollow")),
        ("<meta content=noai name=robots>", Declared(robots="noai")),
        ('<meta name="GPTBot" content="none"/>', Declared(robots="gptbot:noindex, gptbot:nofollow")),
        ('<meta name="google-extended" content="noindex">', Declared(robots="google-extended:noindex")),
        ('<meta name="tdm-reservation" content="1">', Declared(tdm_reservation="1")),
        ('<meta name="tdm-reservation" content="yes">', Declared()),
        (
            '<meta name="tdm-reservation" content="0"><meta name="tdm-policy" content="https://a.example/p?a=1&amp;b">',
            Declared(tdm_reservation="0", tdm_policy="https://a.example/p?a=1&b"),
        ),
        ('<link rel="license" href="/terms">', Declared(license="/terms")),
        ("<a rel='nofollow license' href='https://creativecommons.org/licenses/by-sa/4.0/deed.de'>x</a>",
         Declared(license="cc-by-sa-4.0")),
        ('<a href="http://creativecommons.org/licenses/by/3.0/de/">x</a>', Declared(license="cc-by-3.0-de")),
        # A link that somebody makes counts where the page says nothing of itself.
        (
            '<a href="https://creativecommons.org/licenses/by/2.0/">photo</a><link rel=license href="/terms">',
            Declared(license="/terms"),
        ),
        ('<meta name="DC.rights" content="CC BY-NC 4.0">', Declared(license="cc-by-nc-4.0")),
        ('<script type="application/ld+json">{"@type": "Article", "license": ["MIT", {"@id": "/l"}]}</script>',
         Declared(license="mit; /l")),
        ('<script type="application/ld+json">{"@graph": [{"@type": "ImageObject", "license": "/photo"}]}</script>',
         Declared()),
        ('<script type="application/ld+json">{"license": </script><meta name=robots content=noai>',
         Declared(robots="noai")),
        # What is no element says nothing.
        ('<!-- <meta name="robots" content="noindex"> --><p>', Declared()),
        ('<script>document.write(\'<meta name="robots" content="noindex">\')</script>', Declared()),
        ('<textarea><link rel=license href="/terms"></textarea>', Declared()),
        ("<p>rel=license <abbr title=license>x</abbr> <ab rel=license href=/x>", Declared()),
        ("<!-- <meta name=robots content=noindex>", Declared()),
    ],
)  # fmt: skip
def test_elements_of_a_page(html: str, expected: Declared) -> None:
    assert of_page(html) == expected


def test_headers_and_page_together() -> None:
    page = '<meta name="robots" content="noindex"><meta name="tdm-reservation" content="0"><link rel=license href="/b">'
    link = 'Link: </style>; rel=preload, <https://creativecommons.org/publicdomain/zero/1.0/>; rel="license"'
    headers = ("X-Robots-Tag: noai", "TDM-Reservation: 1", "TDM-Policy: https://a.example/tdm.json", link)
    expected = Declared("cc0-1.0; /b", "noai, noindex", "1", "https://a.example/tdm.json")
    assert of_page(page, *headers) == expected
    of_arc = read_record(arc_record(http(page.encode(), *headers)), "arc")
    assert declared_of(of_arc.declared, page) == expected


def test_rows() -> None:
    row = {"text": "a", "license": ["MIT", "cc-by-4.0"], "robots": "noai", "tdm_reservation": True, "tdm_policy": None}
    item = read_record(line(**row), "jsonl", READ)
    assert declared_of(item.declared) == Declared("mit; cc-by-4.0", "noai", "1", None)
    assert read_record(line(**row), "jsonl").declared == ()


def test_a_field_within_an_object() -> None:
    config = ReadDeclared(fields=DeclaredFields(license="metadata.license", robots="a.b").pairs)
    (inner, whole, neither) = read_bytes(
        line(text="a", metadata={"license": "CC0"}, a={"b": 7})
        + line(**{"text": "a", "metadata.license": "Apache-2.0", "metadata": {"license": "no"}})
        + line(text="a", metadata="license", a=[{"b": 1}]),
        "jsonl",
        config,
    )
    assert declared_of(inner.declared).license == "cc0"  # type: ignore[union-attr]
    assert declared_of(whole.declared).license == "apache-2.0"  # type: ignore[union-attr]
    assert neither.declared == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("names", [{"license": ""}, {"license": "robots"}])
def test_fields_have_names_of_their_own(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be non-empty and differ"):
        DeclaredFields(**names)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://creativecommons.org/licenses/by-nc-nd/2.5/", "cc-by-nc-nd-2.5"),
        ("http://www.creativecommons.org/licenses/by/4.0/legalcode", "cc-by-4.0"),
        ("//creativecommons.org/licenses/by-sa/3.0/igo/", "cc-by-sa-3.0-igo"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "pdm-1.0"),
        ("Creative Commons BY-SA", "cc-by-sa"),
        ("CC0", "cc0"),
        ("CC-BY-SA-3.0", "cc-by-sa-3.0"),
        ("Apache-2.0", "apache-2.0"),
        ("All rights reserved;\n me", "All rights reserved, me"),
        ("x" * 500 + " y", "x" * 200),
    ],
)
def test_licences_by_one_name(text: str, name: str) -> None:
    assert license_name(text) == name


@pytest.mark.parametrize(
    "page",
    ["<a " * 300_000, "<!--" * 200_000, "<script>" * 100_000, "<meta " + "a" * 900_000, "<meta " + "a =" * 300_000,
     '<link rel="' + "license " * 100_000 + ">", "<title>" * 100_000, "<meta name=robots content='" + "a:," * 300_000],
)  # fmt: skip
def test_hostile_pages_come_to_an_end(page: str) -> None:
    """No clock: what is quadratic in a megabyte does not end while anybody waits."""
    assert declared_of((), page).license is None
    assert declared_of((("link", page), ("x-robots-tag", page)), "").license is None


def test_nesting_without_end_says_nothing() -> None:
    deep = f'<script type="application/ld+json">{"[" * 100_000}"license"</script>'
    assert declared_of((), deep) == Declared()
    assert declared_of((), f"<script type=application/ld+json>{json.dumps({'license': None})}</script>") == Declared()
