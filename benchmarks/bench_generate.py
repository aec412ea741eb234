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
from lake.objects import scratch
from model.checkpoint import save_hf
from model.config import ModelConfig
from model.generate import Completion, Engine, Options, Request
from model.multimodal import Multimodal
from model.presets import PRESETS
from model.sampling import Sampling

CONTINUOUS, STATIC, NAIVE = "continuous batching", "static batches", "one by one, no cache"
SPARING = "static batches whose ended samples cost no attention"
THEIRS = "transformers.generate"
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
    model: Multimodal
    theirs: Any
    requests: Sequence[Request]

    @property
    def tokens(self) -> int:
        return sum(one.sampling.max_tokens or 0 for one in self.requests)


def requests(count: int, vocab: int) -> list[Request]:
    draw, found = random.Random(0), []
    for n in range(count):
        length = 1
        while length < CAP and draw.random() > 1 / MEAN:
            length += 1
        prompt = tuple(draw.randrange(16, vocab) for _ in range(draw.randint(16, PROMPT)))
        found.append(Request(str(n), prompt, Sampling(max_tokens=length, temperature=0.0, ignore_eos=True)))
    return found


def given(folder: Path, count: int) -> Given:
    """Random weights, large enough that the likeliest token is seldom a near tie."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = ModelConfig(PRESETS["nano"].text)
    model = Multimodal.seeded(config, 0).eval()
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() > 1:
                one.mul_(3)
    save_hf(model, folder / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    return Given(model, theirs, requests(count, config.text.vocab_size))


def by_engine(given: Given, kind: type[Engine], slots: int, prompts: int) -> Outcome:
    options = Options(
        max_num_seqs=slots, max_model_len=384, max_num_partial_prefills=prompts, prefill_chunk_size=32, block_size=64
    )
    engine = kind(given.model, options)
    return {one.request.key: tuple(one.tokens) for one in engine.run(given.requests)}


def by_batches(given: Given, slots: int) -> Outcome:
    """Batches of which every sample goes on until the longest is done, as transformers' do."""
    found: dict[str, tuple[int, ...]] = {}
    for start in range(0, len(given.requests), slots):
        some = given.requests[start : start + slots]
        longest = max(one.sampling.max_tokens or 0 for one in some)
        whole = [replace(one, sampling=replace(one.sampling, max_tokens=longest)) for one in some]
        made = by_engine(replace(given, requests=whole), Static, slots, slots)
        found |= {one.key: made[one.key][: one.sampling.max_tokens] for one in some}
    return found


@torch.inference_mode()
def by_model(given: Given, count: int) -> Outcome:
    found = {}
    for one in given.requests[:count]:
        ids = list(one.tokens)
        for _ in range(one.sampling.max_tokens or 0):
            ids.append(int(given.model(torch.tensor([ids])).logits[0, -1].argmax()))
        found[one.key] = tuple(ids[len(one.tokens) :])
    return found


@torch.inference_mode()
def by_transformers(given: Given, slots: int) -> Outcome:
    found = {}
    for start in range(0, len(given.requests), slots):
        some = given.requests[start : start + slots]
        width = max(len(one.tokens) for one in some)
        lengths = [one.sampling.max_tokens or 0 for one in some]
        ids = torch.tensor([[0] * (width - len(one.tokens)) + list(one.tokens) for one in some])
        mask = torch.tensor([[0] * (width - len(one.tokens)) + [1] * len(one.tokens) for one in some])
        made = given.theirs.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=max(lengths), do_sample=False, eos_token_id=-1
        )
        for one, row, length in zip(some, made[:, width:].tolist(), lengths, strict=True):
            found[one.key] = tuple(row[:length])
    return found


def check(outcomes: Mapping[str, Outcome], asked: Sequence[Request]) -> None:
    ours = outcomes[CONTINUOUS]
    for one in asked:
        if len(ours[one.key]) != one.sampling.max_tokens:
            raise Differ(f"generate: request {one.key} has {len(ours[one.key])} tokens of {one.sampling.max_tokens}")
    for name, found in outcomes.items():
        apart = [key for key, tokens in found.items() if tokens != ours[key]]
        if len(apart) > PARTING * len(found) or (name in (STATIC, SPARING) and apart):
            raise Differ(f"generate: {len(apart)} of {len(found)} requests have other tokens by {name}, as {apart[:3]}")


def parted(times: Times) -> dict[str, int]:
    ours = times.outcomes[CONTINUOUS]
    return {name: sum(tokens != ours[key] for key, tokens in found.items()) for name, found in times.outcomes.items()}


def rows_of(times: Times, tokens: int, part: int) -> list[Row]:
    same = "every token, but near ties"
    per_token = Figure(*(one * tokens / part for one in times.ratio(NAIVE, CONTINUOUS)))
    speed = figure([tokens / one for one in times.cpu[CONTINUOUS]])
    return [
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {STATIC}", times.ratio(STATIC, CONTINUOUS), "x", "every token"),
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {SPARING}", times.ratio(SPARING, CONTINUOUS), "x", "every token"),
        Row(
            f"{CONTINUOUS}, {SLOTS} slots, over {THEIRS} in batches of as many",
            times.ratio(THEIRS, CONTINUOUS),
            "x",
            same,
        ),
        Row(f"{CONTINUOUS}, {SLOTS} slots, over {NAIVE}, a token", per_token, "x", same),
        Row(f"{CONTINUOUS}, {SLOTS} slots", speed, "tokens/s", same),
    ]


def run(tiny: bool) -> Report:
    rounds, count, part, slots = (1, 12, 4, 8) if tiny else (3, 512, 32, SLOTS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with scratch() as folder:
            one = given(folder, count)
            if tiny:
                short = [
                    replace(r, sampling=replace(r.sampling, max_tokens=4 + n % 5)) for n, r in enumerate(one.requests)
                ]
                one = replace(one, requests=short)
            arms = {
                CONTINUOUS: Arm(partial(by_engine, one, Engine, slots, 8)),
                STATIC: Arm(partial(by_batches, one, slots)),
                SPARING: Arm(partial(by_engine, one, Static, slots, slots)),
                THEIRS: Arm(partial(by_transformers, one, slots)),
                NAIVE: Arm(partial(by_model, one, part)),
            }
            times = contest(arms, rounds, partial(check, asked=one.requests))
    finally:
        torch.set_num_threads(threads)
    some = sum(r.sampling.max_tokens or 0 for r in one.requests[:part])
    return Report(
        name="generate",
        data=f"{count} prompts of 16 to {PROMPT} tokens, {one.tokens:,} tokens to generate, "
        f"{sum(p.numel() for p in one.model.parameters()):,} parameters",
        rounds=rounds,
        rows=tuple(rows_of(times, one.tokens, some)),
        notes=(
            "a small model on one thread: what is saved is steps, and Python's time in each",
            f"requests whose tokens part at a near tie: {parted(times)}",
        ),
        details={
            "tokens": one.tokens,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "parted": parted(times),
            "packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    )
