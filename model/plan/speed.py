"""Seconds that the operations of a step take: tried out on this machine, or by what is known of a GPU elsewhere.

Each kind of operation of a rehearsal is run a few times on tensors of its own shapes, the dearest first, until a second
or so is spent; what is left over, and what would take too long by itself, is reckoned by the speed of those that were
run. On top comes what no operation shows by itself: Python and autograd around each, measured on a model so small that
it has nothing else, and memory that is touched for the first time, which the system fills with zeros in every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import ModelConfig, RopeParameters, TextConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.plan.operations import Blank, Operation, Phase
from gristmill.model.plan.rehearsal import Rehearsal, rehearse
from gristmill.model.train.metrics import PEAKS
from gristmill.model.train.objective import Batch, Objective
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.stage import TrainStage

BUDGET = 1.5
"""Seconds for trying out operations."""
LONGEST = 0.25
"""Seconds above which an operation is not tried out, by the speed of shorter ones."""
LARGEST = 1 << 30
"""Bytes above which an operation is not tried out: the machine at hand need not be the one that trains."""
RUNS = 3
"""Times that an operation is run, of which the middle one counts."""
SHARE = 0.35
"""Of a GPU's peak, for the operations that a step really computes: what an H100 was measured to reach with this model
in bfloat16, with and without recomputing blocks."""
_clock = time.thread_time
"""Of this thread alone, which works along with the others where there are several: what else the machine does takes no
part, and a plan is of one that has nothing else to do."""
_TINY = ModelConfig(
    TextConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        rope_parameters=RopeParameters(short_factor=(), long_factor=()),
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=(0,),
    )
)
_SIZE = 768
"""Rows and columns of the product, and 8,192ths of the numbers of the copy, by which the first speeds are measured."""


@dataclass
class _Rates:
    """Speeds of what was run so far: operations a second of products, bytes a second of the rest."""

    flops: float
    bytes: float

    def seconds(self, operation: Operation) -> float:
        """Of one call, by these speeds."""
        return operation.flops / self.flops if operation.flops else operation.bytes / self.bytes


def measured(rehearsal: Rehearsal) -> tuple[float, float]:
    """Seconds of a pass and of an update, on this machine's CPU with the threads that torch now has."""
    around, first_touch = _around(rehearsal.precision, rehearsal.recompute), _first_touch()
    phases = (rehearsal.of_pass, rehearsal.of_update)
    alone = _tried_out(phases, BUDGET)
    of_pass, of_update = (
        seconds + phase.fresh * first_touch + phase.calls * around for seconds, phase in zip(alone, phases, strict=True)
    )
    return of_pass, of_update


def reckoned(rehearsal: Rehearsal, device: str) -> tuple[float, float] | None:
    """Seconds of a pass and of an update on a device of this name, at `SHARE` of its peak; None: that is not known."""
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    if peak is None:
        return None
    return rehearsal.of_pass.flops / (peak * SHARE), rehearsal.of_update.flops / (peak * SHARE)


def _tried_out(phases: Sequence[Phase], budget: float) -> list[float]:
    """Seconds of each phase, by its operations alone."""
    rates = _first_rates()
    every = [operation for phase in phases for operation in phase.operations]
    tried: dict[Operation, float] = {}
    deadline = _clock() + budget
    for operation in sorted(every, key=lambda each: -each.count * rates.seconds(each)):
        if _clock() > deadline:
            break
        if rates.seconds(operation) <= LONGEST and operation.bytes <= LARGEST:
            tried[operation] = _timed(operation)
    _adjust(rates, tried)
    return [sum(each.count * tried.get(each, rates.seconds(each)) for each in phase.operations) for phase in phases]


def _around(precision: str, recompute: float) -> float:
    """Seconds of Python and autograd around an operation: what a pass of a model takes that has next to nothing to
    compute, beyond its operations by themselves."""
    stage = TrainStage("around", frozenset({Part.LANGUAGE}), "none@v1", 1, Optim(1e-3), steps=1, precision=precision)
    ids, ends = torch.ones(16, dtype=torch.int64), torch.tensor([0, 8, 16])
    batch = Batch(ids, ids.bool(), ends)
    rehearsal = rehearse(stage, _TINY, batch, Objective, recompute=recompute)
    model = Multimodal.seeded(_TINY, 0).train()
    checkpoint_activations(model, recompute)
    objective = Objective(model)

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = objective(batch)
        loss.backward()

    (alone,) = _tried_out([rehearsal.of_pass], BUDGET / 4)
    return max(0.0, _middle(once) - alone) / rehearsal.of_pass.calls


def _first_touch() -> float:
    """Seconds a byte of memory that is touched for the first time, beyond those of touching it again."""
    size = _SIZE << 14
    memory = torch.ones(size)
    again = _middle(lambda: memory.fill_(1))
    first = _middle(lambda: torch.empty(size).fill_(1))
    return max(0.0, first - again) / (4 * size)


def _first_rates() -> _Rates:
    matrix, block = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE << 13)
    copy = torch.empty_like(block)
    product = _middle(lambda: torch.mm(matrix, matrix))
    moved = _middle(lambda: copy.copy_(block))
    return _Rates(2.0 * _SIZE**3 / product, 2.0 * 4 * len(block) / moved)


def _adjust(rates: _Rates, tried: Mapping[Operation, float]) -> None:
    """Sets the speeds to those of the operations that were run, which are closer to the rest than the first ones."""
    for name, kinds in (
        ("flops", [each for each in tried if each.flops]),
        ("bytes", [each for each in tried if each.bytes and not each.flops]),
    ):
        if kinds:
            amount = sum(each.count * getattr(each, name) for each in kinds)
            setattr(rates, name, amount / sum(each.count * tried[each] for each in kinds))


def _timed(operation: Operation) -> float:
    """Seconds of one call on numbers of its shapes."""
    args, kwargs = tree_map(_filled, (operation.args, operation.kwargs))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _middle(lambda: operation.operator(*args, **kwargs))


def _filled(value: Any) -> Any:
    """Small numbers in the place of a blank; anything else as it is."""
    if not isinstance(value, Blank):
        return value
    places = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride, strict=True))
    memory = torch.zeros(0 if 0 in value.shape else places, dtype=value.dtype)
    if value.dtype.is_floating_point:
        memory.uniform_(0.5, 1.0)
    return memory.as_strided(value.shape, value.stride)


def _middle(run: Callable[[], object]) -> float:
    """Seconds of a run: the middle one of `RUNS`, after one that is not counted."""
    run()
    seconds = []
    for _ in range(RUNS):
        start = _clock()
        run()
        seconds.append(_clock() - start)
    return sorted(seconds)[RUNS // 2]
