"""Images that are named by http(s): fetched from public addresses alone, whatever a name server or a redirect says."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from fetching import OTHER, PUBLIC, Web, body, moved, names, never
from serving import shown
from waiting import PATIENCE

from gristmill.model.processing.chat.turns import Shown
from gristmill.orchestration.serve.errors import ApiError
from gristmill.orchestration.serve.fetch import Fetcher, FetchRefused, is_public, resolve
from gristmill.orchestration.serve.images import ImageLimits, fetched, image_refs

pytestmark = pytest.mark.usefixtures("one_thread")


def get(web: Web, resolver: Any, address: str, most: int = 1000, hosts: tuple[str, ...] = ("*",)) -> bytes:
    return asyncio.run(Fetcher(hosts, resolver, web).get(address, most))


def test_the_connection_goes_to_the_address_that_was_looked_at_by_the_name_that_was_asked_for() -> None:
    web = Web({f"{PUBLIC}/a.png": body(b"picture")})
    assert get(web, names(example_org=[PUBLIC]), "https://example.org/a.png?x=1") == b"picture"
    (request,) = web.asked
    assert request.url == f"https://{PUBLIC}/a.png?x=1" and request.headers["host"] == "example.org"
    assert request.extensions["sni_hostname"] == "example.org"


def test_a_name_that_is_rebound_is_resolved_once() -> None:
    """Public when it is looked at, private when it would be connected to."""
    web = Web({f"{PUBLIC}/a.png": body(b"public"), "169.254.169.254/a.png": body(b"secret")})
    resolver = names(example_org=[PUBLIC, "169.254.169.254"])
    assert get(web, resolver, "http://example.org/a.png") == b"public"
    with pytest.raises(FetchRefused, match="not at public addresses alone"):
        get(web, resolver, "http://example.org/a.png")
    assert [request.url.host for request in web.asked] == [PUBLIC]


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    web = Web({f"{PUBLIC}/": body(b"")})

    async def resolver(host: str, port: int) -> Sequence[str]:
        return [PUBLIC, "10.0.0.1"]

    with pytest.raises(FetchRefused, match="not at public addresses alone"):
        get(web, resolver, "http://example.org/")
    assert not web.asked


PRIVATE = [
    "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "255.255.255.255", "224.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0",
    "fc00::1", "fd12:3456::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
    "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1", "2001:db8::1", "fec0::1", "feff::1", "64:ff9b:1::101:101",
    "64:ff9b:1:a00:0:100:808:808", "64:ff9b:1:7f00:0:100:808:808",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_the_internets_are_none_to_fetch_from(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    web = Web({})
    with pytest.raises(FetchRefused, match="not at public addresses alone"):
        get(web, names(example_org=[address]), "http://example.org/")
    assert not web.asked


@pytest.mark.parametrize("address", [PUBLIC, OTHER, "1.1.1.1", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"]
)
def test_this_machine_by_any_of_its_names(host: str) -> None:
    """By its own resolver, which reads more numbers than one would think."""
    web = Web({})
    with pytest.raises(FetchRefused, match=r"not at public addresses alone|is not known|no URL"):
        get(web, resolve, f"http://{host}/")
    assert not web.asked


def test_redirects_are_looked_at_as_any_url() -> None:
    web = Web(
        {
            f"{PUBLIC}/a": moved("/b"),
            f"{PUBLIC}/b": moved("https://other.net/c"),
            "1.1.1.1/c": body(b"there"),
            f"{PUBLIC}/in": moved("http://inside.net/"),
            f"{PUBLIC}/literal": moved("http://169.254.169.254/latest/meta-data"),
            f"{PUBLIC}/file": moved("file:///etc/passwd"),
            f"{PUBLIC}/round": moved("/round"),
            "10.0.0.1/": body(b"secret"),
        }
    )
    resolver = names(
        example_org=[PUBLIC], other_net=["1.1.1.1"], inside_net=["10.0.0.1"], **{"169_254_169_254": ["169.254.169.254"]}
    )
    assert get(web, resolver, "http://example.org/a") == b"there"
    for path, words in (
        ("in", "not at public addresses"),
        ("literal", "not at public addresses"),
        ("file", "allowed are data:"),
        ("round", "more than 3 redirects"),
    ):
        with pytest.raises(FetchRefused, match=words):
            get(web, resolver, f"http://example.org/{path}")
    with pytest.raises(FetchRefused, match=r"other\.net:443: this server fetches images from example\.org"):
        get(web, resolver, "http://example.org/a", hosts=("example.org",))
    assert {request.url.host for request in web.asked} == {PUBLIC, "1.1.1.1"}


@pytest.mark.parametrize(
    ("address", "hosts", "words"),
    [
        ("http://example.org/a", ("other.net",), "fetches images from other.net"),
        ("http://sub.example.org/a", ("example.org",), "fetches images from"),
        ("http://example.org:22/a", ("*",), "example.org:22: this server"),
        ("http://example.org:8080/a", ("example.org",), "example.org:8080: this server"),
        ("http://me:secret@example.org/a", ("*",), "a user or password"),
        ("gopher://example.org/a", ("*",), "allowed are data:"),
        ("http:///a", ("*",), "allowed are data:"),
        ("http://nowhere.org/a", ("*",), "'nowhere.org' is not known"),
        ("http://example.org/gone", ("*",), "answered 404"),
        ("http://example.org/closed", ("*",), "cannot be connected to"),
        ("http://example.org/large", ("*",), "larger than 1,000 bytes"),
        ("http://example.org/endless", ("*",), "larger than 1,000 bytes"),
    ],
)
def test_what_is_not_fetched_says_why(address: str, hosts: tuple[str, ...], words: str) -> None:
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield b"x" * 100

    web = Web(
        {
            f"{PUBLIC}/a": body(b"x"),
            f"{PUBLIC}/gone": lambda request: httpx.Response(404),
            f"{PUBLIC}/large": body(b"x", **{"content-length": "1001"}),
            f"{PUBLIC}/endless": lambda request: httpx.Response(200, content=endless()),
        }
    )
    with pytest.raises(FetchRefused, match=words) as info:
        get(web, names(example_org=[PUBLIC]), address, hosts=hosts)
    assert "10.1.2.3" not in str(info.value) and len(sent) <= 12


def test_a_port_that_is_named_is_allowed_and_a_second_address_is_tried() -> None:
    web = Web({f"{PUBLIC}/a": body(b"x")})

    async def resolver(host: str, port: int) -> Sequence[str]:
        assert port == 8080
        return [OTHER, PUBLIC]

    assert get(web, resolver, "http://example.org:8080/a", hosts=("example.org:8080",)) == b"x"
    assert [request.url.host for request in web.asked] == [OTHER, PUBLIC]
    assert web.asked[1].headers["host"] == "example.org:8080"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([1001], "image 1: url: larger than 1,000 bytes"),
        ([1000, 1000, 1], "image 3: all images together are larger than 2,000 bytes"),
        ([1000, 600, 700], "image 3: all images together are larger than 2,000 bytes"),
        ([600, 1001], "image 2: url: larger than 1,000 bytes"),
    ],
)
def test_bytes_of_an_image_and_of_all_are_told_apart(sizes: list[int], words: str) -> None:
    web = Web({f"{PUBLIC}/{number}": body(bytes(size)) for number, size in enumerate(sizes)})
    limits = ImageLimits(max_bytes=1000, max_total_bytes=2000, hosts=("*",), seconds=PATIENCE)
    parts = [Shown("image", 0, shown(f"http://example.org/{number}")) for number in range(len(sizes))]
    fetcher = Fetcher(limits.hosts, names(example_org=[PUBLIC]), web)
    with pytest.raises(ApiError, match=words):
        asyncio.run(fetched(image_refs(parts, limits), limits, fetcher, asyncio.Semaphore()))


def test_images_that_do_not_come_are_not_waited_for_for_ever() -> None:
    web = Web({f"{PUBLIC}/never": lambda request: httpx.Response(200, content=never(request))})
    limits = ImageLimits(hosts=("*",), seconds=0.05)
    refs = image_refs([Shown("image", 0, shown("http://example.org/never"))], limits)
    fetcher = Fetcher(limits.hosts, names(example_org=[PUBLIC]), web)
    with pytest.raises(ApiError, match=r"the images of a request have not come in 0\.05 s"):
        asyncio.run(fetched(refs, limits, fetcher, asyncio.Semaphore()))


def test_a_request_whose_turn_does_not_come_is_told_to_ask_again() -> None:
    web = Web({})
    limits = ImageLimits(hosts=("*",), seconds=0.01)
    refs = image_refs([Shown("image", 0, shown("http://example.org/a"))], limits)
    with pytest.raises(ApiError, match="ask again later") as info:
        asyncio.run(fetched(refs, limits, Fetcher(limits.hosts, resolve, web), asyncio.Semaphore(0)))
    assert info.value.status == 429 and not web.asked
