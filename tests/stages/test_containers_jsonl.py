"""Lines of JSON as records: which fields are what, and what is wrong with a line, without quoting its text."""

from __future__ import annotations

import pytest
from warc_files import line, opener, read_fault, read_record, scan_bytes

from gristmill.stages.containers import ReadConfig, Record, read


def test_jsonl() -> None:
    item = read_record(line(text="grüße", url="http://a", id=7, date="2024", source="s"), "jsonl")
    assert item[3:-3] == (
        *("text", "jsonl", None, "http://a", "2024", None, None, None, b"", "grüße", None),
        *("7", "s", None),
    )
    assert read_record(line(text="", id="x"), "jsonl").source_key == "x"
    assert read_record(b"\xef\xbb\xbf" + line(text="a"), "jsonl").source_key is None
    config = ReadConfig(text="body", url="link")
    item = read_record(line(body="b", link="http://b", text=5), "jsonl", config)
    assert (item.text, item.url) == ("b", "http://b")


@pytest.mark.parametrize("rest", [{}, {"url": None}, {"url": ""}], ids=["no url", "null", "empty"])
@pytest.mark.parametrize("own", ["http://blog.example/private/page", " HTTPS://Blog.example:443/?q=%7Ea#x"])
def test_an_id_that_is_a_url_is_the_url_where_there_is_none(rest, own) -> None:
    """As in dolma's data; in the form that the web pipeline reads, and in whole rows."""
    data = line(text="a", id=own, **rest)
    item = read_record(data, "jsonl")
    (row,) = read(opener(data), scan_bytes(data, "jsonl").spans, "jsonl", ReadConfig(), rows=True)
    assert isinstance(row, Record)
    assert (item.url, item.id, item.source_key) == (own, own, own) == (row.url, row.id, row.source_key)
    both = read_record(line(text="a", id=own, url="http://u"), "jsonl")
    assert both.url == "http://u"  # that is what it is filed under
    assert read_fault(line(text=5, id=own, **rest), "jsonl").url == own


@pytest.mark.parametrize(
    "own", ["page-17", 17, "urn:uuid:1", "doi:10.1/2", "/a/b", "//host/a", "mailto:a@b.c", "http:", ""]
)
def test_an_id_that_is_no_url_is_none(own) -> None:
    assert read_record(line(text="a", id=own), "jsonl").url is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{secret", "not JSON"),
        (b'["secret"]', "a JSON list"),
        (line(text=None, url="http://u"), "'text' (the text) is a NoneType"),
        (line(t="secret"), "'text' (the text) is missing"),
        (line(text="x", url=5), "'url' is a int"),
        (b'{"text": "secret\xff"}', "byte 16"),
        (b'{"text": "secret\\ud800"}', "lone surrogate at character 6"),
        (b'{"text": ' + b"[" * 200_000, "JSON"),
        (b'{"text": "secret", "n": ' + b"9" * 5000 + b"}", "JSON"),
    ],
)
def test_jsonl_faults(data, words) -> None:
    item = read_fault(data, "jsonl")
    assert words in item.error and "secret" not in item.error and "\n" not in item.error
