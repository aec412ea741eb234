"""Problems that a model writes from pages, and that are kept where its answers agree: two runs, and a lineage."""

from __future__ import annotations

import json
import re

import mixtures
import pytest
import reasonings
from aiohttp import web
from strange_server import completion, good, strange
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.run.runner import Runner

NEWS = "The mill by the river was sold on Friday, and its new owner wants to open a bakery in it next year."
PAGES = [f"Theorem {n}. For all integers x > {n} we have x + {n} = {n} + x. Proof: x = x." for n in (3, 4, 5)]
TEMPLATE = "Write a problem about this page. Begin it with `Problem:`.\n\n{question}"
ENGINE = {"kind": "openai", "model": "writer", "context": 2000}


async def answer(server, body, request):
    """Writes a problem for a page; to one about four it gives another answer each time."""
    prompt = body["messages"][-1]["content"]
    if page := re.search(r"Theorem (\d)", prompt):
        if body["seed"] % 5 == 0:
            return web.json_response(completion(body, "I cannot think of one."))
        return web.json_response(completion(body, f"Problem: What is {body['seed']} plus {page[1]} plus nothing?"))
    if asked := re.match(r"What is (\d+) plus (\d) plus", prompt):
        known = int(asked[1]) + int(asked[2]) if asked[2] != "4" else body["seed"]
        return web.json_response(completion(body, f"By counting, draw {body['seed']}.\n#### {known}"))
    return await good(server, body, request)


def run(store, server, inputs, **recipe):
    hosts = {"hosts": {"endpoint": {"url": server.url, "key_env": ""}}}
    given = {"engine": ENGINE, "stop": {"accept": 2, "at_most": 5}, "waves": {"first": 5, "then": 2}}
    config = reasonings.config(inputs, run=hosts, **given | {"max_undecided_rate": 0.0} | recipe)
    run_pipeline(config, store, Runner(store, workers=0))


def checked_out(lake: str, version: str, folder) -> list:
    result = CliRunner().invoke(app, ["checkout", version, str(folder), "--lake", lake])
    assert result.exit_code == 0, result.output
    return sorted(folder.rglob("*.parquet"))


def test_problems_from_pages_are_kept_where_answers_agree(store, tmp_path):
    lake = str(tmp_path / "lake")
    mixtures.documents(store, "pages", [*PAGES, NEWS])
    with strange(answer) as server:
        seeds = {"kind": "seed", "question": "text", "least_maths": 20.0, "seconds_per_record": None}
        pages = checked_out(lake, "pages@v1", tmp_path / "pages")
        run(store, server, pages, dataset="posed", problems=seeds, prompt={"template": TEMPLATE})
        asked = [body["messages"][-1]["content"] for body in server.requests]
        posed = checked_out(lake, "posed@v1", tmp_path / "posed")
        voted = {"question": "text", "answer": None, "seconds_per_record": None}
        run(store, server, posed, dataset="solved", problems=voted, checks={"votes": {"at_least": 5}}, pairs=False)
    assert not any("bakery" in prompt for prompt in asked)
    rollouts = reasonings.latest(store, "posed.rollouts")
    assert {reason: n for row in rollouts.funnel for reason, n in row.dropped.items()} == {"problems.no_maths": 1}
    version = reasonings.latest(store, "posed")
    questions = {row["id"]: row for row in reasonings.rows_of(store, version)}
    assert version.form == "documents" and len(questions) == 6, "two of each page"
    assert version.statistics["selection"]["groups"], "what it did to groups of seeds is told too"
    seed_of = {row["id"]: row["text"] for row in reasonings.rows_of(store, rollouts)}
    for row in questions.values():
        number = re.search(r"Theorem (\d)", seed_of[row["parent_id"]])[1]
        assert row["text"].endswith(f"plus {number} plus nothing?") and "Problem" not in row["text"]
        assert row["source"] == f"posed:{row['parent_id']}:{row['sample']}"
    chains = reasonings.rows_of(store, reasonings.latest(store, "solved"))
    kept = {row["source"] for row in chains}
    assert kept == {row["source"] for row in questions.values() if " plus 4 plus" not in row["text"]}
    reasons = reasonings.latest(store, "solved.rollouts").statistics["rollouts"]["reasons"]
    assert reasons == {"votes.no_agreement": 10}
    answered = CliRunner().invoke(app, ["why", next(iter(questions)), "--lake", lake, "--json"])
    assert answered.exit_code == 0 and json.loads(answered.stdout)["children"][0]["verifier"] == "wording@1"


def test_seeds_need_words_that_say_what_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"prompt\.template: say what to write from"):
        reasonings.config([tmp_path / "x.jsonl"], problems={"kind": "seed"})
