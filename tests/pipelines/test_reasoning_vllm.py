"""The reasoning pipeline with the engine `vllm`: samples of a server that a worker starts, and what is refused."""

from __future__ import annotations

import sys

import pytest
import reasonings
from fake_vllm import VERSION, fake_vllm
from reasonings import family_of, rows_of

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner

COUNT = 6
ENGINE = {"kind": "vllm", "model": "base@v1", "context": 256}


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    store.problems = reasonings.lines(folder / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])
    return store


@pytest.fixture
def fake(tmp_path):
    return fake_vllm(tmp_path / "environment")


def run(lake, python, *args, hosts=None, workers=0, **recipe):
    own = {"vllm": {"python": python, "args": list(args)}, "max_num_seqs": 4}
    config = reasonings.config([lake.problems], run={"hosts": own | (hosts or {})}, **{"engine": ENGINE} | recipe)
    return run_pipeline(config, lake, Runner(lake, workers=workers))


def test_problems_are_solved_by_a_server_that_is_started_for_them(lake, fake):
    run(lake, fake.python, dataset="solved")
    rollouts = reasonings.latest(lake, "solved.rollouts")
    family = family_of(lake, rollouts)
    assert {row["engine"] for row in family} == {f"base@v1 on vLLM {VERSION}"}
    assert {row["verdict"] for row in family} == {"accepted", "rejected"}
    assert len(rows_of(lake, rollouts)) == COUNT and not rollouts.statistics["rollouts"]["findings"]
    assert [(str(ref), ref.role) for ref in rollouts.sources] == [("base@v1", "drawn_by")]
    generate = next(stage for stage in rollouts.stages if stage.name == "generate")
    assert generate.config["engine"]["kind"] == "vllm" and not generate.config["hosts"]


def test_another_machine_that_hosts_it_otherwise_draws_nothing_anew(lake, fake, tmp_path):
    run(lake, fake.python, dataset="hosted")
    other = fake_vllm(tmp_path / "other")
    run(lake, other.python, "--disable-uvicorn-access-log", dataset="elsewhere")
    assert not other.seen, "no server was started"
    digests = [reasonings.latest(lake, f"{name}.rollouts").digest for name in ("hosted", "elsewhere")]
    assert digests[0] == digests[1]


def test_what_it_judges_with_may_be_vllm_too(lake, fake):
    judge = {"kind": "vllm", "model": "base@v1", "context": 256, "max_tokens": 8}
    run(lake, fake.python, dataset="judged", checks={"symbolic": False, "judge": judge})
    sources = [(str(ref), ref.role) for ref in reasonings.latest(lake, "judged.rollouts").sources]
    assert sources == [("base@v1", "drawn_by"), ("base@v1", "judged_by")]


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"engine": ENGINE | {"model": ""}}, r"recipe\.engine\.model is empty"),
        ({"engine": ENGINE | {"model": "gpt2"}}, r"recipe\.engine\.model: 'gpt2' is no exact version"),
        ({"engine": ENGINE | {"model": "math@v1"}}, r"recipe\.engine\.model: math@v1 is no model"),
        ({"engine": ENGINE | {"context": 1 << 20}}, r"the context of base@v1 is"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_anything_is_started(lake, fake, recipe, problem):
    with pytest.raises(BadConfig, match=problem):
        run(lake, fake.python, dataset="refused", **recipe)
    assert not fake.seen


def test_an_interpreter_without_vllm_is_refused_before_anything_is_read(lake):
    with pytest.raises(BadConfig, match=r"run\.hosts\.vllm: python is empty"):
        run(lake, "", dataset="refused")
    with pytest.raises(BadConfig, match=r"run\.hosts\.vllm: python='.*' has no vllm .*pip install vllm"):
        run(lake, sys.executable, dataset="refused")
    assert Versions(lake).latest("refused.rollouts") is None


def test_a_server_that_dies_at_its_start_or_draws_copies_ends_the_run_with_its_reason(lake, fake):
    recipe = {"dataset": "refused", "draws": reasonings.RECIPE["draws"] | {"seed": 77}}  # of which no sample is there
    with pytest.raises(BadConfig, match=r"(?s)run\.hosts\.vllm: vLLM ended at its start.*out of memory, says the fake"):
        run(lake, fake.python, "--fake-dies", **recipe)
    with pytest.raises(BadConfig, match=r"run\.hosts\.vllm: the server draws the same text with 4 seeds"):
        run(lake, fake.python, "--fake-same", **recipe)
