"""Images by their addresses, through the server: as if they had come along, refused by their number, let go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fetching import PUBLIC, Web, body, names, never
from serving import Running, asked, chat, refused, seeing_parts, serving, shown, texts, toy_engine, url, worded
from vision import picture
from waiting import PATIENCE

from gristmill.orchestration.serve import server as server_module
from gristmill.orchestration.serve.engine import HostedEngine
from gristmill.orchestration.serve.fetch import Fetcher
from gristmill.orchestration.serve.images import ImageLimits
from gristmill.orchestration.serve.server import make_app

pytestmark = pytest.mark.usefixtures("one_thread")


async def ask(app: Any, request: bytes, leaves: asyncio.Event) -> int:
    """The status of a request whose client leaves at that event."""
    body, sent = [{"type": "http.request", "body": request}], list[Any]()

    async def receive() -> Any:
        if body:
            return body.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return int(sent[0]["status"])


async def two(app: Any, request: bytes, web: Web) -> list[int]:
    """Of two requests: the first one has the turn, and leaves after the second one, which leaves at once."""
    stays, left = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(ask(app, request, stays))
    while not web.asked:
        await asyncio.sleep(0.01)
    left.set()
    async with asyncio.timeout(PATIENCE):
        second = await ask(app, request, left)
    assert not first.done()
    stays.set()
    return [second, await first]


def test_a_client_that_leaves_while_it_waits_for_its_turn_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request has the only turn and waits for its image; the other's client leaves before that ends."""
    monkeypatch.setattr(server_module, "_FETCHES", 1)
    web = Web({f"{PUBLIC}/never": lambda request: httpx.Response(200, content=never(request))})
    limits = ImageLimits(hosts=("*",), seconds=PATIENCE)
    fetcher = Fetcher(limits.hosts, names(example_org=[PUBLIC]), web)
    engine, tokenizer = toy_engine(seeing_parts)
    messages = asked(worded("the"), shown("http://example.org/never"))
    request = json.dumps({"model": "tiny", "messages": messages}).encode()

    with HostedEngine(engine) as hosted:
        app = make_app(hosted, tokenizer, "tiny", images=limits, fetcher=fetcher)
        assert asyncio.run(two(app, request, web)) == [499, 499]
    assert len(web.asked) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    web = Web(
        {
            f"{PUBLIC}/a.png": body(picture(1)),
            f"{PUBLIC}/page": body(b"<html>"),
        }
    )
    limits = ImageLimits(max_crops=4, hosts=("example.org", "inside.net"), seconds=PATIENCE)
    fetcher = Fetcher(limits.hosts, names(example_org=[PUBLIC], inside_net=["10.0.0.1"]), web)
    with serving(parts=seeing_parts, images=limits, fetcher=fetcher) as running:
        yield running


def test_an_image_by_its_address_is_as_one_that_came_along(server: Running) -> None:
    answers = [
        texts(chat(server, messages=asked(worded("the"), shown(part), shown(url(picture(2)))), temperature=0))
        for part in ("https://example.org/a.png", url(picture(1)))
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.org/page", "image 2: no format of images"),
        ("https://inside.net/", "image 2: url: host 'inside.net' is not at public addresses alone"),
        ("https://elsewhere.net/", "image 2: url: elsewhere.net:443: this server fetches images from example.org"),
    ],
)
def test_what_cannot_be_fetched_is_refused_by_its_number(server: Running, address: str, words: str) -> None:
    assert words in refused(server, shown(url(picture(1))), shown(address))
    assert server.health().json()["samples"] == 0
