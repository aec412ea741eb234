"""Advantages of a problem's samples over each other, as GRPO has them: no model of values, the group is the baseline.

A reward is compared with what the same policy reached at the same problem, in units of how much that varies there. A
group whose samples were all rewarded alike says nothing of what was better: all its advantages are 0.
Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """Of each sample of a group: its reward less the group's mean, divided by the group's standard deviation."""
    if not rewards:
        return []
    mean = sum(rewards) / len(rewards)
    deviation = sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    if min(rewards) == max(rewards):  # not by the deviation, which rounding may leave above 0
        return [0.0] * len(rewards)
    return [(reward - mean) / deviation for reward in rewards]
