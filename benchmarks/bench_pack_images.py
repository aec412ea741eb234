"""Packing of texts beside images: how many places stay empty, and how far does a window's budget of crops reach?

Documents, chats, samples of one image and of several, of usual sizes and of odd ones: an image of 6000 x 60 pixels is
15 inputs of the encoder for 1,169 tokens, so that a window full of such images costs many times one of photographs.
Packed with a budget of crops and without; in the windows of each round every sample is whole and no budget is exceeded.
Then the worst case, thin images alone, for which crops are what windows run out of.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Differ, Figure, Report, Row, figure
from gristmill.model.processing.image import plan_crops
from gristmill.model.processing.packing import Budget, Packing, pack

CAP, WINDOW, BUDGET = 36, 16_384, 80
"""Crops of an image at most; tokens and crops of a window."""
MAX_WASTE = 0.02
SAME = "every sample, every window"
Size = tuple[int, int]


class Samples(NamedTuple):
    """Tokens and crops of each, int64 [samples]; splittable: which are documents, bool [samples]."""

    tokens: np.ndarray
    crops: np.ndarray
    splittable: np.ndarray


def usual(random: np.random.Generator) -> Size:
    """Photographs of the web, of cameras, thumbnails, and one of twenty long and thin; height and width."""
    kind = random.random()
    if kind < 0.7:
        height, width = int(480 * random.uniform(0.7, 1)), 640
    elif kind < 0.85:
        height, width = (int(side) for side in random.integers(800, 3000, 2))
    elif kind < 0.95:
        height, width = (int(side) for side in random.integers(60, 400, 2))
    else:
        width = int(random.integers(40, 120))
        height = width * int(random.integers(15, 60))
    return (height, width) if random.random() < 0.5 else (width, height)


def thin(random: np.random.Generator) -> Size:
    """6000 x 60, more or less."""
    width = int(random.integers(50, 70))
    return 100 * width, width


def with_images(random: np.random.Generator, size: Callable[[np.random.Generator], Size], images: int) -> Size:
    """(tokens, crops) of a sample of so many images and some text."""
    plans = [plan_crops(*size(random), CAP) for _ in range(images)]
    text = int(random.integers(10, 200))
    return text + sum(plan.tokens for plan in plans), sum(1 + plan.rows * plan.cols for plan in plans)


def mixed(seed: int, count: int) -> Samples:
    """Three in ten documents, one in ten chats, the others of images: one in five of these of two to six."""
    random = np.random.default_rng(seed)
    rows = []
    for kind in random.random(count):
        if kind < 0.4:
            longest, middle, spread = (60_000, 6.0, 1.2) if kind < 0.3 else (4_000, 5.0, 0.8)
            rows.append((int(np.clip(random.lognormal(middle, spread), 8, longest)), 0, kind < 0.3))
        else:
            images = 1 if random.random() < 0.8 else int(random.integers(2, 7))
            rows.append((*with_images(random, usual, images), False))
    return fitting(rows)


def thin_alone(seed: int, count: int) -> Samples:
    """Samples of a thin image each."""
    random = np.random.default_rng(seed)
    return fitting([(*with_images(random, thin, 1), False) for _ in range(count)])


def fitting(rows: Sequence[tuple[int, int, bool]]) -> Samples:
    """Those that a window holds, as the mixture draws them."""
    tokens, crops, splittable = (np.array(column) for column in zip(*rows, strict=True))
    fits = splittable | ((tokens <= WINDOW) & (crops <= BUDGET))
    return Samples(tokens[fits], crops[fits], splittable[fits])


def packed(samples: Samples, budget: int | None) -> tuple[Packing, list[int], float]:
    """The windows, the crops of each, and the seconds that it took. Raises Differ."""
    started = time.process_time()
    budgets = [Budget("crops", samples.crops, budget)]
    packing = pack(samples.tokens, samples.splittable, WINDOW, max_waste=MAX_WASTE, budgets=budgets)
    seconds = time.process_time() - started
    check("pack_images", samples.tokens, packing, WINDOW, budgets)
    return packing, taken(samples.crops, packing), seconds


def taken(units: np.ndarray, packing: Packing) -> list[int]:
    """Units of each window. `units`: of each sample."""
    return [int(sum(units[piece.sample] for piece in window)) for window in packing.windows]


def check(what: str, sizes: np.ndarray, packing: Packing, places: int, budgets: Sequence[Budget]) -> None:
    """Raises Differ unless each sample is tiled by its pieces and each window stays within its budgets. `sizes`: tokens
    of each sample; `places`: of a window."""
    tokens: Counter[int] = Counter()
    for window in packing.windows:
        if sum(piece.length for piece in window) > places:
            raise Differ(f"{what}: a window of more tokens than it has places")
        for piece in window:
            tokens[piece.sample] += piece.length
    if [tokens[number] for number in range(len(sizes))] != sizes.tolist():
        raise Differ(f"{what}: a sample is not in the windows, or twice")
    for budget in budgets:
        if budget.most is not None and max(taken(budget.taken, packing)) > budget.most:
            raise Differ(f"{what}: a window of more {budget.name} than its budget")


def measures(samples: Samples) -> dict[str, float]:
    """Of one draw."""
    with_budget, crops, seconds = packed(samples, BUDGET)
    without, free, _ = packed(samples, None)
    windows = len(with_budget.windows)
    least = max(-(-int(samples.tokens.sum()) // WINDOW), -(-int(samples.crops.sum()) // BUDGET))
    return {
        "empty": 100 * with_budget.waste,
        "empty without": 100 * without.waste,
        "use": 100 * sum(crops) / (windows * BUDGET),
        "fullest": 100 * max(crops) / BUDGET,
        "fullest without": 100 * max(free) / BUDGET,
        "windows": windows / len(without.windows),
        "over the least": windows / least,
        "us": 1e6 * seconds / len(samples.tokens),
    }


def spread(rounds: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Of each measure."""
    return {name: figure([measured[name] for measured in rounds]) for name in rounds[0]}


def run(tiny: bool) -> Report:
    """Both materials. `tiny`: on next to nothing, for the tests."""
    rounds, count = (1, 300) if tiny else (5, 8000)
    seeds = range(rounds)
    both = spread([measures(mixed(seed, count)) for seed in seeds])
    worst = spread([measures(thin_alone(seed, count)) for seed in seeds])
    details: dict[str, Any] = {"texts and images": both, "thin images": worst}
    return Report(
        name="pack_images",
        data=f"{count:,} generated samples a round: lengths of texts, plans of images of at most {CAP} crops; windows"
        f" of {WINDOW:,} tokens and {BUDGET} crops",
        rounds=rounds,
        rows=(
            Row("texts and images: empty places", both["empty"], "%", SAME),
            Row("texts and images: empty places without a budget of crops", both["empty without"], "%", SAME),
            Row("texts and images: use of the budget of crops", both["use"], "%", SAME),
            Row("texts and images: crops of the fullest window, of the budget", both["fullest"], "%", SAME),
            Row("the same without a budget", both["fullest without"], "%", SAME),
            Row("texts and images: windows, of those without a budget", both["windows"], "x", SAME),
            Row("thin images: use of the budget of crops", worst["use"], "%", SAME),
            Row("thin images: windows, of the fewest that can be", worst["over the least"], "x", SAME),
            Row("thin images: crops of the fullest window without a budget", worst["fullest without"], "%", SAME),
        ),
        notes=("windows of thin images alone run out of crops, and most of their places stay empty: texts fill them",),
        details={name: {key: value._asdict() for key, value in of.items()} for name, of in details.items()},
    )
