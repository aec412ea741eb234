"""How many tokens does a fixed number of samples a problem cost, to come to what adaptive sampling comes to?

Both take the same samples of the same problems in the same order; of a problem as many distinct accepted chains count
as selection keeps, four unless it says otherwise. Adaptive sampling draws wave by wave with the stop's defaults and
pays for its surplus too. Fixed N draws the first N of every problem, N as small as comes to the same: to as many chains
in all, or to as many problems with all the chains that they may have. Between two N the cost is drawn out evenly, as
if some problems got one sample more. Where chances are known, `possible` is the same ratio for a rule that knows of
every problem how likely the next sample brings a new chain, and draws where that is likeliest: none saves more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch

from benchmarks.adaptive_toy import sampled, trained
from benchmarks.adaptive_worlds import MIXES, RECORDED, Drawn, Mix, World, recorded, simulated
from benchmarks.harness import Differ, Report, Row, figure
from gristmill.synth.sampling import Stop, Waves, next_samples, settle

SEEDS = 3
STOPS = {4: Stop(), 1: Stop(accept=1)}
"""By the chains that a problem may have."""


class Yield(NamedTuple):
    """What sampling came to: tokens, distinct accepted chains that count, problems with as many as they may have."""

    tokens: int
    chains: int
    full: int


class Compared(NamedTuple):
    """Of one world. `chains`, `full`: tokens of fixed N over those of adaptive sampling, for as many of either; None:
    no number of samples there comes to as many. `possible`: as `chains`, for a rule that knows the chances."""

    adaptive: Yield
    chains: float | None
    full: float | None
    possible: float | None


def adaptively(world: World, stop: Stop, waves: Waves) -> Yield:
    """Wave by wave, to every problem's stop. Raises Differ where what counts is not a function of the samples."""
    tokens = chains = full = 0
    for samples in world:
        drawn = 0
        while wave := next_samples({n: samples[n].judged for n in range(drawn)}, stop, waves):
            drawn = wave[-1] + 1
        settled = settle({n: samples[n].judged for n in range(drawn)}, stop)
        whole = settle({n: sample.judged for n, sample in enumerate(samples)}, stop)
        if (settled.counted, settled.distinct) != (whole.counted, whole.distinct):
            raise Differ(f"adaptive: {settled} of {drawn} samples, {whole} of all")
        tokens += sum(sample.tokens for sample in samples[:drawn])
        chains += settled.distinct
        full += settled.distinct == stop.accept
    return Yield(tokens, chains, full)


def courses(world: World, most: int) -> list[Yield]:
    """What the first 0, 1, 2, ... samples of every problem come to."""
    each = min(map(len, world))
    tokens, chains, full = [0] * (each + 1), [0] * (each + 1), [0] * (each + 1)
    for samples in world:
        seen: set[str] = set()
        paid = 0
        for number, sample in enumerate(samples[:each], 1):
            paid += sample.tokens
            if sample.judged.chain is not None:
                seen.add(sample.judged.chain)
            tokens[number] += paid
            chains[number] += min(len(seen), most)
            full[number] += len(seen) >= most
    return [Yield(*point) for point in zip(tokens, chains, full, strict=True)]


def cost(course: Sequence[Yield], of: Callable[[Yield], int], wanted: int) -> float | None:
    """Tokens at which a course comes to `wanted`; None: it never does."""
    for before, after in pairwise(course):
        if of(after) >= wanted:
            part = (wanted - of(before)) / max(1, of(after) - of(before))
            return before.tokens + part * (after.tokens - before.tokens)
    return None


def knowing(world: World, most: int, wanted: int) -> float:
    """Tokens of a rule that always draws where the next sample is likeliest to bring a new chain."""
    places = [(-(samples[0].chance or 0), problem, 0) for problem, samples in enumerate(world)]
    heapq.heapify(places)
    seen: list[set[str]] = [set() for _ in world]
    chains = tokens = 0
    while places and chains < wanted:
        _, problem, number = heapq.heappop(places)
        sample: Drawn = world[problem][number]
        tokens += sample.tokens
        chain = sample.judged.chain
        chains += chain is not None and chain not in seen[problem]
        seen[problem] |= {chain} if chain is not None else set()
        if len(seen[problem]) < most and number + 1 < len(world[problem]):
            heapq.heappush(places, (-(world[problem][number + 1].chance or 0), problem, number + 1))
    return tokens


def compared(world: World, stop: Stop) -> Compared:
    """Adaptive sampling against fixed N."""
    stop = replace(stop, at_most=min(stop.at_most, min(map(len, world))))
    adaptive = adaptively(world, stop, Waves())
    course = courses(world, stop.accept)
    of_chains = cost(course, lambda point: point.chains, adaptive.chains)
    of_full = cost(course, lambda point: point.full, adaptive.full)
    possible = None
    if of_chains is not None and world[0][0].chance is not None:
        possible = of_chains / knowing(world, stop.accept, adaptive.chains)
    chains, full = (None if tokens is None else tokens / adaptive.tokens for tokens in (of_chains, of_full))
    return Compared(adaptive, chains, full, possible)


def by_model(seed: int, *, varied: bool, steps: int, problems: int, each: int) -> World:
    """Of a model that learned for so many steps."""
    samples = sampled(trained(seed, varied, steps), seed, varied, problems, each)
    return [[Drawn(*sample) for sample in of_problem] for of_problem in samples]


def _worlds(tiny: bool) -> dict[str, Sequence[Callable[[], World]]]:
    """How each is come by, for every seed: one at a time is in memory."""
    seeds = range(1 if tiny else SEEDS)
    problems, each = (20, 64) if tiny else (200, 512)
    mixes: Sequence[Mix] = MIXES[:1] if tiny else MIXES
    worlds: dict[str, Sequence[Callable[[], World]]] = {
        f"simulated: {mix.name}": [partial(simulated, mix, problems, each, seed) for seed in seeds] for mix in mixes
    }
    size = {"steps": 2, "problems": 4, "each": 16} if tiny else {"steps": 170, "problems": 60, "each": 96}
    for name, varied in (("a chain in many ways", True), ("a chain in one way", False)):
        of_seeds = seeds[: 2 if varied else 1]
        learned = [partial(by_model, seed, varied=varied, **size) for seed in of_seeds]
        worlds[f"the project's engine, a trained model: {name}"] = learned
    if not tiny and RECORDED.is_file():
        worlds["recorded: Qwen2.5-Math on 44 problems of MATH"] = [partial(recorded, each, seed) for seed in seeds]
    return worlds


def _rows(name: str, most: int, results: Sequence[Compared]) -> list[Row]:
    """Of all seeds; none where fixed N never comes to as much."""
    kinds = {
        "as many chains": [result.chains for result in results],
        f"as many problems with {most}": [result.full for result in results],
    }
    rows = []
    for what, ratios in kinds.items() if most > 1 else list(kinds.items())[:1]:
        known = [ratio for ratio in ratios if ratio]
        if known:
            unit = f"{name}; up to {most} of a problem, {what}: fixed N costs"
            rows.append(Row(unit, figure(known), "x", f"the same samples, {len(known)} seeds"))
    return rows


def _details(results: Sequence[Compared], problems: int) -> Mapping[str, object]:
    """Of all seeds together, which have so many problems."""
    return {
        "samples' tokens a problem": sum(result.adaptive.tokens for result in results) / problems,
        "chains a problem": sum(result.adaptive.chains for result in results) / problems,
        "problems with all": sum(result.adaptive.full for result in results) / problems,
        "fixed N costs, for as many chains": [result.chains for result in results],
        "of that possible": [result.possible for result in results],
    }


def run(tiny: bool) -> Report:
    """The comparison. `tiny`: on next to nothing, for the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    details: dict[str, Mapping[str, object]] = {}
    try:
        for name, makes in _worlds(tiny).items():
            results: dict[int, list[Compared]] = {most: [] for most in STOPS}
            problems = 0
            for make in makes:
                world = make()
                problems += len(world)
                for most, stop in STOPS.items():
                    results[most].append(compared(world, stop))
            for most, of_seeds in results.items():
                rows += _rows(name, most, of_seeds)
                details[f"{name}; up to {most}"] = _details(of_seeds, problems)
    finally:
        torch.set_num_threads(threads)
    notes = (
        "`possible` in the details: what a rule that knew every chance would save; where that is below 2, none saves 2",
        "recorded samples are eight a problem, drawn again and again: a problem has at most eight chains",
    )
    return Report("adaptive", "samples of problems, known, recorded and drawn", SEEDS, tuple(rows), notes, details)
