"""Advantages in a group: against torch, and where nobody was better than another."""

from __future__ import annotations

import pytest
import torch

from gristmill.synth.advantages import group_advantages


@pytest.mark.parametrize("rewards", [[1, 0], [1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 0, 1], [0.1, 0.7, 0.3]])
def test_advantages_are_rewards_in_deviations_from_the_mean_of_the_group(rewards: list[float]) -> None:
    values = torch.tensor(rewards, dtype=torch.float64)
    expected = (values - values.mean()) / values.std(correction=0)
    assert group_advantages(rewards) == pytest.approx(expected.tolist())
    assert sum(group_advantages(rewards)) == pytest.approx(0)


@pytest.mark.parametrize("rewards", [[1, 1, 1], [0, 0], [0.1] * 3, [1], []])
def test_a_group_of_equal_rewards_says_nothing(rewards: list[float]) -> None:
    assert group_advantages(rewards) == [0] * len(rewards)
