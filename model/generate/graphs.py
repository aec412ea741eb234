"""Work for a CUDA device that the host does not wait for: CUDA graphs, and copies there and back.

A step of the decoder is some hundreds of kernels; launched one by one they take the host longer than the device. A
graph is launched at once: the same kernels with the same addresses, so that what it reads and writes has to lie in
buffers that stay. Graphs differ by what they compute, never by how many rows are in use: a product of another size has
other bits.
Nothing of `Graphs` has run on a device yet: tests have none, and check it against a stand-in of torch's interface.
Source: docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs"; torch.cuda.graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

_WARM_UPS = 3
"""Runs before a capture, in which libraries allocate and kernels are compiled; as in torch's documentation."""


class Runner:
    """Runs functions of no argument, whose inputs and outputs are buffers that stay; here by calling them."""

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """What `function` does, in the order of the device's current stream. Functions of one key do the same. A
        function may run several times for one call, so it must not change what it reads."""
        function()

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Says which weights functions read, before a run: where a runner keeps their addresses, it begins anew."""


class Graphs(Runner):
    """Captures each key's function as a CUDA graph when it first comes, and replays it from then on.

    All graphs share one pool of memory: they run one after another, and what one leaves for the next lies in buffers
    outside of it.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._addresses: tuple[int, ...] = ()

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """As `Runner.run`. Raises RuntimeError for a function that cannot be captured, and torch.OutOfMemoryError."""
        if key not in self._graphs:
            try:
                self._graphs[key] = self._captured(function)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise RuntimeError(
                    f"a CUDA graph of {key} could not be captured: {error}; Options(graphs=False) runs without"
                ) from error
        self._graphs[key].replay()

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """As `Runner.watch`: a model that was moved, or has another adapter, is captured anew."""
        addresses = tuple(tensor.data_ptr() for tensor in tensors)
        if addresses != self._addresses:
            self._graphs.clear()
            self._addresses = addresses

    def _captured(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        # Not on the stream that others use: what is left there of earlier work may not be waited for in a capture.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a trainer's loader that pins memory, may go on: only this thread's calls are judged.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            function()
        return graph


def current(device: torch.device) -> AbstractContextManager[object]:
    """Makes a CUDA device the one on which streams, graphs and Triton's kernels are, in the block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def put(buffer: Tensor, values: np.ndarray) -> None:
    """Copies values into a buffer of the same shape, after all that its device was given before, without waiting."""
    buffer.copy_(_staged(values, buffer.device), non_blocking=True)


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """A new tensor of these values, without waiting."""
    return _staged(values, device).to(device, non_blocking=True)


def _staged(values: np.ndarray, device: torch.device) -> Tensor:
    # Fresh pinned memory for every copy: torch's allocator does not give it to others before the copy has been made.
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory() if device.type == "cuda" else tensor


class Fetched:
    """Copies of tensors on their way to the host: begun at once, waited for when they are asked for."""

    def __init__(self, *tensors: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if not tensors[0].is_cuda:
            self._copies = [tensor.clone() for tensor in tensors]
            return
        self._copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(self._copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record()

    def wait(self) -> list[Tensor]:
        """The copies, of what the tensors were when they were fetched."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
