"""The reasoning pipeline upon a server that fails: every failure stands in the ledger, and none as a wrong answer."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import reasonings
from aiohttp import web
from solving import RECIPE, answers, family, number_of, solved
from strange_server import completion, good, strange

from gristmill.lake.store.objects import read_table
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.roll_out import Undecided
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.generate.engines.endpoint import OpenAIEngine
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

COUNT = 8


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
SILENT = 4
NAMES = ["server_error", "rate_limited", "garbage", "half_body", "timeout", "refused"]


async def faulty(server, body, request):
    """Problems 0 to 5 meet a fault each, whenever they are asked."""
    return await FAULTS.get(number_of(body), answers)(server, body, request)


@pytest.fixture(autouse=True)
def short_of_patience(monkeypatch):
    """Only a request that is never answered comes to the end of its time, however slow the machine is. -> The problems
    whose requests are such."""
    once, silent = OpenAIEngine._once, {SILENT}

    async def by_problem(self, client, body):
        own = copy.copy(self)
        own.endpoint = replace(self.endpoint, timeout_seconds=0.05 if number_of(body) in silent else 600)
        return await once(own, client, body)

    monkeypatch.setattr(OpenAIEngine, "_once", by_problem)
    return silent


@pytest.fixture
def file(tmp_path):
    return reasonings.lines(tmp_path / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])


def run(store, file, server, **recipe):
    endpoint = {"url": server.url, "tries": 1, "first_pause_seconds": 0, "longest_pause_seconds": 0}
    endpoint |= {"key_env": "SOME_KEY", "prompt_price": 1.0, "answer_price": 2.0}
    config = reasonings.config([file], run={"hosts": {"endpoint": endpoint}}, **RECIPE | recipe)
    return run_pipeline(config, store, Runner(store, workers=0))


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


def test_too_many_without_a_verdict_are_no_version_and_the_same_command_tries_them_again(
    store, file, short_of_patience
):
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
        short_of_patience.clear()
        run(store, file, server, max_undecided_rate=0.2)
    _, rows = family(store)
    assert Counter(row["verdict"] for row in rows)["undecided"] <= 4, "a refused request is not asked again"
    healed = [row for row in rows if row["number"] < 5]
    assert {row["verdict"] for row in healed} <= {"accepted", "rejected"} and max(r["attempt"] for r in healed) > 4


def test_what_no_attempt_can_decide_fails_the_run_and_is_not_tried_again(store, tmp_path):
    rows = [reasonings.problem(i) for i in range(4)] + [
        reasonings.problem(i) | {"answer": "whatever \\\\frac{she} likes best"} for i in range(4, 6)
    ]
    problems = reasonings.lines(tmp_path / "in.jsonl", rows)
    with strange(answers) as server:
        for _ in range(2):
            with pytest.raises(GateFailed, match=r"samples have no verdict.*\n.*end like the last.*max_undecided_rate"):
                run(store, problems, server, max_undecided_rate=0.2)
        asked = Counter(map(number_of, server.requests))
        assert asked[4] == asked[5] == 4, "once each"
        run(store, problems, server, max_undecided_rate=0.9)
    _, rows = family(store)
    assert {(r["verdict"], r["attempt"]) for r in rows if r["number"] > 3} == {("undecided", 1)}


def test_a_server_that_cannot_be_used_is_refused_by_the_probe(store, file):
    async def same(server, body, request):
        return web.json_response(completion(body, "always this"))

    with strange(same) as server, pytest.raises(BadConfig, match=r"run\.hosts\.endpoint: .*same text with 4 seeds"):
        run(store, file, server)


def test_a_server_that_is_away_is_waited_for_by_another_run(store, file):
    with strange(status(503)) as server:
        with pytest.raises(Incomplete, match="does not answer a simple question: server_error: HTTP 503"):
            run(store, file, server)
        server.answer = answers
        assert run(store, file, server).new


def test_what_the_probe_made_of_a_server_is_told(store, file):
    async def seedless(server, body, request):
        if number_of(body) < 0:
            return await good(server, body | {"seed": len(server.requests)}, request)
        return web.json_response(completion(body, solved(body)))

    with strange(seedless) as server:
        run(store, file, server)
    (finding,) = family(store)[0].statistics["rollouts"]["findings"]
    assert finding.startswith("seed: another text by the same seed")


# Other sources than word problems


def sources(store, tmp_path, rows, server, **recipe):
    """A run over rows of another form; -> the rows of its rollouts."""
    file = reasonings.lines(tmp_path / "rows.jsonl", rows)
    run(store, file, server, **recipe)
    manifest = reasonings.latest(store, "reasoning.rollouts")
    return [row for ref in manifest.shards for row in read_table(store, ref).to_pylist()]


def replying_with(texts):
    """Answers each question by the text that stands behind a word of it, and the probe as a good server."""

    async def answer(server, body, request):
        question = body["messages"][-1]["content"]
        text = next((text for word, text in texts.items() if word in question), None)
        return await good(server, body, request) if text is None else web.json_response(completion(body, text))

    return answer


def test_choices_are_posed_with_their_options_and_judged_by_them(store, tmp_path):
    rows = [
        {"question": "What grinds grain, a beak or a mill?", "choices": ["a beak", "a mill"], "answer": "B"},
        {"question": "What floats?", "choices": {"text": ["a stone", "a boat"], "label": ["1", "2"]}, "answer": "2"},
        {"question": "What burns?", "choices": ["ice", "wood"], "answer": "coal"},
        {"question": "What sings?", "choices": ["a lark"], "answer": 0},
    ]
    texts = {"grinds": "Grain is for mills.\nAnswer: B", "floats": "Boats sink.\nAnswer: A"}
    with strange(replying_with(texts)) as server:
        problems = sources(store, tmp_path, rows, server, problems={"kind": "choice"})
        asked = {body["messages"][-1]["content"] for body in server.requests}
    assert "What floats?\nA. a stone\nB. a boat" in asked
    assert [(row["gold"], row["accepted"] > 0, row["rejected"] > 0) for row in problems] == [
        ("B", True, False),
        ("B", False, True),
    ]
    dropped = {reason for row in reasonings.latest(store, "reasoning.rollouts").funnel for reason in row.dropped}
    assert dropped == {"problems.unknown_choice", "problems.no_choices"}


def test_programs_are_run_against_tests_and_the_isolation_is_told(store, tmp_path):
    rows = [
        {"prompt": f"def {name}(n):\n    '''Doubles n.'''\n", "entry_point": name, "test": "assert candidate(2) == 4"}
        for name in ("twice", "thrice")
    ]
    rows = [row | {"test": f"def check(candidate):\n    {row['test']}\n\ncheck({row['entry_point']})"} for row in rows]
    rows.append({"prompt": "def f(n):\n", "test": []})
    texts = {"twice": "```python\ndef twice(n):\n    return 2 * n\n```"}
    texts["thrice"] = "```python\ndef thrice(n):\n    return 3 * n\n```"
    with strange(replying_with(texts)) as server:
        recipe = {"problems": {"kind": "code"}, "checks": {"isolation": "process"}}
        problems = sources(store, tmp_path, rows, server, **recipe)
    assert [(row["entry_point"], row["accepted"], row["rejected"]) for row in problems] == [
        ("twice", 4, 0),  # the same program each time: one chain
        ("thrice", 0, 4),
    ]
    assert {sample["reason"] for sample in problems[1]["samples"]} == {"code.failed_test"}
    (reached,) = reasonings.latest(store, "reasoning.rollouts").statistics["rollouts"]["isolation"]
    assert reached in ("process", "restricted", "namespaces")


def test_what_is_held_out_is_not_asked_and_not_written_down(store, file, tmp_path):
    import mixtures

    texts = [reasonings.problem(2)["question"], "the quick brown fox jumps over the lazy dog while nine mills grind on"]
    # the end of a question, then a chain
    texts.append("And he buys 8 more. How many are there? There are 7 + 8 = 15 mills.")
    mixtures.documents(store, "held", texts)

    async def leaking(server, body, request):
        if number_of(body) == 5:
            return web.json_response(completion(body, f"Recall: {texts[1]}.\n#### 11"))
        return await answers(server, body, request)

    with strange(leaking) as server:
        run(store, file, server, decontaminate={"against": ["held@v1"]})
        asked = {number_of(body) for body in server.requests}
    assert asked == {-1, 0, 1, 3, 4, 5, 6, 7}
    rollouts = reasonings.latest(store, "reasoning.rollouts")
    assert {reason: n for row in rollouts.funnel for reason, n in row.dropped.items()} == {"contaminated.problem": 1}
    chains = reasonings.latest(store, "reasoning")
    drawn = [(row["text"], sample) for row in reasonings.rows_of(store, rollouts) for sample in row["samples"]]
    right = [(question, sample["text"]) for question, sample in drawn if sample["verdict"] == "accepted"]
    given_away = [chain for question, chain in right if texts[1] in chain or "he buys 8 more" in question]
    assert chains.statistics["selection"]["reasons"]["contaminated"] == len(given_away) >= 4
    kept = [row["text"] for ref in chains.shards for row in read_table(store, ref).to_pylist()]
    assert kept and not any("quick brown fox" in text or "he buys 8 more" in text for text in kept)
    assert [(str(ref), ref.role) for ref in chains.sources][1] == ("held@v1", "held_out")
