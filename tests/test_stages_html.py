"""Characters and text of pages."""

from __future__ import annotations

import codecs
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.html import ExtractConfig, clean, codec, decode, extract, is_html

GERMAN = "Grüße aus Köln, schöne Überraschung. " * 5
RUSSIAN = "Привет, как дела, что нового в городе? " * 5


def meta(charset: str) -> str:
    return f'<html><head><meta charset="{charset}"></head><body>'


@pytest.mark.parametrize(
    ("payload", "declared", "text", "charset"),
    [
        (codecs.BOM_UTF8 + GERMAN.encode(), "koi8-r", GERMAN, "utf-8"),
        (codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"), "utf-8", GERMAN, "utf-16-le"),
        (codecs.BOM_UTF16_BE + GERMAN.encode("utf-16-be"), None, GERMAN, "utf-16-be"),
        (RUSSIAN.encode("koi8-r"), "KOI8-R", RUSSIAN, "koi8-r"),
        (GERMAN.encode("latin-1"), "latin1", GERMAN, "cp1252"),
        ("“quoted”".encode("cp1252"), "ISO-8859-1", "“quoted”", "cp1252"),
        ((meta("windows-1251") + RUSSIAN).encode("cp1251"), None, meta("windows-1251") + RUSSIAN, "cp1251"),
        ((meta("koi8-r") + GERMAN).encode("utf-8"), "utf-8", meta("koi8-r") + GERMAN, "utf-8"),  # header wins
        ((meta("utf-16") + GERMAN).encode("utf-8"), None, meta("utf-16") + GERMAN, "utf-8"),
        (GERMAN.encode(), None, GERMAN, "utf-8"),
        (GERMAN.encode(), "no-such-charset", GERMAN, "utf-8"),
        (GERMAN.encode(), "utf8'; \x00", GERMAN, "utf-8"),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN, "cp1251"),  # a server's wrong default
        (("<p>" + GERMAN).encode("utf-16-le"), None, "<p>" + GERMAN, "utf-16-le"),
        ("日本語テキスト".encode("shift_jis"), "x-sjis", "日本語テキスト", "shift_jis"),
        ("中文".encode("gb18030"), "gb2312", "中文", "gbk"),
        (b"", None, "", "utf-8"),
    ],
)
def test_decode(payload, declared, text, charset) -> None:
    assert decode(payload, declared) == (text, charset, 0)


def test_http_equiv_and_late_meta() -> None:
    head = b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">'
    assert decode(b"<!-- " + b"x" * 1000 + b" -->" + head + RUSSIAN.encode("koi8-r"), None).charset == "koi8-r"


def test_holes_of_windows_1252() -> None:
    assert decode(b"caf\xe9 \x81\x93", "windows-1252").text == "café \x81“"


def test_a_page_cut_in_a_character_keeps_its_charset() -> None:
    found = decode(GERMAN.encode()[:-36], "utf-8")
    assert found.charset == "utf-8"
    cut = decode((GERMAN + "ü").encode()[:-1], "utf-8")
    assert (cut.charset, cut.replaced, cut.text) == ("utf-8", 1, GERMAN + "\ufffd")
    text = "日本語のテキスト" * 2  # of which the guess would say ISO 8859-7
    cut = decode(text.encode("euc_kr")[:-1], "euc-kr")
    assert (cut.charset, cut.replaced, cut.text[:-1]) == ("euc_kr", 1, text[:-1])


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=20)))
def test_decode_never_raises(payload, declared) -> None:
    found = decode(payload, declared)
    assert found.text.encode("utf-8", "surrogatepass") is not None and found.replaced >= 0


@pytest.mark.parametrize("label", ["hex", "base64", "rot13", "zip", "unicode_escape", "idna", "", "\0", "ü"])
def test_python_codecs_that_are_no_charsets(label) -> None:
    assert codec(label) is None


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


def test_nesting_is_bounded() -> None:
    with pytest.raises(ValueError, match="page nests 2001 blocks, max_nesting=2000"):
        extract("<body>" + "<div>" * 2001 + "x", ExtractConfig())
    assert "x" in extract("<body>" + "<div>x</div>" * 5000, ExtractConfig(main_content=False))


def test_clean() -> None:
    assert clean(" a \r\nb\t\rc\x85d\u2028\x00e\tf\n\n") == "a\nb\nc\nd\ne\tf"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_clean_is_idempotent_and_storable(text) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not set(once) & set("\r\0\x85\u2028")


@pytest.mark.parametrize("wrong", [{"method": "trafilatur"}, {"links": "yes"}, {"main_content": 1}, {"max_nesting": 0}])
def test_config_is_checked(wrong) -> None:
    with pytest.raises(ValueError):
        ExtractConfig(**wrong)
    assert dataclasses.asdict(ExtractConfig())["method"] == "resiliparse"


def test_real_pages_are_decoded(shared_data) -> None:
    from stages.containers.read import ReadConfig, Record, read
    from stages.containers.spans import scan

    path = shared_data / "2_pages" / "pages.warc.gz"
    with path.open("rb") as stream:
        spans = scan(stream, "warc").spans.slice(0, 60)
    for item in read(lambda offset: path.open("rb"), spans, "warc", ReadConfig()):
        if isinstance(item, Record) and item.kind == "page":
            found = decode(item.payload, item.charset)
            assert found.replaced * 1000 <= len(found.text) and len(extract(found.text, ExtractConfig())) > 50
