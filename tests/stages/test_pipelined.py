"""Pieces that go through phases: as a map a phase, but that no piece waits for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from counting import Counting
from toy_phases import MANY, TITLES, Turn, phases, ran, turn, turns
from toy_stages import Ask, Place

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.sources import Phase
from gristmill.stages.run.unfinished import Incomplete, PlanOnly


class Through(Turn):
    """Passes all records on."""

    def run(self, store: Store, work: Work[Place]) -> Outcome:
        return replace(super().run(store, work), received=work.received, passed=work.received or Tally())


def test_no_piece_waits_for_a_piece_that_lags_behind(store, tmp_path):
    """The last piece is read when all others were through all phases: with a barrier that would be never."""
    others = [f"{title} {number}" for title in TITLES for number in range(5)]
    (tmp_path / "read 5 waits for").write_text("\n".join(others))
    done = Runner(store, workers=2).pipelined(6, phases(tmp_path))
    assert [len(receipts) for receipts in done] == [6, 6, 6]
    assert set(turns(tmp_path)[:15]) == set(others) and turns(tmp_path)[15:] == ["read 5", "judge 5", "sign 5"]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_receipts_are_those_of_a_map_a_phase(tmp_path, workers, new_store):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    runner = Runner(new_store("a"), workers=workers)
    done = runner.pipelined(7, phases(here))
    barrier = Runner(new_store("b"), workers=0)
    assert [[receipt.identity() for receipt in of_phase] for of_phase in done] == [
        [receipt.identity() for receipt in of_phase] for of_phase in barrier.phase_after_phase(7, phases(there))
    ]
    assert runner.history == barrier.history == [(title, 0, 7) for title in TITLES]
    runner.ran.check("toy", [stage for title in TITLES for stage in Turn(title).identity()])
    assert sorted(turns(here)) == sorted(turns(there)) and len(turns(here)) == 21


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[[str], Store]:
    """A store by its name."""
    return lambda name: open_store(str(tmp_path / f"lake {name}"))


def test_a_piece_is_soon_in_its_next_phase_though_others_are_still_to_be_read(store, tmp_path):
    Runner(store, workers=0).pipelined(MANY, phases(tmp_path))
    order = turns(tmp_path)
    assert order.index("sign 0") < order.index(f"read {MANY - 1}")
    assert order[:16] == [f"read {number}" for number in range(16)], "looked up together"


def test_the_piece_with_most_records_is_first(store, tmp_path):
    """So that it is not what all others wait for at the end; receipts stay in the order of the pieces."""

    def read(number: int, before: Sequence[Receipt]) -> Work[Place]:
        received = Tally.of_records([str(number)] * (9 if number in (3, 5) else 2), range(9 if number in (3, 5) else 2))
        return replace(turn(tmp_path, "read", number, before), stage=Through("read"), received=received)

    (done,) = Runner(store, workers=0).pipelined(7, [Phase("read", read)])
    assert turns(tmp_path) == [f"read {number}" for number in (3, 5, 0, 1, 2, 4, 6)]
    assert [receipt.inputs[0] for receipt in done] == [str(number) for number in range(7)]


class Announced:
    """What a runner announced: `calls` are titles with their keys, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, title: str, keys: Sequence[str]) -> None:
        self.calls.append((title, tuple(keys)))

    def keys(self, title: str) -> list[str]:
        """All that were announced under a title."""
        return [key for name, keys in self.calls if name == title for key in keys]


def test_works_are_announced_together_and_those_that_are_done_at_once(store, tmp_path):
    first, again = Announced(), Announced()
    done = Runner(store, workers=0, announce=first).pipelined(MANY, phases(tmp_path))
    for title, receipts in zip(TITLES, done, strict=True):
        assert sorted(first.keys(title)) == sorted(receipt.work_key for receipt in receipts)
    assert len(first.calls) == 1 + 2 * -(-MANY // 16)
    runner = Runner(store, workers=0, announce=again)
    assert runner.pipelined(MANY, phases(tmp_path)) == done
    assert [title for title, _ in again.calls] == list(TITLES), "as few as of a map a phase"
    assert runner.history == [(title, MANY, 0) for title in TITLES] and len(turns(tmp_path)) == 3 * MANY


def test_what_was_done_before_is_looked_up_as_of_a_map_a_phase(store, tmp_path):
    Runner(store, workers=0).pipelined(MANY, phases(tmp_path))
    pipelined, mapped = Counting(store), Counting(store)
    Runner(pipelined, workers=0).pipelined(MANY, phases(tmp_path))  # type: ignore[arg-type]
    Runner(mapped, workers=0).phase_after_phase(MANY, phases(tmp_path))  # type: ignore[arg-type]
    assert sorted(pipelined.read) == sorted(mapped.read) and len(pipelined.read) == 3 * MANY


def test_a_work_is_announced_before_it_runs(store, tmp_path):
    announced: set[str] = set()

    def checked(title: str, number: int, before: Sequence[Receipt]) -> Work[Place]:
        assert {receipt.work_key for receipt in before} <= announced
        return turn(tmp_path, title, number, before)

    runner = Runner(store, workers=0, announce=lambda title, keys: announced.update(keys))
    runner.pipelined(3, [Phase(title, partial(checked, title)) for title in TITLES])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("title", TITLES)
def test_of_a_piece_that_fails_nothing_more_runs_and_the_others_go_on(store, tmp_path, workers, title):
    (tmp_path / f"fail {title} 2").touch()
    with pytest.raises(Incomplete) as caught:
        Runner(store, workers=workers).pipelined(5, phases(tmp_path))
    assert str(caught.value).splitlines()[:2] == [
        f"{title}: 1 of 5 pieces of work failed:",
        "  2: OSError: the disk said no",
    ]
    later = TITLES[TITLES.index(title) :]
    for name in TITLES:
        assert ran(tmp_path, name) == ([0, 1, 3, 4] if name in later else [0, 1, 2, 3, 4])
    (tmp_path / f"fail {title} 2").unlink()
    assert len(Runner(store, workers=workers).pipelined(5, phases(tmp_path))[2]) == 5
    assert len(turns(tmp_path)) == 15, "only what was missing"


def test_failures_of_several_phases_are_all_told(store, tmp_path):
    for order in ("fail read 1", "fail sign 3", "fail sign 4"):
        (tmp_path / order).touch()
    with pytest.raises(Incomplete) as caught:
        Runner(store, workers=0).pipelined(5, phases(tmp_path))
    assert str(caught.value).splitlines() == [
        "read: 1 of 5 pieces of work failed:",
        "  1: OSError: the disk said no",
        "sign: 2 of 4 pieces of work failed:",
        "  3: OSError: the disk said no",
        "  4: OSError: the disk said no",
        "What is done is kept: run the same command again to try only these.",
    ]
    assert len(caught.value.errors) == 3


class Refused(Exception):
    """By a check."""


def refuse(receipts: Sequence[Receipt]) -> None:
    """A check that holds nothing for good."""
    raise Refused(len(receipts))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_check_sees_all_receipts_of_its_phase_and_ends_the_run(store, tmp_path, workers):
    """Also where a piece is under way that would never end."""
    if workers:
        (tmp_path / "judge 3 waits for").write_text("nobody")
    seen: list[str] = []

    def refuse_read(receipts: Sequence[Receipt]) -> None:
        seen.extend(receipt.inputs[0] for receipt in receipts)
        refuse(receipts)

    with pytest.raises(Refused, match="5"):
        Runner(store, workers=workers).pipelined(5, phases(tmp_path, read=refuse_read))
    assert seen == ["0", "1", "2", "3", "4"] == [str(number) for number in ran(tmp_path, "read")]
    assert "sign 3" not in turns(tmp_path)


def test_checks_are_not_asked_where_a_piece_is_missing(store, tmp_path):
    (tmp_path / "fail read 2").touch()
    with pytest.raises(Incomplete, match="read: 1 of 3"):
        Runner(store, workers=0).pipelined(3, phases(tmp_path, read=refuse, judge=refuse))


def test_a_plan_ends_at_the_first_phase_with_something_to_do(store, tmp_path):
    done: list[int] = []
    counted = phases(tmp_path, read=lambda receipts: done.append(len(receipts)))
    Runner(store, workers=0).pipelined(3, counted[:1])
    Runner(store, workers=0).pipelined(1, counted[:2])
    runner = Runner(store, workers=0, plan=True)
    with pytest.raises(PlanOnly) as caught:
        runner.pipelined(3, counted)
    assert (caught.value.title, caught.value.done, caught.value.todo) == ("judge", 1, ("1", "2"))
    assert runner.history == [("read", 3, 0), ("judge", 1, 2)]
    assert len(turns(tmp_path)) == 4 and done == [3, 1, 3]
    with pytest.raises(Refused):
        runner.pipelined(3, phases(tmp_path, read=refuse))


def test_of_nothing_all_phases_are_done_and_checked(store, tmp_path):
    runner, asked = Runner(store, workers=0), []
    assert runner.pipelined(0, phases(tmp_path, judge=asked.append)) == [[], [], []]
    assert asked == [[]] and runner.ran.nothing_to_do


def test_what_is_dear_to_set_up_is_refused(store, tmp_path):
    ask = Phase("ask", lambda number, before: Work(Ask(str(tmp_path)), (str(number),), Place(tmp_path)))
    with pytest.raises(TypeError, match=r"ask: toy\.ask has a set-up; give its works to `Runner\.map`"):
        Runner(store, workers=0).pipelined(2, [ask])


# kills


@pytest.mark.parametrize("point", [f"{title} {number}" for title in TITLES for number in (0, 2)])
def test_a_run_that_was_broken_off_goes_on_where_it_was(store, tmp_path, point):
    (tmp_path / f"interrupt {point}").touch()
    with pytest.raises(KeyboardInterrupt):
        Runner(store, workers=0).pipelined(3, phases(tmp_path))
    before = turns(tmp_path)
    done = Runner(store, workers=0).pipelined(3, phases(tmp_path))
    assert point not in before and [len(receipts) for receipts in done] == [3, 3, 3]
    assert sorted(turns(tmp_path)) == sorted(f"{title} {n}" for title in TITLES for n in range(3)), "none twice"


def test_a_worker_that_dies_in_a_phase_is_replaced(store, tmp_path):
    (tmp_path / "die judge 1").touch()
    assert len(Runner(store, workers=2).pipelined(4, phases(tmp_path))[2]) == 4
    assert sorted(turns(tmp_path)) == sorted(f"{title} {n}" for title in TITLES for n in range(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_outage_is_nobodys_failure(store, tmp_path, caplog, workers):
    (tmp_path / "away judge 1").touch()
    with pytest.raises(ConnectionError, match="the store is away"):
        Runner(store, workers=workers).pipelined(4, phases(tmp_path))
    assert "failed" not in caplog.text
    (tmp_path / "away judge 1").unlink()
    assert len(Runner(store, workers=workers).pipelined(4, phases(tmp_path))[2]) == 4
    assert len(turns(tmp_path)) == len(set(turns(tmp_path))) == 12
