"""The reasoning pipeline upon a server that fails: every failure stands in the ledger, and none as a wrong answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import reasonings
from aiohttp import web
from strange_server import completion, good, strange

from gristmill.lake.accounts.fan import FAMILIES
from gristmill.lake.store.objects import read_table
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.roll_out import Undecided
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

COUNT = 8
RECIPE = {
    "engine": {"kind": "openai", "model": "tiny", "context": 1000},
    "checks": {"symbolic": False},
    "waves": {"first": 2, "then": 2},
    "stop": {"accept": 2, "at_most": 4},
    "attempts": 2,
    "max_undecided_rate": 1.0,
    "scan": {"chunk_records": 3},
    "pairs": False,
}


def solved(body) -> str:
    """A chain that is right, or, by its seed, wrong in its answer, in a step, or without an answer."""
    a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[:2])
    kind = body["seed"] % 4
    if kind == 0:
        return f"There are {a} + {b} = {a + b}.\n#### {a + b + 1}"
    if kind == 1:
        return f"There are {a} + {b} = {a + b + 1}, so less one.\n#### {a + b}"
    return f"There are {a} + {b} = {a + b} mills, by seed {body['seed']}.\n#### {a + b}"


def number_of(body) -> int:
    """Which problem it is; -1: a question of the probe."""
    match = re.search(r"has (\d+) mills", body["messages"][-1]["content"])
    return int(match[1]) if match else -1


async def answers(server, body, request):
    """As a good server, with chains for problems."""
    if number_of(body) < 0:
        return await good(server, body, request)
    return web.json_response(completion(body, solved(body)))


async def half(server, body, request):
    whole = json.dumps(completion(body, solved(body))).encode()
    return web.Response(body=whole[:40], content_type="application/json")


async def nothing(server, body, request):
    await server.gate.wait()
    raise web.HTTPInternalServerError


def status(code: int):
    async def answer(server, body, request):
        return web.Response(status=code)

    return answer


async def garbage(server, body, request):
    return web.Response(text="<html>no</html>")


FAULTS = {0: status(500), 1: status(429), 2: garbage, 3: half, 4: nothing, 5: status(400)}
NAMES = ["server_error", "rate_limited", "garbage", "half_body", "timeout", "refused"]


async def faulty(server, body, request):
    """Problems 0 to 5 meet a fault each, whenever they are asked."""
    return await FAULTS.get(number_of(body), answers)(server, body, request)


@pytest.fixture
def file(tmp_path):
    return reasonings.lines(tmp_path / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])


def run(store, file, server, **recipe):
    endpoint = {"url": server.url, "tries": 1, "first_pause_seconds": 0, "longest_pause_seconds": 0}
    endpoint |= {"timeout_seconds": 0.3, "key_env": "SOME_KEY", "prompt_price": 1.0, "answer_price": 2.0}
    config = reasonings.config([file], run={"hosts": {"endpoint": endpoint}}, **RECIPE | recipe)
    return run_pipeline(config, store, Runner(store, workers=0))


def family(store, dataset="reasoning"):
    manifest = reasonings.latest(store, f"{dataset}.rollouts")
    rows = [row for ref in manifest.ledgers if ref.kind == FAMILIES for row in read_table(store, ref).to_pylist()]
    problems = {row["id"]: row["text"] for ref in manifest.shards for row in read_table(store, ref).to_pylist()}
    for row in rows:
        row["number"] = int(re.search(r"has (\d+) mills", problems[row["parent_id"]])[1])
    return manifest, rows


def test_every_failure_is_in_the_ledger_and_none_is_a_wrong_answer(store, file, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with strange(faulty) as server:
        run(store, file, server)
    manifest, rows = family(store)
    for number, name in enumerate(NAMES):
        own = [row for row in rows if row["number"] == number]
        attempts = 1 if name == "refused" else 2  # what the request itself is to blame for is not tried again
        assert {(row["verdict"], row["reason"], row["verifier"], row["attempt"]) for row in own} == {
            ("undecided", f"engine.{name}", "engine", attempts)
        }
    judged = [row for row in rows if row["number"] > 5]
    assert {row["verdict"] for row in judged} <= {"accepted", "rejected"} and len(judged) >= 4
    assert {row["reason"] for row in judged} <= {None, "maths-numeric.wrong_answer", "steps.false_step"}
    assert {row["engine"] for row in rows} == {"tiny"} and set(server.keys) == {"Bearer sk-secret"}
    statistics = manifest.statistics["rollouts"]
    assert statistics["cost"] == (statistics["prompt_tokens"] + 2 * statistics["tokens"]) / 1e6 > 0
    everything = b"".join(path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file())
    assert b"sk-secret" not in everything and server.url.encode() not in everything


def test_too_many_without_a_verdict_are_no_version_and_the_same_command_tries_them_again(store, file):
    with strange(faulty) as server:
        with pytest.raises(Undecided, match=r"24 of \d+ samples have no verdict.*engine\.") as error:
            run(store, file, server, max_undecided_rate=0.2)
        assert isinstance(error.value, Incomplete), "exit code 5"
        asked = Counter(map(number_of, server.requests))
        with pytest.raises(Undecided):
            run(store, file, server, max_undecided_rate=0.2)
        again = Counter(map(number_of, server.requests))
        assert again[0] == 2 * asked[0], "it was tried as often again"
        assert again[7] == asked[7], "what has a verdict is not asked again"
        server.answer = answers
        run(store, file, server, max_undecided_rate=0.2)
    _, rows = family(store)
    assert Counter(row["verdict"] for row in rows)["undecided"] <= 4, "a refused request is not asked again"
    healed = [row for row in rows if row["number"] < 5]
    assert {row["verdict"] for row in healed} <= {"accepted", "rejected"} and max(r["attempt"] for r in healed) > 4


def test_a_server_that_cannot_be_used_is_refused_by_the_probe(store, file):
    async def same(server, body, request):
        return web.json_response(completion(body, "always this"))

    with strange(same) as server, pytest.raises(BadConfig, match=r"run\.hosts\.endpoint: .*same text with 4 seeds"):
        run(store, file, server)


def test_what_the_probe_made_of_a_server_is_told(store, file):
    async def seedless(server, body, request):
        if number_of(body) < 0:
            return await good(server, body | {"seed": len(server.requests)}, request)
        return web.json_response(completion(body, solved(body)))

    with strange(seedless) as server:
        run(store, file, server)
    (finding,) = family(store)[0].statistics["rollouts"]["findings"]
    assert finding.startswith("seed: another text by the same seed")
