"""What does a packed window cost to train on, against the same samples apart?

Forward and backward pass of `nano` over 4,096 tokens, one thread, float32; the gradients of both have to be the same.
Samples of one length are compared with a batch of as many rows, which has no padding: the hardest case, since there is
nothing to save. Samples of random lengths are compared with rows padded to the longest, as trainers without packing
have them, and with each sample by itself, without any padding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from benchmarks.harness import Arm, Differ, Report, Row, contest
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS

EQUAL, ROWS, RANDOM, PADDED, ALONE = "equal, packed", "equal, rows", "random, packed", "random, padded", "random, alone"
CLOSE = 1e-4
"""By how much the norm of a gradient's difference may be, as a share of the gradient's."""

Hidden = Callable[[Multimodal], Sequence[Tensor]]


def equal_lengths(tokens: int, count: int) -> list[int]:
    """Of `count` samples."""
    return [tokens // count] * count


def random_lengths(tokens: int, count: int) -> list[int]:
    """Of `count` samples that add up to `tokens`."""
    cuts = sorted(random.Random(0).sample(range(1, tokens), count - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, tokens], strict=True)]


def packed(ids_T: Tensor, lengths: Sequence[int], model: Multimodal) -> list[Tensor]:
    """Hidden states of a window of samples."""
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return [model.hidden(ids_T[None], segment_ids=segments[None])[0]]


def padded(ids_T: Tensor, lengths: Sequence[int], model: Multimodal) -> list[Tensor]:
    """Hidden states of rows of a sample each, filled up to the longest; those of padding left out."""
    longest = max(lengths)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    rows = torch.zeros(len(lengths), longest, dtype=torch.int64)
    rows[real] = ids_T
    return [model.hidden(rows, real)[real]]


def alone(ids_T: Tensor, lengths: Sequence[int], model: Multimodal) -> list[Tensor]:
    """Hidden states of each sample by itself."""
    starts = list(accumulate(lengths, initial=0))
    return [model.hidden(ids_T[None, a:b])[0] for a, b in pairwise(starts)]


def gradients(model: Multimodal, hidden: Hidden, weight_TD: Tensor) -> dict[str, Tensor]:
    """Of a loss of all hidden states, by parameter."""
    model.zero_grad()
    (torch.cat(list(hidden(model))) * weight_TD).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def check(outcomes: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raises Differ unless all arms over the same samples came to the same gradients."""
    for name, others in ((EQUAL, (ROWS,)), (RANDOM, (PADDED, ALONE))):
        for other in others:
            for parameter, gradient in outcomes[name].items():
                difference = float((gradient - outcomes[other][parameter]).norm() / gradient.norm())
                if difference > CLOSE:
                    raise Differ(f"packing: {parameter} by {name} and {other}: {difference:.2g} of its norm apart")


def run(tiny: bool) -> Report:
    """The contest. `tiny`: on next to nothing, for the tests."""
    rounds, tokens, count = (1, 256, 8) if tiny else (7, 4096, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = Multimodal.seeded(ModelConfig(PRESETS["nano"].text), 0).train()
        generator = torch.Generator().manual_seed(0)
        ids_T = torch.randint(16, model.config.text.vocab_size, (tokens,), generator=generator)
        weight_TD = torch.randn(tokens, model.config.text.hidden_size, generator=generator)
        equal, uneven = equal_lengths(tokens, count), random_lengths(tokens, count)
        passes: dict[str, Hidden] = {
            EQUAL: partial(packed, ids_T, equal),
            ROWS: partial(padded, ids_T, equal),
            RANDOM: partial(packed, ids_T, uneven),
            PADDED: partial(padded, ids_T, uneven),
            ALONE: partial(alone, ids_T, uneven),
        }
        arms = {name: Arm(partial(gradients, model, hidden, weight_TD)) for name, hidden in passes.items()}
        times = contest(arms, rounds, check)
    finally:
        torch.set_num_threads(threads)
    same = "every gradient"
    return Report(
        name="packing",
        data=f"{tokens:,} tokens in {count} samples, {sum(p.numel() for p in model.parameters()):,} parameters",
        rounds=rounds,
        rows=(
            Row("a packed window's cost, of rows of the same lengths", times.ratio(EQUAL, ROWS), "x", same),
            Row("a packed window's cost, of samples alone", times.ratio(RANDOM, ALONE), "x", same),
            Row("a packed window's cost, of rows padded to the longest", times.ratio(RANDOM, PADDED), "x", same),
        ),
        notes=("on the CPU; on CUDA a kernel for segments end to end takes the place of gathered rows",),
        details={
            "longest": max(uneven),
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "torch": torch.__version__,
        },
    )
