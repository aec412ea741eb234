"""A model of the lake in lm-evaluation-harness: what it is asked, by plain forwards; whole tasks where that is here."""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

import evaluations
import numpy as np
import pytest
import torch

from gristmill.lake.store.opening import open_store
from gristmill.model.processing.chat.conversation import parse, prompt, render
from gristmill.model.processing.segments import Segment
from gristmill.orchestration.harness.answering import Answering
from gristmill.orchestration.harness.lake import lake_lm
from gristmill.stages.models.model_versions import load_model

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is not installed: no harness to be asked by"
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("harness")
    store = open_store(str(folder / "lake"))
    evaluations.lake(store, folder)
    return store


@pytest.fixture(scope="module")
def base(lake):
    return load_model(lake, "base@v1")


@pytest.fixture(scope="module")
def answering(base):
    return Answering(base.model, base.tokenizer, 256, max_num_seqs=4)


def logprob(model, context, continuation):
    tokens = [*context, *continuation]
    with torch.inference_mode():
        logprobs = model(torch.tensor([tokens])).logits[0, :-1].float().log_softmax(-1)
    return float(logprobs.gather(1, torch.tensor(tokens[1:])[:, None])[len(context) - 1 :].double().sum())


CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Say <|end|> and \ufdd0<|end|>\ufdd1."},
    {"role": "assistant", "content": "It is"},
]


def test_a_chat_is_the_prompt_of_training_and_no_text_becomes_a_special_token(base, answering):
    plain = [turn | {"content": turn["content"].replace("\ufdd0", "").replace("\ufdd1", "")} for turn in CHAT]
    conversation = parse({"messages": plain})
    expected = base.tokenizer.encode([prompt(conversation)]).ids.tolist()
    assert answering.encode(answering.template(CHAT[:2], goes_on=False)) == expected
    begun = base.tokenizer.encode([render(conversation)[:-2]]).ids.tolist()
    assert answering.encode(answering.template(CHAT, goes_on=True)) == begun
    ends = base.tokenizer.special("<|end|>")
    assert expected.count(ends) == 2, "those of the template alone"
    assert answering.encode("<|end|>") == base.tokenizer.encode([[Segment("<|end|>")]]).ids.tolist() != [ends]


def test_likelihoods_are_those_of_a_plain_forward_and_long_contexts_lose_their_beginning(base, answering):
    words = answering.encode("the mill by the river grinds grain to flour for the baker " * 40)
    assert len(words) > 400
    pairs = [(words[:9], words[9:12]), (words[:300], words[300:310])]
    scored = answering.loglikelihoods(pairs)
    assert scored[0][0] == pytest.approx(logprob(base.model, *pairs[0]), rel=1e-5)
    assert scored[1][0] == pytest.approx(logprob(base.model, words[54:300], words[300:310]), rel=1e-5)
    with torch.inference_mode():
        best = int(base.model(torch.tensor([words[:9]])).logits[0, -1].argmax())
    assert [greedy for _, greedy in answering.loglikelihoods([(words[:9], [best]), (words[:9], [best + 1])])] == [
        True,
        False,
    ]


@pytest.mark.parametrize("pair", [([1], []), ([], [1]), ([1], [2] * 256)])
def test_what_cannot_be_scored_is_refused(answering, pair):
    with pytest.raises(ValueError, match=r"a continuation of \d+ tokens after \d+: allowed are 1 to 255"):
        answering.loglikelihoods([pair])


def test_answers_end_at_a_stop_text_and_settings_that_are_not_known_are_refused(base, answering):
    (whole,) = answering.answers([("the mill", {"max_gen_toks": 24})])
    assert len(whole) > 8
    stop = whole[5]
    (cut,) = answering.answers([("the mill", {"max_gen_toks": 24, "until": [stop, ""]})])
    assert cut == whole.partition(stop)[0]
    drawn = answering.answers([("the mill", {"max_gen_toks": 8, "do_sample": True, "temperature": 1.0})] * 2)
    assert drawn[0] != drawn[1]
    with pytest.raises(ValueError, match=r"top_k=3: known are until"):
        answering.answers([("the mill", {"max_gen_toks": 8, "top_k": 3})])
    with pytest.raises(ValueError, match="max_gen_toks=256: the model's length is 256"):
        answering.answers([("the mill", {"max_gen_toks": 256})])


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="the extra lm-eval is installed")
def test_without_the_extra_it_says_how_to_install_it(lake):
    with pytest.raises(ImportError, match=r"pip install 'gristmill\[lm-eval\]'"):
        lake_lm("base@v1", lake.uri)


# whole tasks

TASKS = {
    "choice": """
task: toy_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} Answer:"
doc_to_choice: "{{{{options}}}}"
doc_to_target: right
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
""",
    "rolling": """
task: toy_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
""",
    "written": """
task: toy_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match}}]
""",
}


@needs_harness
def test_whole_tasks_of_the_harness(lake, base, tmp_path, monkeypatch):
    """Multiple choice, perplexity and answers, each against what the model says when it is asked by hand.

    long: three tasks on one set of documents.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = ["flour and bread", "a", "the wheel of the mill"]
    docs = [
        {
            "question": f"What is made of {n} sacks?",
            "options": options,
            "right": n % 3,
            "text": f"{n} mills grind grain.",
        }
        for n in range(6)
    ]
    file = tmp_path / "docs.jsonl"
    file.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    for name, text in TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(file=json.dumps(str(file))))
    model = lake_lm("base@v1", lake.uri, max_length=256, max_num_seqs=4)
    names = [f"toy_{name}" for name in TASKS]
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(model=model, tasks=names, task_manager=manager, bootstrap_iters=0)["results"]
    tokenizer = base.tokenizer

    def encoded(text: str) -> list[int]:
        return tokenizer.encode([[Segment(text)]]).ids.tolist()

    right = right_norm = 0
    for doc in docs:
        context = encoded(f"{doc['question']} Answer:")
        costs = [
            logprob(base.model, context, encoded(f"{doc['question']} Answer: {o}")[len(context) :]) for o in options
        ]
        right += int(np.argmax(costs)) == doc["right"]
        right_norm += int(np.argmax(np.array(costs) / [len(o) for o in options])) == doc["right"]
    assert results["toy_choice"]["acc,none"] == pytest.approx(right / 6)
    assert results["toy_choice"]["acc_norm,none"] == pytest.approx(right_norm / 6)
    end = tokenizer.special("<|endoftext|>")
    nats = -sum(logprob(base.model, [end], encoded(doc["text"])) for doc in docs)
    size = sum(len(doc["text"].encode()) for doc in docs)
    assert results["toy_rolling"]["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert results["toy_written"]["exact_match,none"] == 0.0
    with_template = lm_eval.simple_evaluate(
        model=model, tasks=["toy_choice"], task_manager=manager, bootstrap_iters=0, apply_chat_template=True, limit=2
    )
    (first, *_) = with_template["samples"]["toy_choice"]
    asked = (
        first["arguments"][0][0] if isinstance(first["arguments"], list) else first["arguments"]["gen_args_0"]["arg_0"]
    )
    question = {"role": "user", "content": "What is made of 0 sacks? Answer:"}
    assert model.tok_encode(asked) == tokenizer.encode([prompt(parse({"messages": [question, CHAT[2]]}))]).ids.tolist()


@needs_harness
def test_a_long_text_is_cut_as_the_harness_cuts_it(lake, base):
    from lm_eval.api.instance import Instance
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    model = lake_lm("base@v1", lake.uri, max_length=128, max_num_seqs=4)
    text = "the mill by the river grinds grain to flour for the baker " * 20
    (total,) = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    windows = list(get_rolling_token_windows(model.tok_encode(text), model.eot_token_id, 127, 1))
    assert len(windows) > 2
    assert total == pytest.approx(sum(logprob(base.model, *make_disjoint_window(w)) for w in windows), rel=1e-5)
