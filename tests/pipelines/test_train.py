"""The train pipeline: stages become versions, once each, on exact sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts
from models import save_nano
from training import SEES, WINDOW, adapt, adapted, config, prepare, stage, train

from gristmill.lake.query.query import lineage
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.parts import Part
from gristmill.pipelines.ask import committed
from gristmill.pipelines.frame.run import TakenDown, run_pipeline
from gristmill.pipelines.model import ModelRunConfig, export_hf
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import TokenizerConfig
from gristmill.stages.models.model_versions import load_model, part_shards, shape_of, tokenizer_shard
from gristmill.stages.run.runner import Runner
from gristmill.stages.train.folder import runs


@pytest.fixture
def lake(store):
    """A store with a mixture of tiny windows."""
    prepare(store)
    return store


def test_a_stage_becomes_a_version_of_a_model_and_is_never_trained_again(lake):
    first = train(lake, stage())
    assert first.new and str(first.manifest) == "nano.pretrain@v1" and first.manifest.form == "model"
    training = first.manifest.statistics["training"]
    assert (training["stage"], training["steps"], training["positions"]) == ("pretrain", 3, 6)
    assert training["final_loss"] > 0 and len(training["order"]) == 64
    assert {ref.role: str(ref) for ref in first.manifest.sources} == {"trained_on": "mix@v1", "tokenizer": "bpe@v1"}
    assert not runs(lake)  # the checkpoints went with the receipt
    loaded = load_model(lake, "nano.pretrain@v1")
    assert loaded.tokenizer is not None and loaded.model.config.vision is None
    with torch.inference_mode():
        assert loaded.model(torch.arange(9)[None]).logits.isfinite().all()

    runner = Runner(lake, workers=0)
    again = train(lake, stage(), runner=runner)
    assert not again.new and again.manifest == first.manifest and not runner.history
    assert Versions(lake).numbers("nano.pretrain") == [1]


def second(language="stage:pretrain"):
    """A stage after `pretrain` that trains an adapter upon it, with all that sees."""
    return adapt(language, seed=3)


def weights(manifest):
    """Digests of the weights of a version, by part."""
    return {part: [ref.sha256 for ref in refs] for part, refs in part_shards(manifest).items()}


def test_a_chain_makes_a_version_a_stage_and_goes_on_at_the_first_without_one(lake, monkeypatch):
    last = train(lake, stage(), second()).manifest
    versions = Versions(lake)
    first = versions.resolve("nano.pretrain@v1")
    assert str(last) == "nano.adapt@v1" and {str(ref): ref.role for ref in last.sources} == {
        "seen@v1": "trained_on",
        "nano.pretrain@v1": "init_from.language",
        "bpe@v1": "tokenizer",
    }
    assert set(weights(last)) == {Part.LANGUAGE, *SEES}
    assert weights(last)[Part.LANGUAGE] == weights(first)[Part.LANGUAGE]
    # the second stage again by itself, on the version that the first one made: the very same training
    runner = Runner(lake, workers=0)
    alone = train(lake, second("nano.pretrain@v1"), runner=runner)
    assert not alone.new and str(alone.manifest) == "nano.adapt@v1"
    # a third one is added: only that is trained
    runner = Runner(lake, workers=0)
    third = adapt(name="more", init_from=adapted("stage:adapt"), trainable=["lora_vision"])
    assert str(train(lake, stage(), second(), third, runner=runner).manifest) == "nano.more@v1"
    assert runner.history == [("train", 0, 1), ("gates", 0, 2)]
    assert versions.numbers("nano.pretrain") == versions.numbers("nano.adapt") == [1]


def test_stages_are_trained_up_to_one_where_the_data_of_later_ones_are_still_to_be_made(lake):
    later = stage("adapt", init_from={"language": "stage:pretrain"}, data="to-come@v1")
    with pytest.raises(BadConfig, match=r"recipe\.stages\.1\.data: there is no dataset 'to-come'"):
        train(lake, stage(), later)
    first = train(lake, stage(), later, until="pretrain")
    assert first.new and str(first.manifest) == "nano.pretrain@v1"
    mix(lake, {"web@v1": 1}, window=WINDOW, max_waste=0.1, dataset="to-come", seed=1)
    runner = Runner(lake, workers=0)
    last = train(lake, stage(), later, until="adapt", runner=runner)
    assert str(last.manifest) == "nano.adapt@v1" and runner.history == [("train", 0, 1), ("gates", 0, 2)]


def test_lineage_goes_down_to_what_came_in(lake):
    train(lake, stage(), second())
    origins = []

    def walk(node, depth=0):
        origins.append((depth, node.role, node.ref))
        for origin in node.origins:
            walk(origin, depth + 1)

    walk(lineage(Versions(lake), "nano.adapt"))
    assert (1, "init_from.language", "nano.pretrain@v1") in origins
    assert (1, "trained_on", "seen@v1") in origins and (2, "mixed", "pics@v1") in origins
    assert (2, "trained_on", "mix@v1") in origins and (3, "mixed", "web@v1") in origins


def test_a_takedown_names_every_model_that_was_trained_on_what_it_removes(lake):
    documents(lake, "exam", texts(5, seed=9))
    train(lake, stage(held_out=["exam@v1"], gates=["contamination"]), second())
    versions = Versions(lake)
    url = "https://web.example/3"
    plan = plan_forget(versions, Suppression.of(urls=[url]))
    assert {(derived.ref, derived.role, derived.form, derived.withdraw) for derived in plan.derived} == {
        ("bpe@v1", "trained_on", "tokenizer", False),
        ("seen@v1", "tokenizer", "windows", False),
        ("nano.pretrain@v1", "trained_on", "model", False),
        ("nano.adapt@v1", "trained_on", "model", False),
    }
    # a model that is only held out from it was not trained on it
    held = plan_forget(versions, Suppression.of(urls=["https://exam.example/3"]))
    assert [dataset.dataset for dataset in held.affected] == ["exam"] and not held.derived

    report = forget(versions, plan, "request 17")
    assert dict(report.made)["mix@v1"] == "mix@v2"
    assert versions.latest("nano.pretrain") == 1  # weights cannot be made to forget a record: it is named, and stays
    with pytest.raises(BadConfig, match=r"recipe\.stages\.0\.data: mix@v1 was withdrawn"):
        train(lake, stage())
    anew = train(lake, stage(data="mix@v2")).manifest
    assert str(anew) == "nano.pretrain@v2" and not plan_forget(versions, plan.request).affected


def test_a_source_that_is_withdrawn_while_a_model_trains_is_not_given_out_with_it(lake):
    class Withdrawing(Runner):
        """Withdraws the mixture when all is trained."""

        def about_to(self, title, label, stages=()):
            Versions(self.store).withdraw("mix", 1, "request 17")

    with pytest.raises(TakenDown, match=r"mix@v1, from which it was made, was withdrawn"):
        train(lake, stage(), runner=Withdrawing(lake, workers=0))
    assert not Versions(lake).numbers("nano.pretrain")


def test_a_model_that_was_taken_in_is_trained_further_and_its_other_parts_are_the_same_objects(store, tmp_path):
    documents(store, "web", texts(40, longest=60))
    folder = save_nano(tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    taken_in = {"recipe": {"dataset": "base", "folder": str(folder)}}
    base = run_pipeline(ModelRunConfig.model_validate(taken_in), store, Runner(store, workers=0)).manifest
    added = {"recipe": {"dataset": "bpe", "file": str(folder / "tokenizer.json")}}
    run_pipeline(TokenizerConfig.model_validate(added), store, Runner(store, workers=0))
    pictures(store, tmp_path / "in", [([(32, 32)], "It is {}.")] * 4)
    mix(store, {"pics@v1": 1}, window=WINDOW, max_waste=0.5, images=CUT)

    parts = dict.fromkeys(part_shards(base), "base@v1")
    trained = train(
        store, stage("adapt", init_from=parts, trainable=["lora_vision"]), model="base@v1", tokenizer=""
    ).manifest
    before, after = part_shards(base), part_shards(trained)
    assert list(after) == list(before) and len(after) == len(Part)
    for part in Part:
        assert (after[part] == before[part]) == (part != Part.LORA_VISION)
    assert tokenizer_shard(trained) == tokenizer_shard(base) and shape_of(store, trained) == shape_of(store, base)
    assert shape_of(store, trained).sidecars["chat_template.jinja"] == "{{ messages }}"
    assert {ref.role for ref in trained.sources} == {"trained_on", *(f"init_from.{part}" for part in Part)}
    assert trained.statistics["parts"] == base.statistics["parts"]
    assert export_hf(store, "nano.adapt@v1", tmp_path / "out") == trained


def test_the_law_of_the_rate_counts_the_tokens_of_the_mixture(lake):
    tokens = Versions(lake).resolve("mix@v1").statistics["tokens"]
    law = {"optim": {"lr": {"b": 0.1}}, "steps": None}
    twice = train(lake, stage(**law, epochs=0.5)).manifest
    assert twice.recipe["stage"]["tokens"] == round(tokens / 2)
    assert twice.statistics["training"]["peak_lr"] == pytest.approx(0.1 * round(tokens / 2) ** -0.32)
    assert twice.statistics["training"]["tokens"] >= round(tokens / 2)


def test_whether_a_chain_is_done_is_known_without_running_it(lake):
    wanted = config(stage(), second())
    assert committed(wanted, lake) is None
    train(lake, stage())
    assert committed(wanted, lake) is None and str(committed(config(stage()), lake)) == "nano.pretrain@v1"
    last = train(lake, stage(), second()).manifest
    assert committed(wanted, lake) == last
    lake.delete(last.shards[0].key)  # of the first stage too
    assert committed(wanted, lake) is None
    with pytest.raises(BadConfig, match=r"nano\.pretrain@v1 lost objects .* no other run makes the same ones"):
        train(lake, stage(), second())


@pytest.mark.parametrize("number", [2, 3])
def test_a_mixture_of_an_earlier_release_is_trained_on(tmp_path, number):
    shutil.copytree(Path(__file__).parents[1] / "golden" / f"lake-format-{number}", tmp_path / "lake")
    store = open_store(str(tmp_path / "lake"))
    trained = train(store, stage(steps=1, batch=1)).manifest
    assert str(trained) == "nano.pretrain@v1" and trained.statistics["training"]["positions"] == 1


def test_the_tokenizer_of_a_model_is_used_where_its_own_version_was_withdrawn(lake):
    """The model has a copy, and is given out: a run must not train for days and be refused for it in the end."""
    train(lake, stage())
    more = stage("more", init_from={"language": "nano.pretrain@v1"})
    of_model = {"model": "nano.pretrain@v1", "tokenizer": ""}
    assert "tokenizer" in {ref.role for ref in train(lake, more, **of_model).manifest.sources}
    Versions(lake).withdraw("bpe", 1, "request 17")
    later = train(lake, {**more, "seed": 1}, **of_model).manifest
    assert {ref.role for ref in later.sources} == {"trained_on", "init_from.language"}
    assert tokenizer_shard(later) == tokenizer_shard(Versions(lake).resolve("nano.pretrain@v1"))
