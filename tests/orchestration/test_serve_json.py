"""Answers that are JSON: from a model with random weights, which writes none by itself, every answer that ends is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest
from serving import Running, chat, fallback_parts, serving, texts, toy_parts
from waiting import PATIENCE

from gristmill.model.generate.constraint import Grammars
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer

OBJECT: Any = {"type": "json_object"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Ulm", "Zürich"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def asked(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


def test_an_answer_that_ends_is_an_object(server: Running) -> None:
    ended = 0
    for seed in range(4):
        for temperature in (0, 1):
            answer = chat(server, seed=seed, n=4, max_tokens=60, response_format=OBJECT, temperature=temperature)
            for choice in answer.choices:
                assert choice.message.content.startswith("{")
                if choice.finish_reason == "stop":
                    ended += 1
                    assert isinstance(json.loads(choice.message.content), dict)
    assert ended > 2
    assert not texts(chat(server, seed=1, response_format={"type": "text"}))[0].startswith("{")


def test_an_answer_keeps_to_its_schema(server: Running) -> None:
    answer = chat(server, seed=3, n=8, max_tokens=200, response_format=asked(SCHEMA), stream=False)
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    for content in texts(answer):
        jsonschema.validate(json.loads(content), SCHEMA)
    assert texts(chat(server, seed=3, n=8, max_tokens=200, response_format=asked(SCHEMA))) == texts(answer)


def test_with_bytes_and_ids_that_stand_for_nothing() -> None:
    with serving(parts=fallback_parts) as server:
        for content in texts(chat(server, seed=3, n=8, max_tokens=200, response_format=asked(SCHEMA))):
            jsonschema.validate(json.loads(content), SCHEMA)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"$ref": "https://elsewhere.example/schema.json"},
        {"type": "nothing"},
        {"$ref": "#"},
        {"not": {"type": "string"}},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
    ],
    ids=json.dumps,
)
def test_a_schema_that_cannot_be_kept_to_is_refused(server: Running, schema: dict[str, Any]) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "response_format": asked(schema)}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "response_format"
    assert "cannot be kept to" in answer.json()["error"]["message"]
    assert server.health().status_code == 200


def test_what_is_allowed_is_what_goes_on() -> None:
    tokenizer = Tokenizer.from_bytes(toy_parts()[0])
    vocab = tokenizer.vocab_size + 10
    ends = [tokenizer.special("<|end|>")]
    state = Grammars(tokenizer, vocab, ends).json_schema(SCHEMA)
    begun = state.copy()
    for token in tokenizer.encode([[Segment('{"city": "Zürich", "days": 7}')]]).ids.tolist():
        allowed = state.allowed(vocab)
        assert allowed[token] and not allowed[ends[0]] and not allowed[tokenizer.vocab_size :].any()
        state.take(token)
    assert state.allowed(vocab).nonzero()[:, 0].tolist() == ends, "a whole value, and nothing can follow"
    first = [tokenizer.decode([i]) for i in begun.allowed(vocab).nonzero()[:, 0].tolist()]
    assert all(content.startswith("{") for content in first), "a copy goes its own way"
