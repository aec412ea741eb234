"""Ids: which URLs are one, that nothing raises, and that an id depends on what it should and on nothing else."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.lake.accounts.identity import digest_of, is_record_id, normalise_url, own_identity, record_id, url_hash

NORMAL = [
    ("HTTP://Example.COM/", "http://example.com/"),
    ("https://a.example", "https://a.example/"),
    ("https://a.example?x=1", "https://a.example/?x=1"),
    (" http://a.example/ \n", "http://a.example/"),
    ("http://a.example:80/", "http://a.example/"),
    ("https://a.example:443/", "https://a.example/"),
    ("ftp://a.example:21/", "ftp://a.example/"),
    ("http://a.example:443/", "http://a.example:443/"),
    ("http://a.example:/", "http://a.example/"),
    ("http://a.example:08080/", "http://a.example:8080/"),
    ("http://a.example./", "http://a.example/"),
    ("http://a.example/#top", "http://a.example/"),
    ("http://a.example/a?b#c?d", "http://a.example/a?b"),
    ("http://User:PW@A.example/", "http://User:PW@a.example/"),
    ("http://%7euser@a.example/", "http://~user@a.example/"),
    # paths
    ("http://a.example/a/./b/../c", "http://a.example/a/c"),
    ("http://a.example/../../x", "http://a.example/x"),
    ("http://a.example/a/..", "http://a.example/"),
    ("http://a.example/a/.", "http://a.example/a/"),
    ("http://a.example/%2e%2E/x", "http://a.example/x"),
    ("http://a.example/a//b", "http://a.example/a//b"),
    ("http://a.example/Case", "http://a.example/Case"),
    ("http://a.example/a;p=1,2", "http://a.example/a;p=1,2"),
    # escapes
    ("http://a.example/%7Efoo/%41", "http://a.example/~foo/A"),
    ("http://a.example/%c3%a4", "http://a.example/%C3%A4"),
    ("http://a.example/ä", "http://a.example/%C3%A4"),
    ("http://a.example/a b", "http://a.example/a%20b"),
    ("http://a.example/a%2fb%3F", "http://a.example/a%2Fb%3F"),
    ("http://a.example/100%", "http://a.example/100%25"),
    ("http://a.example/%%34%31", "http://a.example/%2541"),
    # hosts
    ("http://Müller.example/", "http://xn--mller-kva.example/"),
    ("http://XN--MLLER-KVA.example/", "http://xn--mller-kva.example/"),
    ("http://%65x%41mple.com/", "http://example.com/"),
    ("http://a。example。/", "http://a.example/"),
    ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]/"),
    ("http://[::1]:8080/", "http://[::1]:8080/"),
    # the query is untouched
    ("http://a.example/?", "http://a.example/?"),
    ("http://a.example/?B=2&a=1&", "http://a.example/?B=2&a=1&"),
    ("http://a.example/?q=%7e%c3ä/../x", "http://a.example/?q=%7e%c3ä/../x"),
    # no URLs: keys all the same
    ("urn:uuid:1B", "urn:uuid:1B"),
    ("mailto:A@b.example", "mailto:A@b.example"),
    (" dns:a.example ", "dns:a.example"),
    ("//a.example/b", "//a.example/b"),
    ("http://[", "http://["),
    ("http://a.example:99999/", "http://a.example:99999/"),
    ("", ""),
]


@pytest.mark.parametrize(("url", "normal"), NORMAL)
def test_the_normal_form(url, normal):
    assert normalise_url(url) == normal
    assert normalise_url(normal) == normal


DIFFERENT = [
    ("http://a.example/", "https://a.example/"),
    ("http://a.example/a", "http://a.example/a/"),
    ("http://a.example/a", "http://a.example/A"),
    ("http://a.example/?a=1&b=2", "http://a.example/?b=2&a=1"),
    ("http://a.example/", "http://a.example/?"),
    ("http://a.example/a%2Fb", "http://a.example/a/b"),
    ("http://a.example/", "http://www.a.example/"),
    ("http://a.example/", "http://u@a.example/"),
    ("http://[::1]/", "http://1/"),
    ("http://../", "http://.../"),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_urls_that_may_be_other_pages_stay_apart(a, b):
    assert url_hash(a) != url_hash(b)


CHARACTERS = st.characters(codec=None)  # lone surrogates too
PIECES = st.sampled_from(
    [
        *(
            "http://",
            "HTTPS://",
            "ftp://",
            "a.example",
            "X",
            "ä",
            "ß",
            "。",
            "．",
            "％",
            ":80",
            ":443",
            "%7e",
            "%2F",
            "%41",
        ),
        *("%c3", "%", "//", "..", *"/.?#@:[]\\&=~\t "),
    ]
)
JUMBLE = st.lists(st.one_of(PIECES, st.text(CHARACTERS, max_size=3)), max_size=12).map("".join)
URLS = st.one_of(st.text(CHARACTERS, max_size=30), JUMBLE, st.builds("http://{}".format, JUMBLE))


@given(URLS)
@example("http://a.example/\ud800")
@example("http://\udcff.example/")
@example("http://" + "ä" * 70 + "/")
@example("http://a.example/?q\u2003#x")
@example("http://％41.example/")
@example("http://..../")
def test_no_string_raises_and_what_is_normal_stays(url):
    normal = normalise_url(url)
    assert normalise_url(normal) == normal
    assert is_record_id(record_id(url=url or None, source_key="x", own=b""))


SEGMENT = st.text("abcXYZ019-._~%", max_size=6).map(lambda s: s.replace("%", "%2F"))
ORDINARY = st.tuples(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.example", "b.example", "xn--mller-kva.example", "127.0.0.1"]),
    st.lists(SEGMENT.filter(lambda s: s not in (".", "..")), max_size=4),
    st.one_of(st.none(), st.text("abc=&%/?.", max_size=8)),
)


@given(ORDINARY, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_equivalent_spellings_of_a_url_are_one(parts, upper, port, dots, fragment):
    scheme, host, segments, query = parts
    tail = "" if query is None else f"?{query}"
    plain = f"{scheme}://{host}/{'/'.join(segments)}{tail}"
    other_host = host.upper() if upper else host
    if port:
        other_host += {"http": ":80", "https": ":443"}[scheme]
    path = "/".join("".join(f"%{ord(c):02x}" if c.isalnum() and "%" not in s else c for c in s) for s in segments)
    before = "./x/../" if dots else ""
    other = f"{scheme.upper()}://{other_host}/{before}{path}{tail}{'#f' if fragment else ''}"
    assert normalise_url(other) == normalise_url(plain)
    assert query is None or normalise_url(plain).endswith(tail)


def test_all_captures_of_a_url_share_the_prefix_that_why_scans():
    ids = [record_id(url=url, source_key="ignored", own=own) for url in NORMAL[0] for own in (b"1", b"2")]
    assert len(set(ids)) == 2 and {record[:16] for record in ids} == {url_hash(NORMAL[0][1])}
    assert all(is_record_id(record) for record in ids)


def test_without_a_url_the_source_key_stands_in_and_never_collides_with_one():
    by_key = record_id(url=None, source_key="http://a.example/", own=b"")
    assert by_key[:16] != url_hash("http://a.example/")
    assert by_key == record_id(url="", source_key="http://a.example/", own=b"")
    with pytest.raises(ValueError, match="needs a url or a source key"):
        record_id(url=None, source_key="", own=b"1")


def test_ids_of_format_1_never_change():
    assert url_hash("https://golden.example/mill") == "efbfa03e554043f8"
    assert record_id(url="https://golden.example/mill", source_key=None, own=b"own") == "efbfa03e554043f8" + OWN
    assert record_id(url=None, source_key="key", own=b"own") == KEY + OWN


OWN, KEY = "2c6b44a3e4663e18", "34e80f0db3902664"


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, " " + "0" * 31, "0" * 32 + "\n"])
def test_what_is_no_id(text):
    assert not is_record_id(text)


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_two_lists_of_parts_have_one_digest_only_if_they_are_equal(a, b):
    assert (digest_of(*a) == digest_of(*b)) == (a == b)


def test_text_and_its_utf_8_are_one_part():
    assert digest_of("ä", b"x") == digest_of("ä".encode(), "x") != digest_of("äx")


def test_media_enter_the_identity_of_who_has_them_by_digest_and_order() -> None:
    first, second = digest_of("a"), digest_of("b")
    assert own_identity(b"own", []) == b"own"  # ids of records without media are what they were
    own = {own_identity(b"own", media) for media in ([], [first], [second], [first, second], [second, first])}
    assert len(own) == 5
