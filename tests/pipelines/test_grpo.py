"""The grpo pipeline: rounds of samples, advantages, windows and a policy; the same versions whatever was killed."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from itertools import chain, pairwise

import numpy as np
import pytest
import reasonings
import torch
from mixtures import mix
from reasonings import latest, rows_of
from training import stage, stop_at, train

from gristmill.lake.query.lineage import walk
from gristmill.lake.query.query import lineage
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.grpo import GrpoConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.generate.share import TakeShare
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.models.references import ADVANTAGES, TOKENS
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly
from gristmill.synth.advantages import group_advantages

COUNT, GROUP, ROUNDS = 12, 4, 2
DATASETS = ("grpo.rollouts", "grpo.graded", "grpo.windows", "grpo")
TRAINING = {"batch": 4, "steps": 3, "optim": {"lr": 1e-3, "weight_decay": 0.0}, "beta": 0.1}


def config(lake, run=None, **recipe):
    kept = ("draws", "scan", "max_undecided_rate", "checks")
    given = {name: reasonings.RECIPE[name] for name in kept}
    given |= {"inputs": [str(lake.problems)], "rounds": ROUNDS, "group": GROUP, "window": 128, "training": TRAINING}
    given |= {"engine": {"model": "base@v1", "tokenizer": "bpe@v1", "context": 256}}
    return GrpoConfig.model_validate({"recipe": given | recipe, "run": {"hosts": {"max_num_seqs": 8}, **(run or {})}})


def learn(lake, runner=None, **recipe):
    return run_pipeline(config(lake, **recipe), lake, runner or Runner(lake, workers=0))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The folder of a lake with a model and its tokenizer, and problems."""
    folder = tmp_path_factory.mktemp("grpo")
    reasonings.lake(open_store(str(folder / "lake")), folder)
    reasonings.lines(folder / "problems.jsonl", [reasonings.problem(i) for i in range(COUNT)])
    return folder


def copied(bare, folder):
    shutil.copytree(bare / "lake", folder)
    store = open_store(str(folder))
    store.problems = bare / "problems.jsonl"
    return store


def test_texts_to_write_problems_from_are_refused():
    seeds, prompt = {"kind": "seed"}, {"template": "Write a problem. {question}"}
    with pytest.raises(ValueError, match=r"problems\.kind='seed': a policy is rewarded for right answers"):
        GrpoConfig.model_validate({"recipe": {"problems": seeds, "prompt": prompt}})


@pytest.fixture(autouse=True)
def parity(monkeypatch):
    reasonings.by_parity(monkeypatch)


@pytest.fixture(scope="module")
def learned(bare, tmp_path_factory):
    """A lake in which both rounds are done."""
    lake = copied(bare, tmp_path_factory.mktemp("learned") / "lake")
    with pytest.MonkeyPatch.context() as patch:
        reasonings.by_parity(patch)
        assert learn(lake).new
    return lake


def test_a_round_is_four_versions_and_the_next_one_draws_with_its_policy(learned):
    versions = Versions(learned)
    assert all(versions.numbers(dataset) == [1, 2] for dataset in DATASETS)
    for number, policy in ((1, "base@v1"), (2, "grpo@v1")):
        rollouts, graded, windows, model = (versions.resolve(f"{dataset}@v{number}") for dataset in DATASETS)
        assert {str(ref): ref.role for ref in rollouts.sources}[policy] == "drawn_by"
        assert [(str(ref), ref.role) for ref in graded.sources] == [(f"grpo.rollouts@v{number}", "rolled_out")]
        assert ("mixed", f"grpo.graded@v{number}") in {(ref.role, str(ref)) for ref in windows.sources}
        assert {(ref.role, str(ref)) for ref in model.sources} == {
            ("trained_on", f"grpo.windows@v{number}"),
            ("init_from.language", policy),
            ("reference", "base@v1"),
            ("tokenizer", "bpe@v1"),
        }
    assert "base@v1" in {node.ref for node, _ in walk(lineage(versions, "grpo@v2"))}
    assert verify(learned, list(DATASETS), deep=True) == []


def test_every_sample_has_a_fate_and_those_of_mixed_groups_their_advantages(learned):
    rollouts, graded = latest(learned, "grpo.rollouts"), latest(learned, "grpo.graded")
    assert graded.received.count == rollouts.samples.count == COUNT * GROUP
    rows = {row["id"]: row for row in rows_of(learned, graded)}
    expected, dropped = {}, Counter()
    for problem in rows_of(learned, rollouts):
        judged = [sample for sample in problem["samples"] if sample["verdict"] != "undecided"]
        dropped["graded.undecided"] += len(problem["samples"]) - len(judged)
        rewards = [float(sample["verdict"] == "accepted") for sample in judged]
        if len(set(rewards)) < 2:
            dropped["graded.equal_rewards"] += len(judged)
            continue
        expected |= dict(zip((sample["id"] for sample in judged), group_advantages(rewards), strict=True))
    assert {id: row["advantage"] for id, row in rows.items()} == pytest.approx(expected)
    assert len(expected) > 4 and dropped["graded.equal_rewards"] > 0
    assert sum((Counter(row.dropped) for row in graded.funnel), Counter()) == +dropped
    judged = graded.statistics["rewards"]
    assert judged["judged"] == len(expected) + dropped["graded.equal_rewards"]
    assert judged["mean"] == pytest.approx(judged["accepted"] / judged["judged"], abs=1e-6)


def test_an_answer_that_was_cut_off_has_no_end_to_learn(learned):
    finish = {
        sample["id"]: sample["finish"]
        for row in rows_of(learned, latest(learned, "grpo.rollouts"))
        for sample in row["samples"]
    }
    ends = defaultdict(set)
    for row in rows_of(learned, latest(learned, "grpo.graded")):
        ends[finish[row["id"]]].add(row["text"].endswith("<|end|><|endoftext|>"))
    assert ends["length"] == {False} and ends.get("stop", {True}) == {True}


def beside(lake, number, kind):
    """Of a policy's attachments those of a kind, each as window -> numbers."""
    refs = [ref for ref in Versions(lake).resolve(f"grpo@v{number}").attachments if ref.kind == kind]
    tables = [read_table(lake, ref) for ref in refs]
    return [dict(zip(table["key"].to_pylist(), table[1].to_pylist(), strict=True)) for table in tables]


def test_windows_have_the_advantages_of_their_samples_and_what_both_policies_say_of_each_token(learned):
    (advantages,) = beside(learned, 2, ADVANTAGES)
    references = beside(learned, 2, TOKENS)
    assert len(references) == 2 and len(beside(learned, 1, TOKENS)) == 1, "the first policy is its own reference"
    of_sample = {row["id"]: row["advantage"] for row in rows_of(learned, latest(learned, "grpo.graded"))}
    reader = read_windows(learned, latest(learned, "grpo.windows"))
    models = [load_model(learned, name).model for name in ("grpo@v1", "base@v1")]
    for number in range(len(reader)):
        window = reader.sample(number)
        members = [member["member"] for member in window.meta["members"]]
        assert advantages[window.key] == pytest.approx([of_sample[member] for member in members])
        bounds, ids, mask = (window.arrays[name] for name in ("cu_seqlens", "input_ids", "loss_mask"))
        for model, logprobs in zip(models, references, strict=True):
            expected = []
            for start, end in pairwise(bounds):
                own = torch.from_numpy(ids[start:end].astype(np.int64))
                with torch.inference_mode():
                    of_token = model(own[None]).logits[0, :-1].log_softmax(-1).gather(1, own[1:, None])[:, 0]
                expected += of_token[torch.from_numpy(mask[start + 1 : end])].tolist()
            assert logprobs[window.key] == pytest.approx(expected, abs=1e-3)


def test_the_first_step_is_that_of_the_policy_that_drew_and_the_steps_say_how_far_it_went(learned):
    manifest = Versions(learned).resolve("grpo@v1")
    ref = next(ref for ref in manifest.attachments if ref.kind == "metrics")
    lines = [json.loads(line) for line in read_object(learned, ref).splitlines()]
    first, last = lines[0]["measures"], lines[-1]["measures"]
    assert (first["kl"], first["clipped"], first["drift"]) == (
        pytest.approx(0, abs=1e-6),
        0,
        pytest.approx(0, abs=1e-4),
    )
    assert last["kl"] > 1e-6 and manifest.statistics["training"]["counted"] == "samples"


def test_a_second_run_does_nothing(learned):
    runner = Runner(learned, workers=0)
    assert not learn(learned, runner).new and all(ran == 0 for _, _, ran in runner.history)


def test_a_run_that_stopped_in_its_second_round_goes_on_to_the_same_bits(bare, learned, tmp_path, monkeypatch):
    lake = copied(bare, tmp_path / "lake")
    learn(lake, rounds=1)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Incomplete, match="the disk is gone"):
            learn(lake)
    assert Versions(lake).numbers("grpo.windows") == [1, 2] and Versions(lake).numbers("grpo") == [1]
    runner = Runner(lake, workers=0)
    learn(lake, runner)
    assert [title for title, _, ran in runner.history if ran] == ["train", "gates"]
    for dataset in DATASETS:
        for number in (1, 2):
            own, whole = (Versions(each).resolve(f"{dataset}@v{number}") for each in (lake, learned))
            assert own.digest == whole.digest, (dataset, number)


def test_a_takedown_takes_the_samples_of_a_problem_out_and_names_every_policy(learned, tmp_path):
    shutil.copytree(learned.uri, tmp_path / "lake")
    lake = open_store(str(tmp_path / "lake"))
    versions = Versions(lake)
    problem = rows_of(lake, latest(lake, "grpo.graded"))[0]["parent_id"]  # a group of the last round says something
    plan = plan_forget(versions, Suppression.of(ids=[problem]))
    assert {"grpo@v1", "grpo@v2"} <= {derived.ref for derived in plan.derived if derived.form == "model"}
    report = forget(versions, plan, "asked by mail")
    assert {f"{dataset}@v2" for dataset in DATASETS[:3]} <= set(report.withdrawn)
    left = dict(report.made)
    graded, windows = (versions.resolve(left[f"{dataset}@v2"]) for dataset in DATASETS[1:3])
    assert problem not in {row["parent_id"] for row in rows_of(lake, graded)}
    assert windows.schemas["segments"] == "samples with advantages"
    assert verify(lake, [str(graded), str(windows)], deep=True) == []


def test_rounds_take_shares_that_meet_no_problem_twice(bare, tmp_path, monkeypatch):
    problems = [f"{number:032x}" for number in range(400)]
    taken = [[id for id in problems if TakeShare(0.25, number, 7).takes(id)] for number in range(5)]
    assert sorted(chain.from_iterable(taken[:4])) == problems and taken[4] == taken[0]
    assert all(60 < len(of_round) < 140 for of_round in taken)
    lake = copied(bare, tmp_path / "lake")
    with pytest.raises(PlanOnly) as plan:
        learn(lake, Runner(lake, workers=0, plan=True), share=0.5)
    assert plan.value.title == "scan"
    learn(lake, share=0.5, training=TRAINING | {"steps": 1})
    of_round = [Versions(lake).resolve(f"grpo.rollouts@v{number}") for number in (1, 2)]
    ids = [{row["id"] for row in rows_of(lake, manifest)} for manifest in of_round]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == COUNT
    assert of_round[0].dropped.count == len(ids[1]) == of_round[1].kept.count


def test_groups_that_say_nothing_end_the_chain(bare, tmp_path, monkeypatch):
    lake = copied(bare, tmp_path / "lake")
    monkeypatch.setattr(reasonings.Parity, "verify", lambda self, problem, chain: reasonings.PARITY.accept(""))
    with pytest.raises(
        GateFailed, match=rf"graded: no problem of .* has both .*graded\.equal_rewards \({COUNT * GROUP}\)"
    ):
        learn(lake)
    assert Versions(lake).latest("grpo.graded") is None


def test_windows_of_graded_samples_are_for_no_other_loss(learned):
    data = {"data": "grpo.windows@v1", "init_from": {"language": "base@v1"}}
    with pytest.raises(BadConfig, match=r"loss=cross_entropy: the windows of data=grpo\.windows@v1 are samples with"):
        train(learned, stage("tune", **data), model="base@v1")
    mix(learned, {"math@v1": 1}, dataset="plain")
    with pytest.raises(BadConfig, match=r"loss=grpo: it needs windows of samples with advantages"):
        train(learned, stage("tune", **data | {"data": "plain@v1"}, loss="grpo"), model="base@v1")
    with pytest.raises(BadConfig, match=r"grpo\.graded@v1 holds samples with advantages and math@v1 samples"):
        mix(learned, {"grpo.graded@v1": 1, "math@v1": 1}, dataset="both")
    with pytest.raises(BadConfig, match=r"reference: there is no dataset 'nobody'"):
        train(learned, stage("tune", **data, loss="grpo", reference="nobody@v1"), model="base@v1")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"draws": {"max_tokens": 6, "temperature": 0.7}}, "allowed are temperature 1, top_p 1 and no stop"),
        ({"draws": {"max_tokens": 6, "stop": ["####"]}}, "no stop"),
        ({"group": 1}, "group"),
        ({"share": 0}, "share"),
        ({"engine": {"kind": "openai", "model": "gpt"}}, "the policy is trained here, so allowed is compact"),
        ({"engine": {"model": "base@v1"}}, r"recipe\.engine\.tokenizer is empty: give the exact version"),
        ({"window": 1 << 20}, r"recipe\.window: 1048576; the context of base@v1 is"),
        ({"limit": 3}, "a policy is trained whole"),
        ({"training": TRAINING | {"clip_ratio": 1.5}}, r"clip_ratio=1\.5: allowed is above 0, below 1"),
        ({"training": TRAINING | {"beta": -1}}, r"beta=-1\.0: allowed is above 0, or 0"),
        ({"training": TRAINING | {"epochs": 1}}, "say how long by one of steps, tokens, epochs"),
        ({"problems": {"answer": None}, "checks": {"votes": {"at_least": 5}}}, "so many samples vote, and group=4"),
        ({"checks": {"judge": {"kind": "openai", "model": "critic"}}}, r"run\.judge\.endpoint\.url is empty"),
        ({"checks": {"judge": {"model": "nobody@v1"}}}, r"recipe\.checks\.judge\.model: there is no dataset 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_drawn(learned, recipe, message):
    with pytest.raises((BadConfig, ValueError), match=message):
        learn(learned, dataset="refused", **recipe)
    assert Versions(learned).latest("refused.rollouts") is None
