"""How a stage is optimised, as data that a recipe holds: read without torch. `model.train.optim` carries it out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gristmill.model.train.schedule import PeakLaw

KINDS = ("adamw", "muon")


@dataclass(frozen=True)
class Optim:
    """`kind`: "adamw", or "muon" for the matrices of decoder and encoders, with AdamW for all else, adapters too.

    `lr`: the peak learning rate of both, or the law that it follows: Muon's updates are scaled to the size of AdamW's.
    `weight_decay`: of both; `betas`, `eps`: as torch's, of AdamW; `momentum`: of Muon. `clip`: the largest norm of all
    gradients together; None: not clipped. Raises ValueError that names the field.
    """

    lr: float | PeakLaw
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    kind: str = "adamw"
    momentum: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"optim.kind={self.kind!r}: allowed are {', '.join(KINDS)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optim.momentum={self.momentum}: allowed is from 0 and below 1")
        if not isinstance(self.lr, PeakLaw) and not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"optim.lr={self.lr}: allowed is above 0, or a law with b and exponent")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optim.betas={self.betas}: allowed are two numbers from 0 and below 1")
        if not self.eps > 0:
            raise ValueError(f"optim.eps={self.eps}: allowed is above 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"optim.weight_decay={self.weight_decay}: allowed is 0 or more")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"optim.clip={self.clip}: allowed is above 0, or nothing for gradients as they are")
