"""Text of a server whose tokenizer writes bytes: streams are whole; prompts in lists, echoed, with their scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from serving import Running, chat, fallback_parts, serving, text, texts, toy_parts

from gristmill.model.processing.segments import Segment
from gristmill.orchestration.serve.text import Growing
from tests.orchestration.test_serve import streamed


@pytest.fixture(scope="module")
def fallback() -> Iterator[Running]:
    with serving(parts=fallback_parts) as server:
        yield server


@pytest.mark.parametrize("create", [chat, text])
def test_a_stream_of_random_bytes_is_the_whole_text(fallback: Running, create: Any) -> None:
    for seed in range(5):
        settings = {"seed": seed, "n": 4, "max_tokens": 30, "stop": ["a", "\n", " t"]}
        whole = create(fallback, **settings)
        streamed_texts, ends, _, _ = streamed(create(fallback, **settings, stream=True))
        assert list(dict(sorted(streamed_texts.items())).values()) == texts(whole)
        assert {index: [choice.finish_reason] for index, choice in enumerate(whole.choices)} == ends


def test_characters_written_as_bytes_come_whole(fallback: Running) -> None:
    fallback.script(["the cat", "<|end|>"])
    assert texts(chat(fallback)) == ["the cat"], "the space that a text begins with is none"
    assert texts(text(fallback, prompt="the")) == [" the cat"], "a completion goes on from its prompt"
    fallback.script(["你好", "the", "<|end|>"])
    chunks = list(chat(fallback, stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(pieces) == "你好 the" and not any("\ufffd" in piece for piece in pieces)
    logprobs = chat(fallback, logprobs=True).choices[0].logprobs.content
    assert [bytes(item.bytes) for item in logprobs[:4]] == [b" ", b"\xe4", b"\xbd", b"\xa0"]
    fallback.engine.script = ()


def test_stop_texts_are_held_back_whatever_the_decoder(fallback: Running) -> None:
    tokenizer = fallback.tokenizer
    tokens = tokenizer.encode([[Segment("the cat sat 你好 where")]]).ids.tolist()
    growing = Growing(tokenizer, (" sat on", "你好吗"))
    pieces = [growing.add(token) for token in tokens]
    assert "".join(pieces) + growing.end() == "the cat sat 你好 where"
    growing = Growing(tokenizer, ("你好",))
    pieces = [growing.add(token) for token in tokens[:-6]]
    assert "你" not in "".join(pieces[:-1])
    assert growing.end("你好") == ""


def test_prompts_in_lists(server: Running) -> None:
    ids = [server.tokenizer.encode([[Segment(prompt)]]).ids.tolist() for prompt in ("the cat", "numbers 1")]
    apart = [texts(text(server, seed=1, n=2, prompt=prompt)) for prompt in ("the cat", "numbers 1")]
    for prompt in (["the cat", "numbers 1"], ids, ["the cat", ids[1]]):
        answer = text(server, seed=1, n=2, prompt=prompt)
        assert texts(answer) == [*apart[0], *apart[1]]
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage.prompt_tokens == sum(map(len, ids))
        streamed_texts, ends, _, _ = streamed(text(server, seed=1, n=2, prompt=prompt, stream=True))
        assert [streamed_texts[index] for index in range(4)] == texts(answer) and sorted(ends) == [0, 1, 2, 3]
    assert len(text(server, prompt=["the cat"] * 40, max_tokens=1).choices) == 40, "more than may wait"


def test_a_prompt_is_echoed_with_its_log_probabilities(server: Running) -> None:
    """As lm-eval scores a text: echo, no tokens of its own, log-probabilities; against the model without a cache."""
    prompt = "the cat sat on the mat and the dog ran to the sea, où l'été finit; numbers 1 2 3 and more " * 2
    tokens = server.tokenizer.encode([[Segment(prompt)]]).ids.tolist()
    answer = text(server, prompt=prompt, echo=True, max_tokens=0, logprobs=3)
    choice, logprobs = answer.choices[0], answer.choices[0].logprobs
    assert (choice.text, choice.finish_reason) == (prompt, "length")
    assert (answer.usage.completion_tokens, answer.usage.prompt_tokens) == (0, len(tokens))
    assert (
        "".join(logprobs.tokens) == prompt and logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    )
    assert [
        prompt[at:][: len(name)] for at, name in zip(logprobs.text_offset, logprobs.tokens, strict=True)
    ] == logprobs.tokens
    model = toy_parts()[1]
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    for place, token in enumerate(tokens[1:]):
        assert logprobs.token_logprobs[place + 1] == pytest.approx(float(logits[place, token]), abs=1e-4)
        assert max(logprobs.top_logprobs[place + 1].values()) == pytest.approx(float(logits[place].max()), abs=1e-4)
        assert len(logprobs.top_logprobs[place + 1]) == 3


def test_an_echo_stands_before_what_is_generated(server: Running) -> None:
    settings: dict[str, Any] = {"seed": 4, "n": 2, "logprobs": 1, "max_tokens": 6}
    alone = text(server, **settings)
    both = text(server, **settings, echo=True)
    assert texts(both) == [f"the cat{completion}" for completion in texts(alone)]
    for choice, bare in zip(both.choices, alone.choices, strict=True):
        count = len(choice.logprobs.tokens) - len(bare.logprobs.tokens)
        assert choice.logprobs.tokens[count:] == bare.logprobs.tokens
        assert choice.logprobs.token_logprobs[count:] == bare.logprobs.token_logprobs
        assert choice.logprobs.text_offset[count] == len("the cat")
    streamed_texts, _, logprobs, _ = streamed(text(server, **settings, echo=True, stream=True))
    assert [streamed_texts[index] for index in range(2)] == texts(both)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        items = [item for part in logprobs for item in getattr(part, name)]
        assert items == getattr(both.choices[0].logprobs, name)
    assert texts(text(server, **settings, echo=True, prompt=[5, 6, 7]))[0].startswith(
        server.tokenizer.decode([5, 6, 7])
    )
    assert text(server, echo=True, max_tokens=0).choices[0].logprobs is None
    whole = text(server, prompt=[20] * 512, echo=True, max_tokens=0, logprobs=0)
    assert len(whole.choices[0].logprobs.tokens) == 512, "the whole context"
