"""Problems that a model writes from pages, and that are kept where its answers agree: two runs, and a lineage."""

from __future__ import annotations

import json
import re

import mixtures
import pytest
import reasonings
from aiohttp import web
from drafts import draft
from strange_server import completion, good, strange
from typer.testing import CliRunner

from gristmill.lake.query.query import lineage
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.settings.config import BadConfig
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


SEEDS = {"kind": "seed", "question": "text", "least_maths": 20.0, "seconds_per_record": None}
VOTED = {"question": "text", "answer": None, "seconds_per_record": None}


def pose(store, server):
    """Two problems of each page of `pages@v1`, and chains of those on which answers agree."""
    run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})
    votes = {"votes": {"at_least": 5}}
    run(store, server, ["posed@v1"], dataset="solved", problems=VOTED, checks=votes, pairs=False)


def above(node):
    """Every version of a lineage."""
    return {node.ref, *(ref for origin in node.origins for ref in above(origin))}


def test_problems_from_pages_are_kept_where_answers_agree(store, tmp_path):
    lake = str(tmp_path / "lake")
    mixtures.documents(store, "pages", [*PAGES, NEWS])
    with strange(answer) as server:
        pose(store, server)
        asked = [body["messages"][-1]["content"] for body in server.requests]
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
    question = next(iter(questions))
    answered = CliRunner().invoke(app, ["why", question, "--lake", lake, "--json"])
    assert answered.exit_code == 0, answered.output
    judges = {child["verifier"] for child in json.loads(answered.stdout)["children"] if child["id"] == question}
    assert judges == {"wording@1"}, "it is a sample of its page, and has samples of its own"


def test_lineage_and_takedowns_go_from_a_page_to_the_last_chain(store, tmp_path):
    pages = {row["text"]: row["id"] for row in reasonings.rows_of(store, mixtures.documents(store, "pages", PAGES))}
    with strange(answer) as server:
        pose(store, server)
    versions = Versions(store)
    reached = {"solved@v1", "solved.rollouts@v1", "posed@v1", "posed.rollouts@v1", "pages@v1"}
    assert above(lineage(versions, "solved@v1")) == reached
    seeds = reasonings.latest(store, "posed.rollouts")
    assert {row["id"] for row in reasonings.rows_of(store, seeds)} == set(pages.values()), "a page stays that record"
    assert seeds.inputs[0].names == ("pages@v1 shard 0",)
    before = {row["text"] for row in reasonings.rows_of(store, reasonings.latest(store, "posed"))}

    gone = Suppression(ids=frozenset({pages[PAGES[0]]}))
    forget(versions, plan_forget(versions, gone), "request 1")
    assert {
        name: list(versions.withdrawn(name)) for name in ("posed.rollouts", "solved.rollouts", "posed", "solved")
    } == {
        "posed.rollouts": [1],
        "solved.rollouts": [1],
        "posed": [1],
        "solved": [1],
    }
    left = {row["text"] for row in reasonings.rows_of(store, reasonings.latest(store, "posed"))}
    assert left == {text for text in before if " plus 3 plus" not in text} != before
    chains = reasonings.rows_of(store, reasonings.latest(store, "solved"))
    assert chains and not any(" plus 3 plus" in row["text"] for row in chains)
    assert not verify(store, ["pages", "posed", "solved"], deep=True)
    with strange(answer) as server, pytest.raises(BadConfig, match=r"recipe\.inputs: .*pages@v1 was withdrawn"):
        pose(store, server)


def test_a_version_with_a_damaged_shard_is_no_input(store):
    """Of the right size, and still a table that can be read: its rows are no records of this version."""
    pages = mixtures.documents(store, "pages", PAGES)
    (shard,) = pages.shards
    data = store.get(shard.key)
    at = data.index(b"Theorem 3") + len(b"Theorem ")
    with strange(answer) as server:
        store.put(shard.key, data[:at] + b"9" + data[at + 1 :])
        with pytest.raises(BadConfig, match=rf"recipe\.inputs: pages@v1 shard 0 .{shard.sha256[:12]}.*grist verify"):
            run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})
        store.delete(shard.key)
        with pytest.raises(BadConfig, match=r"recipe\.inputs: .*cannot be read"):
            run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})
        assert not server.requests and Versions(store).names() == ["pages"]
        store.put(shard.key, data)
        run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})


def test_a_version_that_kept_nothing_is_no_input(store):
    """As a file without a record."""
    nothing = draft("pages", "nothing", ["ab" * 32])
    Versions(store).commit(nothing.model_copy(update={"kept": nothing.dropped, "dropped": nothing.kept}))
    with strange(answer) as server:
        with pytest.raises(GateFailed, match=r"recipe\.inputs: pages@v1: no record was kept.*allow_empty"):
            run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})
        assert Versions(store).names() == ["pages"]


def test_a_version_of_something_else_is_no_input(store, tmp_path):
    mixtures.documents(store, "pages", PAGES)
    with strange(answer) as server:
        run(store, server, ["pages@v1"], dataset="posed", problems=SEEDS, prompt={"template": TEMPLATE})
        with pytest.raises(
            BadConfig, match=r"posed\.rollouts@v1 holds problems with samples; of versions, documents and"
        ):
            run(store, server, ["posed.rollouts@v1"], dataset="again", problems=SEEDS, prompt={"template": TEMPLATE})
        with pytest.raises(BadConfig, match=r"read\.id='key': pages@v1 has the ids of its records in 'id'"):
            read = SEEDS | {"read": {"id": "key"}}
            run(store, server, ["pages@v1"], dataset="again", problems=read, prompt={"template": TEMPLATE})


def test_seeds_need_words_that_say_what_to_write(tmp_path):
    with pytest.raises(ValueError, match=r"prompt\.template: say what to write from"):
        reasonings.config([tmp_path / "x.jsonl"], problems={"kind": "seed"})
