"""The contract of a stage: what it need not say, what its receipt proves, and whose second attempt counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.receipt import NotDeterministic, Receipt, read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.core.work import Outcome, Resources, Stage, WarmStage, Work, execute, execute_warm, stage_id


@dataclass(frozen=True)
class Numbers:
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class SumFacts:
    sum: int


@dataclass(frozen=True)
class Sum(Stage[Numbers]):
    """A whole stage."""

    name: ClassVar[str] = "toy.sum"
    VERSION: ClassVar[int] = 1

    offset: int = 0

    def run(self, store: Store, work: Work[Numbers]) -> Outcome:
        numbers = work.payload.numbers
        return Outcome(outputs=(), passed=_tally(numbers), facts=SumFacts(sum(numbers) + self.offset))


def _tally(numbers: tuple[int, ...]) -> Tally:
    return Tally.of_records(["x"] * len(numbers), numbers)


def work(stage: Stage[Numbers], *numbers: int, **more: Any) -> Work[Numbers]:
    return Work(stage, (f"digest of {numbers}",), Numbers(numbers), _tally(numbers), "numbers", **more)


def test_a_stage_says_only_what_is_its_own(store):
    assert (Sum().resources, Sum().deterministic) == (Resources(cpus=1, gpus=0), True)
    assert Sum(3).identity() == (stage_id(Sum(3)),)
    assert Sum(3).identity()[0].config == {"offset": 3}
    assert execute(store, work(Sum(3), 1, 2)).facts_as(SumFacts) == SumFacts(6)


def test_what_a_stage_needs_is_no_part_of_its_identity():
    @dataclass(frozen=True)
    class OnGpu(Sum):
        resources = Resources(cpus=2, gpus=0.5)

    assert OnGpu(3).resources.gpus == 0.5
    assert OnGpu(3).identity() == Sum(3).identity()


@pytest.mark.parametrize("amounts", [{"cpus": -1}, {"gpus": 1.5}, {"gpus": float("inf")}])
def test_resources_that_nothing_can_give_are_refused(amounts):
    with pytest.raises(ValueError, match=next(iter(amounts))):
        Resources(**amounts)


@dataclass(frozen=True)
class Sample(Stage[Numbers]):
    """Each number has as many children as it says; the even ones are accepted. `loses` one, or `swaps` it."""

    name: ClassVar[str] = "toy.sample"
    VERSION: ClassVar[int] = 1

    loses: bool = False
    swaps: bool = False

    def run(self, store: Store, work: Work[Numbers]) -> Outcome:
        numbers = work.payload.numbers
        asked = [(n, i) for n in numbers for i in range(n)]
        judged = asked[1:] if self.loses else [*asked[1:], asked[-1]] if self.swaps else asked
        children = {
            "accepted": _children([pair for pair in judged if pair[1] % 2 == 0]),
            "rejected": _children([pair for pair in judged if pair[1] % 2]),
        }
        return Outcome(outputs=(), passed=_tally(numbers), children_in=_children(asked), children=children)


def _children(pairs: list[tuple[int, int]]) -> Tally:
    return Tally.of(f"{parent}/{child}".encode() for parent, child in pairs)


def test_a_receipt_holds_the_balance_of_children(store):
    receipt = execute(store, work(Sample(), 3, 2))
    assert receipt.children_in.count == 5
    assert {verdict: tally.count for verdict, tally in receipt.children.items()} == {"accepted": 3, "rejected": 2}
    read = read_receipt(store, receipt.work_key)
    assert read is not None and (read.children, read.children_in) == (receipt.children, receipt.children_in)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Sample(loses=True), "5 children went in but 4 have a verdict"),
        (Sample(swaps=True), "they are not the same children"),
    ],
)
def test_a_lost_or_doubled_child_leaves_no_receipt(store, stage, message):
    planted = work(stage, 3, 2)
    with pytest.raises(BalanceError, match=message):
        execute(store, planted)
    assert read_receipt(store, planted.key) is None


def test_children_that_the_stage_before_passed_on_must_all_have_a_verdict(store):
    before = _children([(3, 0), (3, 1), (3, 2), (9, 9)])
    with pytest.raises(BalanceError, match="4 children went in but 3 have a verdict"):
        execute(store, work(Sample(), 3, children_in=before))


def test_children_need_two_sides(store):
    @dataclass(frozen=True)
    class OneSided(Sample):
        def run(self, store: Store, work: Work[Numbers]) -> Outcome:
            return replace(super().run(store, work), children_in=None)

    with pytest.raises(ValueError, match="how many children came in"):
        execute(store, work(OneSided(), 3))


class Draws:
    """What differs from attempt to attempt."""

    n = 0


@dataclass(frozen=True)
class Draw(Stage[Numbers]):
    name: ClassVar[str] = "toy.draw"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[Numbers]) -> Outcome:
        Draws.n += 1
        return Outcome(
            outputs=(put_table(store, "numbers", pa.table({"n": [Draws.n]})),), passed=_tally(work.payload.numbers)
        )


@dataclass(frozen=True)
class FreeDraw(Draw):
    deterministic = False


def _drawn(store: Store, receipt: Receipt) -> list[int]:
    (ref,) = receipt.outputs
    drawn: list[int] = read_table(store, ref)["n"].to_pylist()
    return drawn


def test_of_a_stage_that_is_not_deterministic_the_first_attempt_counts(store):
    first = execute(store, work(FreeDraw(), 1))
    second = execute(store, work(FreeDraw(), 1))
    assert second == first
    assert _drawn(store, second) == _drawn(store, first)
    with pytest.raises(NotDeterministic, match=r"toy\.draw"):
        execute(store, work(Draw(), 1))  # the same key, and this one must give the same


def test_the_next_attempt_counts_where_the_outputs_of_the_first_are_gone(store):
    first = execute(store, work(FreeDraw(), 1))
    store.delete(first.outputs[0].key)
    second = execute(store, work(FreeDraw(), 1))
    assert second.outputs != first.outputs
    assert read_receipt(store, first.work_key) == second


class Engine:
    def __init__(self) -> None:
        self.used, self.closed = 0, False

    def close(self) -> None:
        self.closed = True


engines: list[Engine] = []


@dataclass(frozen=True)
class Ask(WarmStage[Numbers, Engine]):
    name: ClassVar[str] = "toy.ask"
    VERSION: ClassVar[int] = 1

    def setup(self, store: Store) -> Engine:
        engines.append(Engine())
        return engines[-1]

    def run_warm(self, store: Store, work: Work[Numbers], warm: Engine) -> Outcome:
        assert not warm.closed
        warm.used += 1
        return Outcome(outputs=(), passed=_tally(work.payload.numbers))


def test_a_warm_stage_runs_by_itself_too_and_closes_what_it_set_up(store):
    engines.clear()
    execute(store, work(Ask(), 1))
    assert [(engine.used, engine.closed) for engine in engines] == [(1, True)]


def test_many_works_share_one_set_up(store):
    engine = Engine()
    for n in range(3):
        execute_warm(store, work(Ask(), n), engine)
    assert (engine.used, engine.closed) == (3, False)


def test_a_payload_holds_pointers_as_they_are(store):
    @dataclass(frozen=True)
    class Where:
        table: ObjectRef

    @dataclass(frozen=True)
    class Count(Stage[Where]):
        name: ClassVar[str] = "toy.count"
        VERSION: ClassVar[int] = 1

        def run(self, store: Store, work: Work[Where]) -> Outcome:
            return Outcome(outputs=(), received=Tally(), facts=SumFacts(read_table(store, work.payload.table).num_rows))

    ref = put_table(store, "numbers", pa.table({"n": [1, 2, 3]}))
    assert execute(store, Work(Count(), (ref.sha256,), Where(ref))).facts_as(SumFacts) == SumFacts(3)
