"""What is a page, and the text of pages."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.filters.extraction.model import SHIPPED
from gristmill.stages.text.complexity import TooComplex
from gristmill.stages.text.extract import Extract
from gristmill.stages.text.html import ExtractConfig, PageText, clean, extract, is_html, page_text


@pytest.mark.parametrize(
    ("content_type", "head", "expected"),
    [
        ("text/html", b"anything", True),
        ("TEXT/HTML; charset=x", b"", True),
        ("application/xhtml+xml", b"<?xml?>", True),
        ("text/html", b"%PDF-1.4", False),
        ("text/html", b"\x89PNG\r\n", False),
        ("image/png", b"<html>", False),
        ("application/pdf", b"%PDF", False),
        ("application/json", b"{}", False),
        ("text/plain", b"<html>", False),
        (None, b"  <!DOCTYPE html>", True),
        (None, b"<?xml version='1.0'?>\n<!-- c --> <HTML lang=x>", True),
        (None, b"\xef\xbb\xbf<html>", True),
        (None, codecs.BOM_UTF16_LE + "<html>".encode("utf-16-le"), True),
        (None, b'{"a": 1}', False),
        (None, b"", False),
        ("application/octet-stream", b"<body>", True),
        ("text/xml", b"<rss>", False),
        ("text/xml", b'<?xml?><html xmlns="x">', True),
    ],
)
def test_is_html(content_type, head, expected) -> None:
    assert is_html(content_type, head) is expected


@pytest.mark.parametrize(
    "head", [b"<!---->" * 300, b"<!-- a --> " * 180, b"<?xml?> " * 250, b" " * 2048, b"<!--" * 500]
)
def test_a_head_of_comments_is_looked_at_once(head) -> None:
    """With `<!--.*?-->` in a repeated group each comment doubled the time: 24 were hours."""
    assert not is_html(None, head)
    assert is_html(None, head.removesuffix(b"<!--" * 500) + b"<p>")


PAGE = """<html><head><title>t</title><script>var x = 1;</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/b">About us</a></li></ul></nav>
<main><h1>Title</h1><p>The first paragraph has some words in it, enough to count as content.</p>
<p>The second\x01 one &amp; more.</p><img alt="a picture"></main><footer>Copyright</footer></body></html>"""


def test_extract() -> None:
    text = extract(PAGE, ExtractConfig())
    assert "first paragraph" in text and "second one & more." in text
    assert not any(word in text for word in ("var x", "About us", "Copyright", "<p>", "\x01", "a picture"))
    everything = extract(PAGE, ExtractConfig(main_content=False, alt_texts=True))
    assert "About us" in everything and "a picture" in everything
    assert extract("", ExtractConfig()) == ""


WRAPPED = """<html><body><div class="sidebar-wrapper nav-menu"><h1>Inside</h1><p>The museum keeps its largest collection
in a basement that visitors never see.</p></div></body></html>"""


def test_a_page_that_passes_for_boilerplate_is_taken_whole_and_says_so() -> None:
    assert extract(WRAPPED, ExtractConfig()) == ""
    text, whole = page_text(WRAPPED, ExtractConfig())
    assert whole and "largest collection" in text
    assert page_text(WRAPPED, ExtractConfig(main_content=False)) == PageText(text)
    assert page_text(PAGE, ExtractConfig()) == PageText(extract(PAGE, ExtractConfig()))
    assert page_text("<html><body></body></html>", ExtractConfig()) == PageText("")


def test_nesting_is_bounded() -> None:
    with pytest.raises(TooComplex, match="page has 2001 blocks nested in one another; max_nesting is 2000"):
        extract("<body>" + "<div>" * 2001 + "x", ExtractConfig())
    assert "x" in extract("<body>" + "<div>x</div>" * 5000, ExtractConfig(main_content=False))


def test_clean() -> None:
    assert clean(" a \r\nb\t\rc\x85d\u2028\x00e\tf\n\n") == "a\nb\nc\nd\ne\tf"
    assert clean("a \t \r \n\u2029 b") == "a\n\n\n b"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_clean_is_idempotent_and_storable(text) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not set(once) & set("\r\0\x85\u2028")


PLACES = "".join(
    f"<p>The {place} stood for many years, and this says in some detail what became of it, and why it took so long.</p>"
    for place in ("harbour", "bridge", "orchard", "library")
)
ARTICLE = (
    "<html><head><title>Title</title></head><body><nav><ul><li><a href='/'>Home</a></li><li><a href='/us'>About us</a>"
    f"</li></ul></nav><article><h1>Four places</h1>{PLACES}<p>The last one &amp; more.</p></article>"
    "<footer><a href='/imprint'>Imprint</a></footer><script>var x = 1</script></body></html>"
)


@pytest.mark.parametrize("method", ["resiliparse", "trained", "trafilatura"])
def test_extractors_by_name(method) -> None:
    text, whole = page_text(ARTICLE, ExtractConfig(method=method))
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "Four places" and lines[-1] == "The last one & more." and len(lines) == 6 and not whole
    everything = page_text(ARTICLE, ExtractConfig(method=method, main_content=False)).text
    assert "About us" in everything and "The bridge" in everything and "var x" not in everything
    assert page_text("<html><body></body></html>", ExtractConfig(method=method)) == PageText("")


def test_what_the_model_keeps_nothing_of_is_taken_whole_and_says_so(monkeypatch) -> None:
    monkeypatch.setattr("gristmill.stages.text.html.main_text", lambda page, items: " \n")
    assert page_text("<p>All there is.", ExtractConfig(method="trained")) == PageText("All there is.", whole=True)


def test_the_model_is_part_of_what_the_stage_is(monkeypatch) -> None:
    by_rules, by_model = Extract(), Extract(html=ExtractConfig(method="trained"))
    assert [part.name for part in by_rules.identity()] == ["extract", "fastwarc", "resiliparse"]
    stage, model, *_ = by_model.identity()
    assert stage.config["html"]["method"] == "trained" and model.name == "extraction_model"
    assert model.config == {"sha256": hashlib.sha256(SHIPPED.read_bytes()).hexdigest()}
    monkeypatch.setattr("gristmill.stages.text.extract.model_digest", lambda: "another")
    assert by_model.identity()[:2] != (stage, model) and by_rules.identity() == Extract().identity()


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("resiliparse", ["fastwarc", "resiliparse"]),
        ("trained", ["fastwarc", "resiliparse"]),  # resiliparse guesses encodings, FastWARC reads headers
        ("trafilatura", ["fastwarc", "resiliparse", "trafilatura"]),
    ],
)
def test_the_releases_of_whoever_is_asked_are_part_of_what_the_stage_is(monkeypatch, method, asked) -> None:
    monkeypatch.setattr("gristmill.stages.text.html.find_spec", lambda name: name)  # whether or not it is installed
    releases = {"fastwarc": "2.0.1", "resiliparse": "2.0.1", "trafilatura": "2.3.1"}
    monkeypatch.setattr("gristmill.stages.core.releases.installed_release", lambda name: releases[name])
    extract_ = Extract(html=ExtractConfig(method=method))
    before = extract_.identity()
    assert before[0].config["html"]["method"] == method
    named = {part.name: part.config for part in before}
    assert {name: config["release"] for name, config in named.items() if "release" in config} == {
        name: releases[name] for name in asked
    }
    for name in asked:
        releases[name] = "3.0.0"
        (changed,) = set(map(repr, extract_.identity())) - set(map(repr, before))
        assert name in changed and "3.0.0" in changed
        before = extract_.identity()


def test_trafilatura_is_asked_for_where_it_is_missing(monkeypatch) -> None:
    monkeypatch.setattr("gristmill.stages.text.html.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'gristmill\[trafilatura\]'"):
        ExtractConfig(method="trafilatura")


@pytest.mark.parametrize(
    ("switch", "method"),
    [({"links": True}, "trained"), ({"comments": False}, "trained"), ({"alt_texts": True}, "trained")],
)
def test_a_switch_that_an_extractor_does_not_have_is_refused(switch, method) -> None:
    (name,) = switch
    with pytest.raises(ValueError, match=f"{name}=.*: {method} has no such switch"):
        ExtractConfig(method=method, **switch)
    assert ExtractConfig(method=method, list_bullets=False).list_bullets is False


@pytest.mark.parametrize("wrong", [{"method": "trafilatur"}, {"links": "yes"}, {"main_content": 1}, {"max_nesting": 0}])
def test_config_is_checked(wrong) -> None:
    with pytest.raises(ValueError):
        ExtractConfig(**wrong)
    assert dataclasses.asdict(ExtractConfig())["method"] == "resiliparse"
