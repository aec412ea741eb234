"""Solvers of word problems in place of a model, for runs of the reasoning pipeline: right, wrong, or wrong in a step.
What they answer follows from the request alone, whoever brings it."""

from __future__ import annotations

import re
from typing import Any

import reasonings
from aiohttp import web
from strange_server import completion, good

from gristmill.lake.accounts.fan import FAMILIES
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.manifest import Manifest

RECIPE: dict[str, Any] = {
    "engine": {"kind": "openai", "model": "tiny", "context": 1000},
    "checks": {"symbolic": False},
    "waves": {"first": 2, "then": 2},
    "stop": {"accept": 2, "at_most": 4},
    "attempts": 2,
    "max_undecided_rate": 1.0,
    "scan": {"chunk_records": 3},
    "pairs": False,
}


def solved(body: dict[str, Any]) -> str:
    """A chain that is right, or, by its seed, wrong in its answer, in a step, or without an answer."""
    a, b = map(int, re.findall(r"\d+", body["messages"][-1]["content"])[:2])
    kind = body["seed"] % 4
    if kind == 0:
        return f"There are {a} + {b} = {a + b}.\n#### {a + b + 1}"
    if kind == 1:
        return f"There are {a} + {b} = {a + b + 1}, so less one.\n#### {a + b}"
    return f"There are {a} + {b} = {a + b} mills, by seed {body['seed']}.\n#### {a + b}"


def number_of(body: dict[str, Any]) -> int:
    """Which problem it is; -1: a question of the probe."""
    match = re.search(r"has (\d+) mills", body["messages"][-1]["content"])
    return int(match[1]) if match else -1


async def answers(server: Any, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    """As a good server, with chains for problems."""
    if number_of(body) < 0:
        return await good(server, body, request)
    return web.json_response(completion(body, solved(body)))


def family(store: Store, dataset: str = "reasoning") -> tuple[Manifest, list[dict[str, Any]]]:
    """The newest rollouts, and their ledger of samples, each with the `number` of its problem."""
    manifest = reasonings.latest(store, f"{dataset}.rollouts")
    rows = [row for ref in manifest.ledgers if ref.kind == FAMILIES for row in read_table(store, ref).to_pylist()]
    problems = {row["id"]: row["text"] for ref in manifest.shards for row in read_table(store, ref).to_pylist()}
    for row in rows:
        match = re.search(r"has (\d+) mills", problems[row["parent_id"]])
        assert match is not None
        row["number"] = int(match[1])
    return manifest, rows
