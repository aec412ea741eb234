"""A kickoff that a shell started, cancelled in Prefect: the process that waits for its nodes is interrupted, once."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from fake_prefect import Server

from gristmill.orchestration.kickoff import by_hand
from gristmill.orchestration.kickoff.by_hand import ByHand
from gristmill.orchestration.stack.health import Unreachable
from gristmill.orchestration.stack.owner import OWNER, this_process


class Client:
    """Prefect's client, as far as labels go."""

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *args: object) -> None: ...

    def update_flow_run_labels(self, flow_run: str, labels: dict[str, str]) -> None:
        self.labels |= labels


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    fake = Client()
    monkeypatch.setattr(by_hand, "get_client", lambda sync_client: fake)
    monkeypatch.setattr(by_hand, "EVERY", 0.01)
    monkeypatch.delenv(by_hand.MARK, raising=False)
    return fake


@pytest.fixture(params=[False, True], ids=["by a terminal", "by a script, in the background"])
def started(request: pytest.FixtureRequest) -> Iterator[None]:
    """A process that Ctrl-C ends, or one that ignores it, as `&` of a script has it."""
    before = signal.getsignal(signal.SIGINT)
    if request.param:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_it_is_interrupted_where_it_waits(client, state, started):
    answers = iter([Unreachable("away"), {"state_type": "RUNNING"}, {"state_type": state}])

    def answer(body: Any) -> Any:
        following = next(answers)
        if isinstance(following, Exception):
            raise following
        return following

    watched = ByHand(Server(flow_runs_r=answer), "r")  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt), watched:
        queue.SimpleQueue[None]().get()  # as a kickoff waits for its nodes: for a lock
    assert watched.cancelled and client.labels == {OWNER: this_process()}


def test_nothing_is_asked_afterwards_nor_where_a_worker_does_it(client, monkeypatch):
    server: Any = Server(flow_runs_r={"state_type": "RUNNING"})
    with ByHand(server, "r") as watched:
        pass
    monkeypatch.setenv(by_hand.MARK, "r")
    client.labels.clear()
    with ByHand(Server(), "r"):  # type: ignore[arg-type]
        pass
    assert not watched.cancelled and client.labels == {}
