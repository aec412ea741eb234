"""Samples of problems as they come one after another: drawn from known chances, recorded, or by a model that learned.

A world is a list of problems, a problem the list of its samples in the order in which they are numbered. A policy sees
a prefix of each, so that all of them meet the same samples. Of simulated ones the chance is known that the next sample
brings a new chain, so that they can tell what a rule that knew it would save.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from gristmill.synth.sampling import Judged
from gristmill.synth.verify.maths import Maths
from gristmill.synth.verify.verdict import Problem

RECORDED = Path(__file__).parents[2] / "shared/data/3_math_code/qwen_math_cot_8samples.jsonl"


class Drawn(NamedTuple):
    """A sample, its tokens, and, where it is known, the chance that it brings a chain that those before it have not."""

    judged: Judged
    tokens: int
    chance: float | None = None


World = Sequence[Sequence[Drawn]]


class Mix(NamedTuple):
    """How problems differ. Pass rates are drawn from a beta distribution; a problem has about `chains` right chains, of
    which the i-th comes 1/i as often as the first; None: every right sample is another chain."""

    name: str
    rates: tuple[float, float]
    chains: int | None


MIXES = (
    Mix("any pass rate, every chain another", (1, 1), None),
    Mix("any pass rate, some 30 chains", (1, 1), 30),
    Mix("any pass rate, some 6 chains", (1, 1), 6),
    Mix("any pass rate, some 2 chains", (1, 1), 2),
    Mix("easy or hopeless, some 30 chains", (0.5, 0.5), 30),
    Mix("mostly easy, every chain another", (5, 1), None),
    Mix("mostly easy, some 6 chains", (5, 1), 6),
    Mix("mostly hard, every chain another", (1, 4), None),
    Mix("mostly hard, some 6 chains", (1, 4), 6),
)


def simulated(mix: Mix, problems: int, each: int, seed: int) -> World:
    """`each` samples of so many problems, of a token each."""
    draw = random.Random(f"{mix.name} {seed}")
    return [_simulated(mix, each, draw) for _ in range(problems)]


def _simulated(mix: Mix, each: int, draw: random.Random) -> list[Drawn]:
    rate = draw.betavariate(*mix.rates)
    count = each if mix.chains is None else max(1, round(mix.chains * draw.lognormvariate(0, 1)))
    weights = [1.0 / (place + 1) for place in range(count)]
    shares = [weight / sum(weights) for weight in weights]
    edges, seen, fresh = list(accumulate(shares)), set[int](), 1.0
    samples: list[Drawn] = []
    for number in range(each):
        chance = rate if mix.chains is None else rate * max(0.0, fresh)
        if draw.random() >= rate:
            samples.append(Drawn(Judged("rejected"), 1, chance))
            continue
        chain = number if mix.chains is None else draw.choices(range(count), cum_weights=edges)[0]
        fresh -= 0 if chain in seen else shares[chain]
        seen.add(chain)
        samples.append(Drawn(Judged("accepted", str(chain)), 1, chance))
    return samples


def recorded(each: int, seed: int) -> World:
    """The eight samples of each of 44 problems of MATH by Qwen2.5-Math, drawn again and again; a token is counted as
    four characters."""
    draw, verifier, problems = random.Random(seed), Maths(), []
    for line in RECORDED.read_text().splitlines():
        row = json.loads(line)
        problem = Problem("maths", row["question"], row["gt"])
        verdicts = [verifier.verify(problem, chain) for chain in row["code"]]
        pool = [Judged.of(verdict.outcome, chain) for verdict, chain in zip(verdicts, row["code"], strict=True)]
        seen: set[str] = set()
        samples = []
        for place in draw.choices(range(len(pool)), k=each):
            fresh = sum(sample.chain is not None and sample.chain not in seen for sample in pool)
            samples.append(Drawn(pool[place], max(1, len(row["code"][place]) // 4), fresh / len(pool)))
            seen |= {chain} if (chain := pool[place].chain) is not None else set()
        problems.append(samples)
    return problems
