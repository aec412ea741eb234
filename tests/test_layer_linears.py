"""The linears that benchmarks time with adapters: what their arms compute, and the arithmetic beside them."""

from __future__ import annotations

import pytest
import torch
from models import TEXT

from benchmarks.layer_linears import LayerLinears, seconds
from gristmill.model.plan.operations import Watch


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16], ids=str)
def test_operations_by_arithmetic_are_those_that_are_done(base: torch.dtype) -> None:
    linears = LayerLinears(TEXT, rank=4, tokens=12, base=base)
    for arm, routes in linears.arms().items():
        with Watch() as watch:
            linears.step(routes)
        assert watch.phase().flops == linears.flops(arm), arm
    assert linears.flops("two adapters") == linears.flops("one adapter") > linears.flops("plain")


def test_arms_take_turns_and_the_first_turn_is_not_counted() -> None:
    ticks = iter(range(1000))
    taken = seconds(LayerLinears(TEXT, rank=4, tokens=4), rounds=3, clock=lambda: float(next(ticks)))
    assert taken == {"plain": 1.0, "one adapter": 1.0, "two adapters": 1.0}
    assert next(ticks) == 2 * 3 * 3 + 3
