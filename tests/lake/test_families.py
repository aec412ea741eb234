"""Children of records in a lake: whoever asks for a record is told of its samples, and a takedown looks for them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from drafts import draft

from gristmill.lake.accounts.fan import FAMILIES, SAMPLES, child_id
from gristmill.lake.accounts.identity import record_id
from gristmill.lake.query.why import why
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.takedown.search import Search
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

URL = "https://example.org/a%21b!c"
PROBLEM = record_id(url=URL, source_key=None, own=b"x")
CHILDREN = [child_id(PROBLEM, n) for n in range(2)]


@pytest.fixture
def rolled(store: Store) -> Manifest:
    """A version of one problem with two samples."""
    rows = [{"id": id, "parent_id": PROBLEM, "sample": n, "verdict": "accepted"} for n, id in enumerate(CHILDREN)]
    shard = put_table(store, "shard", pa.table({"id": [PROBLEM], "url": [URL], "text": ["x"]}))
    family = put_table(store, FAMILIES, pa.Table.from_pylist(rows, schema=SAMPLES).sort_by("id"), sorted_by="id")
    return Versions(store).commit(draft("rolled", "k", ["01"], (shard,), ledgers=(family,)))


def test_the_samples_of_a_page_are_told_whatever_its_spelling(store: Store, rolled: Manifest) -> None:
    """Of the last of these no id begins as the question would have it: the column of URLs tells."""
    for query in (PROBLEM, URL, "https://example.org/a!b!c"):
        assert [child.id for child in why(Versions(store), query).children] == CHILDREN


def test_a_ledger_of_samples_that_is_lost_is_told_unless_its_version_is_withdrawn(
    store: Store, rolled: Manifest
) -> None:
    warnings: list[str] = []
    versions, request = Versions(store, warn=warnings.append), Suppression.of(ids=[PROBLEM])
    search = Search(versions, request)
    search.look()
    assert set(CHILDREN) <= search.ids
    (family,) = rolled.ledgers
    store.delete(family.key)
    assert why(versions, PROBLEM).children == () and "rolled@v1: a part of the answer is missing" in warnings[0]
    with pytest.raises(NotFound):
        Search(versions, request).look()
    versions.withdraw("rolled", 1, "a takedown")
    Search(versions, request).look()
    assert why(Versions(store, warn=pytest.fail), PROBLEM).children == ()
