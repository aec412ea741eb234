"""The key of a server: it is sent, and stands in no failure, whatever a server says of it."""

from __future__ import annotations

import pytest
from aiohttp import web
from strange_server import engine, replying, strange

from gristmill.stages.generate.engines.endpoint import BadEndpoint
from gristmill.stages.generate.engines.protocol import Ask


def test_a_key_is_sent_and_stands_nowhere_else(monkeypatch, caplog):
    monkeypatch.setenv("SOME_KEY", "sk-secret")

    async def loud(server, body, request):
        return web.json_response({"error": {"message": "no\nsuch  thing"}}, status=400)

    with strange(loud) as server:
        client = engine(server, key_env="SOME_KEY")
        (sample,) = client.generate([Ask("a", (0,), "one")])
        assert "sk-secret" not in repr(vars(client)) + repr(client.endpoint) + client.about
        client.close()
    assert server.keys == ["Bearer sk-secret"]
    assert (sample.failure, sample.detail) == ("refused", "HTTP 400: no such thing")
    assert "sk-secret" not in repr(sample) + caplog.text


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_a_server_quotes_stands_in_no_failure(monkeypatch, status):
    monkeypatch.setenv("SOME_KEY", " sk-secret-0123\n")
    quoting = replying(status, '{"error": {"message": "no such key: sk-secret-0123, or is it?"}}')
    with strange(quoting) as server:
        client = engine(server, key_env="SOME_KEY")
        try:
            (sample,) = client.generate([Ask("a", (0,), "one")])
            text = sample.detail
        except BadEndpoint as error:
            text = str(error)
        client.close()
    assert "no such key: ***, or is it?" in text and set(server.keys) == {"Bearer sk-secret-0123"}


@pytest.mark.parametrize(
    "quoted", ["se/cret+01==", r"se\/cret+01==", r"se/cret\u002b01\u003D\u003d", r"\u0073e\/cret\u002B01=="]
)
def test_a_key_is_known_however_json_writes_it(monkeypatch, quoted):
    """PHP escapes slashes, others what HTML would take."""
    monkeypatch.setenv("SOME_KEY", "se/cret+01==")
    with strange(replying(400, f'{{"error": {{"message": "no such key: {quoted}"}}}}')) as server:
        client = engine(server, key_env="SOME_KEY")
        (sample,) = client.generate([Ask("a", (0,), "one")])
        client.close()
    assert sample.detail == "HTTP 400: no such key: ***"


@pytest.mark.parametrize("key", ["sk-geheim-\u00e9", "sk-geheim\nX-More: yes"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_quoted(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with strange() as server:
        client = engine(server, key_env="SOME_KEY")
        with pytest.raises(BadEndpoint, match="the key in SOME_KEY has characters that no header may have") as error:
            list(client.generate([Ask("a", (0,), "one")]))
        client.close()
    assert "geheim" not in repr(error.value) + repr(error.value.__cause__) and not server.requests
