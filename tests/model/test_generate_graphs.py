"""CUDA graphs by a stand-in of torch's interface, which has no device: what is asked of it, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gristmill.model.generate.graphs import Fetched, Graphs, on_device, put


class Interface:
    """Notes what `torch.cuda` is asked for. `fails`: what a capture raises."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails: Exception | None = None

    def stream(self, name: str) -> Any:
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.events.append(f"{name} waits for {other.name}")
        )

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        self.events.append(f"on {stream.name}")
        yield
        self.events.append("back")

    @contextlib.contextmanager
    def capture(self, graph: Any, pool: str, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.events.append(f"capture {pool} {stream.name} {capture_error_mode}")
        yield
        if self.fails is not None:
            raise self.fails
        self.events.append("captured")

    def graph(self) -> Any:
        return SimpleNamespace(replay=lambda: self.events.append("replay"))


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> Interface:
    stand_in = Interface()
    main = stand_in.stream("main")
    for name, value in {
        "graph_pool_handle": lambda: "pool",
        "Stream": lambda: stand_in.stream("side"),
        "current_stream": lambda: main,
        "stream": stand_in.on,
        "CUDAGraph": stand_in.graph,
        "graph": stand_in.capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return stand_in


def test_a_function_is_warmed_up_aside_captured_once_and_replayed(interface: Interface) -> None:
    graphs = Graphs()
    for _ in range(2):
        graphs.run("decode", lambda: interface.events.append("run"))
    aside = ["side waits for main", "on side", *["run"] * 3, "back", "main waits for side"]
    capture = ["capture pool side thread_local", "run", "captured"]
    assert interface.events == [*aside, *capture, "replay", "replay"]
    interface.events.clear()
    graphs.run("prefill", lambda: interface.events.append("other"))
    assert "capture pool side thread_local" in interface.events and interface.events.count("other") == 4


def test_weights_that_lie_elsewhere_are_captured_anew_and_the_same_are_not(interface: Interface) -> None:
    graphs, weight = Graphs(), torch.zeros(4)
    captures = []
    for tensors in ([weight], [weight], [weight, torch.ones(4)]):
        graphs.watch(tensors)
        graphs.run("decode", lambda: None)
        captures.append(sum(event.startswith("capture ") for event in interface.events))
    assert captures == [1, 1, 2]


def test_a_capture_that_fails_says_what_to_do_and_is_no_graph(interface: Interface) -> None:
    graphs = Graphs()
    interface.fails = RuntimeError("operation not permitted when stream is capturing")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"graph of \('decode', 'speech'\).*not permitted.*graphs=False"):
            graphs.run(("decode", "speech"), lambda: None)
    assert "replay" not in interface.events
    interface.fails = torch.OutOfMemoryError("no room")
    with pytest.raises(torch.OutOfMemoryError, match=r"^no room$"):
        graphs.run("decode", lambda: None)


def test_what_is_fetched_is_what_it_was(interface: Interface) -> None:
    buffer = torch.arange(3)
    fetched = Fetched(buffer, buffer * 2)
    put(buffer, np.array([7, 8, 9]))
    assert [copy.tolist() for copy in fetched.wait()] == [[0, 1, 2], [0, 2, 4]]
    assert buffer.tolist() == on_device(np.array([7, 8, 9]), torch.device("cpu")).tolist()
