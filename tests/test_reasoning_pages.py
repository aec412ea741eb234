"""docs/reasoning.md and verification.md, given in their order: every command, on few problems and a small model.

A model with random weights solves nothing: its samples are judged by their length (`ByLength`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mixtures
import pytest
import reasonings
from aiohttp import web
from page_commands import ROOT, Walk
from strange_server import Strange, completion, strange

from gristmill.lake.query.query import lineage
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.generate.verifiers import Judging, judging
from gristmill.stages.run.runner import Runner
from gristmill.synth.verify.verdict import Named, Problem, Verdict

MATHS = Named("maths", 1)
WORKED = "48/2 = <<48/2=24>>24 in May. In all <<48+24=72>>72.\n#### 72"
FEW = (
    "--set recipe.engine.context=256 --set recipe.draws.max_tokens=6 --set recipe.max_undecided_rate=0.5"
    " --set run.hosts.max_num_seqs=4 --set run.workers=0 --set recipe.problems.seconds_per_record=null"
)
SHORT = "--set recipe.checks.truncated=true --set recipe.stop.at_most=6"
ROUND = (
    "--set recipe.rounds=1 --set recipe.window=256 --set recipe.training.epochs=null"
    " --set recipe.training.steps=2 --set recipe.training.optim.lr=0.001"
)


class ByLength:
    """Chains of even length are right; the others have another number, as docs/reasoning.md asks to see."""

    id = MATHS.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """By the length of the chain."""
        return MATHS.reject("wrong_answer", f"{len(chain)}") if len(chain) % 2 else MATHS.accept(f"{len(chain)}")


async def poses_and_solves(server: Strange, body: dict[str, Any], request: web.Request) -> web.StreamResponse:
    """Writes a problem for a theorem, and answers it, now and then wrongly."""
    prompt = body["messages"][-1]["content"]
    if "Theorem" in prompt:
        return web.json_response(completion(body, f"Problem: What is {body['seed']} plus three?"))
    asked = re.search(r"What is (\d+) plus three", prompt)
    total = int(asked[1]) + 3 if asked and body["seed"] % 6 != 5 else 0
    return web.json_response(completion(body, f"Counted: {body['seed']}.\n#### {total}"))


def judged(kind: Any, checks: Any) -> Judging:
    """As the pipeline judges, but for problems with an answer."""
    return judging(kind, checks) if kind == "seed" or checks.votes else Judging(ByLength())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which all commands are given; `lake` in it is the lake."""
    folder = tmp_path_factory.mktemp("chains")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "conf").symlink_to(ROOT / "conf")  # a reader is in the checkout
        patch.chdir(folder)
        patch.setenv("GRIST_LAKE", str(folder / "lake"))
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setattr("gristmill.stages.generate.judge.judging", judged)
        yield folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """`base@v1`, `bpe@v1`, and of `web` a third version, with mathematics; files of problems."""
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    mixtures.documents(store, "web", mixtures.texts(5, seed=1))
    pages = [f"Theorem {n}. For all integers x > {n} we have x + {n} = {n} + x. Proof: x = x." for n in (3, 4, 5)]
    mixtures.documents(store, "web", pages)
    reasonings.lines(folder / "gsm8k" / "a.jsonl", [reasonings.problem(i) for i in range(12)])
    worked = {"question": "Natalia sold 48 clips in April, and half as many in May. How many in all?", "answer": WORKED}
    reasonings.lines(folder / "gsm8k_train.jsonl", [worked, reasonings.problem(1)])
    reasonings.lines(folder / "sample" / "reasoning" / "first.jsonl", [reasonings.problem(i) for i in range(20, 28)])
    return store


def _worked(store: Store, folder: Path) -> None:
    """What `base` of conf/train-reasoning-nano.yaml learns from."""
    rows = [reasonings.problem(i) for i in range(100, 112)]
    mixtures.samples(store, folder / "in", "leftovers-held-out", rows, form="pair")
    train = {"dataset": "reasoner-bpe", "sources": ["web@v1", "math@v1"], "train": {"vocab_size": 400}}
    run_pipeline(TokenizerConfig.model_validate({"recipe": train}), store, Runner(store, workers=0))
    mixtures.mix(
        store, {"math@v1": 1}, window=256, max_waste=0.9, dataset="reasoner-worked", tokenizer="reasoner-bpe@v1"
    )


@pytest.fixture(scope="module")
def reasoning_page(store: Store, folder: Path) -> dict[str, str]:
    """What its commands say; the two with which problems are posed ask a server in place of the model."""
    few_steps = [
        f"--set recipe.stages.{stage}.steps=2 --set recipe.stages.{stage}.schedule.warmup=0" for stage in range(4)
    ]
    mixed = "--set recipe.tokenizer=reasoner-bpe@v1 --set recipe.max_waste=0.9"
    with strange(poses_and_solves) as server, pytest.MonkeyPatch.context() as patch:
        asked = f"--set recipe.engine.kind=openai --set run.hosts.endpoint='{{url: {server.url}, key_env: \"\"}}'"
        start = "grist run conf/reasoning.yaml --set recipe."
        walk = Walk(
            "reasoning",
            more={
                "grist run conf/reasoning.yaml": f"{FEW} {SHORT}",
                f"{start}dataset=posed": asked,
                f"{start}inputs='[posed@v1]'": asked,
                "grist run conf/grpo.yaml": f"{FEW} {ROUND}",
                "grist run conf/mixture.yaml": "--set run.workers=0",
                "grist train": " ".join(few_steps),
            },
            instead={"window=256 ...": f"window=256 {mixed} --set recipe.sources='{{first-chains@v1: 1}}'"},
            before={"grist train train-reasoning-nano --set recipe.until=base": lambda: _worked(store, folder)},
        )
        return walk.run(patch)


def test_chains_are_drawn_judged_and_looked_at(reasoning_page: Mapping[str, str], store: Store) -> None:
    """Of problems, of variants of them, and of problems that were written from a page."""
    versions = Versions(store)
    assert [versions.manifest("reasoning", n).form for n in (1, 2)] == ["samples", "samples"]
    assert versions.manifest("evolved.rollouts", 1).dropped.count == 1, "the problem without steps has no variant"
    assert versions.manifest("posed", 1).form == "documents"
    tree = lineage(versions, "reasoning@v2")
    assert "web@v3" in {node.ref for node in _all_of(tree)}
    looked = [output for line, output in reasoning_page.items() if line.split()[1] in ("show", "sample")]
    rollouts, chosen, drawn, wrong = looked
    assert "Thinned out" in chosen or "groups" in chosen.lower()
    assert "accepted" in rollouts and "accepted" in drawn
    assert wrong.startswith("3 of ") and wrong.count("rejected, by maths.wrong_answer") == 3


def test_a_stage_is_trained_when_its_data_are_there(reasoning_page: Mapping[str, str], store: Store) -> None:
    versions = Versions(store)
    assert versions.numbers("reasoner.base") == versions.numbers("reasoner.r1") == [1]
    assert not {"reasoner.r2", "reasoner.r3"} & set(versions.names())
    drawn_by = [str(ref) for ref in versions.manifest("first-chains.rollouts", 1).sources if ref.role == "drawn_by"]
    assert drawn_by == ["reasoner.base@v1"]
    assert {"grpo.rollouts", "grpo.graded", "grpo.windows", "grpo"} <= set(versions.names())


def _all_of(node: Any) -> Iterator[Any]:
    yield node
    for origin in node.origins:
        yield from _all_of(origin)


# A verifier and labels.


def test_an_audit_counts_verdicts_and_lists_what_they_differ_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chains = [("2 + 2 = 4\n#### 4", True), ("2 + 2 = 5\n#### 4", True), ("#### 5", False)]
    rows: list[Any] = [{"question": "2 and 2?", "gold": "4", "chain": chain, "right": right} for chain, right in chains]
    reasonings.lines(tmp_path / "labelled.jsonl", rows)
    answers, both = Walk("verification").run(monkeypatch).values()
    assert "of the accepted are right: 2 of 2" in answers and "of the right are accepted: 2 of 2" in answers
    assert "No disagreements." in answers
    assert "Disagreements: 1" in both and "line 2: labelled right, rejected (steps.false_step)" in both
