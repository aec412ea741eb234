"""Contract (c): a nightly run finds nothing new, or two new files, or is killed while its base moves on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drafts import draft

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.versions.growth import Growth, move_base, plan_growth
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import CommitConflict, Versions
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.run.runner import Runner


@dataclass(frozen=True)
class Sign(Stage[dict[str, str]]):
    """A stage that depends on one input alone: its receipts serve every increment."""

    name: ClassVar[str] = "toy.sign"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work) -> Outcome:
        digest = work.payload["digest"]
        CALLS.append(digest)
        if digest == BOMB:
            raise OSError("killed")
        tally = Tally.of_records([digest], [0])
        ref = put_table(store, "shard", pa.table({"id": [digest]}))
        return Outcome(outputs=(ref,), received=tally, passed=tally)


CALLS: list[str] = []
BOMB = ""


def increment(store: Store, inputs: list[str], meanwhile=lambda: None) -> Manifest:
    """One nightly run: sign what is new, then link it against the base and commit on top of it."""
    versions, runner = Versions(store), Runner(store, workers=0)
    plan = plan_growth(versions, "web", {}, inputs)
    while isinstance(plan, Growth):
        works = [Work(Sign(), (digest,), {"digest": digest}, label=digest) for digest in plan.new]
        receipts = runner.map("sign", works)
        base = versions.manifest("web", plan.base) if plan.base else None
        grown = draft(
            "web",
            digest_of(plan.key, str(plan.base)),
            list(plan.new),
            (*(base.shards if base else ()), *(r.output("shard") for r in receipts)),
            parent=base.ref if base else None,
        )
        meanwhile()
        try:
            return versions.commit(grown, expected_parent=plan.base)
        except CommitConflict:
            plan = move_base(versions, plan, inputs)
    return plan


def test_an_increment_that_finds_nothing_new_returns_the_latest_version(store):
    first = increment(store, ["aa", "bb"])
    CALLS.clear()
    assert increment(store, ["bb", "aa"]) == first
    assert increment(store, ["aa"]) == first
    assert CALLS == [] and Versions(store).numbers("web") == [1]


def test_an_increment_with_two_new_files_signs_only_them_and_is_cumulative(store):
    first = increment(store, ["aa", "bb"])
    CALLS.clear()
    second = increment(store, ["aa", "bb", "cc", "dd"])
    assert sorted(CALLS) == ["cc", "dd"]
    assert second.parent == first.ref and second.shards[:2] == first.shards and len(second.shards) == 4
    assert {i.digest for i in second.inputs} == {"cc", "dd"}
    CALLS.clear()
    assert increment(store, ["aa", "cc"]) == second and CALLS == []


def test_a_killed_increment_resumes_on_its_pinned_base_and_relinks_when_the_base_moved(store, monkeypatch):
    increment(store, ["aa"])
    monkeypatch.setitem(globals(), "BOMB", "dd")
    with pytest.raises(Exception, match="killed"):
        increment(store, ["aa", "cc", "dd"])
    other = increment(store, ["aa", "ee"])  # the base moves on while the first increment is down
    assert other.version == 2

    monkeypatch.setitem(globals(), "BOMB", "")
    plan = plan_growth(Versions(store), "web", {}, ["aa", "cc", "dd"])
    assert isinstance(plan, Growth) and (plan.base, plan.attempt) == (1, 1)  # the pin holds

    CALLS.clear()
    mine = increment(store, ["aa", "cc", "dd"])
    assert CALLS == ["dd"]  # cc has its receipt from before the kill; nothing was signed again after the lost slot
    assert mine.version == 3 and mine.parent == other.ref
    pins = [info.key.rpartition("/")[2] for info in store.list("datasets/web/pins/")]
    assert sorted(pins) == ["0001.json", "0001.json", "0001.json", "0002.json"]


def test_two_increments_at_once_lose_nothing(store):
    increment(store, ["aa"])
    raced: list[Manifest] = []

    def other_commits_first() -> None:
        if not raced:
            raced.append(increment(store, ["aa", "xx"]))

    mine = increment(store, ["aa", "yy"], other_commits_first)
    assert (raced[0].version, mine.version) == (2, 3)
    rows = [r for ref in mine.shards for r in pq.read_table(store.open(ref.key))["id"].to_pylist()]
    assert sorted(rows) == ["aa", "xx", "yy"]


def test_a_base_that_was_taken_down_is_never_built_on(store):
    increment(store, ["aa"])
    increment(store, ["aa", "bb"])
    versions = Versions(store)
    plan_growth(versions, "web", {}, ["aa", "bb", "cc"])  # pins v2, then dies
    versions.withdraw("web", 2, "takedown")
    grown = increment(store, ["aa", "bb", "cc"])
    assert grown.version == 3 and grown.parent.version == 1
