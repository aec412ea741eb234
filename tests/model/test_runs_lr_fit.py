"""The learning rate's law: a planted B comes back from noisy losses; what does not determine it is refused, by what to
add."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gristmill.model.runs.lr_fit import CannotFit, LawFit, Trial, fit

B = 0.7
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SIZES = (300_000, 1_000_000, 3_000_000)


def best_at(tokens: float, b: float = B, exponent: float = -0.32) -> float:
    """The best rate by the planted law."""
    return float(b * tokens**exponent)


def planted(
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float] = RATES,
    *,
    noise: float = 0.0,
    seed: int = 0,
    exponent: float = -0.32,
    curve: float = 0.1,
) -> list[Trial]:
    """Losses that are parabolas in log LR around the law's rate, and noise."""
    random = np.random.default_rng(seed)
    return [
        Trial(
            f"m{tokens}.{lr}@v1",
            tokens,
            lr,
            3.0
            + 20 * tokens**-0.2
            + curve * math.log(lr / best_at(tokens, exponent=exponent)) ** 2
            + random.normal(0, noise) * (noise > 0),
        )
        for tokens in sizes
        for lr in rates
    ]


def test_a_planted_law_comes_back_exactly_without_noise() -> None:
    law = fit(planted())
    assert law.law.b == pytest.approx(B, rel=1e-9) and law.law.exponent == -0.32
    assert law.free_exponent == pytest.approx(-0.32, abs=1e-9)
    assert law.free_error is not None and law.free_error < 1e-9
    assert [size.lr for size in law.sizes] == pytest.approx([best_at(tokens) for tokens in SIZES])
    low, middle, high = law.predicted(10_000_000)
    assert middle == pytest.approx(best_at(10_000_000)) and high / low == pytest.approx(1)


def test_a_planted_law_comes_back_from_noise_and_lies_in_its_interval() -> None:
    """Over many draws: the mean is right, and the interval holds a further size's best rate as often as it says."""
    fits: list[LawFit] = []
    for seed in range(200):
        fits.append(fit(planted(noise=0.004, seed=seed)))
    logs = np.log([law.law.b / B for law in fits])
    assert abs(logs.mean()) < 0.01 and 0.005 < logs.std() < 0.05
    wanted = best_at(10_000_000)
    held = sum(low <= wanted <= high for low, _, high in (law.predicted(10_000_000) for law in fits))
    assert held >= 180
    free = [(law.free_exponent + 0.32) / law.free_error for law in fits if law.free_error]
    assert abs(float(np.mean([law.free_exponent for law in fits])) + 0.32) < 0.01
    assert float(np.median(np.abs(free))) < 2


def test_the_free_slope_shows_where_the_law_does_not_hold() -> None:
    law = fit(planted(rates=(0.05, 0.1, 0.2, 0.4, 0.8), exponent=-0.1))
    assert law.free_exponent == pytest.approx(-0.1, abs=1e-9) and law.law.exponent == -0.32
    low, middle, high = law.predicted(1_000_000)
    assert low < middle / 1.5 and high > middle * 1.5  # and the interval says so, too


def test_two_sizes_give_a_law_and_no_error_of_the_slope() -> None:
    law = fit(planted(SIZES[:2]))
    assert law.law.b == pytest.approx(B) and law.free_error is None


def test_runs_of_one_size_and_rate_are_averaged_and_sizes_may_differ_by_a_few_tokens() -> None:
    trials = planted()
    doubled = [
        Trial(trial.name, trial.tokens + shift, trial.lr, trial.loss + error)
        for trial in trials
        for shift, error in ((0, 0.05), (5_000, -0.05))
    ]
    law = fit(doubled)
    assert len(law.sizes) == 3 and all(len(size.rates) == len(RATES) for size in law.sizes)
    assert law.law.b == pytest.approx(B, rel=0.01)


def test_the_parabola_goes_through_the_rates_around_the_best_one() -> None:
    """Far from its minimum a loss is no parabola: it rises ever more steeply where training diverges."""
    trials = planted(rates=(*RATES, 0.5, 1.0))
    steep = [Trial(t.name, t.tokens, t.lr, t.loss + 40 * (t.lr >= 0.5)) for t in trials]
    assert fit(steep).law.b == pytest.approx(B, rel=1e-6)


def test_a_minimum_at_the_edge_is_refused_with_the_rate_to_add() -> None:
    trials = planted(rates=(1e-4, 2e-4, 4e-4)) + planted(SIZES[:1], rates=(0.1, 0.2, 0.4))
    low = [trial for trial in trials if trial.tokens != SIZES[0] or trial.lr >= 0.1]
    with pytest.raises(CannotFit) as refused:
        fit(low)
    lines = str(refused.value).splitlines()
    assert lines[0] == (
        "D=300,000: the lowest loss is at the smallest rate tried, 0.1, so the best one may lie beyond;"
        " add a run of this size with a peak LR of 0.05"
    )
    assert lines[1].startswith("D=1,000,000: the lowest loss is at the largest rate tried, 0.0004")
    assert lines[1].endswith("with a peak LR of 0.0008") and len(lines) == 3


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([], "no run: runs of at least 2 sizes are needed"),
        (planted(SIZES[:1]), "D=300,000: runs of at least 2 sizes"),
        (planted(rates=RATES[2:4]), r"D=300,000: only 2 rates tried \(0.008, 0.016\); 3 or more are needed"),
        (planted(rates=RATES[3:4]), r"D=300,000: only 1 rate tried \(0.016\)"),
        ([Trial("m@v1", 10, 1e-3, math.nan)], "m@v1: its loss is nan; leave it out"),
        ([Trial("m@v1", 10, 0.0, 1.0)], "m@v1: its peak LR is 0.0"),
        ([Trial("m@v1", 0, 1e-3, 1.0)], "m@v1: .*its tokens 0"),
    ],
)
def test_what_does_not_determine_the_law_is_refused(trials: list[Trial], message: str) -> None:
    with pytest.raises(CannotFit, match=message):
        fit(trials)


def test_losses_without_a_minimum_are_refused() -> None:
    """The lowest is inside, but the parabola through all five bends down."""
    losses = (4.25, 5.0, 4.2, 5.0, 4.25)
    bumpy = [Trial(f"m{size}@v1", size, *point) for size in SIZES for point in zip(RATES, losses, strict=True)]
    with pytest.raises(CannotFit, match=r"D=300,000: .* 0.002 \(4.2500\), .* finds no minimum"):
        fit(bumpy)
