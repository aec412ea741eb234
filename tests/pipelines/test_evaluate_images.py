"""Evaluation on images: windows and records, row by row against the model asked by other means; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluations
import mixtures
import pytest
import torch
from image_mixtures import COLOURS, CUT, pictures
from models import NANO, enlivened, greedy

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_object, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.reading import reading, vqa_accuracy
from gristmill.model.generate.engine import Request
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.processing.text import Tokenizer
from gristmill.model.windows.media import media_inputs
from gristmill.model.windows.placeholders import Medium
from gristmill.model.windows.prompts import Prompts, cut_of
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.evaluate.compare import compare
from gristmill.stages.evaluate.ready import Ready
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.instruct import parts_of

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [[(64, 64)], [(40, 100)], [(64, 64), (100, 40)]]
ROWS = [(SIZES[n % len(SIZES)], f"a {{}} field, {n}") for n in range(12)]
ATTRIBUTES = {"colour": list(COLOURS), "digits": ["#"]}


def taken_in(store: Store, folder: Path, name: str, **vision: Any) -> None:
    """A model of the vocabulary of bpe@v1, with `vision` changed."""
    tokenizer = read_object(store, Versions(store).manifest("bpe", 1).shards[0])
    text = replace(NANO.text, vocab_size=Tokenizer.from_bytes(tokenizer).vocab_size)
    assert NANO.vision is not None
    config = replace(NANO, text=text, vision=replace(NANO.vision, **vision))
    save_hf(enlivened(config, 0), folder, tokenizer=tokenizer)
    recipe = {"recipe": {"dataset": name, "folder": str(folder)}}
    run_pipeline(ModelRunConfig.model_validate(recipe), store, Runner(store, workers=0))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`web`, `pics`, `bpe`, `mix` (windows of both), `base` and `other` (models)."""
    folder = tmp_path_factory.mktemp("images")
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", mixtures.texts(20, longest=60))
    pictures(store, folder / "in", ROWS, image={"ask": "What is in it?"})
    mixtures.tokenizer(store, "web@v1", "pics@v1")
    mixtures.mix(store, {"web@v1": 1, "pics@v1": 1}, dataset="mix", window=512, images=CUT, max_waste=0.5)
    evaluations.model(store, folder / "base", "base")
    evaluations.model(store, folder / "other", "other", seed=1)
    return store


def rows_of(store: Store, manifest: Any) -> list[dict[str, Any]]:
    return read_table(store, manifest.shards[0]).to_pylist()


def records(store: Store) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_table(store, Versions(store).manifest("pics", 1).shards[0]).to_pylist()}


def nats(model: Any, ids: list[int], scored: list[bool], media: Any) -> float:
    """Of a forward with all logits."""
    inputs = media_inputs([media], model.config, "cpu") if media else {}
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids]), **inputs).logits[0, :-1].float().log_softmax(-1)
    every = -logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].double()
    return float(every[torch.tensor(scored[1:])].sum())


def test_perplexity_of_windows_with_images_is_that_of_a_plain_forward_of_each_record(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["mix@v1"], dataset="windows", window=512, chunk_items=3).manifest
    base = load_model(lake, "base@v1")
    assert base.tokenizer is not None
    prompts = Prompts(base.tokenizer, cut_of(base.model.config, base.tokenizer, CUT["max_crops"]))
    stored, seen = records(lake), 0
    for row in rows_of(lake, manifest):
        if row["source"] != "pics@v1":
            continue
        record = stored[row["id"]]
        parts, media = (
            parts_of(record["text"], record["parts"]),
            [Medium("image", item["data"]) for item in record["media"]],
        )
        encoded = prompts.encoded(parts, media)
        expected = nats(base.model, encoded.ids.tolist(), encoded.loss_mask.tolist(), prompts.arrays(parts, media))
        assert row["nats"] == pytest.approx(expected, rel=1e-4) and row["tokens"] == encoded.loss_mask[1:].sum()
        seen += 1
    assert seen >= len(ROWS)
    assert {score["source"] for score in manifest.statistics["scores"]} >= {"", "web@v1", "pics@v1"}


def test_answers_about_images_are_those_of_the_model_without_a_cache(lake: Store) -> None:
    manifest = evaluations.evaluate(lake, ["pics@v1"], dataset="said", max_crops=4, attributes=ATTRIBUTES).manifest
    base = load_model(lake, "base@v1")
    assert base.tokenizer is not None
    prompts = Prompts(base.tokenizer, cut_of(base.model.config, base.tokenizer, 4))
    stored = records(lake)
    rows = rows_of(lake, manifest)
    assert len(rows) == len(ROWS) and {row["task"] for row in rows} == {"answer"}
    for row in rows[:4]:
        record = stored[row["id"]]
        parts = parts_of(record["text"], record["parts"])
        start = next(n for n, part in enumerate(parts, 1) if part.text == "<|assistant|>")
        prompt = prompts.of(parts[:start], [Medium("image", item["data"]) for item in record["media"]])
        written, _ = greedy(base.model, Request("", prompt.tokens, media=prompt.media), 6)
        ends = [n for n, token in enumerate(written) if token in base.model.config.text.eos_token_id]
        answer = base.tokenizer.decode(written[: ends[0]] if ends else written)
        assert row["answer"] == answer and row["question"] == "What is in it?"
        near = reading(answer, row["expected"])
        assert (row["words"], row["word_errors"], row["chars"], row["char_errors"]) == near
        assert [item["name"] for item in row["attributes"]] == ["colour", "digits"]
    metrics = {score["metric"] for score in manifest.statistics["scores"]}
    assert metrics >= {"exact", "word_accuracy", "ocr_accuracy", "attributes", "attribute:colour", "attribute:digits"}
    assert any("fewer than 200" in warning for warning in manifest.statistics["warnings"])


def test_two_models_are_compared_on_the_same_images(lake: Store) -> None:
    both = [
        evaluations.evaluate(lake, ["pics@v1"], model=name, dataset="both", attributes=ATTRIBUTES, max_crops=4).manifest
        for name in ("base@v1", "other@v1")
    ]
    comparison = compare(lake, *both)
    assert comparison.items == len(ROWS)
    assert {d.metric for d in comparison.differences} >= {"exact", "word_accuracy", "ocr_accuracy", "attribute:colour"}
    other = evaluations.evaluate(lake, ["pics@v1"], dataset="both", max_crops=1, attributes=ATTRIBUTES).manifest
    with pytest.raises(ValueError, match=r"recipe\.max_crops is 4 and 1"):
        compare(lake, both[0], other)


def test_perplexity_of_records_with_images(lake: Store) -> None:
    given = {"tasks": {"pics@v1": "perplexity"}, "window": 512, "max_crops": 4}
    records_alone = rows_of(lake, evaluations.evaluate(lake, ["pics@v1"], dataset="alone", **given).manifest)
    packed = rows_of(lake, evaluations.evaluate(lake, ["mix@v1"], dataset="packed", window=512).manifest)
    by_id = {row["id"]: row["nats"] for row in packed if row["source"] == "pics@v1"}
    assert len(records_alone) == len(ROWS)
    for row in records_alone:
        assert row["nats"] == pytest.approx(by_id[row["id"]], rel=1e-4)
    short = evaluations.evaluate(lake, ["pics@v1"], dataset="short", **{**given, "window": 80}).manifest
    assert 0 < short.dropped.count < len(ROWS)


def test_answers_of_several_people_are_one_question_and_are_judged_together(lake: Store, tmp_path: Path) -> None:
    rows = [([(64, 64)], "yes|yes|yes|no|{}"), ([(40, 100)], "|{}|")]
    pictures(lake, tmp_path / "in", rows, dataset="people", image={"ask": "Is it?"})
    given = {"tasks": {"people@v1": "vqa"}, "max_crops": 4, "limit": 2}
    manifest = evaluations.evaluate(lake, ["people@v1"], dataset="people-eval", **given).manifest
    for row in rows_of(lake, manifest):
        accepted = [part for part in row["expected"].split("|") if part]
        assert row["task"] == "vqa" and row["score"] == vqa_accuracy(row["answer"], accepted)
    assert [score["metric"] for score in manifest.statistics["scores"] if score["task"] == "vqa"] == ["vqa_accuracy"]


def test_options_about_images_are_scored_a_few_at_a_time(
    lake: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [([(64, 64)], "A"), ([(40, 100)], "B"), ([(100, 40)], "A")]
    ask = "What grows on it?\nA. wheat\nB. rye"
    pictures(lake, tmp_path / "in", rows, dataset="lettered", image={"ask": ask})
    sizes: list[int] = []
    score = Ready._choices
    monkeypatch.setattr(Ready, "_choices", lambda self, asked: (sizes.append(len(asked)), score(self, asked))[1])
    given = {"tasks": {"lettered@v1": "choice"}, "max_crops": 4, "limit": 3}
    together = rows_of(lake, evaluations.evaluate(lake, ["lettered@v1"], dataset="together", **given).manifest)
    assert max(sizes) == 3
    sizes.clear()
    monkeypatch.setitem(evaluations.RUN, "pass_tokens", 1)  # how it is run makes no other result, so other pieces do
    apart = rows_of(lake, evaluations.evaluate(lake, ["lettered@v1"], dataset="apart", chunk_items=2, **given).manifest)
    assert max(sizes) == 1 and sum(sizes) == 3
    assert [row["task"] for row in apart] == ["choice"] * 3
    assert {row["id"]: row["answer"] for row in apart} == {row["id"]: row["answer"] for row in together}


def test_what_a_model_cannot_see_is_refused_at_lookup(lake: Store, tmp_path: Path) -> None:
    taken_in(lake, tmp_path / "crop", "crop", crop_size=32)
    taken_in(lake, tmp_path / "token", "token", image_token_id=13)
    taken_in(lake, tmp_path / "letter", "letter", image_token_id=99)
    for model, data, words in (
        ("crop@v1", "mix@v1", r"images of mix@v1 were cut with crop=64, crop@v1 takes 32: mix its sources anew"),
        ("token@v1", "mix@v1", r"images of mix@v1 were cut with token=<\|image\|>, token@v1 takes <\|fim_prefix\|>"),
        ("letter@v1", "pics@v1", r"letter@v1 puts images at token 99, which is .* and no special token"),
    ):
        with pytest.raises(BadConfig, match=words):
            evaluations.evaluate(lake, [data], Runner(lake, workers=0, plan=True), model=model, dataset="refused")


def test_attributes_that_cannot_be_looked_for_are_refused(lake: Store) -> None:
    with pytest.raises(ValueError, match=r"attributes: colour: .*: allowed are words"):
        evaluations.evaluate(lake, ["pics@v1"], dataset="refused", attributes={"colour": ["light blue"]})
