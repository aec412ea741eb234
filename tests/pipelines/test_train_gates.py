"""Gates of a training run: what leaks is found before anything is trained, what fails is not committed and says why."""

from __future__ import annotations

import json

import pytest
from drafts import draft
from mixtures import documents, mix, samples, texts, tokenizer
from pydantic import ValidationError
from training import config, stage, train

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.models.model_versions import put_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly

WINDOW = 64
CHECKED = {"gates": ["frozen_parts", "trained_parts", "text", "contamination"], "held_out": ["test@v1"]}
SECRET = "a miller who had three donkeys and a cat left the mill to his eldest son when he died of old age"


@pytest.fixture
def lake(store, tmp_path):
    """Documents and samples to train on, `mix@v1` of both; the texts of neither are those of LEAKS."""
    documents(store, "web", [*texts(60, longest=60), f"An old tale. {SECRET.upper()}, and so on.", "Short and sweet."])
    questions = [{"question": f"What is {i} plus {i + 1}?", "answer": f"It is {2 * i + 1}."} for i in range(40)]
    samples(store, tmp_path / "in", "math", questions, form="pair", system="Answer with a number.")
    tokenizer(store, "web@v1", "math@v1")
    mix(store, {"web@v1": 2, "math@v1": 1}, window=WINDOW, max_waste=0.2)
    return store


def held_out(lake, rows: list[str], name: str = "test") -> None:
    """Evaluation data, `test@v1`."""
    documents(lake, name, rows)


def refused(lake, *stages, **more) -> str:
    """Why the run fails; nothing is committed of its last stage."""
    with pytest.raises(GateFailed) as error:
        train(lake, *stages, **more)
    assert Versions(lake).numbers(f"nano.{stages[-1]['name']}") == []
    return str(error.value)


def test_what_is_clean_is_trained_and_the_manifest_keeps_every_verdict(lake):
    held_out(lake, [*texts(20, seed=9, longest=60), "Nothing of the kind."])
    result = train(lake, stage(**CHECKED))
    gates = result.manifest.statistics["gates"]
    assert list(gates) == CHECKED["gates"] and [gate["passed"] for gate in gates.values()] == [True, True, None, True]
    facts = gates["contamination"]["facts"]
    assert (facts["held_out"], facts["by_id"] + facts["by_text"] + facts["by_words"]) == (21, 0)
    assert facts["versions"] == ["math@v1", "web@v1"] and facts["trained_on"] == 102
    assert facts["short"] >= 1 and not facts["unknown"]
    assert "none of 21 held-out records" in gates["contamination"]["why"]
    names = [part.name for part in result.manifest.stages]
    assert {"gate_frozen_parts", "gate_trained_parts", "gate_contamination", "find_held_out"} <= set(names)
    assert {ref.role: str(ref) for ref in result.manifest.sources}["held_out"] == "test@v1"
    runner = Runner(lake, workers=0)
    assert not train(lake, stage(**CHECKED), runner=runner).new and not runner.history


def test_shards_that_were_looked_through_serve_the_next_model(lake):
    held_out(lake, texts(20, seed=9, longest=60))
    train(lake, stage(**CHECKED))
    runner = Runner(lake, workers=0)
    assert train(lake, stage(seed=1, **CHECKED), runner=runner).new
    assert {title: (before, now) for title, before, now in runner.history} == {
        "index held-out": (1, 0),
        "find held-out": (2, 0),
        "gate: contamination": (1, 0),
        "train": (0, 1),
        "gates": (0, 2),
    }


@pytest.mark.parametrize(
    ("rows", "way"),
    [
        ([f"Once upon a time {SECRET} and the second son got a donkey"], "1 by 13 words in a row"),
        (["SHORT, and sweet!"], "1 by their text"),
        (["What is 7 plus 8? It is 15.", "What is 7 plus 9?"], "1 by their text"),
        (["What is 7 plus 8?"], "1 by their text"),
        (["Answer with a number. What is 7 plus 8? It is 15."], "1 by their text"),
    ],
)
def test_a_leak_is_found_before_anything_is_trained(lake, rows, way):
    held_out(lake, [*texts(5, seed=9), *rows])
    runner = Runner(lake, workers=0)
    why = refused(lake, stage(**CHECKED), runner=runner)
    assert f"contamination: 1 of {5 + len(rows)} held-out records are in the training data: {way}" in why
    assert "of test@v1 is given away by" in why and "nothing was committed" in why
    assert "train" not in {title for title, _, _ in runner.history}
    with pytest.raises(GateFailed, match=way):
        train(lake, stage(**CHECKED), runner=(again := Runner(lake, workers=0)))
    assert [now for _, _, now in again.history] == [0, 0, 0], "it says so again at once"


def test_after_a_takedown_what_is_left_is_looked_through(lake):
    versions = Versions(lake)
    forget(versions, plan_forget(versions, Suppression.of(urls=["https://web.example/7"])), "request 17")
    held_out(lake, [SECRET])
    reason = refused(lake, stage(data="mix@v2", **CHECKED))
    assert "web@v1 (withdrawn) cannot be looked through, of which the mixture was made: mix anew" in reason
    documents(lake, "web", [f"An old tale. {SECRET.upper()}, and so on."])  # what a takedown leaves: a later version
    reason = refused(lake, stage(data="mix@v2", **CHECKED))
    assert "1 of 1 held-out records are in the training data" in reason and "of web@v2" in reason


def test_thirteen_words_give_an_item_away_and_twelve_do_not(lake):
    words = SECRET.split()
    held_out(lake, [" ".join(["begins", *words[2:14], "but", "ends", "otherwise", "than", "the", "tale"])])
    assert train(lake, stage(**CHECKED)).new
    held_out(lake, [" ".join(["begins", *words[2:15], "but", "ends", "otherwise", "than", "the", "tale"])], "more")
    more = {**CHECKED, "held_out": ["more@v1"]}
    assert "1 by 13 words in a row" in refused(lake, stage("again", **more))


def test_the_same_record_is_known_by_its_id_whatever_its_text(lake):
    count = Versions(lake).resolve("web@v1").kept.count
    documents(lake, "web-again", texts(60, longest=60))  # other addresses, the same texts
    same = {**CHECKED, "held_out": ["web@v1"]}
    why = refused(lake, stage(**same))
    assert f"{count} of {count} held-out records are in the training data: {count} by their record id" in why
    assert "60 by their text" in refused(lake, stage(**{**CHECKED, "held_out": ["web-again@v1"]}))


def test_a_prompt_under_another_instruction_is_the_same_prompt(lake, tmp_path):
    asked = [{"question": "What is 3 plus 4?", "answer": "Seven, I think."}]
    samples(lake, tmp_path / "in", "test", asked, form="pair", system="Think before you answer.")
    assert "1 of 1 held-out records are in the training data: 1 by their text" in refused(lake, stage(**CHECKED))


def test_phrases_of_many_training_records_give_nothing_away_but_copies_of_an_item_do(store):
    phrase = "this page uses cookies to give you the best experience by staying here you accept that and our terms"
    tale = "the fox told the raven that nobody sings as sweetly and the raven opened its beak so the cheese fell down"
    documents(
        store, "web", [*(f"Page {i}. {phrase}" for i in range(30)), *(f"{tale} {i}" for i in range(12)), *texts(30)]
    )
    tokenizer(store, "web@v1")
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.2)
    documents(store, "test", [f"A page of its own kind about mills and stones. {phrase}"])
    result = train(store, stage(**CHECKED))
    assert result.manifest.statistics["gates"]["contamination"]["facts"]["phrases"] == 1
    documents(store, "tales", [f"Aesop: {tale}"])
    assert "1 by 13 words in a row" in refused(store, stage("again", **{**CHECKED, "held_out": ["tales@v1"]}))


def test_what_a_base_was_trained_on_counts_too_and_what_is_not_known_of_it_is_said(lake):
    held_out(lake, ["Short and sweet.", *texts(4, seed=9)])
    documents(lake, "clean", texts(40, seed=5, longest=60))
    mix(lake, {"clean@v1": 1}, dataset="clean-mix", window=WINDOW, max_waste=0.2)
    pretrain = stage()
    tune = stage("tune", data="clean-mix@v1", init_from={"language": "stage:pretrain"}, **CHECKED)
    why = refused(lake, pretrain, tune)
    assert "1 by their text" in why and "of web@v1" in why
    assert Versions(lake).numbers("nano.pretrain") == [1] and Versions(lake).numbers("nano.tune") == []
    alone = stage("alone", data="clean-mix@v1", init_from={"language": imported(lake)}, **CHECKED)
    verdict = train(lake, alone).manifest.statistics["gates"]["contamination"]
    assert verdict["passed"] and verdict["facts"]["unknown"] == ["theirs@v1"]
    assert "what theirs@v1 was trained on is not known" in verdict["why"]


def imported(lake) -> str:
    """A model of which the lake knows no training data, `theirs@v1`."""
    shards = put_model(lake, Multimodal.seeded(ModelConfig(PRESETS["nano"].text), 4))
    zero = Tally()
    manifest = draft("theirs", "theirs", [], shards, received=zero, kept=zero).model_copy(update={"form": "model"})
    return str(Versions(lake).commit(manifest))


def test_a_part_that_did_not_move_fails_is_not_committed_and_not_trained_again(lake):
    still = stage("still", init_from={"language": "stage:pretrain"}, optim={"lr": 1e-30, "weight_decay": 0})
    with pytest.raises(
        GateFailed, match=r"trained_parts: language was to be trained, and \d+ of its 26 tensors"
    ) as error:
        train(lake, stage(), still)
    assert "does anything in the mixture reach them (images, clips)" in str(error.value)
    assert Versions(lake).numbers("nano.still") == []
    runner = Runner(lake, workers=0)
    with pytest.raises(GateFailed, match="language was to be trained"):
        train(lake, stage(), still, runner=runner)
    assert runner.history == [("train", 1, 0), ("gates", 2, 0)]


def test_a_plan_with_gates_runs_nothing(lake):
    held_out(lake, texts(5, seed=9))
    with pytest.raises(PlanOnly) as plan:
        train(lake, stage(**CHECKED), runner=Runner(lake, workers=0, plan=True))
    assert plan.value.title == "index held-out"


@pytest.mark.parametrize(
    "changes", [{"gates": ["contamination"]}, {"held_out": ["test@v1"]}, {**CHECKED, "overlap": {"ngram": 0}}]
)
def test_gates_and_held_out_data_go_together(changes):
    with pytest.raises(ValidationError, match=r"held_out=|ngram=0"):
        config(stage(**changes))


def test_held_out_versions_have_to_hold_texts(lake):
    with pytest.raises(BadConfig, match=r"recipe.stages.0.held_out: bpe@v1: it holds a tokenizer"):
        train(lake, stage(**{**CHECKED, "held_out": ["bpe@v1"]}))
    documents(lake, "empty", [])
    with pytest.raises(BadConfig, match=r"held_out: empty@v1 holds no record"):
        train(lake, stage(**{**CHECKED, "held_out": ["empty@v1"]}))


def test_verdicts_are_json(lake):
    held_out(lake, texts(5, seed=9))
    statistics = train(lake, stage(**CHECKED)).manifest.statistics
    assert json.loads(json.dumps(statistics["gates"])) == statistics["gates"]
