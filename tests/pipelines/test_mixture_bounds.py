"""Mixtures at their limits: batches that differ, sources that go away, caps, budgets, tokenizers that lack a token."""

from __future__ import annotations

import json

import mixtures
import pytest

import gristmill.lake.store.objects
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.run import TakenDown, run_pipeline
from gristmill.pipelines.mixture import Mixture
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import TokenizerConfig, tokenizer_of
from gristmill.stages.mix.plan_rows import PlanRow
from gristmill.stages.mix.texts import Limits, Slice
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.run.runner import Runner


@pytest.mark.parametrize("rows", range(6, 12))
def test_what_is_learned_does_not_depend_on_where_batches_end(store, tmp_path, monkeypatch, rows):
    """Code with and without a hole: a batch in which everything is learned says so like any other."""
    lines = [{"code": f"def f_{i}(x):\n    return x + {i}\n"} for i in range(rows)]
    mixtures.samples(store, tmp_path, "code", lines, form="code", fim={"rate": 0.3, "seed": 1})
    mixtures.tokenizer(store, "code@v1", vocab_size=300)
    monkeypatch.setattr(gristmill.lake.store.objects, "ROW_GROUP_ROWS", 3)
    manifest = mixtures.mix(store, {"code@v1": {"weight": 1, "max_epochs": 1}}).manifest
    tokenizer, reader = tokenizer_of(Versions(store), manifest), read_windows(store, manifest)
    sentinels = [tokenizer.special(f"<|fim_{name}|>") for name in ("prefix", "middle", "suffix")]
    seen = 0
    for window in map(reader.sample, range(len(reader))):
        for token, learned in zip(window.arrays["input_ids"], window.arrays["loss_mask"], strict=True):
            seen += token in sentinels
            assert not (learned and token in sentinels)
    assert seen >= 3


@pytest.fixture
def math(store, tmp_path):
    mixtures.samples(store, tmp_path, "math", [mixtures.word_problem(i) for i in range(30)], form="pair")
    mixtures.tokenizer(store, "math@v1")
    return store


class Meanwhile(Runner):
    """Does something once, when a stage begins."""

    def __init__(self, store, stage, what):
        super().__init__(store, workers=0)
        self.stage, self.what = stage, what

    def map(self, title, works):
        if title == self.stage:
            self.what()
        return super().map(title, works)


def taken_down(store):
    gone = Dataset(store, Versions(store).resolve("math@v1")).to_arrow()["id"].to_pylist()
    forget(Versions(store), plan_forget(Versions(store), Suppression(ids=frozenset(gone[:1]))), "a request")


@pytest.mark.parametrize("how", ["withdrawn", "taken down"])
def test_a_source_that_goes_during_the_run_takes_the_run_with_it(math, how):
    def away():
        Versions(math).withdraw("math", 1, "a mistake") if how == "withdrawn" else taken_down(math)

    with pytest.raises(TakenDown):
        mixtures.mix(math, {"math@v1": 1}, Meanwhile(math, "pack", away))
    assert Versions(math).latest("mix") is None


def test_a_takedown_between_the_look_at_sources_and_the_start(math, monkeypatch):
    original = Mixture.of

    def late(recipe, versions):
        resolved = original(recipe, versions)
        taken_down(math)
        return resolved

    monkeypatch.setattr(Mixture, "of", late)
    with pytest.raises(TakenDown):
        mixtures.mix(math, {"math@v1": 1})
    assert Versions(math).latest("mix") is None


def test_a_takedown_of_what_was_not_drawn_leaves_the_mixture(math):
    manifest = mixtures.mix(math, {"math@v1": 1}, tokens=400).manifest
    ledger = Dataset(math, manifest).ledger().to_pylist()
    for fate in ("dropped", "kept"):
        record = next(row["id"] for row in ledger if row["fate"] == fate)
        plan = plan_forget(Versions(math), Suppression(ids=frozenset({record})))
        affected = {dataset.dataset: (dataset.withdraw, dataset.records) for dataset in plan.affected}
        assert affected == {"math": ((1,), 1)} | ({"mix": ((1,), 1)} if fate == "kept" else {})
        assert [(version.ref, version.withdraw) for version in plan.derived if version.role == "mixed"] == (
            [] if fate == "kept" else [("mix@v1", False)]
        )
        assert plan.unsearched == ()  # a tokenizer has no records to look for


def test_no_record_is_drawn_beyond_the_cap(store):
    mixtures.documents(store, "web", mixtures.texts(3, longest=200))
    mixtures.tokenizer(store, "web@v1")
    manifest = mixtures.mix(store, {"web@v1": {"weight": 1, "max_epochs": 0.6}}).manifest
    (fact,) = manifest.statistics["mixture"]
    assert 0 < fact["drawn"] <= 0.6 * fact["there"]


def test_a_share_that_comes_to_nothing_is_an_error(math):
    mixtures.documents(math, "web", mixtures.texts(40))
    with pytest.raises(BadConfig, match=r"of web@v1 3 tokens are planned, less than any record of it"):
        mixtures.mix(math, {"math@v1": 0.995, "web@v1": 0.005}, tokens=600)
    with pytest.raises(BadConfig, match="less than any record of it"):
        mixtures.mix(math, {"math@v1": 1}, tokens=1)
    assert Versions(math).latest("mix") is None


def test_a_look_takes_what_there_is(math):
    manifest = mixtures.mix(math, {"math@v1": 1}, limit=1000).manifest
    (fact,) = manifest.statistics["mixture"]
    assert fact["drawn"] == 4 * fact["there"]


def test_sources_and_tokenizers_that_cannot_be_used(math, tmp_path):
    def trained(*names):
        recipe = {"dataset": "other", "sources": list(names)}
        return run_pipeline(TokenizerConfig.model_validate({"recipe": recipe}), math, Runner(math, workers=0))

    with pytest.raises(BadConfig, match=r"recipe.sources: bpe@v1: it holds a tokenizer, no records"):
        trained("bpe@v1")
    mixtures.mix(math, {"math@v1": 1})
    with pytest.raises(BadConfig, match=r"recipe.sources: mix@v1: it holds packed windows, no records"):
        trained("mix@v1")
    with pytest.raises(BadConfig, match=r"recipe.sources: '@v1': dataset name ''"):
        mixtures.mix(math, {"@v1": 1})
    data = json.loads(math.get(Versions(math).resolve("bpe@v1").shards[0].key))
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<|user|>"]
    file = tmp_path / "lacking.json"
    file.write_text(json.dumps(data))
    recipe = {"dataset": "lacking", "file": str(file)}
    run_pipeline(TokenizerConfig.model_validate({"recipe": recipe}), math, Runner(math, workers=0))
    with pytest.raises(BadConfig, match=r"recipe.tokenizer: .* has no special token '<\|user\|>'"):
        mixtures.mix(math, {"math@v1": 1}, tokenizer="lacking@v1")


def test_a_tokenizer_is_trained_on_a_part_that_the_seed_draws(store):
    mixtures.documents(store, "web", mixtures.texts(400), shards=20)

    def trained(**train):
        recipe = {"dataset": "bpe", "sources": ["web@v1"], "train": {"vocab_size": 320, **train}}
        return run_pipeline(
            TokenizerConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)
        ).manifest

    whole = trained().statistics["bytes"]
    parts = [trained(max_bytes=whole // 20, seed=seed) for seed in (0, 1)]
    assert all(whole / 40 < part.statistics["bytes"] < whole / 10 for part in parts)
    assert parts[0].digest != parts[1].digest


def test_texts_that_spell_other_turns_are_other_samples(store, tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    turns += [{"role": "user", "content": "q"}, {"role": "assistant", "content": "z"}]
    spelled = "x<|end|><|assistant|>y<|end|><|user|>q"
    rows = [{"messages": turns}, {"messages": [{"role": "user", "content": spelled}, turns[3]]}]
    assert mixtures.samples(store, tmp_path, "chat", rows).manifest.kept.count == 2


def test_rows_that_do_not_say_what_is_learned_are_refused(math):
    """A tokens object of another make: never silently learned whole."""
    runner = Runner(math, workers=0)
    mix = Mixture.of(mixtures.recipe({"math@v1": 1}), Versions(math))
    _, tokenized = mix._tokenized(runner)
    ref: ObjectRef = tokenized[0][0][1].output("tokens")
    table = read_table(math, ref)
    learn = table["learn"].to_pylist()
    learn[3] = None
    bad = put_table(math, "tokens", table.set_column(3, table.schema.field("learn"), [learn]))
    assert bad.sha256 != ref.sha256
    row = PlanRow(
        0, "math@v1", bad.sha256, "x", samples=True, epoch=0, cut=None, first=0, end=30, documents=30, units=0
    )
    with pytest.raises(ValueError, match="1 of 30 rows do not say what is learned"):
        Slice.read(math, bad, row, Limits(128, (None, None), 0))
