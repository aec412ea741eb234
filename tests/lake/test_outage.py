"""Outages: which errors are worth waiting for, and how long somebody waits. No test sleeps."""

from __future__ import annotations

import pickle

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from gristmill.lake.store.base import NotFound, UnsafeStore
from gristmill.lake.store.outage import LONGEST_PAUSE, Patience, Unreachable, is_outage
from gristmill.lake.store.s3_connection import MissingBucket


def answered(status: int, code: str) -> ClientError:
    return ClientError({"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}, "GetObject")


REFUSED = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
ARROW = OSError("When reading information for key 'k': AWS Error NETWORK_CONNECTION during HeadObject: curlCode: 7")


def caused_by(error: Exception) -> Exception:
    try:
        raise ValueError("recipe.inputs: cannot be listed") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        ConnectionClosedError(endpoint_url="x"),
        ReadTimeoutError(endpoint_url="x"),
        answered(503, "SlowDown"),
        answered(500, "InternalError"),
        answered(400, "RequestTimeout"),
        ConnectionRefusedError(111, "refused"),
        TimeoutError("slow"),
        ARROW,
        caused_by(REFUSED),
    ],
)
def test_what_may_be_over_in_a_minute(error):
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        answered(403, "AccessDenied"),
        answered(404, "NoSuchKey"),
        NoCredentialsError(),
        MissingBucket("b"),
        NotFound("s3://b", "k"),
        UnsafeStore("no conditions"),
        PermissionError(13, "denied"),
        FileNotFoundError("gone"),
        BrokenPipeError(32, "the reader left"),
        OSError(28, "No space left on device"),
        TypeError("a defect"),
        Unreachable("somebody has waited for it already"),
    ],
)
def test_what_no_waiting_mends(error):
    assert not is_outage(error)


@pytest.mark.parametrize("error", [REFUSED, answered(503, "SlowDown"), ConnectionError("reading s3://b/k stopped")])
def test_it_is_known_for_an_outage_also_in_another_process(error):
    assert is_outage(pickle.loads(pickle.dumps(error)))


class Clock:
    def __init__(self) -> None:
        self.now, self.messages = 0.0, list[str]()
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def patience(self, seconds: float) -> Patience:
        return Patience("store s3://b", seconds, self.sleep, lambda: self.now, self.messages.append)


def failing(times: int, error: Exception = REFUSED):
    left = [times]

    def call() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "done"

    return call


def test_pauses_grow_to_a_bound_and_an_outage_is_said_once():
    clock = Clock()
    assert clock.patience(600).wait(failing(8)) == "done"
    assert clock.pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    began, ended = clock.messages
    assert "store s3://b unreachable, trying again for 600 s: EndpointConnectionError" in began
    assert "store s3://b answered again, 121 s after it had not" in ended


def test_patience_ends_at_its_second_with_one_line_that_names_the_cause():
    clock = Clock()
    with pytest.raises(Unreachable, match=r"^store s3://b unreachable for 100 s: EndpointConnectionError: [^\n]*$"):
        clock.patience(100).wait(failing(10**9))
    assert clock.now == 100 and len(clock.messages) == 1


def test_no_patience_fails_at_once_and_says_nothing_twice():
    clock = Clock()
    with pytest.raises(Unreachable, match="unreachable for 0 s"):
        clock.patience(0).wait(failing(1))
    assert clock.pauses == [] and clock.messages == []


def test_what_is_no_outage_is_not_waited_for():
    clock = Clock()
    with pytest.raises(PermissionError):
        clock.patience(600).wait(failing(1, PermissionError("denied")))
    assert clock.pauses == []


def test_a_second_outage_hours_later_has_patience_of_its_own():
    clock = Clock()
    tries = [0]

    def work() -> str:
        tries[0] += 1
        if tries[0] in (1, 2, 4, 5):
            clock.now += 3600 if tries[0] == 4 else 0  # it worked for an hour before the store went away again
            raise REFUSED
        if tries[0] == 3:
            clock.now += 3600
            raise REFUSED
        return "done"

    assert clock.patience(600).wait(work) == "done"
    assert clock.pauses == [1, 2, 1, 1, 2]
