"""Evaluation of a version, row by row against the model asked by other means; fates and kills."""

from __future__ import annotations

import math
from dataclasses import replace

import evaluations
import mixtures
import numpy as np
import pytest
import torch

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.receipt import finished
from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.segments import Segment
from gristmill.model.windows.prompts import Prompts
from gristmill.pipelines.evaluate import Evaluation
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.stages.evaluate import ready, work
from gristmill.stages.evaluate.pieces import pieces_of, questions, tally_of
from gristmill.stages.mix.windows import read_windows
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete
from gristmill.stages.text.instruct import parts_of


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    store = open_store(str(folder / "lake"))
    evaluations.lake(store, folder)
    return store


@pytest.fixture(scope="module")
def base(lake):
    return load_model(lake, "base@v1")


def rows_of(store, manifest):
    return read_table(store, manifest.shards[0]).to_pylist()


def samples_of(store, name):
    """Of each record of a version of samples, by id, its segments."""
    table = read_table(store, Versions(store).manifest(name, 1).shards[0]).to_pylist()
    return {row["id"]: parts_of(row["text"], row["parts"]) for row in table}


def logprobs(model, tokens):
    """[tokens - 1, vocab], of a forward with all logits."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0, :-1].float().log_softmax(-1)


def nats(model, tokens, scored):
    targets = torch.tensor(tokens[1:])[:, None]
    every = -logprobs(model, tokens).gather(1, targets)[:, 0].double().numpy()
    return float(every[np.array(scored[1:], bool)].sum())


# rows


def test_perplexity_of_documents_is_that_of_a_plain_forward(lake, base):
    manifest = evaluations.evaluate(lake, ["web@v1"], dataset="plain", window=4096).manifest
    table = read_table(lake, Versions(lake).manifest("web", 1).shards[1]).to_pylist()
    texts = {row["id"]: row["text"] for row in table}
    rows = [row for row in rows_of(lake, manifest) if row["id"] in texts]
    assert len(rows) == len(texts) > 10
    for row in rows:
        tokens = base.tokenizer.encode_documents([texts[row["id"]]]).ids.tolist()
        assert row["nats"] == pytest.approx(nats(base.model, tokens, [True] * len(tokens)), rel=1e-5)
        first = len(base.tokenizer.decode(tokens[:1]).encode())
        assert (row["tokens"], row["bytes"]) == (len(tokens) - 1, len(texts[row["id"]].encode()) - first)
        assert row["score"] == pytest.approx(row["nats"] / row["tokens"])
    whole = rows_of(lake, manifest)
    overall = next(s for s in manifest.statistics["scores"] if s["metric"] == "perplexity")
    mean = sum(row["nats"] for row in whole) / sum(row["tokens"] for row in whole)
    assert overall["value"] == pytest.approx(math.exp(mean)) and overall["items"] == 40


def test_a_text_longer_than_the_window_is_scored_in_pieces_that_overlap_by_a_token(lake, base):
    manifest = evaluations.evaluate(lake, ["web@v1"], dataset="pieces", window=16, limit=3).manifest
    texts = {
        row["id"]: row["text"] for row in read_table(lake, Versions(lake).manifest("web", 1).shards[0]).to_pylist()
    }
    assert any(row["tokens"] > 32 for row in rows_of(lake, manifest))
    for row in rows_of(lake, manifest):
        tokens = base.tokenizer.encode_documents([texts[row["id"]]]).ids.tolist()
        cost = 0.0
        for start in range(0, len(tokens) - 1, 15):
            piece = tokens[start : start + 16]
            cost += nats(base.model, piece, [True] * len(piece))
        assert row["nats"] == pytest.approx(cost, rel=1e-5) and row["tokens"] == len(tokens) - 1


def test_perplexity_of_windows_is_the_loss_of_training_by_source(lake, base):
    manifest = evaluations.evaluate(lake, ["mix@v1"], dataset="windows", window=4096, chunk_items=3).manifest
    mixture = Versions(lake).manifest("mix", 1)
    expected = []
    for window in mixtures.windows(lake, mixture):
        ids, mask, ends = (window.arrays[name].tolist() for name in ("input_ids", "loss_mask", "cu_seqlens"))
        for n, member in enumerate(window.meta["members"]):
            part = slice(ends[n], ends[n + 1])
            expected.append(
                (member["member"], member["source"], sum(mask[part]), nats(base.model, ids[part], mask[part]))
            )
    rows = rows_of(lake, manifest)
    assert [(row["id"], row["source"], row["tokens"]) for row in rows] == [line[:3] for line in expected]
    np.testing.assert_allclose([row["nats"] for row in rows], [line[3] for line in expected], rtol=1e-5)
    assert sum(row["tokens"] for row in rows) == mixture.statistics["loss_tokens"]
    assert {row["source"] for row in rows} == {"web@v1", "math@v1"}
    assert len(read_windows(lake, mixture)) > 3, "several pieces"
    assert manifest.received.count == len(rows) == sum(ref.records for ref in mixture.members)


def test_a_choice_is_the_likeliest_option_and_by_character_as_lm_eval_counts(lake, base):
    manifest = evaluations.evaluate(lake, ["choice@v1"], dataset="choices").manifest
    samples, rows = samples_of(lake, "choice"), rows_of(lake, manifest)
    assert len(rows) == 6
    for row in rows:
        prompt = samples[row["id"]][:-3]
        assert prompt[-1].text == "<|assistant|>" and row["expected"] == "C"
        context = base.tokenizer.encode([prompt]).ids.tolist()
        likelihoods = []
        for letter in "ABCD":
            option = base.tokenizer.encode([[Segment(letter)]]).ids.tolist()
            tokens = [*context, *option]
            likelihoods.append(-nats(base.model, tokens, [False] * len(context) + [True] * len(option)))
        assert row["answer"] == "ABCD"[int(np.argmax(likelihoods))]
        assert row["score"] == float(row["answer"] == "C") == row["score_norm"]  # letters are equally long
        assert row["reason"] == (None if row["score"] else "other_option")


def test_options_of_other_lengths_differ_by_character(lake, base, tmp_path):
    options = ["the mill by the river", "a", "grain and flour of the mill"]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True))
    lines = [{"question": f"{i}?\n{listed}", "answer": options[i % 3]} for i in range(9)]
    mixtures.samples(lake, tmp_path, "texts", lines, form="pair")
    rows = rows_of(lake, evaluations.evaluate(lake, ["texts@v1"], dataset="texts-eval").manifest)
    samples = samples_of(lake, "texts")
    for row in rows:
        context = base.tokenizer.encode([samples[row["id"]][:-3]]).ids.tolist()
        costs = []
        for option in options:
            ids = base.tokenizer.encode([[Segment(option)]]).ids.tolist()
            costs.append(-nats(base.model, [*context, *ids], [False] * len(context) + [True] * len(ids)))
        right = options.index(row["expected"])
        by_character = np.array(costs) / [len(option) for option in options]
        assert row["score"] == float(np.argmax(costs) == right)
        assert row["score_norm"] == float(np.argmax(by_character) == right)
    assert any(row["score"] != row["score_norm"] for row in rows), "the short option is likely, but not by character"


def test_answers_are_the_models_own_greedy_ones(lake, base):
    manifest = evaluations.evaluate(lake, ["math@v1", "tools@v1", "refusals@v1"], dataset="answers").manifest
    rows = rows_of(lake, manifest)
    samples = samples_of(lake, "math")
    assert {row["task"] for row in rows} == {"exact", "calls", "refusal"}
    assert [row["harmful"] for row in rows if row["task"] == "refusal"].count(True) == 4
    for row in [row for row in rows if row["task"] == "exact"][:4]:
        tokens = base.tokenizer.encode([samples[row["id"]][:4]]).ids.tolist()
        assert samples[row["id"]][3].text == "<|assistant|>"
        start = len(tokens)
        while len(tokens) < start + 6 and (not tokens[start:] or tokens[-1] not in base.model.config.text.eos_token_id):
            with torch.inference_mode():
                tokens.append(int(base.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        known = [token for token in tokens[start:] if base.tokenizer.has(token)]
        assert row["answer"] == base.tokenizer.decode(known)


# fates


def test_what_cannot_be_asked_is_dropped_with_its_reason_and_said(lake, tmp_path):
    lines = [
        mixtures.word_problem(1),
        mixtures.word_problem(2) | {"question": "How many? " * 300},
        mixtures.word_problem(3),
    ]
    mixtures.samples(lake, tmp_path, "long", lines, form="pair")
    long = evaluations.evaluate(lake, ["long@v1"], dataset="long-eval").manifest
    assert (long.kept.count, long.funnel[0].dropped) == (2, {"evaluate.too_long": 1})
    assert "1 items were not scored: the funnel says why" in long.statistics["warnings"]


def test_an_evaluation_that_nothing_could_be_asked_for_is_not_committed(lake):
    with pytest.raises(GateFailed, match=r"not one of 12 records could be evaluated: evaluate\.no_choice \(12\)"):
        evaluations.evaluate(lake, ["math@v1"], dataset="wrong-eval", tasks={"math@v1": "choice"})
    assert Versions(lake).numbers("wrong-eval") == []


def test_a_document_of_one_token_has_nothing_to_score(lake, base):
    mixtures.documents(lake, "tiny", ["", "   ", "a mill grinds grain"])
    manifest = evaluations.evaluate(lake, ["tiny@v1"], dataset="tiny-eval").manifest
    assert manifest.funnel[0].dropped == {"evaluate.empty": 2} and manifest.kept.count == 1


def test_a_task_by_name_replaces_what_the_form_says(lake, base):
    manifest = evaluations.evaluate(lake, ["math@v1"], dataset="named", tasks={"math@v1": "perplexity"}).manifest
    samples = samples_of(lake, "math")
    for row in rows_of(lake, manifest):
        encoded = base.tokenizer.encode([samples[row["id"]]])
        assert row["nats"] == pytest.approx(
            nats(base.model, encoded.ids.tolist(), encoded.loss_mask.tolist()), rel=1e-5
        )
        assert row["tokens"] == int(encoded.loss_mask.sum())


@pytest.mark.parametrize("name", ["web", "math", "mix"])
def test_pieces_tile_a_version(lake, name):
    source = Versions(lake).manifest(name, 1)
    pieces = list(pieces_of(source, None, 5))
    for shard in {piece.shard.sha256: piece.shard for piece in pieces}.values():
        ranges = [(piece.first, piece.end) for piece in pieces if piece.shard == shard]
        assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])] and ranges[-1][
            1
        ] == shard.records
    if name != "mix":
        assert total(piece.received or Tally() for piece in pieces) == tally_of(source)
    limited = list(pieces_of(source, None, 5, limit=7))
    assert sum(piece.end - piece.first for piece in limited) == min(7, sum(p.end - p.first for p in pieces))


def test_what_has_no_answers_is_refused_as_data(lake):
    for name, task, why in (("bpe", None, "holds a tokenizer"), ("web", "exact", "which have perplexity and no exact")):
        with pytest.raises(ValueError, match=why):
            list(pieces_of(Versions(lake).manifest(name, 1), task, 5))


# runs


def test_the_same_evaluation_is_made_once_and_another_seed_of_the_bootstrap_asks_nothing_again(lake):
    first = evaluations.evaluate(lake, ["math@v1"], dataset="once")
    again = evaluations.evaluate(lake, ["math@v1"], dataset="once")
    assert first.new and not again.new and again.manifest == first.manifest
    runner = Runner(lake, workers=0)
    other = evaluations.evaluate(lake, ["math@v1"], runner, dataset="once", bootstrap={"resamples": 150})
    assert other.manifest.version == 2 and {title: ran for title, _, ran in runner.history}["evaluate"] == 0


def test_a_worker_that_fails_costs_its_own_piece_alone(lake, monkeypatch):
    """The third of three pieces fails once; a second run asks only that one."""
    asked = []
    rows = ready.Ready.rows

    def fails_once(self, store, piece):
        asked.append((piece.first, piece.end))
        if asked.count((10, 12)) == 1 and piece.first == 10:
            raise OSError("the machine was taken away")
        return rows(self, store, piece)

    monkeypatch.setattr(ready.Ready, "rows", fails_once)
    given = {"dataset": "killed", "generate": evaluations.SIZES | {"seed": 7}}
    with pytest.raises(Incomplete, match="1 of 3 pieces of work failed"):
        evaluations.evaluate(lake, ["math@v1"], **given)
    result = evaluations.evaluate(lake, ["math@v1"], **given)
    assert asked == [(0, 5), (5, 10), (10, 12), (10, 12)] and result.manifest.kept.count == 12


def test_every_piece_has_a_receipt_whose_balance_is_of_its_records(lake):
    manifest = evaluations.evaluate(lake, ["mix@v1"], dataset="receipts", chunk_items=3).manifest
    evaluation = Evaluation.of(evaluations.config(["mix@v1"], chunk_items=3).recipe, Versions(lake))
    receipts = [finished(lake, piece.key) for piece in work.evaluate_works(evaluation.stage, evaluation.pieces)]
    assert len(receipts) > 2 and total(receipt.received for receipt in receipts) == manifest.received
    assert manifest.received == tally_of(Versions(lake).manifest("mix", 1))


def test_questions_of_a_piece_are_those_of_its_rows(lake, base):
    source = Versions(lake).manifest("math", 1)
    whole, *_ = pieces_of(source, None, 100)
    prompts = Prompts(base.tokenizer)
    rules = Evaluation.of(evaluations.config(["math@v1"]).recipe, Versions(lake)).stage.rules
    every = list(questions(lake, whole, prompts, rules))
    part = list(questions(lake, replace(whole, first=4, end=9), prompts, rules))
    assert [q.record for q in part] == [q.record for q in every[4:9]]
    assert [q.tokens for q in part] == [q.tokens for q in every[4:9]]
