"""What the engine promises on CUDA, where there is a device: none of these has run yet, for want of one.

Bits are those of log-probabilities, which show what tokens alone would hide.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import switching_at, text_model, words

from gristmill.model.generate.engine import Completion, Engine, Options, Request
from gristmill.model.generate.graphs import Graphs
from gristmill.model.generate.sampling import Sampling, draw, sample_key, uniforms
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
OPTIONS = Options(max_num_seqs=64, max_model_len=256, max_num_partial_prefills=8, prefill_chunk_size=32, block_size=32)
HOW = Sampling(max_tokens=40, temperature=1.1, top_p=0.95, ignore_eos=True, logprobs=1)
DTYPES = (torch.bfloat16, torch.float32)

Outcomes = dict[tuple[str, int], tuple[list[int], list[float]]]


@functools.cache
def model(dtype: torch.dtype) -> Multimodal:
    """Of heads that kernels can do; LongRoPE switches after 96 tokens."""
    shape: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 1024, "vocab_size": 2000}
    return text_model(**shape, **switching_at(96, 48)).to("cuda", dtype)


def requests() -> list[Request]:
    """Of many lengths, some across the switch, with and without adapters, drawn in each way."""
    hows, names = (HOW, replace(HOW, top_p=1.0), replace(HOW, temperature=0, top_p=1.0)), (None, "vision", "speech")
    return [Request(f"{n}", words(n, n), hows[n % 3], n=1 + n % 3, adapter=names[n % 4 % 3]) for n in range(1, 150, 7)]


def run(dtype: torch.dtype, asked: Iterable[Request], options: Options = OPTIONS) -> Outcomes:
    return outcomes(Engine(model(dtype), options).run(asked))


def outcomes(completions: Iterable[Completion]) -> Outcomes:
    return {(c.request.key, c.number): (c.tokens, c.logprobs) for c in completions}


@functools.cache
def everything(dtype: torch.dtype) -> Outcomes:
    return run(dtype, requests())


def test_the_engine_runs_as_graphs() -> None:
    side = Engine(model(torch.bfloat16), OPTIONS)._side
    assert side is not None and isinstance(side.runner, Graphs)


def test_in_bfloat16_mates_slots_and_order_change_no_bit() -> None:
    pick, expected = random.Random(0), everything(torch.bfloat16)
    assert len(expected) == sum(request.n for request in requests())
    for _ in range(3):
        chosen = pick.sample(requests(), len(requests()) // 2)
        others = [Request(f"other {i}", words(pick.randrange(1, 120), i), HOW) for i in range(40)]
        mixed = [*chosen, *others]
        pick.shuffle(mixed)
        outcome = {key: value for key, value in run(torch.bfloat16, mixed).items() if not key[0].startswith("other")}
        assert outcome == {key: expected[key] for key in outcome} and outcome
    for request in requests()[::4]:
        alone = run(torch.bfloat16, [request])
        assert alone == {key: expected[key] for key in alone}


def test_in_bfloat16_every_slot_gives_the_same_bits() -> None:
    request = Request("a", words(20), HOW, adapter="speech")
    expected = run(torch.bfloat16, [request])
    for slot in range(0, OPTIONS.max_num_seqs, 9):
        engine = Engine(model(torch.bfloat16), OPTIONS)
        engine._free.remove(slot)
        engine._free.append(slot)
        (completion,) = engine.submit(request)
        while not engine.idle:
            engine.step()
        assert completion.slot == slot and outcomes([completion]) == expected


def test_in_float32_log_probabilities_are_those_of_a_run_alone_to_a_thousandth() -> None:
    """Whether bits are equal too has not been measured with these kernels: `-s` shows it."""
    expected, same, count = everything(torch.float32), 0, 0
    for request in requests()[::3]:
        for key, (tokens, logprobs) in run(torch.float32, [request]).items():
            same, count = same + ((tokens, logprobs) == expected[key]), count + 1
            upto = next(
                (i for i, pair in enumerate(zip(tokens, expected[key][0], strict=True)) if len(set(pair)) > 1), 40
            )
            pair = torch.tensor(logprobs[:upto]), torch.tensor(expected[key][1][:upto])
            torch.testing.assert_close(*pair, atol=1e-3, rtol=0)
    print(f"float32: {same} of {count} bit-equal")


@pytest.mark.parametrize("dtype", DTYPES)
def test_graphs_have_the_bits_of_the_kernels_launched_one_by_one(dtype: torch.dtype) -> None:
    assert run(dtype, requests(), replace(OPTIONS, graphs=False)) == everything(dtype)


def test_greedy_tokens_are_likely_to_the_model_without_a_cache() -> None:
    how = Sampling(max_tokens=20, temperature=0, ignore_eos=True, logprobs=0)
    for completion in Engine(model(torch.float32), OPTIONS).run([Request(f"{n}", words(n, n), how) for n in (5, 60)]):
        count = len(completion.request.tokens)
        row = torch.tensor([[*completion.request.tokens, *completion.tokens]], device="cuda")
        logprobs_LV = model(torch.float32)(row).logits[0, count - 1 : -1].float().log_softmax(-1)
        own_L = logprobs_LV.gather(-1, row[0, count:, None])[:, 0]
        assert (logprobs_LV.amax(-1) - own_L).max() < 1e-3
        torch.testing.assert_close(own_L.cpu(), torch.tensor(completion.logprobs), atol=1e-3, rtol=0)


@pytest.mark.parametrize("top_p", [None, 0.95])
def test_what_is_drawn_is_the_same_again_and_again_and_on_the_cpu(top_p: float | None) -> None:
    """Cumulative sums of float64 are not, over a vocabulary as large as this."""
    logits = torch.randn(64, 200_064, generator=torch.Generator().manual_seed(0)) * 2
    numbers = torch.from_numpy(uniforms([sample_key("repeat", i) for i in range(64)], [0] * 64))
    heat = torch.full((64,), 1.3, dtype=torch.float64)
    cut = None if top_p is None else torch.full((64,), top_p, dtype=torch.float64)
    inputs = [None if tensor is None else tensor.cuda() for tensor in (logits, heat, numbers, cut)]
    drawn = [draw(*inputs).tolist() for _ in range(20)]  # type: ignore[arg-type]
    assert all(tokens == drawn[0] for tokens in drawn)
    # Two libraries' exp may differ in its last bit: a number that near a border is not to be expected.
    assert drawn[0] == draw(logits, heat, numbers, cut).tolist()
