"""Five small tests that the contracts of the house have to carry, before any width. They use no Ray and no web page.

(a) fan-out with an adaptive stop, (b) a result with two parents, (d) a commit that loses its slot, (e) fan-in whose
members account for every record. (c), the nightly run that grows a dataset, is in test_contracts_growth.py.
"""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from drafts import STAGE, draft

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.fan import MEMBERS, SAMPLES, check_members, child_id, sample_tallies, samples_asked
from gristmill.lake.accounts.identity import digest_of, record_id
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.lake.versions.manifest import Draft, VersionRef, run_key
from gristmill.lake.versions.versions import CommitConflict, Versions
from gristmill.synth.sampling import Judged, Stop, settle

# (a)


def sampled(store: Store, order: list[tuple[str, int]], stop: Stop) -> Draft:
    """Samples are judged in `order`; a problem is asked for more until its stop is reached."""
    arrived: dict[str, dict[int, Judged]] = {}
    done: set[str] = set()
    for problem, n in order:
        verdict = ["rejected", "accepted", "undecided"][int(digest_of(problem, str(n)), 16) % 3]
        arrived.setdefault(problem, {})[n] = Judged.of(verdict, f"chain {n % 3}")
        if settle(arrived[problem], stop).done:
            done.add(problem)
    assert done == arrived.keys()
    rows, surplus = [], 0
    for problem in sorted(arrived):
        settled = settle(arrived[problem], stop)
        surplus += len(settled.surplus)
        for n in range(settled.counted):
            verdict = arrived[problem][n].verdict
            reason = None if verdict == "accepted" else f"verify.{verdict}"
            rows.append(
                {
                    "id": child_id(problem, n),
                    "parent_id": problem,
                    "sample": n,
                    "verdict": verdict,
                    "reason": reason,
                }
            )
    table = pa.Table.from_pylist(rows, schema=SAMPLES)
    ref = put_table(store, "samples", table)
    verdicts = sample_tallies(table)
    asked = {problem: settle(samples, stop).counted for problem, samples in arrived.items()}
    return draft(
        "cot", "k", [digest_of(p) for p in sorted(arrived)], (ref,),
        samples=samples_asked(asked), verdicts=verdicts, made={"surplus": surplus},
    )  # fmt: skip


def test_fan_out_with_adaptive_stop_has_one_digest_in_any_order_of_arrival(store):
    problems = [record_id(url=None, source_key=f"p{i}", own=b"") for i in range(20)]
    stop = Stop(accept=2, at_most=8)
    order = [(p, n) for p in problems for n in range(stop.at_most)]
    drafts = []
    for seed in range(4):
        random.Random(seed).shuffle(order)
        drafts.append(sampled(store, order, stop))
        drafts[-1].check()
    assert len({d.content_digest for d in drafts}) == 1
    counted = drafts[0].samples.count
    assert drafts[0].made["surplus"] == 160 - counted > 0
    assert drafts[0].verdicts["undecided"].count > 0

    eager = sampled(store, [(p, n) for p in problems for n in range(6)] + order, stop)
    assert eager.content_digest == drafts[0].content_digest


def test_a_stop_is_known_only_when_no_earlier_verdict_is_open():
    stop = Stop(accept=1, at_most=4)
    rejected, accepted = Judged("rejected"), Judged("accepted", "1 + 1 = 2")
    assert not settle({1: accepted, 2: accepted}, stop).done  # sample 0 may still be the first success
    assert settle({0: rejected, 1: accepted, 3: accepted}, stop).counted == 2
    assert settle({0: rejected, 1: accepted, 3: accepted}, stop).surplus == (3,)


def test_a_lost_or_doubled_sample_is_refused():
    row = {"id": "x", "parent_id": "p", "verdict": "accepted"}
    with pytest.raises(BalanceError, match="not 0 to 1"):
        sample_tallies(pa.Table.from_pylist([row | {"sample": 0}, row | {"sample": 2}], schema=SAMPLES))


# (b)


def test_a_result_with_two_parents_keeps_both_and_its_key_depends_on_both(store):
    versions = Versions(store)
    vision = versions.commit(draft("vision", "v", ["01"]))
    speech = versions.commit(draft("speech", "s", ["02"]))
    sources = tuple(m.ref.model_copy(update={"role": f"init_from.{m.dataset}"}) for m in (vision, speech))
    both = versions.commit(draft("joint", run_key("joint", {}, [], [STAGE], sources), [], sources=sources))

    again = versions.manifest("joint", both.version)
    assert [str(s) for s in again.sources] == ["vision@v1", "speech@v1"]
    assert [s.digest for s in again.sources] == [vision.digest, speech.digest]
    swapped = [s.model_copy(update={"version": 2}) if s.dataset == "speech" else s for s in sources]
    assert run_key("joint", {}, [], [STAGE], sources) != run_key("joint", {}, [], [STAGE], swapped)


# (d)


def test_an_independent_commit_that_loses_its_slot_takes_the_next(store, monkeypatch):
    versions = Versions(store)
    stale = Versions(store)
    monkeypatch.setattr(stale, "numbers", lambda name: [])  # it looked before the others committed
    versions.commit(draft("web", "a", ["01"]))
    versions.commit(draft("web", "b", ["02"]))
    third = stale.commit(draft("web", "c", ["03"]))
    assert third.version == 3 and third.parent is None
    assert [m.run_key for m in versions.manifests("web")] == ["a", "b", "c"]


def test_a_commit_that_loses_to_its_own_run_returns_that_version(store, monkeypatch):
    versions = Versions(store)
    stale = Versions(store)
    monkeypatch.setattr(stale, "numbers", lambda name: [])
    first = versions.commit(draft("web", "a", ["01"]))
    assert stale.commit(draft("web", "a", ["01"])) == first
    assert versions.numbers("web") == [1]


def test_a_commit_with_an_expected_parent_that_lost_is_a_conflict(store):
    versions = Versions(store)
    base = versions.commit(draft("web", "a", ["01"]))
    versions.commit(draft("web", "b", ["02"]))
    with pytest.raises(CommitConflict, match="v2 is there already"):
        versions.commit(draft("web", "c", ["03"], parent=base.ref), expected_parent=1)
    assert versions.numbers("web") == [1, 2]


def test_a_commit_is_refused_unless_it_balances_and_its_objects_exist(store):
    versions = Versions(store)
    with pytest.raises(BalanceError, match="not the same records"):
        versions.commit(draft("web", "a", ["01"], received=Tally.of_records(["02"], [0])))
    ghost = ObjectRef(kind="shard", sha256="0" * 64, bytes=3, records=1)
    with pytest.raises(FileNotFoundError, match="missing"):
        versions.commit(draft("web", "a", ["01"], (ghost,)))
    assert versions.numbers("web") == []


# (e)


def packed(lengths: dict[str, int], window: int) -> pa.Table:
    """Records cut end to end into packs of `window` units."""
    rows, used, pack = [], 0, 0
    for member, units in lengths.items():
        at = 0
        while at < units:
            take = min(units - at, window - used)
            rows.append(
                {
                    "pack": f"pack{pack}",
                    "position": used,
                    "source": "web@v1",
                    "member": member,
                    "epoch": 0,
                    "start": at,
                    "length": take,
                }
            )
            at, used = at + take, used + take
            if used == window:
                pack, used = pack + 1, 0
    return pa.Table.from_pylist(rows, schema=MEMBERS)


def draws(lengths: dict[str, int], epoch: int = 0) -> dict[tuple[str, str, int], int]:
    return {("web@v1", member, epoch): units for member, units in lengths.items()}


def test_a_record_drawn_twice_is_packed_twice():
    members = packed({"a": 10, "b": 90}, window=64)
    again = members.set_column(
        members.schema.get_field_index("epoch"), "epoch", pa.array([1] * len(members), pa.int32())
    )
    both = draws({"a": 10, "b": 90}) | draws({"a": 10, "b": 90}, epoch=1)
    check_members(pa.concat_tables([members, again]), both)
    with pytest.raises(BalanceError, match="epoch 1: 0 of 10 units"):
        check_members(members, both)


def test_fan_in_members_account_for_every_record():
    lengths = {f"doc{i}": 7 + 13 * i % 50 for i in range(40)}
    members = packed(lengths, window=64)
    check_members(members, draws(lengths))
    assert len(set(members["pack"].to_pylist())) < len(lengths)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[:-1], "missing|units are packed"),
        (lambda rows: [*rows, rows[0]], "packed twice"),
        (lambda rows: [rows[0] | {"start": 1}, *rows[1:]], "missing from every pack"),
        (lambda rows: [*rows, rows[0] | {"member": "stranger"}], "never came in"),
    ],
)
def test_fan_in_refuses_a_lost_doubled_or_foreign_stretch(damage, message):
    lengths = {"a": 10, "b": 90}
    rows = packed(lengths, window=64).to_pylist()
    with pytest.raises(BalanceError, match=message):
        check_members(pa.Table.from_pylist(damage(rows), schema=MEMBERS), draws(lengths))


def test_two_version_refs_of_one_dataset_differ_by_digest():
    a, b = (VersionRef(dataset="web", version=1, digest=d) for d in "ab")
    assert run_key("x", {}, [], [STAGE], [a]) != run_key("x", {}, [], [STAGE], [b])
