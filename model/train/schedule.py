"""The learning rate: its peak, given or by the law B * D^-0.32, and how it rises and falls over the steps of a stage.

A schedule is a function of the step and the number of steps alone, so a resumed run goes on where it was without a
state of its own. The first step of a warm-up already moves the weights, unlike transformers', which spends it at zero.
Source: arXiv 2503.01743, section 3.1 (the law); arXiv 1608.03983 (cosine); arXiv 2405.18392, section 3 (WSD: the rate
stays, then falls with 1 - sqrt, which ends lower than a line).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KINDS = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class PeakLaw:
    """A peak learning rate that follows from the tokens that a stage learns from: `b` * tokens ^ `exponent`.

    `b` is fitted on small runs; the paper fixes the exponent. Raises ValueError for what gives no rate.
    """

    b: float
    exponent: float = -0.32

    def __post_init__(self) -> None:
        if not (self.b > 0 and math.isfinite(self.b)):
            raise ValueError(f"lr.b={self.b}: allowed is above 0; fit it on runs of a few sizes")
        if not -1 < self.exponent <= 0:
            raise ValueError(f"lr.exponent={self.exponent}: allowed is above -1 and up to 0; the paper has -0.32")

    def peak(self, tokens: int) -> float:
        """The peak for a stage of so many tokens, 1 or more."""
        return float(self.b * tokens**self.exponent)


@dataclass(frozen=True)
class Schedule:
    """How the rate goes, as a share of its peak. `kind`: "cosine", "wsd" (stay, then fall) or "constant".

    `warmup`: steps in which it rises in a line. `floor`: the share of the peak that it falls to. `decay`: of "wsd" the
    share of all steps in which it falls. Raises ValueError that names the field.
    """

    kind: str = "cosine"
    warmup: int = 0
    floor: float = 0.0
    decay: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"schedule.kind={self.kind!r}: allowed are {', '.join(KINDS)}")
        if self.warmup < 0:
            raise ValueError(f"schedule.warmup={self.warmup}: allowed are 0 steps or more")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"schedule.floor={self.floor}: allowed is a share of the peak, 0 to 1")
        if not 0 < self.decay <= 1:
            raise ValueError(f"schedule.decay={self.decay}: allowed is a share of the steps, above 0 and up to 1")

    def check(self, steps: int) -> None:
        """Raises ValueError if a stage of so many steps has no room for the warm-up and the fall."""
        falling = math.ceil(self.decay * steps) if self.kind == "wsd" else 0
        if self.warmup + falling > steps or self.warmup == steps:
            raise ValueError(
                f"schedule.warmup={self.warmup}: the stage has {steps} steps, of which the rate falls in {falling};"
                " allowed are fewer steps of warm-up than are left"
            )

    def share(self, step: int, steps: int) -> float:
        """Of the peak, at step 0 to steps - 1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "constant":
            return 1.0
        first = self.warmup if self.kind == "cosine" else steps - math.ceil(self.decay * steps)
        progress = max(0, step - first) / (steps - first)
        remaining = 0.5 * (1 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1 - math.sqrt(progress)
        return self.floor + (1 - self.floor) * remaining
