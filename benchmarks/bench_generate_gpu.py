"""How fast does the engine generate on a GPU at the shape of Phi-4-Mini, and how near the limit of its memory?

Random weights in bfloat16, prompts of 128 tokens, 128 tokens to write each, the end token ignored: twice as many
requests as slots, so that slots are filled again. Against transformers' generate, one batch of as many as slots, and
its continuous batching with paged attention, on the same weights; each has the card to itself beside them, since the
engine is gone before they begin. They need not write the same tokens, since bfloat16 rounds differently by kernel: how
many are the same is told. The limit: all weights, and the keys and values written so far, have to be read in every
step; a copy measures the card's bandwidth.
A part of `python -m benchmarks gpu`, which says what `tiny` does.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from benchmarks.decode_step import attention_rows, linears_rows, step_rows
from benchmarks.harness import Differ, Figure, Row, figure
from benchmarks.on_device import GIB, bandwidth, device_of, free, peak_of, plain, scaled, settle
from benchmarks.peer_models import missing, text_model, transformers_model
from benchmarks.section import NO_TIME, Deadline, attempted, reason
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS

PAGED = ("paged|sdpa", "paged|eager")
"""What transformers calls its paged attention, the faster first: since 5.20 the first is an old name of sdpa, which
takes pages by itself."""
WARM = 8
"""Tokens that are written before the clock runs."""
ROUNDS, PEER_ROUNDS = 3, 2
"""At most; fewer where a section has no time for them."""

Tokens = list[tuple[int, ...]]
Prompts = Sequence[Sequence[int]]
Run = Callable[[Prompts, int], Tokens]
"""Prompts, and how many tokens to write for each."""


@dataclass(frozen=True)
class Pace:
    """How a contestant is timed: `warm`, tokens to write before, while kernels are loaded and graphs captured, which is
    nobody's speed; `rounds` at most, while there is time by `deadline`."""

    deadline: Deadline
    warm: int = WARM
    rounds: int = PEER_ROUNDS


@dataclass(frozen=True)
class Contest:
    """What all are given: a model, `slots` to fill, prompts of `prompt` tokens, and how many to write."""

    model: Multimodal
    slots: int
    prompt: int = 128
    written: int = 128

    @property
    def device(self) -> torch.device:
        """Where all of it happens."""
        return self.model.language.norm.weight.device

    @property
    def prompts(self) -> list[list[int]]:
        """Twice as many as slots, the same each time."""
        draw, vocab = random.Random(0), self.model.config.text.vocab_size
        return [[draw.randrange(16, vocab) for _ in range(self.prompt)] for _ in range(2 * self.slots)]

    @property
    def options(self) -> Options:
        """Of the engine: caches for exactly these lengths."""
        block = min(128, self.prompt)
        length = -(-(self.prompt + self.written) // block) * block
        return Options(
            self.slots, length, max_num_partial_prefills=8, prefill_chunk_size=min(128, self.prompt), block_size=block
        )

    def requests(self, prompts: Prompts, written: int) -> list[Request]:
        """Greedy ones."""
        sampling = Sampling(max_tokens=written, temperature=0.0, ignore_eos=True)
        return [Request(str(number), tuple(ids), sampling) for number, ids in enumerate(prompts)]


def by_engine(contest: Contest, engine: Engine, prompts: Prompts, written: int) -> Tokens:
    """Tokens of each prompt, `written` of them."""
    requests = contest.requests(prompts, written)
    tokens = {completion.request.key: tuple(completion.tokens) for completion in engine.run(requests)}
    return [tokens[request.key] for request in requests]


@torch.inference_mode()
def by_generate(contest: Contest, reference: Any, prompts: Prompts, written: int) -> Tokens:
    """As `by_engine`, by transformers' `generate` in one batch."""
    ids = torch.tensor(prompts, device=contest.device)
    sequences = reference.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=written,
        do_sample=False,
        eos_token_id=-1,
    )
    return [tuple(row) for row in sequences[:, ids.shape[1] :].tolist()]


def by_continuous_batching(contest: Contest, reference: Any, prompts: Prompts, written: int) -> Tokens:
    """As `by_engine`, by transformers' continuous batching. What it sets up at its first call is kept for the others,
    where its release can do that."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=written, do_sample=False, eos_token_id=-1)
    takes = inspect.signature(reference.generate_batch).parameters
    kept = {"persistent_manager": True} if "persistent_manager" in takes else {}
    outputs = reference.generate_batch([list(ids) for ids in prompts], generation_config=config, **kept)
    if errors := [error for output in outputs.values() if (error := getattr(output, "error", None))]:
        raise RuntimeError(f"{len(errors)} of {len(prompts)} requests failed: {errors[0]}")
    in_order = sorted(outputs, key=lambda key: int(key.rsplit("_", 1)[-1]))
    return [tuple(outputs[key].generated_tokens) for key in in_order]


def speed(contest: Contest, run: Run, prompts: Prompts, pace: Pace, what: str) -> tuple[Figure, Tokens]:
    """Tokens a second of the clock, and those of the last round. Raises Differ where not as many came as were asked
    for."""
    run(prompts, pace.warm)
    speeds: list[float] = []
    tokens: Tokens = []
    for _ in pace.deadline.rounds(pace.rounds):
        settle(contest.device)
        started = time.perf_counter()
        tokens = run(prompts, contest.written)
        settle(contest.device)
        speeds.append(sum(map(len, tokens)) / (time.perf_counter() - started))
        counts = [len(sequence) for sequence in tokens]
        if counts != [contest.written] * len(prompts):
            raise Differ(
                f"{what} wrote {len(counts)} answers of {sorted(set(counts))} tokens, asked were {len(prompts)} of "
                f"{contest.written}"
            )
    return figure(speeds), tokens


def limit(contest: Contest, bytes_a_second: float) -> float:
    """Tokens a second if a step only read the weights and the keys and values of sequences half written."""
    text, weight = contest.model.config.text, contest.model.language.norm.weight
    weights = sum(parameter.nbytes for parameter in contest.model.parameters())
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * weight.element_size()
    return contest.slots * bytes_a_second / (weights + contest.slots * (contest.prompt + contest.written / 2) * token)


@dataclass
class Outcome:
    """What the engine came to, for its peers to be compared with."""

    speed: Figure | None = None
    tokens: Tokens = field(default_factory=list)


def engine_rows(contest: Contest, outcome: Outcome, deadline: Deadline) -> Iterator[Row]:
    """Speed, share of the limit, memory, and what a step is made of. The engine and its caches are gone afterwards."""
    slots, device, prompts = contest.slots, contest.device, contest.prompts
    most = limit(contest, bandwidth(device))
    with peak_of(device) as peak:
        engine = Engine(contest.model, contest.options)
        run = partial(by_engine, contest, engine)
        outcome.speed, outcome.tokens = speed(contest, run, prompts, Pace(deadline, rounds=ROUNDS), "the engine")
    yield Row(f"{slots} slots: ours", outcome.speed, "tokens/s", "number of tokens")
    yield Row(f"{slots} slots: share of the bandwidth limit", scaled(outcome.speed, 100 / most), "%")
    if device.type == "cuda":
        estimate = contest.options.bytes(contest.model.config, contest.model.language.norm.weight.dtype)
        yield Row(f"{slots} slots: memory of all, ours", plain(peak.all / GIB), "GiB")
        yield Row(f"{slots} slots: memory beside weights, over caches' estimate", plain(peak.more / estimate), "x")
    (request,) = contest.requests(prompts[:1], contest.written)
    yield from step_rows(engine, request, slots, device)


def peer_rows(
    contest: Contest,
    name: str,
    run: Run,
    outcome: Outcome,
    pace: Pace,
) -> Iterator[Row]:
    """Speed and memory of a peer, and ours over its."""
    what, prompts = f"{contest.slots} slots: {name}", contest.prompts[: contest.slots]
    if pace.deadline.left() <= 0:
        yield Row(what, None, "", why=NO_TIME, failed=True)
        return
    with peak_of(contest.device) as peak:
        figures, tokens = speed(contest, run, prompts, pace, name)
    same = sum(a == b for a, b in zip(outcome.tokens, tokens, strict=False))
    of_all = f", {same} of {len(tokens)} answers the same" if outcome.tokens else ""
    yield Row(what, figures, "tokens/s", f"number of tokens{of_all}")
    if outcome.speed is not None:
        yield Row(f"{contest.slots} slots: ours over {name}", plain(outcome.speed.median / figures.median), "x")
    if peak.all:
        yield Row(f"{contest.slots} slots: memory of all, {name}", plain(peak.all / GIB), "GiB")


def batching_rows(contest: Contest, reference: Any, outcome: Outcome, deadline: Deadline) -> Iterator[Row]:
    """Continuous batching by the first name of its paged attention that works; by none: what each of them said."""
    name, faults = "transformers' continuous batching", list[str]()
    for attention in PAGED:
        try:
            reference.set_attn_implementation(attention)
            run = partial(by_continuous_batching, contest, reference)
            # It makes room for as many tokens as it is asked for first.
            yield from peer_rows(contest, f"{name} ({attention})", run, outcome, Pace(deadline, contest.written))
            return
        except Exception as error:  # told in the row; the next name may work
            faults.append(f"{attention}: {reason(error)}")
        finally:
            if destroy := getattr(reference, "destroy_cached_continuous_batching_manager", None):
                destroy()
            reference.set_attn_implementation("sdpa")
            free(contest.device)
    yield Row(f"{contest.slots} slots: {name}", None, "", why="; ".join(faults))


def rows(slots: int, tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """All of so many slots: the engine, the parts of a step, and then the peers."""
    device = device_of(tiny)
    config = ModelConfig(PRESETS["nano" if tiny else "mini"].text)
    model = text_model(config, device, torch.float32 if tiny else torch.bfloat16)
    contest, outcome = Contest(model, slots), Outcome()
    if tiny:
        contest = replace(contest, prompt=32, written=32)
    yield from attempted(f"{slots} slots: ours", lambda: engine_rows(contest, outcome, deadline))
    free(device)
    yield from attempted(f"{slots} slots: linears", lambda: linears_rows(model, slots))
    length = contest.prompt + contest.written // 2
    yield from attempted(f"{slots} slots: attention", lambda: attention_rows(model, contest.options, length))
    free(device)
    if why := missing("transformers"):
        yield Row(f"{slots} slots: transformers", None, "", why=why)
        return
    reference = transformers_model(model)
    name = "transformers.generate"
    run = partial(by_generate, contest, reference)
    generated = attempted(
        f"{slots} slots: {name}", lambda: peer_rows(contest, name, run, outcome, Pace(deadline)), peer=True
    )
    yield from generated
    free(device)
    if not tiny:  # on a CPU it takes longer to begin than all else
        yield from batching_rows(contest, reference, outcome, deadline)


def slots_64(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """64 slots; 4 if `tiny`."""
    yield from rows(4 if tiny else 64, tiny, deadline)


def slots_256(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """256 slots; 8 if `tiny`."""
    yield from rows(8 if tiny else 256, tiny, deadline)


def slots_1024(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """1,024 slots; 16 if `tiny`."""
    yield from rows(16 if tiny else 1024, tiny, deadline)
