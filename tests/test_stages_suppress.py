"""Suppress: what is on the list leaves a chunk before anything is compared, with a fate, and is named a loser."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake import ledger
from lake.balance import BalanceError, Tally
from lake.identity import record_id
from lake.objects import ObjectRef, put_refs, put_table, read_table
from lake.receipt import Receipt
from lake.store import Store
from lake.suppress import Suppression
from stages.exact import Exact, exact_works
from stages.extract import SCHEMA
from stages.losers import SCHEMA as LOSERS
from stages.losers import without_losers
from stages.runner import Runner
from stages.suppress import Suppress, suppress_works
from stages.work import execute

INPUT = hashlib.sha256(b"crawl").hexdigest()
URLS = [
    "https://example.org/a",
    "https://evil.com/1",
    "https://www.evil.com/2",
    None,
    "https://example.org/b",
    "https://evil.com/filtered",
]
LISTED = Suppression.of(urls=["https://example.org/b"], domains=["evil.com"])


def rows(urls: list[str | None]) -> list[dict[str, object]]:
    return [
        {
            "id": record_id(url=url, source_key=f"row {i}", own=b"%d" % i),
            "input": INPUT,
            "ordinal": i,
            "start": 10 * i,
            "length": 10,
            "url": url,
            "content": f"{i % 3:032x}",
            "text": f"text {i % 3}",
        }
        for i, url in enumerate(urls)
    ]


def chunk(store: Store, urls: list[str | None] = URLS) -> tuple[ObjectRef, ObjectRef, Tally]:
    """A chunk as extraction and screen leave it: what is called filtered did not pass."""
    table = pa.Table.from_pylist(rows(urls), schema=SCHEMA)
    reasons = ["c4.lorem" if (url or "").endswith("filtered") else None for url in urls]
    keys = ["id", "input", "ordinal", "start", "length", "content"]
    screened = table.select(keys).append_column("reason", pa.array(reasons, pa.string()))
    passed = screened.filter(pa.array([reason is None for reason in reasons], pa.bool_()))
    by_content = screened.sort_by([("content", "ascending"), ("ordinal", "ascending")])
    return put_table(store, "text", table), put_table(store, "screened", by_content), ledger.tally(passed)


def suppressed(store: Store, listed: Suppression = LISTED, urls: list[str | None] = URLS) -> Receipt:
    (work,) = suppress_works(store, listed, [chunk(store, urls)])
    return execute(store, work)


def test_what_is_listed_and_passed_is_dropped_with_its_reason(store):
    receipt = suppressed(store)
    losers = read_table(store, receipt.output("losers"))
    assert losers.schema.equals(LOSERS) and losers["ordinal"].to_pylist() == [1, 2, 4]
    ref = receipt.output("losers")
    assert (ref.first, ref.last, ref.records) == (INPUT, INPUT, 3)
    fates = read_table(store, receipt.output("fates")).to_pylist()
    assert {row["ordinal"] for row in fates} == {1, 2, 4}
    assert {(r["fate"], r["stage"], r["reason"], r["value"], r["survivor"]) for r in fates} == {
        ("dropped", "forget", "forget.suppressed", None, None)
    }
    assert receipt.reasons == {"forget.suppressed": 3}
    assert (receipt.came_in.count, receipt.passed.count, receipt.dropped.count) == (5, 2, 3)
    assert receipt.passed == Tally.of_records([INPUT] * 2, [0, 3])


def test_a_chunk_that_has_none_of_them_passes_whole(store):
    receipt = suppressed(store, urls=["https://example.org/a", None])
    assert receipt.output("losers").records == 0 and receipt.passed == receipt.came_in
    empty = suppressed(store, urls=[])
    assert empty.came_in.count == 0 and empty.output("fates").records == 0


def test_without_a_list_there_is_no_work_and_no_identity(store):
    before = {info.key for info in store.list("")}
    assert suppress_works(store, Suppression(), []) == [] and Suppress("").identity() == ()
    assert {info.key for info in store.list("")} == before


def test_the_key_follows_the_entries_and_nothing_else(store):
    one = chunk(store)
    (work,) = suppress_works(store, LISTED, [one])
    (same,) = suppress_works(store, Suppression.of(["ab" * 16]).union([LISTED]), [one])
    (again,) = suppress_works(store, Suppression().union([LISTED]), [one])
    assert again.key == work.key != same.key
    (other,) = suppress_works(store, LISTED, [chunk(store, URLS[:2])])
    assert other.key != work.key
    first, second = execute(store, work), execute(store, again)
    assert first.identity() == second.identity()


def test_a_request_made_meanwhile_changes_nothing_of_a_run_that_began_before(store):
    (work,) = suppress_works(store, LISTED, [chunk(store)])
    Suppression.of(urls=["https://example.org/a"]).save(store, "later")
    assert execute(store, work).dropped.count == 3


def test_the_wrong_list_is_refused(store):
    (work,) = suppress_works(store, LISTED, [chunk(store)])
    store.put(ObjectRef(**work.payload["suppression"]).key, store.get(Suppression().put(store).key))
    with pytest.raises(ValueError, match="is damaged"):
        execute(store, work)


def test_a_record_that_goes_missing_is_noticed(store):
    text, screened, _ = chunk(store)
    (work,) = suppress_works(store, LISTED, [(text, screened, Tally.of_records([INPUT] * 6, range(6)))])
    with pytest.raises(BalanceError, match="6 records went in but 5 have a fate"):
        execute(store, work)


def test_a_suppressed_page_outlives_no_other(store):
    """Ordinals 0 and 3, 1 and 4, 2 and 5 have one text each; 1, 2 and 4 are suppressed, 5 was filtered."""
    text, screened, _ = chunk(store)
    receipt = suppressed(store)
    lists = put_refs(store, [screened]), put_refs(store, [receipt.output("losers")])
    (done,) = Runner(store, workers=0).map("exact", exact_works(Exact(), lists[0], receipt.passed, lists[1]))
    assert done.came_in == receipt.passed and done.dropped.count == 1
    both = [receipt.output("losers"), done.output("losers")]
    left = without_losers(store, pq.read_table(store.open(text.key)).filter(pa.array([True] * 5 + [False])), both)
    assert left.num_rows == 1 and left["text"][0].as_py() == "text 0"
