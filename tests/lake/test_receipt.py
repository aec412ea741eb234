"""Receipts: what is proof of work and what is not, and what the keys depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import put_text

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.facts import facts_to_json
from gristmill.lake.accounts.receipt import (
    NotDeterministic,
    Receipt,
    StageId,
    canonical,
    finished,
    read_receipt,
    work_key,
    write_receipt,
)
from gristmill.lake.store.sealed import Unreadable, unseal
from gristmill.stages.mix.pack_facts import PackFacts
from gristmill.stages.mix.plan_rows import PlanFacts
from gristmill.stages.mix.tokenize import TokenizeFacts
from gristmill.stages.mix.tokenizer import TrainedFacts

STAGE = StageId(name="toy", version=1, config={"a": 1, "b": [2, None]})
KEY = work_key([STAGE], ["in"])


def receipt(**fields: object) -> Receipt:
    return Receipt(**({"work_key": KEY, "stages": (STAGE,), "inputs": ("in",)} | fields))


# Keys


def test_the_key_depends_on_name_version_config_inputs_and_their_order():
    others = [
        work_key([STAGE.model_copy(update={"name": "other"})], ["in"]),
        work_key([STAGE.model_copy(update={"version": 2})], ["in"]),
        work_key([STAGE.model_copy(update={"config": {"a": 1}})], ["in"]),
        work_key([STAGE, STAGE], ["in"]),
        work_key([STAGE], ["in", ""]),
        work_key([STAGE], ["i", "n"]),
        work_key([STAGE], []),
    ]
    assert len({KEY, *others}) == len(others) + 1
    assert work_key([STAGE], ["a", "b"]) != work_key([STAGE], ["b", "a"])


def test_the_key_does_not_depend_on_the_order_of_config_keys():
    other = StageId(name="toy", version=1, config={"b": [2, None], "a": 1})
    assert work_key([other], ["in"]) == KEY


def test_canonical_json_has_one_spelling_and_refuses_what_has_none():
    assert canonical({"b": "ä", "a": [1, None]}) == '{"a":[1,null],"b":"ä"}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


# Writing


def test_the_first_receipt_counts_and_info_is_no_part_of_it(store):
    first = write_receipt(store, receipt(info={"host": "one"}))
    again = write_receipt(store, receipt(info={"host": "two"}))
    assert again == first and again.info == {"host": "one"}
    assert read_receipt(store, KEY) == first
    assert receipt(info={"host": "one"}).identity() == receipt().identity() != receipt(facts={"n": 1}).identity()


@pytest.mark.parametrize("fields", [{"stages": (STAGE.model_copy(update={"version": 2}),)}, {"inputs": ("other",)}])
def test_what_other_work_did_is_no_proof_of_this_one(store, fields):
    write_receipt(store, receipt(**fields))
    with pytest.raises(Unreadable, match="its stages and inputs are those of other work"):
        finished(store, KEY)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"facts": {"n": 2}}, "facts"),
        ({"kept": Tally(1, 1), "came_in": Tally(1, 1)}, "came_in, kept"),
        ({"reasons": {"toy.bad": 1}}, "reasons"),
    ],
)
def test_two_results_of_one_work_are_a_defect_that_is_named(store, fields, named):
    write_receipt(store, receipt())
    with pytest.raises(NotDeterministic, match=rf"toy: two attempts .* \({named}\).* raise its VERSION"):
        write_receipt(store, receipt(**fields))
    assert read_receipt(store, KEY) == receipt()


@pytest.mark.parametrize("machine_fates", [(1, 0), (0, 1)])
def test_where_the_machine_decided_a_fate_the_first_result_counts(store, machine_fates):
    first, second = (receipt(facts={"n": n}, machine_fates=m) for n, m in enumerate(machine_fates))
    write_receipt(store, first)
    assert write_receipt(store, second) == first


def test_a_result_that_a_machine_decided_and_that_is_gone_gives_way_to_the_next(store):
    first, second = (
        receipt(outputs=(put_text(store, text),), machine_fates=m) for text, m in (("killed", 1), ("went well", 0))
    )
    write_receipt(store, first)
    store.delete(first.outputs[0].key)
    assert write_receipt(store, second) == second == finished(store, KEY)


def test_a_receipt_that_vanishes_between_two_calls_is_written_again(store, monkeypatch):
    calls: list[str] = []
    create = store.create

    def refused_once(key: str, data: bytes) -> bool:
        calls.append(key)
        return len(calls) > 1 and create(key, data)

    monkeypatch.setattr(store, "create", refused_once)
    assert write_receipt(store, receipt()) == receipt() and len(calls) == 2


# Proof


def test_a_receipt_is_proof_only_with_every_output_at_its_size(store):
    outputs = tuple(put_text(store, text) for text in ("one", "two"))
    written = write_receipt(store, receipt(outputs=outputs))
    assert finished(store, KEY) == written
    store.put(outputs[1].key, b"cut")
    assert finished(store, KEY) == written  # as long as before: its bytes are for verify
    store.put(outputs[1].key, b"cu")
    assert finished(store, KEY) is None
    store.delete(outputs[1].key)
    assert finished(store, KEY) is None and read_receipt(store, KEY) == written


def test_no_receipt_is_no_proof(store):
    assert finished(store, KEY) is None and read_receipt(store, KEY) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"{", "it is cut short, or no JSON"),
        (b'{"format": 1}', "work_key: Field required"),
        (
            receipt(format=1).model_dump_json().replace('"format":1', '"format":1,"future":2').encode(),
            "future: Extra inputs",
        ),
    ],
)
def test_a_receipt_that_cannot_be_read_is_named_with_what_to_do(store, data, message):
    store.put(f"receipts/{KEY[:2]}/{KEY}.json", data)
    with pytest.raises(ValueError, match=rf"receipts/{KEY[:2]}/{KEY}\.json in .* \({message}.*upgrade; else delete it"):
        finished(store, KEY)


def test_a_receipt_of_another_format_is_not_taken_for_ours(store):
    store.put(f"receipts/{KEY[:2]}/{KEY}.json", receipt(format=4).model_dump_json().encode())
    with pytest.raises(ValueError, match="it has format 4, this gristmill reads up to 3: upgrade it"):
        finished(store, KEY)


def test_an_output_is_found_by_its_kind(store):
    text, other = put_text(store, "one"), put_text(store, "two", kind="other")
    assert receipt(outputs=(text, other)).output("other") == other
    with pytest.raises(KeyError, match="2 outputs of kind 'text', expected one"):
        receipt(outputs=(text, text)).output("text")
    with pytest.raises(KeyError, match="0 outputs of kind 'ledger'"):
        receipt(outputs=(text,)).output("ledger")


def test_a_receipt_survives_json_and_its_tallies_are_readable():
    before = receipt(kept=Tally(3, 255))
    data = json.loads(before.model_dump_json())
    assert data["kept"] == [3, f"{255:032x}"] and data["format"] == 3
    assert Receipt.model_validate(data) == before


# Formats before

GOLDEN = Path(__file__).parents[1] / "golden"
FORMAT_1 = [path.read_bytes() for path in sorted((GOLDEN / "lake-format-1" / "receipts").rglob("*.json"))]
FORMAT_2 = [text.encode() for text in json.loads((GOLDEN / "receipts-format-2.json").read_text()).values()]
"""One a stage, as the release before children wrote them: its own bytes, seal and all."""


@pytest.mark.parametrize("data", [*FORMAT_1, *FORMAT_2], ids=lambda data: json.loads(data)["stages"][-1]["name"])
def test_receipts_of_the_formats_before_are_read_and_count_as_they_did(store, data):
    fields = json.loads(data)
    key, number = fields["work_key"], fields["format"]
    assert number in (1, 2)
    store.put(f"receipts/{key[:2]}/{key}.json", data)
    then = read_receipt(store, key)
    assert then is not None and then.format == number
    assert (then.children, then.children_in) == ({}, Tally()) and then.facts == fields["facts"]
    assert [ref.model_dump() for ref in then.outputs] == fields["outputs"]
    now = then.model_copy(update={"format": 3, "info": {}})
    assert write_receipt(store, now) == then, "the same work, done again by this release"
    lost = {"children_in": Tally(1, 1), "children": {"accepted": Tally(1, 1)}}
    with pytest.raises(NotDeterministic, match=r"\(children_in, children\)"):
        write_receipt(store, now.model_copy(update=lost))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plan", PlanFacts), ("tokenize", TokenizeFacts), ("pack", PackFacts), ("train_tokenizer", TrainedFacts)],
)
def test_facts_of_receipts_before_are_read_by_the_dataclasses_of_today(name, kind):
    (receipt,) = [
        receipt for data in FORMAT_2 if (receipt := Receipt.model_validate_json(unseal(data))).stages[-1].name == name
    ]
    assert facts_to_json(receipt.facts_as(kind)) == receipt.facts


# Two attempts


def test_of_work_that_is_not_deterministic_the_first_receipt_counts_and_no_other_is_an_error(store):
    first = write_receipt(store, receipt(facts={"n": 1}), deterministic=False)
    assert write_receipt(store, receipt(facts={"n": 2}), deterministic=False) == first
    assert read_receipt(store, KEY) == first
    with pytest.raises(NotDeterministic):
        write_receipt(store, receipt(facts={"n": 2}))
