"""Scores and intervals against values worked out by hand, by plain loops and by scipy."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from gristmill.model.evaluate.intervals import Bootstrap, mcnemar
from gristmill.model.evaluate.scores import METRICS, ROWS, Score, differences_of, scores_of, warnings_of

QUICK = Bootstrap(resamples=200)


def rows(*given):
    """ROWS with these fields; the others are null."""
    about = [
        {"id": f"{n:032x}", "input": "shard", "ordinal": n, "source": "math@v1"} | row for n, row in enumerate(given)
    ]
    return pa.Table.from_pylist(about, schema=ROWS)


def values(table):
    return {(score.metric, score.source): (score.value, score.items) for score in scores_of(table, QUICK)}


def exact(right, **more):
    return {"task": "exact", "score": float(right), "harmful": False, "refused": False, **more}


def perplexity(nats, tokens, size, source="web@v1"):
    counts = {"nats": float(nats), "tokens": tokens, "bytes": size}
    return {"task": "perplexity", "source": source, "score": nats / tokens, **counts}


# metrics


def test_perplexity_is_weighted_by_tokens_and_told_by_source():
    table = rows(perplexity(8, 4, 10), perplexity(10, 2, 5), perplexity(3, 3, 30, "code@v2"))
    assert values(table) == {
        ("perplexity", ""): (pytest.approx(math.exp(21 / 9)), 3),
        ("perplexity", "web@v1"): (pytest.approx(math.exp(18 / 6)), 2),
        ("perplexity", "code@v2"): (pytest.approx(math.exp(1)), 1),
        ("nats_per_token", ""): (pytest.approx(21 / 9), 3),
        ("nats_per_token", "web@v1"): (pytest.approx(3.0), 2),
        ("nats_per_token", "code@v2"): (pytest.approx(1.0), 1),
        ("bits_per_byte", ""): (pytest.approx(21 / math.log(2) / 45), 3),
        ("bits_per_byte", "web@v1"): (pytest.approx(18 / math.log(2) / 15), 2),
        ("bits_per_byte", "code@v2"): (pytest.approx(3 / math.log(2) / 30), 1),
    }


def test_what_stands_for_no_bytes_has_no_bits_a_byte():
    assert ("bits_per_byte", "") not in values(rows(perplexity(2, 1, 0)))


def test_resamples_of_items_without_bytes_have_no_part_in_an_interval():
    score = next(
        s for s in scores_of(rows(perplexity(2, 1, 0), perplexity(2, 1, 4)), QUICK) if s.metric == "bits_per_byte"
    )
    assert score.low == pytest.approx(2 / math.log(2) / 4) and score.high == pytest.approx(4 / math.log(2) / 4, rel=0.5)


def test_accuracy_and_both_kinds_of_choice():
    choices = [(1, 0), (1, 1), (0, 1), (1, 0)]
    table = rows(
        *(exact(right) for right in (1, 0, 0)),
        *({"task": "choice", "score": float(acc), "score_norm": float(norm)} for acc, norm in choices),
    )
    assert values(table) == {
        ("accuracy", ""): (pytest.approx(1 / 3), 3),
        ("acc", ""): (0.75, 4),
        ("acc_norm", ""): (0.5, 4),
        ("refused_harmless", ""): (0.0, 3),
    }


def test_calls_are_counted_by_how_far_they_came():
    faults = ["no_call", "no_list", "unknown_tool", "bad_arguments", "other_call", None, None, None]
    table = rows(
        *({"task": "calls", "score": float(fault is None), "reason": fault, "harmful": False} for fault in faults)
    )
    shares = {metric: value for (metric, _), (value, _) in values(table).items()}
    assert shares == {"parsed": 6 / 8, "known": 5 / 8, "valid": 4 / 8, "accuracy": 3 / 8, "refused_harmless": 0.0}


def test_refusals_are_two_rates_and_a_refused_word_problem_is_a_harmless_request():
    table = rows(
        *({"task": "refusal", "harmful": True, "refused": refused, "score": 0.0} for refused in (True, True, False)),
        {"task": "refusal", "harmful": False, "refused": False, "score": 1.0},
        exact(0, refused=True),
    )
    assert values(table)["refused_harmful", ""] == (pytest.approx(2 / 3), 3)
    assert values(table)["refused_harmless", ""] == (0.5, 2)


def test_an_evaluation_of_nothing_has_no_scores():
    assert scores_of(ROWS.empty_table(), QUICK) == []


# intervals


def test_the_bootstrap_is_that_of_a_plain_loop():
    columns = np.random.default_rng(1).random((17, 2))
    bootstrap = Bootstrap(resamples=150, seed=4)
    rng = np.random.default_rng(4)
    expected = [columns[rng.integers(0, 17, 17)].sum(0) for _ in range(150)]
    np.testing.assert_allclose(bootstrap.sums(columns), expected)


def test_the_interval_does_not_hang_on_how_many_draws_exist_at_a_time(monkeypatch):
    columns = np.random.default_rng(1).random((17, 2))
    whole = QUICK.sums(columns)
    monkeypatch.setattr("gristmill.model.evaluate.intervals._AT_A_TIME", 40)
    np.testing.assert_array_equal(QUICK.sums(columns), whole)


def test_the_interval_of_a_share_is_about_that_of_the_binomial_distribution():
    right = np.repeat([1.0, 0.0], [120, 80])
    score = scores_of(rows(*(exact(r) for r in right)), Bootstrap(resamples=4000))[0]
    half = 1.96 * math.sqrt(0.6 * 0.4 / 200)
    assert score.low == pytest.approx(0.6 - half, abs=0.01) and score.high == pytest.approx(0.6 + half, abs=0.01)


@pytest.mark.parametrize("changes", [(0, 0), (0, 1), (3, 3), (1, 9), (9, 1), (40, 60), (300, 411), (0, 2000)])
def test_mcnemars_test_is_the_exact_binomial_one(changes):
    expected = binomtest(changes[0], sum(changes)).pvalue if sum(changes) else 1.0
    assert mcnemar(*changes) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("wrong", [{"resamples": 99}, {"seed": -1}, {"level": 1.0}])
def test_a_bootstrap_that_cannot_be_is_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Bootstrap(**wrong)


# differences


def test_two_models_are_compared_on_the_same_items():
    before = rows(*(exact(n < 50) for n in range(100)))
    after = rows(*(exact(10 <= n < 90) for n in range(100)))
    accuracy = next(d for d in differences_of(before, after, QUICK) if d.metric == "accuracy")
    assert (accuracy.before, accuracy.after, accuracy.items) == (0.5, 0.8, 100)
    assert (accuracy.became_right, accuracy.became_wrong) == (40, 10)
    assert accuracy.p_value == pytest.approx(binomtest(10, 50).pvalue)
    assert 0 < accuracy.low < 0.3 < accuracy.high < 0.5


def test_draws_of_a_difference_are_paired():
    """Each item of the second model is one better than the first's: the difference has no spread at all."""
    before = rows(*(perplexity(10 + n, 2, 7) for n in range(30)))
    after = rows(*(perplexity(8 + n, 2, 7) for n in range(30)))
    nats = next(d for d in differences_of(before, after, QUICK) if d.metric == "nats_per_token")
    assert (nats.low, nats.high) == (pytest.approx(-1.0), pytest.approx(-1.0)) and nats.p_value is None
    assert "perplexity" not in {d.metric for d in differences_of(before, after, QUICK)}


def test_to_refuse_less_of_what_is_harmless_is_to_become_right():
    before = rows(*(exact(0, refused=True) for _ in range(6)))
    after = rows(*(exact(0, refused=n > 3) for n in range(6)))
    harmless = next(d for d in differences_of(before, after, QUICK) if d.metric == "refused_harmless")
    assert (harmless.became_right, harmless.became_wrong) == (4, 0)


# warnings


def score(task, metric, items, source=""):
    return Score(task, metric, source, 0.5, 0.4, 0.6, items)


def test_fewer_than_200_items_are_said():
    few = warnings_of([score("exact", "accuracy", 199), score("choice", "acc", 200)], 0, 0, 0)
    assert few == ["exact: 199 items, fewer than 200: look at the interval, not at the score"]
    assert warnings_of([score("exact", "accuracy", 400), score("exact", "accuracy", 20, "math@v1")], 0, 0, 0) == []


@pytest.mark.parametrize(
    ("metric", "warning"), [("refused_harmful", "no harmless request"), ("refused_harmless", "no harmful request")]
)
def test_one_rate_of_refusals_alone_is_said_to_be_half_of_it(metric, warning):
    (only_warning,) = warnings_of([score("refusal", metric, 400)], 0, 0, 0)
    assert only_warning.startswith(warning)
    both = [score("refusal", "refused_harmful", 400), score("refusal", "refused_harmless", 400)]
    assert warnings_of(both, 0, 0, 0) == []


def test_what_was_not_scored_or_cut_off_is_said():
    warnings = warnings_of([score("exact", "accuracy", 400)], 3, 5, 400)
    assert warnings == ["3 items were not scored: the funnel says why", "5 of 400 answers were cut off at max_tokens"]


def test_each_metric_has_a_name_of_its_own_in_its_task():
    names = [(metric.task, metric.name) for metric in METRICS]
    assert len(set(names)) == len(names)
