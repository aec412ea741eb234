"""When a problem is sampled no more, what is drawn next, and its pass rate: functions of judged samples alone."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from gristmill.synth.pass_rate import pass_rate
from gristmill.synth.sampling import Judged, Stop, Waves, difficulty, next_samples, settle
from gristmill.synth.selection import Candidate, Selection, select

NEVER = {"least_chance": 0.0}
"""No problem is given up."""


def judged(text: str) -> dict[int, Judged]:
    """A letter a sample: `r` rejected, `u` undecided, any other the chain that was accepted."""
    others = {"r": Judged("rejected"), "u": Judged("undecided")}
    return {i: others.get(letter, Judged("accepted", letter)) for i, letter in enumerate(text)}


def drawn(seed: int, chains: str = "abc", length: int = 64) -> dict[int, Judged]:
    """Samples of a problem whose pass rate and whose chains' shares follow from the seed."""
    draw = random.Random(seed)
    weights = [draw.random() ** 3 for _ in chains + "ru"]
    return judged("".join(draw.choices(chains + "ru", weights, k=length)))


# When it stops


@pytest.mark.parametrize(
    ("samples", "counted", "distinct", "end"),
    [
        ("arb", 3, 2, "enough"),
        ("aaab", 4, 2, "enough"),  # a chain that was found before is none more
        ("aaaa", 4, 1, "given_up"),
        ("rrr", 3, 0, "given_up"),
        ("ruuur", 5, 0, None),  # undecided samples tell nothing
        ("rrarrb", 6, 2, "enough"),  # what was dry begins anew with a new chain
        ("rrarra", 6, 1, "given_up"),
        ("uuuuuuuu", 8, 0, "at_most"),
        ("", 0, 0, None),
    ],
)
def test_a_problem_ends_at_enough_distinct_chains_or_when_it_brings_none(samples, counted, distinct, end):
    stop = Stop(accept=2, at_most=8, least_chance=0.5, confidence=0.8)
    assert stop.patience == 3
    settled = settle(judged(samples + "cd" * 4 if end else samples), stop)
    assert (settled.counted, settled.distinct, settled.end) == (counted, distinct, end)


def test_chains_are_distinct_as_selection_counts_them():
    """Whatever the samples, what counts as distinct here is what selection takes of them."""
    texts = ["1 + 1 = 2", " 1 + 1\n= 2 ", "1+1 = 2", "2"]
    for seed in range(50):
        draw = random.Random(seed)
        rows = [(draw.choice(["accepted", "rejected"]), draw.choice(texts)) for _ in range(8)]
        settled = settle({n: Judged.of(*row) for n, row in enumerate(rows)}, Stop(8, 8, **NEVER))
        candidates = [Candidate(str(n), "p", verdict, None, text, {}) for n, (verdict, text) in enumerate(rows)]
        reasons, _ = select(candidates, Selection(per_problem=8))
        assert settled.distinct == sum(reason is None for reason in reasons.values())


def test_what_counts_depends_on_the_prefix_alone_whatever_arrives_when():
    stop = Stop(3, 40)
    for seed in range(100):
        samples = drawn(seed)
        whole = settle(samples, stop)
        assert whole.done and whole.counted <= 40 and whole.surplus == tuple(range(whole.counted, 64))
        shuffled = dict(random.Random(seed).sample(list(samples.items()), len(samples)))
        assert settle(shuffled, stop) == whole
        exact = settle({n: samples[n] for n in range(whole.counted)}, stop)
        assert (exact.counted, exact.end, exact.surplus) == (whole.counted, whole.end, ())
        if whole.counted > 1:
            assert not settle({n: samples[n] for n in range(whole.counted - 1)}, stop).done
        assert not settle({n: sample for n, sample in samples.items() if n}, stop).done, "sample 0 is not there"


def test_worth_sampling_and_given_up_has_the_stated_chance():
    """Of problems whose samples bring a new chain by the least chance, as many are given up at once as may be."""
    stop = Stop(1, 64, least_chance=0.2, confidence=0.9)
    assert stop.patience == 11 and (1 - 0.2) ** 11 <= 1 - 0.9 < (1 - 0.2) ** 10
    draw, given_up = random.Random(0), 0
    for _ in range(4000):
        samples = {n: Judged("accepted", "a") if draw.random() < 0.2 else Judged("rejected") for n in range(64)}
        given_up += settle(samples, stop).end == "given_up"
    assert given_up / 4000 == pytest.approx((1 - 0.2) ** 11, abs=0.01)


@pytest.mark.parametrize(
    "wrong", [{"accept": 0}, {"accept": 3, "at_most": 2}, {"least_chance": 1.0}, {"confidence": 1.0}]
)
def test_stops_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="Stop: "):
        Stop(**wrong)


def test_patience_is_never_more_than_what_is_drawn_at_most():
    assert (Stop().patience, Stop(at_most=8).patience, Stop(**NEVER).patience) == (22, 8, 64)


# What is drawn


@pytest.mark.parametrize(
    ("samples", "following"),
    [
        ("", (0, 1)),
        ("arr", (3,)),  # one is missing, and three samples bring one
        ("rrr", (3, 4)),
        ("ab", ()),
        ("rrrrr", (5,)),
        ("rrrrrr", ()),
        ("auu", (3,)),
        ("rarrr", (5,)),
        ("rab", ()),
    ],
)
def test_the_next_wave_follows_from_what_was_judged(samples, following):
    assert next_samples(judged(samples), Stop(2, 6, **NEVER), Waves(3, 2)) == following


def test_waves_end_and_leave_little_over():
    """Wave by wave: every one follows the last, they come to the stop, and few of the samples are surplus."""
    counted = surplus = 0
    for stop in (Stop(4, 64), Stop(1, 16), Stop(3, 30, **NEVER)):
        for seed in range(200):
            ahead, samples = drawn(seed, "abcdefgh"), {}
            while wave := next_samples(samples, stop, Waves(min(4, stop.accept), 8)):
                assert wave[0] == len(samples) and wave == tuple(range(wave[0], wave[-1] + 1))
                samples |= {n: ahead[n] for n in wave}
            settled = settle(samples, stop)
            assert settled.done and len(samples) <= stop.at_most
            counted, surplus = counted + settled.counted, surplus + len(settled.surplus)
    assert surplus < 0.1 * counted


# The pass rate


@pytest.mark.parametrize(
    "stop", [Stop(2, 7, 0.5, 0.8), Stop(3, 7, 0.5, 0.8), Stop(2, 7, **NEVER), Stop(3, 8, 0.6, 0.8), Stop(5, 5)]
)
@pytest.mark.parametrize("chains", [(8,), (4, 2), (1, 1, 6), (0,)])
def test_the_pass_rate_has_no_bias(stop, chains):
    """Over all courses that sampling can take, weighted by their chances, the mean estimate is the rate, exactly."""
    chances = {name: Fraction(part, 16) for name, part in zip("abc", chains, strict=False) if part}
    rate = sum(chances.values(), Fraction())

    def mean(samples: dict[int, Judged]) -> float:
        if settle(samples, stop).done:
            estimate = pass_rate(samples, stop)
            assert estimate is not None and 0 <= estimate <= 1
            return estimate
        n = len(samples)
        outcomes = [(Judged("accepted", name), chance) for name, chance in chances.items()]
        return sum(
            float(chance) * mean({**samples, n: outcome})
            for outcome, chance in [*outcomes, (Judged("rejected"), 1 - rate)]
        )

    assert mean({}) == pytest.approx(float(rate), abs=1e-9)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [("ab", 1.0), ("arb", 1 / 2), ("rrrab", 1 / 4), ("rrrrrr", 0.0), ("arrrrr", 1 / 6), ("uuuuuu", None), ("aub", 1.0)],
)
def test_without_giving_up_the_pass_rate_is_haldanes(samples, rate):
    assert pass_rate(judged(samples), Stop(2, 6, **NEVER)) == (None if rate is None else pytest.approx(rate))


def test_of_very_many_chains_the_samples_that_are_drawn_anyhow_tell_the_rate():
    letters = "abcdefghijklmnopqst"
    samples = judged("".join(letter + "r" * (place % 3) for place, letter in enumerate(letters)))
    stop = Stop(20, 64)
    assert settle(samples, stop).distinct == 19
    first = [samples[n].chain is not None for n in range(20)]
    assert stop.patience == 22 and pass_rate(samples, stop) == sum(first) / 20


@pytest.mark.parametrize("letters", ["aaabr", "abbrr", "rrrab", "aaabbc", "abrrrr", "aabbrr"])
def test_the_rate_is_the_share_of_orders_that_begin_right(letters):
    """Of all orders of these samples that end the sampling there and in the same way."""
    stop = Stop(3, 10, least_chance=0.5, confidence=0.8)
    ends: dict[str, list[str]] = {}
    for order in _orders(letters):
        settled = settle(judged(order), stop)
        if settled.end and settled.counted == len(letters):
            ends.setdefault(settled.end, []).append(order)
    assert len(ends) == 1
    for orders in ends.values():
        share = sum(order[0] != "r" for order in orders) / len(orders)
        (rate,) = {pass_rate(judged(order), stop) for order in orders}
        assert rate == pytest.approx(share)


def _orders(letters: str) -> set[str]:
    if not letters:
        return {""}
    return {
        letter + rest
        for place, letter in enumerate(letters)
        for rest in _orders(letters[:place] + letters[place + 1 :])
    }


def test_one_success_tells_no_rate():
    assert pass_rate(judged("ra"), Stop(1, 6)) is None and difficulty(1, 2, None) == "medium"


def test_difficulties():
    by_rate = [difficulty(2, 4, rate) for rate in (1.0, 0.8, 0.79, 0.4, 0.39, 0.01)]
    assert by_rate == ["easy", "easy", "medium", "medium", "hard", "hard"]
    assert (difficulty(0, 6, 0.0), difficulty(0, 0, None)) == ("unsolved", "unknown")
