"""The suppression list: what matches it, that it hides what it names, and that nothing on it is ever lost."""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pyarrow as pa
import pytest
from toy import Watched

from gristmill.lake.accounts.identity import record_id
from gristmill.lake.takedown.suppress import COPIES, PREFIX, Suppression
from gristmill.lake.takedown.suppress_entries import spellings
from gristmill.lake.upkeep.gc import plan_gc, run_gc


def matches(request: Suppression, *urls: str | None) -> list[bool]:
    ids = [record_id(url=url, source_key="none", own=b"x") for url in urls]
    return list(request.match(pa.array(ids), pa.array(urls, pa.string())))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/page",
        "http://example.org",
        "HTTPS://EXAMPLE.ORG/",
        "https://www.example.org/a?b#c",
        "https://a.b.c.example.org",
        "https://example.org:8443/x",
        "https://example.org./x",
        "https://user:pass@example.org/x",
        "https://user@evil.com@example.org/x",
        "https://ex%61mple.org/",
        "//example.org/x",
        "example.org/x",
        "  https://exa\nmple.org/x",
        "https://example.org?q",
        "https://example.org#f",
    ],
)
def test_a_domain_covers_itself_its_subdomains_ports_and_spellings(url):
    assert matches(Suppression.of(domains=["Example.ORG."]), url) == [True]


@pytest.mark.parametrize(
    "url",
    [
        "https://notexample.org/",
        "https://example.org.evil.com/",
        "https://example.com/example.org",
        "https://example.com/?u=https://example.org/",
        "https://example.org@evil.com/",
        "https://org/",
        "http://[",
        "http://[::1]/",
        "",
        None,
    ],
)
def test_a_domain_covers_nothing_else(url):
    assert matches(Suppression.of(domains=["example.org"]), url) == [False]


@pytest.mark.parametrize("entry", ["münchen.de", "MÜNCHEN.DE", "xn--mnchen-3ya.de", "XN--MNCHEN-3YA.de."])
@pytest.mark.parametrize(
    "url",
    ["https://münchen.de/x", "https://www.MÜNCHEN.de", "http://xn--mnchen-3ya.de:80/", "https://m%C3%BCnchen.de/"],
)
def test_a_domain_in_another_script_is_one_domain(entry, url):
    assert matches(Suppression.of(domains=[entry]), url) == [True]


def test_a_host_made_to_hurt_costs_no_more_than_another():
    request = Suppression.of(domains=["example.org"])
    longest = [f"http://{'a.' * 500_000}example.org/", f"http://{'a' * 10**6}example.org/", f"http://{'.' * 10**6}org"]
    assert matches(request, *longest) == [True, False, False]


def test_hosts_of_one_site_are_told_apart():
    request = Suppression.of(domains=["b.example.org"])
    hosts = ["a.example.org", "b.example.org", "x.b.example.org", "example.org", "x.a.example.org", "b.example.org"]
    assert matches(request, *(f"http://{host}/{i}" for i, host in enumerate(hosts))) == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]


def test_a_url_is_every_record_of_its_normal_form_and_no_other():
    request = Suppression.of(urls=["HTTPS://Example.org:443/a/../page#top"])
    hits = matches(request, "https://example.org/page", "https://example.org/page?x", "http://example.org/page")
    assert hits == [True, False, False]
    two = [record_id(url="https://example.org/page", source_key=None, own=own) for own in (b"1", b"2")]
    assert list(request.match(pa.array(two))) == [True, True]  # two captures, and no URL is needed


SPELLINGS = [
    ("https://example.org/?q=a b", "https://example.org/?q=a%20b", "https://example.org/?q=a+b"),
    ("https://example.org/?q=Jürgen", "https://example.org/?q=J%C3%BCrgen", "https://example.org/?q=J%c3%bcrgen"),
    ("https://example.org/~me?x=~1", "https://example.org/%7Eme?x=%7e1", "https://example.org/%7eme?x=~1"),
    ("https://example.org/a(b)?c='d'", "https://example.org/a%28b%29?c=%27d%27"),
    ("https://example.org/File:X?u=http://a/b,c", "https://example.org/File%3AX?u=http%3A%2F%2Fa%2Fb%2Cc"),
    ("http://münchen.de/ä?ö", "http://xn--mnchen-3ya.de:80/%c3%a4?%C3%B6#top", "HTTP://MÜNCHEN.de./b/../ä?ö"),
    ("https://example.org/?a=%7b%22x%22%7d", 'https://example.org/?a={"x"}', "https://example.org/?a=%7B%22x%22%7D"),
    ("https://example.org/?100%", "https://example.org/?100%25"),
]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_url_is_found_in_every_spelling(spelled):
    for asked in spelled:
        request = Suppression.of(urls=[asked])
        assert matches(request, *spelled) == [True] * len(spelled)
        ids = pa.array([record_id(url=url, source_key=None, own=b"x") for url in spelled])
        assert list(request.match(ids)) == [True] * len(spelled)  # where no URL is left, by the id alone


def test_spellings_mixed_within_one_url_are_found_by_the_url():
    request = Suppression.of(urls=["https://example.org/?a=ü ü&b=é'~"])
    mixed = "https://example.org/?a=%c3%bc%20ü&b=%C3%A9%27%7E"
    assert matches(request, mixed) == [True]
    by_id = pa.array([record_id(url=mixed, source_key=None, own=b"")])
    assert list(request.match(by_id)) == [False] and list(request.match(by_id, pa.array([mixed]))) == [True]


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ("https://example.org/a%2Fb", "https://example.org/a/b"),
        ("https://example.org/?a=b%26c", "https://example.org/?a=b&c"),
        ("https://example.org/?a=b%2Bc", "https://example.org/?a=b+c"),
        ("https://example.org/?a=%FC", "https://example.org/?a=ü"),
        ("https://example.org/?a=1&b=2", "https://example.org/?b=2&a=1"),
        ("https://example.org/a", "https://www.example.org/a"),
        ("https://example.org/a", "http://example.org/a"),
        ("https://example.org/a", "https://example.org/a/"),
        ("https://example.org/a", "https://example.org/A"),
        ("https://example.org/a", "https://example.org/a?"),
        ("https://example.org/a", "https://example.org:8443/a"),
        ("https://example.org/a", "https://me@example.org/a"),
        ("https://example.org/a", "//example.org/a"),
    ],
)
def test_another_page_is_not_meant(asked, other):
    assert matches(Suppression.of(urls=[asked]), other) == [False]
    assert matches(Suppression.of(urls=[asked]), asked, None, "http://[") == [True, False, False]


def test_a_key_that_was_filed_before_it_counted_as_a_url_is_found():
    own = record_id(url=None, source_key="http://blog.example/page?x=%7Ea", own=b"x")
    assert list(Suppression.of(urls=["http://blog.example/page?x=~a"]).match(pa.array([own]))) == [True]


def test_a_url_made_to_hurt_costs_no_more_than_another():
    """Counted in calls: spellings do not multiply with the length."""
    for part in ("%20", "~'", "%C3%BC", "%", "//", "?", "../", "@", "[", ":"):
        url = f"https://example.org/?q={part * 5_000}"
        assert len(spellings(url)) <= 200 and matches(Suppression.of(urls=[url]), url) == [True]


def test_an_id_is_one_record():
    first, second = (record_id(url="https://example.org/", source_key=None, own=own) for own in (b"1", b"2"))
    request = Suppression.of(ids=[first.upper()])
    assert list(request.match(pa.chunked_array([[second], [first]]))) == [False, True]


def test_matching_says_what_matching_one_by_one_says():
    rng = random.Random(3)
    urls = [
        rng.choice([None, f"https://{rng.choice(['a.', 'b.', ''])}s{rng.randrange(9)}.org:{rng.choice([1, 80])}/{i}"])
        for i in range(400)
    ]
    ids = [record_id(url=url, source_key=str(i), own=b"") for i, url in enumerate(urls)]
    request = Suppression.of(ids[::50], [u for u in urls[::37] if u], ["s1.org", "a.s2.org"])
    at_once = request.match(pa.array(ids), pa.array(urls, pa.string()))
    single = [request.match(pa.array([i]), pa.array([u], pa.string()))[0] for i, u in zip(ids, urls, strict=True)]
    assert at_once.tolist() == single and at_once.dtype == np.bool_ and 0 < at_once.sum() < 400
    in_chunks = request.match(pa.chunked_array([ids[:7], ids[7:]]), pa.chunked_array([urls[:7], urls[7:]], pa.string()))
    assert in_chunks.tolist() == single
    assert request.match(pa.array([], pa.string()), pa.array([], pa.string())).tolist() == []


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("ids", "abc", "'abc' is no record id: 32 hex"),
        ("urls", "example.org/page", "no absolute URL"),
        ("urls", "http://[", "no absolute URL"),
        ("domains", "https://example.org", "no domain: a bare name"),
        ("domains", "example.org:8080", "no domain"),
        ("domains", "example.org/x", "no domain"),
        ("domains", "*.example.org", "no domain"),
        ("domains", "a..org", "no domain"),
        ("domains", ".", "no domain"),
        ("domains", "com", "a whole top level"),
        ("domains", "0.1", "a whole top level or network"),
    ],
)
def test_what_is_no_entry_is_refused_with_what_is(kind, entry, message):
    with pytest.raises(ValueError, match=message):
        Suppression.of(**{kind: [entry]})


def test_a_whole_ipv4_address_is_a_domain():
    assert matches(Suppression.of(domains=["10.0.0.1"]), "http://10.0.0.1:8080/", "http://10.0.0.2/") == [True, False]


def test_the_list_is_the_union_of_all_requests_and_its_digest_depends_on_nothing_else(store):
    assert not Suppression.load(store) and Suppression.load(store).digest == ""
    a = Suppression.of(urls=["https://example.org/a"])
    b = Suppression.of(domains=["example.com"], ids=["0" * 32])
    a.save(store, "one")
    assert Suppression.load(store) == a and Suppression.load(store).digest == a.digest
    b.save(store, "two")
    a.save(store, "again, with another reason")
    assert Suppression.load(store) == a.union([b]) == b.union([a])
    assert len(list(store.list(PREFIX))) == 2
    assert json.loads(store.get(f"{PREFIX}00000001.json"))["reason"] == "one"  # the first reason stays
    assert Suppression.load(store).digest not in ("", a.digest, b.digest)


def test_two_requests_at_once_both_count_and_an_equal_one_is_the_same_file(store):
    a, b = Suppression.of(urls=["https://example.org/a"]), Suppression.of(urls=["https://example.org/b"])

    def others_first(verb: str, key: str) -> None:
        if verb == "create":
            b.save(store, "other")
            Suppression.of(urls=["https://example.org/a"]).save(store, "same")

    a.save(Watched(store, others_first), "mine")
    assert Suppression.load(store) == a.union([b]) and len(list(store.list(PREFIX))) == 2


def test_nothing_on_the_list_stands_there_in_clear(store):
    Suppression.of(["ab" * 16], ["https://example.org/jane"], ["Jane-Doe.example"]).save(store, "request 7")
    data = b"".join(store.get(info.key) + info.key.encode() for info in store.list("")).lower()
    assert not any(word in data for word in (b"jane", b"example", b"https", b".org"))


def test_a_list_that_is_not_whole_stops_the_reader_rather_than_let_records_back_in(store):
    request = Suppression.of(urls=["https://example.org/a", "https://example.org/b"])
    key = request.save(store, "x")
    whole = json.loads(store.get(key))
    copy = COPIES + key.removeprefix(PREFIX)
    damaged = [
        (b"{", "is damaged"),
        (b"", "is damaged"),
        (b"[]", "is damaged"),
        (json.dumps({**whole, "urls": whole["urls"][:1]}).encode(), "is damaged .*its entries have digest"),
        (json.dumps({**whole, "format": 9}).encode(), "it has format 9"),
        (json.dumps({**whole, "url_format": 9}).encode(), r"format 2 \(URL format 9\), not 1 to 3 \(1\)"),
        (json.dumps({**whole, "number": 2}).encode(), "is not the request of this number"),
    ]
    for data, message in damaged:
        for place in (key, copy):  # as where the lake was restored from a copy that is damaged
            store.put(place, data)
        with pytest.raises(ValueError, match=message):
            Suppression.load(store)
        with pytest.raises(ValueError, match=message):
            request.save(store, "again")
    store.put(f"{PREFIX}notes.txt", b"somebody's own")
    for place in (key, copy):
        store.put(place, json.dumps(whole, indent=1).encode())
    assert Suppression.load(store) == request


def test_the_list_as_an_object_is_what_was_put_and_no_other(store):
    request = Suppression.of(urls=["https://example.org/a"], domains=["example.com"])
    ref = request.put(store)
    assert Suppression.read(store, ref, request.digest) == request and ref == request.put(store)
    with pytest.raises(ValueError, match="digest"):
        Suppression.read(store, ref, "0" * 64)


def test_gc_never_touches_the_list(store):
    key = Suppression.of(urls=["https://example.org/a"]).save(store, "x")
    plan = plan_gc(store, grace_seconds=0, now=time.time() + 1e7)
    run_gc(store, plan)
    assert store.info(key) is not None and store.info(COPIES + key.removeprefix(PREFIX)) is not None
    assert not [doomed for doomed in plan.doomed if PREFIX in doomed.key or COPIES in doomed.key]


def test_an_empty_request_is_refused(store):
    with pytest.raises(ValueError, match="no entries"):
        Suppression().save(store, "x")
