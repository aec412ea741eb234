"""Examples of every reason, in one bounded pass over a ledger."""

from __future__ import annotations

import pytest
from lake_builder import BROKEN, COPY, OTHER, SHORT, Page, commit, mixed_pages, pages

from gristmill.lake.query.examples import examples, reasons_of
from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions

REASONS = ["quality.too_few_words", "read.unreadable", "exact.duplicate", "read.not_a_page"]


def test_each_reason_has_its_records_with_text_value_and_survivor(store: Store) -> None:
    manifest = commit(store, "web", mixed_pages())
    drawn = examples(Versions(store), manifest, REASONS)
    assert list(drawn) == REASONS
    assert {reason: [record.id for record in records] for reason, records in drawn.items()} == {
        "quality.too_few_words": [SHORT.id],
        "read.unreadable": [BROKEN.id],
        "exact.duplicate": [COPY.id],
        "read.not_a_page": [OTHER.id],
    }
    (short,), (broken,), (copy,), _ = drawn.values()
    assert (short.fate, short.value, short.text) == ("dropped", "12", SHORT.text)
    assert (broken.fate, broken.text) == ("quarantined", None) and broken.why_no_text
    assert copy.fields["survivor"] == Page(COPY.survivor or "").id


def test_no_more_than_asked_for_and_the_same_ones_each_time(store: Store) -> None:
    dropped = {f"p{i}": Page(f"https://example.org/{i}", "quality.too_few_words", str(i)) for i in range(30)}
    manifest = commit(store, "web", pages(40, **dropped))
    versions = Versions(store)
    (three,) = examples(versions, manifest, REASONS[:1], each=3).values()
    assert len({record.id for record in three}) == 3
    assert examples(versions, manifest, REASONS[:1], each=3) == {REASONS[0]: three}
    assert len(examples(versions, manifest, REASONS[:1], each=50)[REASONS[0]]) == 30


@pytest.mark.parametrize("rows", [0, 1])
def test_rows_beyond_the_bound_are_not_read(store: Store, rows: int) -> None:
    manifest = commit(store, "web", mixed_pages())  # its ledger is two objects
    read = [
        record for records in examples(Versions(store), manifest, REASONS, rows=rows).values() for record in records
    ]
    assert len({record.id < "8" for record in read}) == rows  # of one object, or of none


def test_reasons_stand_in_order_of_their_counts(store: Store) -> None:
    more = {f"p{i}": Page(f"https://example.org/{i}", "exact.duplicate") for i in (1, 3, 4)}
    manifest = commit(store, "web", pages(20, p2=SHORT, p5=BROKEN, **more))
    assert reasons_of(manifest) == {"exact.duplicate": 3, "quality.too_few_words": 1, "read.unreadable": 1}
    assert next(iter(reasons_of(manifest))) == "exact.duplicate"
