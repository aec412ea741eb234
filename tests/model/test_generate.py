"""The engine against the model without a cache, token for token; log-probabilities; what it refuses; its memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from models import (
    IMAGE,
    PICTURE_TOKENS,
    TEXT,
    greedy,
    image_inputs,
    logits_after,
    nano,
    prompts_of_all_kinds,
    switching_at,
    text_model,
    words,
)

import gristmill.model.generate.draw
from gristmill.model.generate.engine import Completion, Engine, Options, Request, TooLong
from gristmill.model.generate.prefill import Prefill
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(max_num_seqs=4, max_model_len=128, max_num_partial_prefills=4, prefill_chunk_size=8, block_size=16)
GREEDY = Sampling(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def text() -> Multimodal:
    return text_model()


@pytest.fixture(scope="module")
def switching() -> Multimodal:
    """LongRoPE switches after 32 tokens."""
    return text_model(**switching_at(32))


def run(model: Multimodal, requests: Sequence[Request], options: Options = OPTIONS) -> list[Completion]:
    """Samples in the order of their requests and numbers."""
    order = {request.key: place for place, request in enumerate(requests)}
    return sorted(
        Engine(model, options).run(requests), key=lambda completion: (order[completion.request.key], completion.number)
    )


def assert_greedy_as_without_cache(model: Multimodal, requests: Sequence[Request]) -> None:
    completions = run(model, requests)
    assert len(completions) == len(requests)
    for completion in completions:
        assert completion.tokens == greedy(model, completion.request, len(completion.tokens))[0], completion.request.key


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_sample_is_asked_for_once_and_has_all_its_tokens(text: Multimodal, temperature: float) -> None:
    how = Sampling(max_tokens=5, temperature=temperature, ignore_eos=True)
    completions = run(text, [Request(f"{i}", words(i + 1), how, n=1 + i % 3) for i in range(7)])
    assert [(completion.request.key, completion.number) for completion in completions] == [
        (f"{i}", k) for i in range(7) for k in range(1 + i % 3)
    ]
    assert all(len(completion.tokens) == 5 and completion.finish_reason == "length" for completion in completions)


def test_greedy_is_the_model_without_a_cache_for_prompts_around_chunks_and_blocks(text: Multimodal) -> None:
    lengths = (1, 2, 7, 8, 9, 15, 16, 17, 33, 47, 60)
    assert_greedy_as_without_cache(text, [Request(f"{n}", words(n, n), GREEDY) for n in lengths])


@pytest.mark.parametrize("adapter", [None, "speech"])
def test_greedy_is_the_model_without_a_cache_across_the_switch_of_frequencies(
    switching: Multimodal, adapter: str | None
) -> None:
    requests = [Request(f"{n}", words(n, n), GREEDY, adapter=adapter) for n in (5, 20, 24, 30, 31, 32, 33, 34, 50)]
    assert_greedy_as_without_cache(switching, requests)


def test_the_switch_of_frequencies_would_be_seen(switching: Multimodal) -> None:
    switch = switching_at(32)
    rope = replace(switch["rope_parameters"], attention_factor=replace(TEXT, **switch).rope_scale)
    never = text_model(**{**switch, "original_max_position_embeddings": 512, "rope_parameters": rope})
    request = Request("a", words(28, 28), replace(GREEDY, max_tokens=30))
    tokens, other = (greedy(model, request, 30)[0] for model in (switching, never))
    assert tokens[:5] == other[:5] and tokens != other


def test_adapters_beside_each_other_are_as_alone(switching: Multimodal) -> None:
    names = (None, "vision", "speech")
    requests = [
        Request(f"{name} {n}", words(n, n), GREEDY, adapter=name) for n, name in itertools.product((6, 27), names)
    ]
    assert_greedy_as_without_cache(switching, requests)
    assert len({tuple(greedy(switching, request, 12)[0]) for request in requests}) == 6


@pytest.mark.parametrize("original", [4096, 50])
def test_text_image_and_audio_prompts_in_one_run_are_as_without_a_cache(original: int) -> None:
    requests = [replace(request, sampling=GREEDY) for request in prompts_of_all_kinds().values()]
    assert_greedy_as_without_cache(nano(original), requests)


def test_a_routed_prompt_moves_what_is_generated() -> None:
    """Else the tests above would see nothing of adapters, images and audio."""
    for kind, request in prompts_of_all_kinds().items():
        plain = greedy(nano(), replace(request, inputs=None, adapter=None), 12)[0]
        unadapted, whole = (greedy(nano(), replace(request, adapter=name), 12)[0] for name in (None, "auto"))
        assert (len({tuple(tokens) for tokens in (plain, unadapted, whole)}) == 3) == (kind != "text"), kind


def test_by_token_only_the_prompts_own_image_takes_the_adapter() -> None:
    request = replace(prompts_of_all_kinds()["vision"], adapter="token", sampling=GREEDY)
    assert_greedy_as_without_cache(nano(), [request])


def test_by_token_what_follows_a_prompt_of_image_tokens_alone_takes_none() -> None:
    request = Request("a", (IMAGE,) * PICTURE_TOKENS, GREEDY, adapter="token", inputs=image_inputs())
    assert IMAGE not in greedy(nano(), request, 12)[0]
    assert_greedy_as_without_cache(nano(), [request])


def test_log_probabilities_are_those_of_the_model_without_a_cache(switching: Multimodal) -> None:
    how = Sampling(max_tokens=12, temperature=1.7, top_p=0.9, ignore_eos=True, logprobs=3)
    for completion in run(switching, [Request(f"{n}", words(n, n), how, n=2) for n in (9, 27)]):
        chances = logits_after(switching, completion.request, completion.tokens).log_softmax(-1)
        own = chances[torch.arange(12), torch.tensor(completion.tokens)]
        torch.testing.assert_close(torch.tensor(completion.logprobs), own, atol=1e-4, rtol=0)
        values, ids = chances.topk(3)
        assert [[token for token, _ in row] for row in completion.top_logprobs] == ids.tolist()
        logprobs = torch.tensor([[value for _, value in row] for row in completion.top_logprobs])
        torch.testing.assert_close(logprobs, values, atol=1e-4, rtol=0)


def test_each_request_gets_as_many_alternatives_as_it_asked_for(text: Multimodal) -> None:
    asked = (None, 0, 1, 20)
    completions = run(text, [Request(f"{k}", words(5), replace(GREEDY, logprobs=k)) for k in asked])
    assert [len(completion.logprobs) for completion in completions] == [0, 12, 12, 12]
    assert [{len(row) for row in completion.top_logprobs} for completion in completions] == [set(), {0}, {1}, {20}]
    assert len({tuple(completion.tokens) for completion in completions}) == 1, "asking changes no token"
    assert [row[0] for row in completions[3].top_logprobs] == list(
        zip(completions[1].tokens, completions[1].logprobs, strict=True)
    ), "greedy"


def test_the_samples_of_a_prompt_share_one_prefill(text: Multimodal, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted, steps = [], []
    admit, step = Prefill.admit, Prefill.step
    monkeypatch.setattr(Prefill, "admit", lambda self, prompt: (admitted.append(prompt), admit(self, prompt))[1])
    monkeypatch.setattr(Prefill, "step", lambda self: (steps.append(1), step(self))[1])
    completions = run(text, [Request("a", words(40), Sampling(max_tokens=9, ignore_eos=True), n=11)])
    assert len(completions) == 11 and len({tuple(completion.tokens) for completion in completions}) == 11
    assert len(admitted) == 1 and len(steps) == 5, "40 tokens in chunks of 8, once for 11 samples"


def test_slots_are_filled_anew_at_once(text: Multimodal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Static batches of 4 would take as long as the longest of each: 19 steps apiece, 152 in all; 44 is perfect, and 52
    if a slot rested for the step in which its sample ends."""
    calls: list[int] = []
    decode = Engine._decode
    monkeypatch.setattr(Engine, "_decode", lambda self: (calls.append(len(self._active)), decode(self))[1])
    lengths = [20 if i % 4 == 0 else 2 for i in range(32)]
    requests = [Request(f"{i}", words(4, i), replace(GREEDY, max_tokens=n)) for i, n in enumerate(lengths)]
    assert [len(completion.tokens) for completion in run(text, requests)] == lengths
    assert sum(calls) == sum(lengths) - 32, "the first token of each comes from its prompt"
    assert calls[:40] == [4] * 40 and len(calls) <= 44 + 19, "a full house until the last has begun"


def test_prompts_wait_for_pages_that_others_hold(text: Multimodal) -> None:
    """Long prompts that are computed and wait for a slot hold all the pages there are for prompts."""
    requests = [Request("first", words(9), replace(GREEDY, max_tokens=60), n=4)]
    requests += [Request(f"{i}", words(100 + i, i), GREEDY, n=1 + i % 3) for i in range(12)]
    for completion in run(text, requests):
        assert completion.finish_reason == "length"
        if completion.number == 0 and completion.request.key in ("first", "0", "7", "11"):
            assert completion.tokens == greedy(text, completion.request, len(completion.tokens))[0]


def test_an_images_token_that_a_sample_writes_makes_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """By sample, an image's token in a prompt chooses the adapter: not so when the sample is computed again, longer
    than the original context."""
    request = Request("a", words(28, 28, 2048), GREEDY)
    plain = replace(request, tokens=(*request.tokens, IMAGE), adapter=None)
    expected = greedy(nano(32), plain, 11)[0]
    assert expected != greedy(nano(32), replace(plain, adapter="auto"), 11)[0]
    draw = gristmill.model.generate.draw.choose

    def image_first(logits: torch.Tensor, *rest: object) -> torch.Tensor:
        first.append(1)
        return draw(logits, *rest) if len(first) > 1 else torch.tensor([IMAGE])  # type: ignore[arg-type]

    first: list[int] = []
    monkeypatch.setattr(gristmill.model.generate.draw, "choose", image_first)
    assert run(nano(32), [request])[0].tokens == [IMAGE, *expected]


def test_a_run_takes_requests_as_it_can_work_on_them(text: Multimodal) -> None:
    taken: list[int] = []

    def requests() -> Sequence[Request]:
        for i in range(100):
            taken.append(i)
            yield Request(f"{i}", words(3), replace(GREEDY, max_tokens=4))

    next(Engine(text, OPTIONS).run(requests()))  # type: ignore[arg-type]
    assert len(taken) <= 2 * (OPTIONS.max_num_seqs + 2 * OPTIONS.max_num_partial_prefills)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("a", ()), "0 tokens"),
        (Request("a", (5,), n=0), "n=0"),
        (Request("a", (5, 300)), "0 to 299"),
        (Request("a", (-1,)), "0 to 299"),
        (Request("a", (5,), Sampling(stop=("x",))), "decode"),
        (Request("a", (5,), adapter="music"), "music"),
    ],
)
def test_a_request_that_cannot_be_is_refused(text: Multimodal, request_: Request, message: str) -> None:
    engine = Engine(text, OPTIONS)
    with pytest.raises(ValueError, match=message):
        engine.submit(request_)
    assert engine.idle


def test_a_request_that_does_not_fit_is_refused_and_one_that_just_fits_is_not(text: Multimodal) -> None:
    engine = Engine(text, OPTIONS)
    for tokens, most in ((128, None), (200, None), (120, 9), (128, 1)):
        with pytest.raises(TooLong, match=f"{tokens} tokens.*128"):
            engine.submit(Request("a", words(tokens), Sampling(max_tokens=most)))
    (completion,) = run(text, [Request("a", words(120), replace(GREEDY, max_tokens=8))])
    assert len(completion.tokens) == 8 and completion.tokens == greedy(text, completion.request, 8)[0]


def test_inputs_that_do_not_match_their_tokens_stop_no_other_request() -> None:
    """Known to no one but the embedding: it raises from `submit` or `step`, and the engine goes on."""
    engine = Engine(nano(), OPTIONS)
    for _ in range(OPTIONS.max_num_partial_prefills + 1):
        with pytest.raises(ValueError, match="1 tokens of vision"):
            engine.submit(Request("bad", (5, IMAGE), GREEDY, inputs=image_inputs()))
            engine.step()
    (good,) = engine.submit(Request("good", words(3), GREEDY))
    for _ in range(30):
        engine.step()
    assert good.finish_reason == "length", "each refused prompt kept a row of the prefill"
    assert engine.idle


SIZES = ("max_num_seqs", "max_num_partial_prefills", "prefill_chunk_size")


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: count} for name in SIZES for count in (3, 0)),
        {"max_num_seqs": 5},  # on 2 threads, the last of 5, 6, 7, 9, 10 and 11 rows of a product have other bits
        {"max_num_partial_prefills": 6},
        {"block_size": 12},
        {"block_size": 0},
        {"max_model_len": 120},
        {"max_model_len": 0},
        {"max_model_len": -128},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(OPTIONS, **wrong)


def test_an_engine_longer_than_the_models_context_is_refused(text: Multimodal) -> None:
    with pytest.raises(ValueError, match="2048"):
        Engine(text, replace(OPTIONS, max_model_len=4096))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_of_memory_is_what_is_allocated(dtype: torch.dtype) -> None:
    model = text_model().to(dtype)
    engine = Engine(model, replace(OPTIONS, max_num_seqs=8))
    held = [tensor for cache in (engine._cache, engine._prefill.cache) for tensor in (cache.keys, cache.values)]
    assert {tensor.dtype for tensor in held} == {dtype}
    assert engine.options.bytes(model.config, dtype) == sum(tensor.untyped_storage().nbytes() for tensor in held)


def test_bfloat16_generates_what_its_model_finds_likely() -> None:
    model = text_model().to(torch.bfloat16)
    (completion,) = run(model, [Request("a", words(20), replace(GREEDY, logprobs=1))])
    chances = logits_after(model, completion.request, completion.tokens).float().log_softmax(-1)
    assert (chances.amax(-1) - chances[torch.arange(12), torch.tensor(completion.tokens)]).max() < 0.1
