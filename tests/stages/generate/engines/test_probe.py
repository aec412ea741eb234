"""The probe of a server: what is kept, what is asked otherwise, and what is refused."""

from __future__ import annotations

import pytest
from aiohttp import web
from strange_server import completion, drawn, engine, good, replying, strange

from gristmill.stages.generate.engines.endpoint import BadEndpoint
from gristmill.stages.generate.engines.probe import probe
from gristmill.stages.generate.engines.protocol import Ask


def probed(answer, **settings):
    with strange(answer) as server:
        client = engine(server, **settings)
        try:
            return {finding.check: finding for finding in probe(client, 1000)}, client
        finally:
            client.close()


def test_a_good_server_keeps_all_promises():
    findings, client = probed(good, share_prompts=True)
    assert all(finding.kept for finding in findings.values()) and len(findings) == 6
    assert client.use_n and client.longest_prompt is None


def test_a_server_that_draws_no_other_text_is_refused():
    async def same(server, body, request):
        return web.json_response(completion(body, *["always this"] * body.get("n", 1)))

    with pytest.raises(BadEndpoint, match="same text with 4 seeds at temperature 1"):
        probed(same)


def test_a_server_that_ignores_n_is_asked_for_one_sample_at_a_time():
    async def single(server, body, request):
        return await good(server, body | {"n": 1}, request)

    findings, client = probed(single, share_prompts=True)
    assert not findings["n"].kept and not client.use_n
    assert findings["n"].what == "1 answers to n=3, so that each sample is a request by itself"


def test_a_server_that_ignores_seeds_is_used_and_it_is_said():
    async def seedless(server, body, request):
        return await good(server, body | {"seed": len(server.requests)}, request)

    findings, _ = probed(seedless)
    assert not findings["seed"].kept and findings["distinct"].kept


def test_a_server_that_cuts_prompts_is_asked_only_what_surely_fits():
    async def cuts(server, body, request):
        body["messages"][-1]["content"] = body["messages"][-1]["content"][:100]
        return await good(server, body, request)

    with strange(cuts) as server:
        client = engine(server)
        finding = next(finding for finding in probe(client, 1000) if finding.check == "overlong")
        assert not finding.kept and client.longest_prompt == 1000 - 16
        long, short = client.generate([Ask("a", (0,), "x" * 985), Ask("b", (0,), "x" * 984)])
        client.close()
    assert (long.failure, long.requests, short.failure) == ("too_long", 0, None)


@pytest.mark.parametrize("prices", [{}, {"prompt_price": 1.0}])
def test_a_server_that_counts_no_tokens_is_refused_where_costs_are_to_be_known(prices):
    async def uncounted(server, body, request):
        if len(body["messages"][-1]["content"].split()) > 1000:
            return web.Response(status=413)
        return web.json_response(completion(body, *[drawn(body, i) for i in range(body.get("n", 1))], usage=False))

    if prices:
        with pytest.raises(BadEndpoint, match="what the run costs would not be known"):
            probed(uncounted, **prices)
    else:
        findings, _ = probed(uncounted)
        assert not findings["usage"].kept


def test_a_server_that_is_not_there_is_named_before_the_run():
    with pytest.raises(BadEndpoint, match="does not answer a simple question: server_error: HTTP 500"):
        probed(replying(500))
