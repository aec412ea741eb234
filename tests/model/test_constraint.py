"""The engine with scores of prompts and with rules for what is generated: beside others, and not to their harm."""

from __future__ import annotations

import json

import pytest
import torch
from serving import OPTIONS, toy_engine, toy_parts

from gristmill.model.generate.constraint import Grammars
from gristmill.model.generate.engine import Engine, Request, TooLong
from gristmill.model.generate.sampling import Sampling

PROMPT = tuple(range(20, 90))


def grammars() -> Grammars:
    engine, tokenizer = toy_engine()
    return Grammars(tokenizer, engine.model.config.text.vocab_size, engine.model.config.text.eos_token_id)


def test_a_sample_does_not_depend_on_rules_that_others_keep() -> None:
    free = [Request(f"k{i}", PROMPT, Sampling(20), n=2) for i in range(3)]
    bound = [Request(f"j{i}", PROMPT, Sampling(40), n=2, constraint=grammars().json_object()) for i in range(3)]
    alone = {(completion.request.key, completion.number): completion.tokens for completion in toy_engine()[0].run(free)}
    alone |= {
        (completion.request.key, completion.number): completion.tokens for completion in toy_engine()[0].run(bound)
    }
    mixed = [request for pair in zip(free, bound, strict=True) for request in pair]
    assert {
        (completion.request.key, completion.number): completion.tokens for completion in toy_engine()[0].run(mixed)
    } == alone
    assert len(set(map(tuple, alone.values()))) == len(alone), "each sample has rules of its own"


def test_log_probabilities_are_of_all_the_vocabulary_whatever_is_allowed() -> None:
    engine, tokenizer = toy_engine()
    bound = Request("k", PROMPT, Sampling(3, temperature=0, logprobs=2), constraint=grammars().json_object())
    (sample,) = engine.run([bound])
    with torch.inference_mode():
        logits = engine.model(torch.tensor([PROMPT])).logits[0, -1].float().log_softmax(-1)
    assert sample.logprobs[0] == pytest.approx(float(logits[sample.tokens[0]]), abs=1e-4)
    assert sample.top_logprobs[0][0][0] == int(logits.argmax()) != sample.tokens[0]
    assert tokenizer.decode(sample.tokens).startswith("{")


def test_the_scores_of_a_prompt_are_those_of_the_model_without_a_cache() -> None:
    model = toy_parts()[1]
    engine = Engine(model, OPTIONS)
    lengths = (1, 31, 32, 33, 64, 70)  # about the borders of chunks
    requests = [Request(f"k{n}", PROMPT[:n], Sampling(2), n=2, prompt_logprobs=2) for n in lengths]
    samples = list(engine.run([*requests, Request("plain", PROMPT, Sampling(2))]))
    for completion in samples:
        if completion.request.key == "plain":
            assert completion.prompt_logprobs is None
            continue
        assert completion.prompt_logprobs is not None and len(completion.prompt_logprobs) == len(
            completion.request.tokens
        )
        assert completion.prompt_logprobs[0] == (None, [])
        with torch.inference_mode():
            logits = model(torch.tensor([completion.request.tokens])).logits[0].float().log_softmax(-1)
        for place, (chance, top) in enumerate(completion.prompt_logprobs[1:]):
            assert chance == pytest.approx(float(logits[place, completion.request.tokens[place + 1]]), abs=1e-4)
            assert [token for token, _ in top] == logits[place].topk(2).indices.tolist()


def test_nothing_can_be_asked_for() -> None:
    engine, _ = toy_engine()
    full = tuple([20] * OPTIONS.max_model_len)
    completions = list(
        engine.run([Request("k", full, Sampling(0), n=3, prompt_logprobs=0), Request("j", PROMPT, Sampling(3))])
    )
    ended = [(completion.request.key, completion.finish_reason, len(completion.tokens)) for completion in completions]
    assert ended.count(("k", "length", 0)) == 3 and engine.idle and len(engine._free) == OPTIONS.max_num_seqs
    with pytest.raises(TooLong):
        engine.submit(Request("k", full, Sampling(1)))


def test_rules_are_deep_and_bounded() -> None:
    """A schema that could go on for ever is one; what its text costs is bounded by the library's limits."""
    node = {"$ref": "#/$defs/node"}
    schema = {"$defs": {"node": {"type": "object", "properties": {"next": node}, "additionalProperties": False}}} | node
    (sample,) = toy_engine()[0].run([Request("k", PROMPT, Sampling(60), constraint=grammars().json_schema(schema))])
    text = toy_engine()[1].decode(sample.tokens)
    assert text.startswith("{")
    if sample.finish_reason == "stop":
        json.loads(text.removesuffix("<|end|>").removesuffix("<|endoftext|>"))
    with pytest.raises(ValueError, match="cannot be kept to"):
        grammars().json_schema({"type": "string", "pattern": "(?=x)"})
