"""The engine as it works on CUDA, over buffers that stay and ahead of the host, on the CPU: the same completions."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import engine_interpreted
import pytest
import torch
from models import nano, prompts_of_all_kinds, switching_at, text_model, words
from serving import toy_engine
from tapes import Tapes, use_device_side

from gristmill.model.generate.constraint import Grammars
from gristmill.model.generate.engine import Completion, Engine, Options, Request
from gristmill.model.generate.graphs import Fetched, Runner
from gristmill.model.generate.sampling import Sampling
from gristmill.model.generate.slots import Slots
from gristmill.model.phi4.multimodal import Multimodal

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Options(max_num_seqs=4, max_model_len=128, max_num_partial_prefills=4, prefill_chunk_size=8, block_size=16)
HOW = Sampling(max_tokens=12, temperature=1.3, top_p=0.95, ignore_eos=True, logprobs=2)
GREEDY = replace(HOW, temperature=0, top_p=1.0)
STOPS = ("7", "33", "1 2")


def decode(tokens: Sequence[int]) -> str:
    return "".join(f"{token} " for token in tokens)


def text_requests() -> list[Request]:
    """Of every kind that needs no image or clip: each way to draw, adapters, ends, prompts of one chunk and of many,
    some across the switch of frequencies at 32."""
    full, names = replace(HOW, top_p=1.0, temperature=0.8), (None, "vision", "speech")
    requests = [
        Request(f"{n} {name}", words(n, n), how, n=1 + n % 3, adapter=name)
        for n, name, how in zip((1, 7, 8, 9, 20, 31, 32, 33, 70), names * 3, (HOW, GREEDY, full) * 3, strict=True)
    ]
    scored = Request("scored", words(21, 3), Sampling(max_tokens=0), prompt_logprobs=2)
    stopped = Request("stopped", words(5, 4), replace(HOW, stop=STOPS, max_tokens=60, temperature=2.0), n=6)
    ended = Request("ended", words(5, 5), replace(full, ignore_eos=False, max_tokens=None, temperature=3.0), n=3)
    filled = Request("filled", words(118, 6), replace(HOW, max_tokens=None, logprobs=None))
    single = Request("single", words(4, 7), replace(HOW, max_tokens=1), n=5)
    return [*requests, scored, stopped, ended, filled, single]


def switching() -> Multimodal:
    return text_model(**switching_at(32))


def run(model: Multimodal, requests: Iterable[Request]) -> dict[tuple[str, int], Completion]:
    completions = Engine(model, OPTIONS, decode).run(requests)
    return {(completion.request.key, completion.number): completion for completion in completions}


def by_device(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, model: Multimodal, requests: Iterable[Request]
) -> dict[tuple[str, int], Completion]:
    with monkeypatch.context() as patch:
        use_device_side(patch, runner)
        return run(model, requests)


def bits(completions: dict[tuple[str, int], Completion]) -> dict[tuple[str, int], object]:
    return {
        key: (c.tokens, c.logprobs, c.top_logprobs, c.finish_reason, c.stop_reason, c.prompt_logprobs)
        for key, c in completions.items()
    }


KINDS: dict[str, Callable[[], tuple[Multimodal, list[Request]]]] = {
    "text": lambda: (switching(), text_requests()),
    "media": lambda: (nano(), [replace(r, sampling=HOW, n=2) for r in prompts_of_all_kinds().values()]),
    "media across the switch": lambda: (
        nano(50),
        [replace(r, sampling=GREEDY) for r in prompts_of_all_kinds().values()],
    ),
    "by token": lambda: (nano(), [replace(prompts_of_all_kinds()["vision"], adapter="token", sampling=HOW)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_path_without_a_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = KINDS[kind]()
    plain, device = run(model, requests), by_device(monkeypatch, Tapes(), model, requests)
    assert plain.keys() == device.keys() and len(plain) == sum(request.n for request in requests)
    for key, completion in plain.items():
        other = device[key]
        assert (other.tokens, other.finish_reason, other.stop_reason) == (
            completion.tokens,
            completion.finish_reason,
            completion.stop_reason,
        ), key
        torch.testing.assert_close(torch.tensor(other.logprobs), torch.tensor(completion.logprobs), atol=1e-4, rtol=0)
        assert [[token for token, _ in row] for row in other.top_logprobs] == [
            [token for token, _ in row] for row in completion.top_logprobs
        ]
        prompts = [[logprob for logprob, _ in c.prompt_logprobs or [] if logprob] for c in (other, completion)]
        torch.testing.assert_close(*map(torch.tensor, prompts), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_replays_have_the_bits_of_what_they_replay(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = KINDS[kind]()
    launched = by_device(monkeypatch, Runner(), model, requests)
    replayed = by_device(monkeypatch, Tapes(), model, requests)
    assert bits(replayed) == bits(launched)


def test_each_alone_is_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In other slots, beside others, by other graphs: those of adapters that others use."""
    model, requests = switching(), text_requests()[2:9:2]
    together = by_device(monkeypatch, Tapes(), model, requests)
    alone: dict[tuple[str, int], Completion] = {}
    for request in requests:
        for number in range(request.n):
            alone |= by_device(monkeypatch, Tapes(), model, [replace(request, n=1, first=number)])
    assert bits(alone) == bits(together)


@pytest.mark.parametrize("runner", [Runner, Tapes])
def test_constraints_and_logprobs_beside_others(runner: type[Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = tuple(range(20, 90))
    engine, tokenizer = toy_engine()
    text = engine.model.config.text
    rules = Grammars(tokenizer, text.vocab_size, text.eos_token_id).json_object()
    requests = [Request(f"free {i}", prompt, Sampling(20, logprobs=i), n=2) for i in range(2)]
    requests += [
        Request(f"bound {t}", prompt, Sampling(30, temperature=t, top_p=p, logprobs=2), n=2, constraint=rules)
        for t, p in ((0.0, 1.0), (1.0, 0.9), (1.5, 1.0))
    ]
    plain = {(c.request.key, c.number): c for c in engine.run(requests)}
    use_device_side(monkeypatch, runner())
    device = {(c.request.key, c.number): c for c in toy_engine()[0].run(requests)}
    assert {key: c.tokens for key, c in device.items()} == {key: c.tokens for key, c in plain.items()}
    for key, completion in plain.items():
        logprobs = torch.tensor(device[key].logprobs), torch.tensor(completion.logprobs)
        torch.testing.assert_close(*logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 7])
def test_cancelling_leaves_the_others_as_they_are(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = switching(), text_requests()[:6]
    expected = bits(by_device(monkeypatch, Tapes(), model, requests))
    use_device_side(monkeypatch, Tapes())
    engine = Engine(model, OPTIONS, decode)
    mates = [completion for request in requests[:3] for completion in engine.submit(request)]
    victims = engine.submit(Request("victim", words(28, 7), replace(HOW, max_tokens=60), n=6))
    for _ in range(steps):
        engine.step()
    had = [list(completion.tokens) for completion in victims]
    engine.cancel(victims)
    mates += [completion for request in requests[3:] for completion in engine.submit(request)]
    while not engine.idle:
        engine.step()
    assert bits({(c.request.key, c.number): c for c in mates}) == expected
    assert [completion.tokens for completion in victims] == had
    assert sorted(engine._free) == list(range(OPTIONS.max_num_seqs))
    for cache in (engine._cache, engine._prefill.cache):
        assert len(cache._free) == cache.keys.shape[1] - 1, "pages"


def test_numbers_that_are_none_harm_no_later_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = prompts_of_all_kinds()
    inputs = dict(kinds["vision"].inputs or {})
    nothing = {**inputs, "image_pixel_values": inputs["image_pixel_values"] * torch.nan}
    bad = replace(kinds["vision"], sampling=replace(HOW, max_tokens=40), n=4, inputs=nothing)
    later = [Request("far", words(90), HOW), *(Request(f"{i}", words(3, i), HOW) for i in range(3))]
    expected = bits(by_device(monkeypatch, Tapes(), nano(), later))
    use_device_side(monkeypatch, Tapes())
    engine = Engine(nano(), OPTIONS)
    with contextlib.suppress(ValueError):  # to refuse it is as good
        list(engine.run([bad]))
    assert bits({(c.request.key, c.number): c for c in engine.run(later)}) == expected


# What runs on the device, and in which order.


def test_a_graph_is_made_for_each_set_of_adapters_and_each_way_to_draw_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tapes = Tapes()
    by_device(monkeypatch, tapes, switching(), text_requests())
    assert len(set(tapes.recorded)) == len(tapes.recorded) < len(tapes.played) / 4
    kinds, ways = {key[0] for key in tapes.recorded}, {key for key in tapes.recorded if key[0] == "draw"}
    assert kinds == {"prefill", "decode", "draw"}
    assert ways <= {("draw", way) for way in ("greedy", "full", "nucleus")} and ("draw", "nucleus") in ways
    assert ("decode",) in tapes.recorded and any({"speech", "vision"} & set(key) for key in tapes.recorded)


class Log(Runner):
    """Which functions ran, and when the host waited for tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        wait = Fetched.wait
        monkeypatch.setattr(Fetched, "wait", lambda fetched: (self.events.append("wait"), wait(fetched))[1])

    def run(self, key: tuple[str, ...], function: Callable[[], None]) -> None:  # type: ignore[override]
        self.events.append(key[0])
        function()


def test_the_host_waits_for_tokens_when_the_next_ones_are_being_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    use_device_side(monkeypatch, log)
    (completion,) = Engine(text_model(), OPTIONS).run([Request("a", words(5), replace(GREEDY, max_tokens=4))])
    # A token that ends a completion whatever it is starts no decode: nothing would come of it.
    assert log.events == ["prefill", *["draw", "decode", "wait"] * 3, "draw", "wait"]
    assert len(completion.tokens) == 4


def test_slots_that_leave_for_certain_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[list[str]] = []
    decode_slots = Slots.decode

    def watched(self: Slots, completions: Iterable[Completion], ahead: int = 0) -> None:
        decoded.append([completion.request.key for completion in completions])
        decode_slots(self, completions, ahead)

    monkeypatch.setattr(Slots, "decode", watched)
    lengths = {"one": 1, "two": 2, "three": 3}
    requests = [Request(key, words(4), replace(GREEDY, max_tokens=count)) for key, count in lengths.items()]
    requests += [Request("full", words(126), replace(GREEDY, max_tokens=None))]
    by_device(monkeypatch, Tapes(), text_model(), requests)
    assert {key: sum(key in keys for keys in decoded) for key in (*lengths, "full")} == {
        "one": 0,
        "two": 1,
        "three": 2,
        "full": 1,
    }


def test_a_model_that_was_changed_between_two_runs_is_recorded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that were written in place are read as they are; weights that lie elsewhere need other graphs."""
    tapes, model = Tapes(), text_model()
    use_device_side(monkeypatch, tapes)
    engine = Engine(model, OPTIONS)

    def tokens() -> list[int]:
        (completion,) = engine.run([Request("a", words(9), GREEDY)])
        return completion.tokens

    plain, count = tokens(), len(tapes.recorded)
    with torch.no_grad():
        for parameter in model.language.parameters():
            parameter.mul_(1.5)
    scaled = tokens()
    assert scaled != plain and len(tapes.recorded) == count
    embedding = model.language.embed_tokens
    embedding.weight = torch.nn.Parameter(embedding.weight.flip(0))
    assert tokens() not in (plain, scaled) and len(tapes.recorded) > count


def test_graphs_without_a_device_are_refused() -> None:
    with pytest.raises(ValueError, match=r"graphs=True: .*cpu"):
        Engine(text_model(), replace(OPTIONS, graphs=True))
    assert Engine(text_model(), replace(OPTIONS, graphs=False))._side is None


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton on this system")
def test_with_the_kernels_interpreted_tokens_are_those_of_the_path_without_a_device() -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "engine_interpreted.py")]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"})
    assert run.returncode == 0, run.stderr
    interpreted, plain = json.loads(run.stdout), engine_interpreted.outcome()
    assert {key: tokens for key, (tokens, _) in interpreted.items()} == {
        key: tokens for key, (tokens, _) in plain.items()
    }
    for key, (_, logprobs) in plain.items():
        torch.testing.assert_close(torch.tensor(interpreted[key][1]), torch.tensor(logprobs), atol=1e-4, rtol=0)
