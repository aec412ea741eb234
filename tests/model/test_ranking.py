"""Rankings: areas under the curve against pairs counted by hand, within groups, and what resampling says of them."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.ranking import area, ranking, strata

FEW = Bootstrap(resamples=200)


def pairs(labels, scores, groups=None):
    """The area by its definition."""
    hits = count = 0.0
    for up in np.flatnonzero(labels):
        for down in np.flatnonzero(~labels):
            if groups is None or groups[up] == groups[down]:
                count += 1
                hits += (scores[up] > scores[down]) + 0.5 * (scores[up] == scores[down])
    return hits / count


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(60) > 0.6
    scores = np.round(rng.normal(size=60) + labels, 1)  # with ties
    groups = rng.integers(0, 4, 60)
    assert area(labels, scores) == pytest.approx(pairs(labels, scores))
    assert area(labels, scores, groups) == pytest.approx(pairs(labels, scores, groups))


def test_areas_that_are_known():
    labels = np.array([True, True, False, False])
    assert area(labels, np.array([4.0, 3, 2, 1])) == 1
    assert area(labels, np.array([1.0, 2, 3, 4])) == 0
    assert area(labels, np.ones(4)) == 0.5
    assert np.isnan(area(labels, np.ones(4), np.array([0, 0, 1, 1])))  # no pair in a group


def test_a_score_that_is_length_gains_nothing_over_it():
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 10_000, 300)
    labels = rng.random(300) < lengths / 10_000
    report = ranking(labels, lengths / 10_000, lengths, FEW)
    assert report.auc == report.auc_of_length and report.auc.value > 0.7
    assert report.auc_over_length == (0, 0, 0)
    assert report.auc_over_length_within == (0, 0, 0)
    assert 0.4 < report.auc_within_length.value < report.auc.value


def test_a_score_beside_length_is_above_it_within_its_groups():
    rng = np.random.default_rng(1)
    labels = rng.random(300) < 0.5
    scores, lengths = rng.normal(size=300) + 2 * labels, rng.integers(100, 10_000, 300)
    report = ranking(labels, scores, lengths, FEW)
    assert report.auc.low < report.auc.value < report.auc.high
    assert report.auc_over_length.low > 0.2 and report.auc_over_length_within.low > 0.2
    assert report.auc_over_length.value == pytest.approx(report.auc.value - report.auc_of_length.value)
    assert ranking(labels, scores, lengths, FEW) == report  # by the seed


def test_precision_and_recall():
    labels, scores = [True, True, False, False], [0.9, 0.4, 0.6, 0.1]
    (low, high, over) = ranking(labels, scores, [1, 2, 3, 4], FEW, (0.3, 0.7, 0.95)).thresholds
    assert (low.taken, low.precision.value, low.recall.value) == (0.75, pytest.approx(2 / 3), 1)
    assert (high.taken, high.precision.value, high.recall.value) == (0.25, 1, 0.5)
    assert (over.taken, over.precision, over.recall.value) == (0, None, 0)


@pytest.mark.parametrize(
    ("labels", "scores", "error"),
    [([True, True], [0.1, 0.2], "2 of 2"), ([True, False], [0.1, float("nan")], "1 of 2 items have no score")],
)
def test_what_cannot_be_ranked(labels, scores, error):
    with pytest.raises(ValueError, match=error):
        ranking(labels, scores, [1, 2])


def test_equal_values_are_in_one_stratum():
    assert len(set(strata(np.array([5.0] * 10)).tolist())) == 1
    assert np.bincount(strata(np.arange(100.0))).tolist() == [20] * 5
