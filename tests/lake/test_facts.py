"""Facts of a receipt: what a stage hands out comes back as the same dataclass, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.facts import WrongFacts, facts_to_json
from gristmill.lake.accounts.receipt import JsonTally, Receipt, StageId
from gristmill.lake.store.objects import ObjectRef

REF = ObjectRef(kind="text", sha256="0" * 64, bytes=3, records=1)


@dataclass(frozen=True)
class Cut:
    first: int
    rows: int


@dataclass(frozen=True)
class ChunkFacts:
    cuts: tuple[Cut, ...]
    share: float
    text: ObjectRef
    seen: JsonTally
    problem: str | None = None


FACTS = ChunkFacts((Cut(0, 3), Cut(3, 2)), 0.5, REF, Tally(2, 1 << 127), None)


def receipt(facts: dict) -> Receipt:
    stage = StageId(name="toy.cut", version=1, config={})
    return Receipt(work_key="ab" * 32, stages=(stage,), inputs=("x",), facts=facts)


def test_facts_come_back_as_they_were_through_the_json_of_a_receipt():
    written = receipt(facts_to_json(FACTS)).model_dump_json()
    assert Receipt.model_validate_json(written).facts_as(ChunkFacts) == FACTS


def test_a_field_with_a_default_may_be_missing():
    fields = facts_to_json(FACTS)
    del fields["problem"]
    assert receipt(fields).facts_as(ChunkFacts) == FACTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": None}, r"share: .*number"),
        ({"share": "0.5"}, r"share: .*number"),
        ({"cuts": [{"first": 0}]}, r"cuts\.0\.rows: Field required"),
        ({"bytes": 3}, r"its facts have bytes, of which ChunkFacts knows nothing"),
    ],
)
def test_facts_of_another_form_are_refused_and_the_receipt_is_named(change, message):
    with pytest.raises(WrongFacts, match=r"receipt abababababab of toy\.cut: .*" + message + r".*Raise the VERSION"):
        receipt(facts_to_json(FACTS) | change).facts_as(ChunkFacts)


def test_a_missing_field_is_named():
    fields = facts_to_json(FACTS)
    del fields["share"]
    with pytest.raises(WrongFacts, match="share: Field required"):
        receipt(fields).facts_as(ChunkFacts)


@pytest.mark.parametrize("facts", [3, Cut, Cut("one", 2)])  # type: ignore[arg-type]
def test_what_is_no_dataclass_of_its_types_is_not_written(facts):
    with pytest.raises(WrongFacts):
        facts_to_json(facts)
