"""How fast does the engine generate, against static batches, no cache at all, and transformers' generate?

512 prompts, each to continue for a length drawn beforehand (geometric, mean 64, at most 256), greedily, with the end
token ignored: all contestants must come to the same tokens. The same weights, one thread, float32. Static batches are
of 64, in the order given, and go on until the longest of a batch is done: with the same engine, with transformers and
its cache, and once more with the same engine where a sample that ended costs nothing but its row. The model without a
cache takes one prompt at a time, and only some of them: its time is per token. Two tokens may be equally likely to
within rounding, where contestants part; how many did is counted, and may be few.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Arm, Differ, Figure, Report, Row, Times, contest, figure
from gristmill.lake.store.objects import scratch
from gristmill.model.generate.engine import Completion, Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS

CONTINUOUS, STATIC, NAIVE = "continuous batching", "static batches", "one by one, no cache"
SPARING = "static batches whose ended samples cost no attention"
TRANSFORMERS = "transformers.generate"
SLOTS, MEAN, CAP, PROMPT = 64, 64, 256, 64
PARTING = 0.02
"""Share of requests whose tokens may part at a near tie."""

Outcome = Mapping[str, tuple[int, ...]]


class Static(Engine):
    """Refills when all slots are empty, with a whole batch whose prompts are computed side by side. A sample that ended
    costs no attention any more."""

    def _refill(self) -> list[Completion]:
        more = self._prefill.pending or self._queue
        if self._active or (more and len(self._prefill.ready) < self.options.max_num_seqs):
            return []
        return super()._refill()


@dataclass(frozen=True)
class Given:
    """What all contestants are given: the same weights, in our model and in transformers', and the requests."""

    model: Multimodal
    reference: Any
    requests: Sequence[Request]

    @property
    def tokens(self) -> int:
        """Tokens to generate, in all."""
        return sum(request.sampling.max_tokens or 0 for request in self.requests)


def requests(count: int, vocab: int) -> list[Request]:
    """Greedy ones; lengths are drawn as if each token ended a completion with the same chance."""
    draw, drawn = random.Random(0), list[Request]()
    for n in range(count):
        length = 1
        while length < CAP and draw.random() > 1 / MEAN:
            length += 1
        prompt = tuple(draw.randrange(16, vocab) for _ in range(draw.randint(16, PROMPT)))
        drawn.append(Request(str(n), prompt, Sampling(max_tokens=length, temperature=0.0, ignore_eos=True)))
    return drawn


def given(folder: Path, count: int) -> Given:
    """Random weights, large enough that the likeliest token is seldom a near tie."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = ModelConfig(PRESETS["nano"].text)
    model = Multimodal.seeded(config, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    save_hf(model, folder / "hf")
    reference = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    return Given(model, reference, requests(count, config.text.vocab_size))


def by_engine(given: Given, kind: type[Engine], slots: int, prefills: int) -> Outcome:
    """With an engine of `slots` completions and `prefills` prompts side by side."""
    options = Options(
        max_num_seqs=slots, max_model_len=384, max_num_partial_prefills=prefills, prefill_chunk_size=32, block_size=64
    )
    completions = kind(given.model, options).run(given.requests)
    return {completion.request.key: tuple(completion.tokens) for completion in completions}


def by_batches(given: Given, slots: int) -> Outcome:
    """Batches of which every completion goes on until the longest is done, as transformers' do."""
    outcome: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(given.requests), slots):
        batch = given.requests[start : start + slots]
        longest = max(request.sampling.max_tokens or 0 for request in batch)
        whole = [replace(request, sampling=replace(request.sampling, max_tokens=longest)) for request in batch]
        tokens = by_engine(replace(given, requests=whole), Static, slots, slots)
        for request in batch:
            outcome[request.key] = tokens[request.key][: request.sampling.max_tokens]
    return outcome


@torch.inference_mode()
def by_model(given: Given, count: int) -> Outcome:
    """The first `count` requests, each token from the whole sequence anew."""
    outcome: dict[str, tuple[int, ...]] = {}
    for request in given.requests[:count]:
        ids = list(request.tokens)
        for _ in range(request.sampling.max_tokens or 0):
            ids.append(int(given.model(torch.tensor([ids])).logits[0, -1].argmax()))
        outcome[request.key] = tuple(ids[len(request.tokens) :])
    return outcome


@torch.inference_mode()
def by_transformers(given: Given, slots: int) -> Outcome:
    """transformers' `generate`, in batches padded on the left."""
    outcome: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(given.requests), slots):
        batch = given.requests[start : start + slots]
        lengths = [request.sampling.max_tokens or 0 for request in batch]
        width = max(len(request.tokens) for request in batch)
        padding = [width - len(request.tokens) for request in batch]
        ids = torch.tensor([[0] * pad + list(request.tokens) for pad, request in zip(padding, batch, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        sequences = given.reference.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(lengths), do_sample=False, eos_token_id=-1
        )
        for request, row, length in zip(batch, sequences[:, width:].tolist(), lengths, strict=True):
            outcome[request.key] = tuple(row[:length])
    return outcome


def check(outcomes: Mapping[str, Outcome], asked: Sequence[Request]) -> None:
    """Raises Differ unless all contestants wrote the same tokens, near ties apart."""
    expected = outcomes[CONTINUOUS]
    for request in asked:
        count, length = len(expected[request.key]), request.sampling.max_tokens
        if count != length:
            raise Differ(f"generate: request {request.key} has {count} tokens of {length}")
    for name, outcome in outcomes.items():
        apart = [key for key, tokens in outcome.items() if tokens != expected[key]]
        if len(apart) > PARTING * len(outcome) or (name in (STATIC, SPARING) and apart):
            raise Differ(
                f"generate: {len(apart)} of {len(outcome)} requests have other tokens by {name}, as {apart[:3]}"
            )


def parted(times: Times) -> dict[str, int]:
    """For each contestant the requests whose tokens are others than those of the engine."""
    expected = times.outcomes[CONTINUOUS]
    return {
        name: sum(tokens != expected[key] for key, tokens in outcome.items())
        for name, outcome in times.outcomes.items()
    }


def rows_of(times: Times, tokens: int, part: int) -> list[Row]:
    """What the report shows, of `tokens` in all, `part` of which were generated without a cache too."""
    same = "every token, but near ties"
    per_token = Figure(*(ratio * tokens / part for ratio in times.ratio(NAIVE, CONTINUOUS)))
    speed = figure([tokens / seconds for seconds in times.cpu[CONTINUOUS]])
    return [
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {STATIC}", times.ratio(STATIC, CONTINUOUS), "x", "every token"),
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {SPARING}", times.ratio(SPARING, CONTINUOUS), "x", "every token"),
        Row(
            f"{CONTINUOUS}, {SLOTS} slots, over {TRANSFORMERS} in batches of as many",
            times.ratio(TRANSFORMERS, CONTINUOUS),
            "x",
            same,
        ),
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {NAIVE}, a token", per_token, "x", same),
        Row(f"{CONTINUOUS}, {SLOTS} slots", speed, "tokens/s", same),
    ]


def run(tiny: bool) -> Report:
    """The contest. `tiny`: on next to nothing, for the tests."""
    rounds, count, part, slots = (1, 12, 4, 8) if tiny else (3, 512, 32, SLOTS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with scratch() as folder:
            data = given(folder, count)
            if tiny:
                short = [
                    replace(r, sampling=replace(r.sampling, max_tokens=4 + n % 5)) for n, r in enumerate(data.requests)
                ]
                data = replace(data, requests=short)
            arms = {
                CONTINUOUS: Arm(partial(by_engine, data, Engine, slots, 8)),
                STATIC: Arm(partial(by_batches, data, slots)),
                SPARING: Arm(partial(by_engine, data, Static, slots, slots)),
                TRANSFORMERS: Arm(partial(by_transformers, data, slots)),
                NAIVE: Arm(partial(by_model, data, part)),
            }
            times = contest(arms, rounds, partial(check, asked=data.requests))
    finally:
        torch.set_num_threads(threads)
    part_tokens = sum(r.sampling.max_tokens or 0 for r in data.requests[:part])
    return Report(
        name="generate",
        data=f"{count} prompts of 16 to {PROMPT} tokens, {data.tokens:,} tokens to generate, "
        f"{sum(p.numel() for p in data.model.parameters()):,} parameters",
        rounds=rounds,
        rows=tuple(rows_of(times, data.tokens, part_tokens)),
        notes=(
            "a small model on one thread: what is saved is steps, and Python's time in each",
            f"requests whose tokens part at a near tie: {parted(times)}",
        ),
        details={
            "tokens": data.tokens,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "parted": parted(times),
            "packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    )
