"""What the engine promises: a sample's tokens follow from its request, key and number, whatever runs beside it."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import nano, prompts_of_all_kinds, switching_at, text_model, words

from gristmill.model.generate.engine import Completion, Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(max_num_seqs=4, max_model_len=128, max_num_partial_prefills=4, prefill_chunk_size=8, block_size=16)
MODEL = text_model(**switching_at(32))
HOW = Sampling(max_tokens=10, temperature=1.3, top_p=0.95, ignore_eos=True, logprobs=1)

Outcomes = dict[tuple[str, int], tuple[list[int], list[float]]]


def outcome(samples: Iterable[Completion]) -> Outcomes:
    """Tokens and the bits of their log-probabilities, which show what tokens alone would hide."""
    return {
        (completion.request.key, completion.number): (completion.tokens, completion.logprobs) for completion in samples
    }


def run(requests: Iterable[Request], options: Options = OPTIONS, model: Multimodal = MODEL) -> Outcomes:
    return outcome(Engine(model, options).run(requests))


def requests() -> list[Request]:
    """Of many lengths, some across the switch at 32, some with an adapter, for several samples or greedy."""
    adapters = (None, "vision", "speech")
    sampled = [
        Request(f"{n}", words(n, n), HOW, n=1 + n % 3, adapter=adapters[n % 3]) for n in (1, 3, 8, 14, 17, 28, 31, 40)
    ]
    return [*sampled, Request("greedy", words(27, 9), replace(HOW, temperature=0, top_p=1.0, max_tokens=20))]


@functools.cache
def everything() -> Outcomes:
    """All of them in one run."""
    return run(requests())


def test_samples_differ_from_each_other_and_end_where_they_should() -> None:
    assert (
        len({tuple(tokens) for tokens, _ in everything().values()})
        == len(everything())
        == sum(request.n for request in requests())
    )
    assert {len(tokens) for tokens, _ in everything().values()} == {10, 20}


def test_each_alone_is_as_all_together() -> None:
    alone: Outcomes = {}
    for request in requests():
        for number in range(request.n):
            alone |= run([replace(request, n=1, first=number)])
    assert alone == everything()


@settings(max_examples=8)
@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_order_mates_and_a_busy_engine_change_nothing(pick: random.Random, before: int) -> None:
    chosen = pick.sample(requests(), pick.randrange(1, len(requests())))
    engine = Engine(MODEL, OPTIONS)
    engine.submit(Request("other", words(pick.randrange(1, 60), 99), replace(HOW, max_tokens=pick.randrange(1, 60)), 5))
    for _ in range(before):
        engine.step()
    outcomes = {key: values for key, values in outcome(engine.run(chosen)).items() if key[0] != "other"}
    assert outcomes == {key: everything()[key] for key in outcomes} and len(outcomes) == sum(
        request.n for request in chosen
    )


def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been() -> None:
    request = replace(requests()[5], n=9)
    whole = run([request])
    parts = run([replace(request, n=4)]) | run([replace(request, first=4, n=5)])
    assert whole == parts and len(whole) == 9


def test_every_slot_gives_the_same_bits() -> None:
    request = Request("a", words(20), replace(HOW, max_tokens=20), adapter="speech")
    expected = run([request])
    for slot in range(OPTIONS.max_num_seqs):
        engine = Engine(MODEL, OPTIONS)
        engine._free.remove(slot)
        engine._free.append(slot)
        (completion,) = engine.submit(request)
        while not engine.idle:
            engine.step()
        assert completion.slot == slot and outcome([completion]) == expected


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("slots", [4, 8, 12, 64])
def test_every_row_of_a_product_as_wide_as_the_slots_has_the_same_bits(slots: int, count: int) -> None:
    """Why slots and prompts may not be any number: with 5, 6, 7, 9, 10 or 11 rows on 2 threads they have not."""
    torch.set_num_threads(count)
    weight, row, others = torch.randn(144, 48), torch.randn(48), torch.randn(slots, 48)
    products = []
    for place in range(slots):
        x = others.clone()
        x[place] = row
        products.append(F.linear(x, weight)[place])
    assert all(torch.equal(row, products[0]) for row in products)


@pytest.mark.parametrize("count", [1, 2])
def test_the_promise_holds_with_as_many_threads_all_along(count: int) -> None:
    torch.set_num_threads(count)
    together = run(requests(), replace(OPTIONS, max_num_seqs=8))
    for request in requests()[::3]:
        alone = run([request], replace(OPTIONS, max_num_seqs=8))
        assert alone == {key: together[key] for key in alone}


def test_image_and_audio_prompts_are_as_alone_in_any_company() -> None:
    kinds = [replace(request, sampling=HOW, n=2) for request in prompts_of_all_kinds().values()]
    together = run([*kinds[::-1], *(replace(request, key=f"{request.key}'") for request in kinds)], model=nano())
    for request in kinds:
        alone = run([request], model=nano())
        assert alone == {key: together[key] for key in alone}


def test_the_key_decides() -> None:
    request = requests()[5]
    assert run([request]) != {("x", 0): run([replace(request, key="x")])["x", 0]}
    tokens = [run([replace(request, key=key)])[key, 0][0] for key in ("a", "b", "c")]
    assert len({tuple(row) for row in tokens}) == 3


def test_nothing_is_drawn_from_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(requests()[:3])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", ["slots", "prefill"])
def test_numbers_that_are_none_harm_no_later_sample(rows: str) -> None:
    """A block of the cache that another sample has left counts with weight 0; and 0 x NaN is NaN."""
    kinds = prompts_of_all_kinds()
    bad = replace(kinds["vision"], sampling=replace(HOW, max_tokens=40), n=4)
    inputs = dict(bad.inputs or {})
    bad = replace(bad, inputs={**inputs, "image_pixel_values": inputs["image_pixel_values"] * torch.nan})
    far = Request("far", words(90), HOW)  # reaches blocks that the bad ones have left
    short = [Request(f"{i}", words(3, i), HOW) for i in range(3 if rows == "slots" else 7)]
    expected = run([*short, far], model=nano())
    engine = Engine(nano(), OPTIONS)
    for request in [replace(bad, key=f"{i}", n=1) for i in range(4)] if rows == "prefill" else [bad]:
        with contextlib.suppress(ValueError):  # to refuse them is as good
            engine.submit(request)
    while not engine.idle:
        with contextlib.suppress(ValueError):
            engine.step()
    assert outcome(engine.run([*short, far])) == expected


# Cancelling.


def states(engine: Engine, completion: Completion) -> str:
    """Where a sample is."""
    prefill = engine._prefill
    for name, prompts in (("queued", engine._queue), ("pending", prefill.pending), ("ready", prefill.ready)):
        if any(completion is other for prompt in prompts for other in prompt.waiting):
            return name
    return "active" if any(completion is other for other in engine._active.values()) else "ended"


@pytest.mark.parametrize("state", ["queued", "pending", "ready", "active", "again", "ended"])
def test_cancelling_in_any_state_leaves_the_others_as_they_are(state: str) -> None:
    engine = Engine(MODEL, OPTIONS)
    mates = [completion for request in requests()[:4] for completion in engine.submit(request)]
    victims = engine.submit(Request("victim", words(28, 7), HOW, n=6))
    later = [completion for request in requests()[4:] for completion in engine.submit(request)]
    victim = victims[0] if state in ("active", "again", "ended") else victims[-1]
    wanted = "queued" if state == "again" else state
    for _ in range(400):
        if states(engine, victim) == wanted and (victim.long or state != "again"):
            break
        engine.step()
    assert states(engine, victim) == wanted
    engine.cancel([victim])
    had, finish = list(victim.tokens), victim.finish_reason
    while not engine.idle:
        assert all(completion is not victim or finish for completion in engine.step())
    assert (victim.tokens, victim.finish_reason) == (had, finish) and (finish is None) == (state != "ended")
    assert outcome([*mates, *later]) == everything()
    kept = [completion for completion in victims if completion is not victim]
    assert all(len(completion.tokens) == 10 and completion.finish_reason == "length" for completion in kept)
    assert outcome(kept).items() <= run([victim.request]).items()
    assert_at_rest(engine)


def test_cancelling_all_leaves_an_engine_at_rest() -> None:
    for steps in (0, 1, 3, 6, 12):
        engine = Engine(MODEL, OPTIONS)
        samples = [completion for request in requests() for completion in engine.submit(replace(request, n=5))]
        for _ in range(steps):
            engine.step()
        engine.cancel(samples)
        for _ in range(12):
            engine.step()
        assert_at_rest(engine)
        assert run(requests()[:2]).items() == outcome(engine.run(requests()[:2])).items()


def assert_at_rest(engine: Engine) -> None:
    assert engine.idle
    assert sorted(engine._free) == list(range(OPTIONS.max_num_seqs))
    assert sorted(engine._prefill._free) == list(range(OPTIONS.max_num_partial_prefills))
    for cache, rows in (
        (engine._cache, OPTIONS.max_num_seqs),
        (engine._prefill.cache, OPTIONS.max_num_partial_prefills),
    ):
        assert sorted(cache._free) == list(range(1, 1 + rows * OPTIONS.max_model_len // OPTIONS.block_size)), "pages"
