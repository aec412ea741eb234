"""What a step of decoding is made of: its kernels, its linears alone, and attention of a layer, beside their limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Differ, Row, figure
from benchmarks.on_device import bandwidth, plain, replayed, scaled, seconds_of, settle
from gristmill.model.generate import kernels
from gristmill.model.generate.cache import Cache
from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.phi4.multimodal import Multimodal

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
"""Calls of the runtime, as the profiler names them, each of which sends a kernel, or a graph of them, to the GPU."""
WARM, TIMED, PROFILED = 4, 8, 4
"""Steps with all slots in use: before a clock is read, with it, and under the profiler."""
LAYERS = 8
"""Of those whose attention is timed."""
WRITTEN_TOGETHER = 16
"""Slots whose pages are filled at a time."""
LONGEST = 6
"""Kernels that are named, those that take most of a step."""


def step_rows(engine: Engine, request: Request, slots: int, device: torch.device) -> Iterator[Row]:
    """Milliseconds of a step in which all slots decode and no prompt waits; on a GPU also its kernels, how often
    something is launched, and how much of the time the GPU computes. Every slot has the same prompt, which is computed
    once: so all begin together. Raises Differ where slots stay empty."""
    completions = engine.submit(replace(request, n=slots))
    try:
        while not completions[-1].tokens:
            engine.step()
        for _ in range(WARM):
            engine.step()
        milliseconds = []
        for _ in range(TIMED):
            settle(device)
            started = time.perf_counter()
            engine.step()
            settle(device)
            milliseconds.append(1e3 * (time.perf_counter() - started))
        yield Row(f"{slots} slots: a step of decoding", figure(milliseconds), "ms")
        if device.type == "cuda":
            yield from kernel_rows(engine, slots, device)
        if engine.slots_used < slots:
            raise Differ(f"{engine.slots_used} slots of {slots} were in use at the end of the steps")
    finally:
        engine.cancel(completions)


def kernel_rows(engine: Engine, slots: int, device: torch.device) -> Iterator[Row]:
    """What the profiler sees of a few steps. Those of a CUDA graph are kernels too, and the graph one launch."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    settle(device)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(PROFILED):
            engine.step()
        settle(device)
    events = profile.events() or ()
    on_gpu = [event for event in events if event.device_type.name == "CUDA"]
    computed = [event for event in on_gpu if not event.name.startswith(("Memcpy", "Memset"))]
    launches = sum(event.name in LAUNCHES for event in events if event.device_type.name == "CPU")
    busy = sum(event.time_range.elapsed_us() for event in on_gpu)
    yield Row(f"{slots} slots: kernels a step", plain(len(computed) / PROFILED), "kernels")
    yield Row(f"{slots} slots: launches a step", plain(launches / PROFILED), "launches")
    yield Row(f"{slots} slots: the GPU computes, of a step", plain(busy / PROFILED / 1e3), "ms")
    by_name = Counter[str]()
    for event in computed:
        by_name[event.name] += event.time_range.elapsed_us()
    for name, microseconds in by_name.most_common(LONGEST):
        yield Row(f"{slots} slots: of it {name[:60]}", plain(microseconds / PROFILED / 1e3), "ms")


@torch.inference_mode()
def linears_rows(model: Multimodal, slots: int) -> Iterator[Row]:
    """All linears of a step and the head, one after the other as one graph, and reading their weights once."""
    weight = model.language.norm.weight
    matrices = [each for name, each in model.language.named_parameters() if ".weight" in name and each.dim() == 2]
    inputs = {width: torch.randn(slots, width, dtype=weight.dtype, device=weight.device) for width in _widths(matrices)}

    def products() -> None:
        for matrix in matrices:  # the embedding among them is the head, where they are tied
            F.linear(inputs[matrix.shape[1]], matrix)

    seconds = seconds_of(replayed(products, weight.device), weight.device)
    read = sum(matrix.nbytes for matrix in matrices) / bandwidth(weight.device)
    yield Row(f"{slots} slots: linears of a step alone", scaled(seconds, 1e3), "ms")
    yield Row(f"{slots} slots: weights of a step read once", plain(1e3 * read), "ms")


def _widths(matrices: Sequence[Tensor]) -> set[int]:
    return {matrix.shape[1] for matrix in matrices}


Attend = Callable[[int], Tensor]
"""Attention of a layer, by its number: [slots, H, 1, D]."""


@dataclass(frozen=True)
class Written:
    """What a step finds in each layer: `keys` and `values` [layers, slots, G, length, D], the `query` of each slot's
    last token [slots, H, 1, D], and that token's place, the same for all. Several layers, taken in turns as in a step:
    those of one alone would stay in the card's cache."""

    keys: Tensor
    values: Tensor
    query: Tensor

    @classmethod
    def drawn(cls, model: Multimodal, slots: int, length: int) -> Written:
        """At random, for LAYERS layers of a model."""
        text, weight = model.config.text, model.language.norm.weight
        shape = (LAYERS, slots, text.num_key_value_heads, length, text.head_dim)
        heads = (slots, text.num_attention_heads, 1, text.head_dim)
        return cls(*(torch.randn(size, dtype=weight.dtype, device=weight.device) for size in (shape, shape, heads)))

    def together(self, layer: int) -> Tensor:
        """torch's own attention, over keys that lie side by side, without a mask."""
        return F.scaled_dot_product_attention(self.query, self.keys[layer], self.values[layer], enable_gqa=True)

    def paged(self, model: Multimodal, options: Options) -> Attend:
        """The engine's: its kernel where it has one for this device; else what it does everywhere, which also writes
        the last key and value each time."""
        text, device = replace(model.config.text, num_hidden_layers=LAYERS), self.query.device
        slots, length = options.max_num_seqs, self.keys.shape[3]
        cache = Cache(text, slots, options.max_model_len, options.block_size, self.query.dtype, device)
        pages: list[list[int]] = [[] for _ in range(slots)]
        for of_slot in pages:
            cache.grow(of_slot, length)
        # All are written as a prompt's are, a few slots at a time: what scores of all would take is no step's.
        for first in range(0, slots, WRITTEN_TOGETHER):
            part = slice(first, first + WRITTEN_TOGETHER)
            places = torch.arange(length, device=device).expand(len(pages[part]), -1)
            write = cache.at(pages[part], places)
            for layer in range(LAYERS):
                write(
                    layer, self.query[part].expand(-1, -1, length, -1), self.keys[layer, part], self.values[layer, part]
                )
        last = torch.full((slots, 1), length - 1, device=device)
        if kernels.available(device):
            table = torch.tensor(pages, dtype=torch.int32, device=device)
            return lambda n: kernels.paged_attention(
                self.query, cache.keys[n], cache.values[n], table, last, cache.scale
            )
        step = cache.at(pages, last)
        return lambda n: step(n, self.query, self.keys[n, :, :, -1:], self.values[n, :, :, -1:])


@torch.inference_mode()
def attention_rows(model: Multimodal, options: Options, length: int) -> Iterator[Row]:
    """Attention of a layer over `length` tokens of each slot: by the engine's pages, by torch's own over keys that lie
    together, and reading keys and values once. Raises Differ where the two do not come to the same."""
    slots, device = options.max_num_seqs, model.language.norm.weight.device
    written = Written.drawn(model, slots, length)
    ways: dict[str, Attend] = {"ours": written.paged(model, options), "torch's own with GQA": written.together}
    for layer in range(LAYERS):
        by_pages, by_torch = (attend(layer).float() for attend in ways.values())
        apart = (by_pages - by_torch).abs().max().item()
        if not apart < (0.03 if written.query.dtype == torch.bfloat16 else 1e-4):
            raise Differ(f"attention by pages and torch's own are {apart:.3g} apart")
    for name, attend in ways.items():
        layers = replayed(partial(_layers, attend), device)
        yield Row(
            f"{slots} slots: attention a layer, {name}",
            scaled(seconds_of(layers, device), 1e3 / LAYERS),
            "ms",
            "result",
        )
    read = (written.keys.nbytes + written.values.nbytes) / LAYERS / bandwidth(device)
    yield Row(f"{slots} slots: keys and values of a layer read once", plain(1e3 * read), "ms")


def _layers(attend: Attend) -> None:
    for layer in range(LAYERS):
        attend(layer)
