"""What the benchmarks on a GPU share: the device, its clock and its memory.

A GPU works behind the program's back: whoever reads a clock waits for it first. Nothing here needs more than torch, so
that a machine that is lent bare can run it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.harness import Figure, figure

GIB = float(1 << 30)


def device_of(tiny: bool) -> torch.device:
    """The GPU; the CPU for a tiny run."""
    return torch.device("cpu" if tiny else "cuda")


def settle(device: torch.device) -> None:
    """Waits until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Gives back the memory of what nobody refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Peak:
    """Bytes that tensors on the device took, at most, in the block: `all`, and `more` than before it; 0 on the CPU,
    where nobody counts them."""

    all, more = 0, 0


@contextmanager
def peak_of(device: torch.device) -> Iterator[Peak]:
    """The peak of a block, there when it ends."""
    peak = Peak()
    if device.type == "cuda":
        free(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    yield peak
    if device.type == "cuda":
        peak.all = torch.cuda.max_memory_allocated(device)
        peak.more = peak.all - before


def seconds_of(run: Callable[[], object], device: torch.device, repeats: int = 10, rounds: int = 3) -> Figure:
    """Seconds of one call, out of `repeats` that follow each other, in each of some rounds; two calls are not
    counted."""
    for _ in range(2):
        run()
    seconds: list[float] = []
    for _ in range(rounds):
        settle(device)
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        settle(device)
        seconds.append((time.perf_counter() - started) / repeats)
    return figure(seconds)


def replayed(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """The same kernels as one CUDA graph, so that launching them costs nothing; on the CPU `run` itself."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # what is set up by a first call cannot be captured
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes: the best of five."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), device, repeats=4, rounds=5)
    return 2 * source.nbytes / seconds.low


def scaled(values: Figure, factor: float) -> Figure:
    """Each of the three, times `factor`."""
    return Figure(*(value * factor for value in values))


def inverse(values: Figure, factor: float = 1.0) -> Figure:
    """`factor` over each of the three; the least stays the least."""
    return Figure(factor / values.median, factor / values.high, factor / values.low)


def plain(value: float) -> Figure:
    """A figure that was seen once."""
    return Figure(value, value, value)
