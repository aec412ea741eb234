"""Problems that no rule can judge: right is what most samples agree on, or what a model says."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest
import reasonings
from aiohttp import web
from strange_server import completion, good, strange

from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.roll_out import Undecided
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner

RECIPE = {
    "engine": {"kind": "openai", "model": "tiny", "context": 1000},
    "waves": {"first": 5, "then": 5},
    "stop": {"accept": 4, "at_most": 10},
    "attempts": 2,
    "max_undecided_rate": 0.0,
}
HERE = {"seconds_per_record": None}  # no child process
VOTED = {"problems": {"answer": None} | HERE, "checks": {"symbolic": False, "votes": {"at_least": 5}}}
FIVE = {"accept": 4, "at_most": 5}
# What a server answers to each problem in turn, whatever it is asked for; `!`: it fails.
ANSWERS = {
    "agreed": ["7", "7.0", "8", "7", "7", "6", "7", "7"],
    "split": ["1", "2", "3", "4", "5"],
    "cut": ["5", "5", "5 tonnes, cut", "6", "6"],
}


def scripted(answers: dict[str, list[str]]):
    """The answers of each problem, in the order in which they are asked for; then the last one again."""
    came: Counter[str] = Counter()

    async def answer(server, body, request):
        match = re.match(r"Problem (\w+)", body["messages"][-1]["content"])
        if match is None:
            return await good(server, body, request)
        own = answers[match[1]]
        text = own[min(came[match[1]], len(own) - 1)]
        came[match[1]] += 1
        if text == "!":
            return web.Response(status=500)
        chain = f"Thought number {came[match[1]]}.\n#### {text.removesuffix(', cut')}"
        return web.json_response(completion(body, chain, finish="length" if "cut" in text else "stop"))

    return answer, came


def run(store, tmp_path, server, names, gold="", run=None, **recipe):
    rows = [{"question": f"Problem {name}: how many?", "answer": gold} for name in names]
    file = reasonings.lines(tmp_path / "problems.jsonl", rows)
    endpoint = {"url": server.url, "tries": 1, "first_pause_seconds": 0, "longest_pause_seconds": 0, "key_env": ""}
    hosts = {"hosts": {"endpoint": endpoint | {"in_flight": 1}}, **(run or {})}
    config = reasonings.config([file], run=hosts, **RECIPE | {"pairs": False} | recipe)
    run_pipeline(config, store, Runner(store, workers=0))


def samples_of(store):
    """Name of a problem -> its samples, as its row has them; and the rows of the ledger by id."""
    manifest = reasonings.latest(store, "reasoning.rollouts")
    rows = reasonings.rows_of(store, manifest)
    samples = {re.match(r"Problem (\w+)", row["text"])[1]: row["samples"] for row in rows}
    return samples, {row["id"]: row for row in reasonings.family_of(store, manifest)}


# Votes


def test_right_is_what_most_of_the_first_samples_agree_on(store, tmp_path):
    answer, came = scripted(ANSWERS)
    with strange(answer) as server:
        run(store, tmp_path, server, ["agreed", "split", "cut"], **VOTED)
    samples, ledger = samples_of(store)
    assert [sample["verdict"][0] for sample in samples["agreed"]] == ["a", "a", "r", "a", "a"]
    assert {sample["verifier"] for sample in samples["agreed"]} == {
        "votes@1>maths-numeric@4+steps@1",
        "votes@1>maths-numeric@4",
    }
    assert ledger[samples["agreed"][2]["id"]]["reason"] == "maths-numeric.wrong_answer"
    for name, votes in (("split", 1), ("cut", 2)):  # what was cut off votes for nothing
        own = [sample for sample in samples[name] if sample["reason"] != "engine.truncated"]
        assert came[name] == 5, "who does not agree is asked no more"
        assert {(sample["verdict"], sample["reason"]) for sample in own} == {("undecided", "votes.no_agreement")}
        assert ledger[own[0]["id"]]["value"] == f"{votes} of 5 samples agree"
    chains = reasonings.latest(store, "reasoning")
    assert {row["parent_id"] for row in reasonings.rows_of(store, chains)} == {
        ledger[samples["agreed"][0]["id"]]["parent_id"]
    }


def test_a_vote_waits_for_samples_that_were_lost(store, tmp_path):
    """Of five one is lost, and three agree: that is most of five already. With two it is not known."""
    answer, _ = scripted({"late": ["3", "!", "3", "4", "3"]} | {"open": ["3", "!", "3", "4", "5", "3"]})
    with strange(answer) as server:
        run(store, tmp_path, server, ["late", "open"], **VOTED, stop=FIVE)
    samples, ledger = samples_of(store)
    lost = samples["open"][1]
    assert (lost["verdict"], ledger[lost["id"]]["attempt"]) == ("accepted", 2)
    assert Counter(sample["verdict"] for sample in samples["open"])["accepted"] == 3
    assert samples["late"][0]["verdict"] == "accepted"


def test_a_vote_that_stays_open_is_tried_again(store, tmp_path):
    answer, _ = scripted({"open": ["3", "!", "3", "4", "5", "!", "!", "3"]})
    with strange(answer) as server:
        with pytest.raises(Undecided, match=r"votes\.open"):
            run(store, tmp_path, server, ["open"], **VOTED, stop=FIVE)
        run(store, tmp_path, server, ["open"], **VOTED, stop=FIVE)
    samples, _ = samples_of(store)
    assert Counter(sample["verdict"] for sample in samples["open"])["accepted"] == 3


def test_nothing_is_drawn_beyond_a_vote_that_stays_open(store, tmp_path):
    answer, came = scripted({"open": ["3", "!", "3", "4", "5", "!", "3"], "agreed": ["7"]})
    with strange(answer) as server:
        run(store, tmp_path, server, ["open", "agreed"], **VOTED, max_undecided_rate=0.9)
        samples, _ = samples_of(store)
        assert came["open"] == 6, "the first five, and the lost one once more"
        assert Counter(sample["verdict"] for sample in samples["open"]) == {"undecided": 5}


def test_choices_are_voted_on_by_option(store, tmp_path):
    texts = ["B", "a mill", "(B)", "A", "both A and B"]

    async def answer(server, body, request):
        if "grinds" not in body["messages"][-1]["content"]:
            return await good(server, body, request)
        return web.json_response(completion(body, f"Answer: {texts[len(server.requests) % 5]}"))

    rows = [{"question": "What grinds grain?", "choices": ["a beak", "a mill"]}]
    file = reasonings.lines(tmp_path / "choices.jsonl", rows)
    with strange(answer) as server:
        hosts = {"hosts": {"endpoint": {"url": server.url, "in_flight": 1, "key_env": ""}}}
        recipe = RECIPE | VOTED | {"problems": {"kind": "choice", "answer": None} | HERE, "pairs": False}
        run_pipeline(reasonings.config([file], run=hosts, **recipe), store, Runner(store, workers=0))
    (row,) = reasonings.rows_of(store, reasonings.latest(store, "reasoning.rollouts"))
    verdicts = defaultdict(set)
    for sample in row["samples"][:5]:
        verdicts[sample["verdict"]].add(sample["text"].removeprefix("Answer: "))
    assert verdicts == {"accepted": {"B", "a mill", "(B)"}, "rejected": {"A", "both A and B"}}


# A model as the judge


def judging(at_least: int):
    """A server that draws and judges; rulings wait until so many are asked for side by side."""

    async def answer(server, body, request):
        prompt = body["messages"][-1]["content"]
        if not prompt.startswith("Judge whether"):
            if prompt.startswith("Problem"):
                texts = ("none at all", "not one mill", "some of them", "none")
                return web.json_response(completion(body, f"So:\n#### {texts[body['seed'] % 4]}"))
            return await good(server, body, request)
        assert body["model"] == "critic" and body["temperature"] < 0.5
        if server.under_way >= at_least:
            server.gate.set()
        await server.gate.wait()
        ruling = "wrong" if "#### some" in prompt else "right"
        return web.json_response(completion(body, f"I compare.\nVERDICT: {ruling}"))

    return answer


JUDGED = {
    "checks": {"symbolic": False, "judge": {"kind": "openai", "model": "critic", "context": 1000, "max_tokens": 50}}
}


def test_a_model_judges_what_no_rule_can_compare(store, tmp_path):
    names = ["one", "two", "three"]
    with strange(judging(at_least=4)) as server:
        there = {"judge": {"endpoint": {"url": server.url, "in_flight": 8, "key_env": ""}}}
        run(store, tmp_path, server, names, gold="the empty set", run=there, **JUDGED)
    samples, ledger = samples_of(store)
    every = [sample for name in names for sample in samples[name]]
    assert {"accepted", "rejected"} == {sample["verdict"] for sample in every}
    for sample in every:
        right = "some" not in sample["text"]
        judge = "judge:critic@1"
        assert sample["verdict"] == ("accepted" if right else "rejected")
        assert sample["verifier"] == (f"maths-numeric@4>{judge}+steps@1" if right else judge)
        assert sample["reason"] == (None if right else "judge.wrong_answer")
    judge_took = reasonings.latest(store, "reasoning.rollouts").statistics["rollouts"]["judge"]
    requests = judge_took["requests"]
    assert (judge_took["tokens"], judge_took["prompt_tokens"]) == (5 * requests, 7 * requests) and judge_took[
        "cost"
    ] is None
    assert requests >= len(every), "some are surplus"
    assert any("VERDICT: wrong" in str(row["value"]) for row in ledger.values())


def test_a_judge_that_fails_decides_nothing(store, tmp_path):
    answer = judging(at_least=1)

    async def failing(server, body, request):
        if body["messages"][-1]["content"].startswith("Judge whether"):
            return web.Response(status=503)
        return await answer(server, body, request)

    with strange(failing) as server, pytest.raises(Undecided, match=r"judge\.engine_failed"):
        run(store, tmp_path, server, ["one"], gold="the empty set", **JUDGED)


def test_an_unreadable_ruling_is_drawn_anew(store, tmp_path):
    """A server says the same to the same prompt and seed."""
    answer, first = judging(at_least=1), dict[str, int]()

    async def mumbling(server, body, request):
        prompt = body["messages"][-1]["content"]
        if prompt.startswith("Judge whether") and first.setdefault(prompt, body["seed"]) == body["seed"]:
            return web.json_response(completion(body, "Well. VERDICT: perhaps"))
        return await answer(server, body, request)

    with strange(mumbling) as server:
        run(store, tmp_path, server, ["one"], gold="the empty set", **JUDGED)
    samples, ledger = samples_of(store)
    judged = [sample for sample in samples["one"] if "judge" in sample["verifier"]]
    assert judged and {sample["verdict"] for sample in judged} <= {"accepted", "rejected"}
    assert {ledger[sample["id"]]["attempt"] for sample in judged} == {2}


def test_what_a_judge_will_never_take_is_no_reason_to_run_again(store, tmp_path):
    answer = judging(at_least=1)

    async def short(server, body, request):
        if not body["messages"][-1]["content"].startswith("Judge whether"):
            return await answer(server, body, request)
        return web.json_response({"error": {"message": "maximum context length"}}, status=400)

    with strange(short) as server, pytest.raises(GateFailed, match=r"judge\.engine_refused"):
        run(store, tmp_path, server, ["one"], gold="the empty set", **JUDGED)


def test_a_judge_that_refuses_everybody_is_a_wrong_setting(store, tmp_path):
    async def refusing(server, body, request):
        if body["model"] == "critic":
            return web.Response(status=401)
        return await good(server, body, request)

    with strange(refusing) as server, pytest.raises(BadConfig, match=r"run\.judge\.endpoint, or run\.hosts\.endpoint"):
        run(store, tmp_path, server, ["one"], gold="the empty set", **JUDGED)


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (
            {"problems": {"answer": None}},
            "problems.answer=None: a field with the gold answer; or null, with",
        ),
        ({"checks": {"votes": {"at_least": 3}}}, "problems.answer='answer'"),
        (VOTED | {"stop": {"accept": 2, "at_most": 4}}, "checks.votes.at_least=5: so many samples vote"),
        ({"problems": {"answer": None}, "checks": {"votes": {"share": 0.4}}}, "votes.share=0.4: 0.5 or more"),
        ({"problems": {"kind": "code"}, "checks": {"judge": {"model": "m"}}}, "programs are judged by their tests"),
        ({"checks": {"judge": {"max_tokens": 5000, "model": "m"}}}, "max_tokens=5000: less than context=4096"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, recipe, problem):
    file = reasonings.lines(tmp_path / "problems.jsonl", [reasonings.problem(1)])
    with pytest.raises(ValueError, match=re.escape(problem)):
        reasonings.config([file], **recipe)
