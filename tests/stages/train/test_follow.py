"""Metrics that another process writes: each step once, all of them after a resume, none lost at the end."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from trained import STEP, steps
from waiting import PATIENCE, until

from gristmill.lake.store.base import Store
from gristmill.model.train.metrics import MetricsFile
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.follow import MetricsTail, followed


@pytest.fixture
def folder(store: Store) -> RunFolder:
    """Of a run that has done nothing."""
    return RunFolder(store, "ab" * 32)


def test_what_is_appended_is_given_once_and_all_of_it_after_a_resume(store: Store, folder: RunFolder) -> None:
    tail, path = MetricsTail(store, folder.metrics_key), Path(store.uri, folder.metrics_key)
    assert tail.new() == []
    first = steps([5.0, 4.0, 3.0, 2.0])
    with MetricsFile(path, 0) as file:
        for step in first[:2]:
            file.write(step)
        assert tail.new() == first[:2] and tail.new() == []
        file.write(first[2])
        with path.open("a") as stream:
            stream.write('{"step": 4, ')
        assert tail.new() == first[2:3] and tail.new() == []
    again = steps([5.0, 4.0, 3.5, 2.5, 2.0], since=2)
    with MetricsFile(path, 2) as file:  # it went on from step 2, in another process
        assert tail.new() == first[:2]
        for step in again[2:]:
            file.write(step)
        assert tail.new() == again[2:]
    longer = steps([5.0, 4.25, 3.25, 2.25, 2.0, 1.75], since=1)
    with MetricsFile(path, 1) as file:
        for step in longer[1:]:  # more than was read before this look
            file.write(step)
    assert tail.new() == [first[0], *longer[1:]]


def test_a_run_is_followed_to_its_last_step(store: Store, folder: RunFolder) -> None:
    seen: list[int] = []
    path, losses = Path(store.uri, folder.metrics_key), steps([4.0] * 4)
    with (
        MetricsFile(path, 0) as file,
        followed(store, folder.metrics_key, lambda step: seen.append(step.step), pause=0.01),
    ):
        for step in losses[:3]:
            file.write(step)
        until(lambda: seen == [1, 2, 3], "three steps are seen")
        file.write(losses[3])
    assert seen == [1, 2, 3, 4]


def test_the_last_look_comes_at_the_end_however_long_the_pause_is(store: Store, folder: RunFolder) -> None:
    seen: list[int] = []
    with (
        MetricsFile(Path(store.uri, folder.metrics_key), 0) as file,
        followed(store, folder.metrics_key, lambda step: seen.append(step.step), pause=PATIENCE),
    ):
        file.write(STEP)
    assert seen == [1]


def test_metrics_that_cannot_be_read_are_said_once_and_asked_for_again(
    store: Store, folder: RunFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "gristmill")
    with MetricsFile(Path(store.uri, folder.metrics_key), 0) as file:
        file.write(STEP)
    seen: list[int] = []
    asked: list[str] = []
    whole = type(store).open

    def away(self: Store, key: str) -> object:
        asked.append(key)
        if len(asked) <= 3:
            raise OSError("the store is away")
        return whole(self, key)

    monkeypatch.setattr(type(store), "open", away)
    with followed(store, folder.metrics_key, lambda step: seen.append(step.step), pause=0.001):
        until(lambda: seen, "it was asked again")
    assert seen == [1]
    (message,) = caplog.messages
    assert message == "the metrics of the run cannot be read now, so its steps are not seen: the store is away"
