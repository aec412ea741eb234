"""Growing: a new crawl against all earlier versions, whatever happens meanwhile, and how it differs from one run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest
import web

from gristmill import lake
from gristmill.lake.query.diff import diff
from gristmill.lake.query.why import why
from gristmill.lake.store.objects import generations, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.growth import growth_report
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.unfinished import Incomplete, PlanOnly
from gristmill.stages.text.extract import Extract


@pytest.fixture(scope="module")
def files(sample) -> list[Path | str]:
    """Two increments: three files, then two more."""
    return [*web.crawl_files(sample), *sorted((sample / "night2").iterdir())]


def increment(folder: Path, files: list[Path | str], **recipe):
    return web.run(folder, files, extends="web", **recipe)


def kept(folder: Path, ref: str = "web") -> list[str]:
    return sorted(lake.open(ref, lake=str(folder)).to_arrow()["id"].to_pylist())


@pytest.fixture(scope="module")
def grown(files, tmp_path_factory) -> Path:
    """One file more each increment."""
    folder = tmp_path_factory.mktemp("grown")
    for n in range(1, len(files) + 1):
        increment(folder, files[:n], max_quarantine_rate=1.0)
    return folder


def latest(folder: Path) -> Manifest:
    return Versions(open_store(str(folder))).resolve("web")


def test_the_first_increment_is_a_run_over_everything(files, tmp_path):
    first = increment(tmp_path / "a", files[:3]).manifest
    whole = web.run(tmp_path / "b", files[:3]).manifest
    assert first.digest == whole.digest and first.parent is None and first.run_key != whole.run_key


def test_a_later_increment_is_cumulative_and_whole(grown, files):
    m = latest(grown)
    assert m.version == len(files) and m.parent.version == len(files) - 1
    ledger = lake.open("web", lake=str(grown)).ledger()
    assert ledger.num_rows == m.received.count and ledger["id"].to_pylist() == sorted(ledger["id"].to_pylist())
    assert kept(grown) == ledger.filter(pc.equal(ledger["fate"], "kept"))["id"].to_pylist()
    assert m.statistics["documents"] == m.kept.count == m.funnel[-1].passed
    assert verify(open_store(str(grown)), deep=True) == []


def test_the_difference_to_one_run_is_reported_and_true(grown, files, tmp_path):
    whole, m = web.run(tmp_path, files).manifest, latest(grown)
    growth = m.statistics["growth"]
    assert whole.received == m.received and whole.quarantined == m.quarantined
    assert m.kept.count - whole.kept.count == growth["kept_here"] - growth["dropped_here"]
    grown_ids, whole_ids = set(kept(grown)), set(kept(tmp_path))
    same_text = growth["exact_outranked"]
    assert growth["kept_here"] > 0 and abs(len(grown_ids - whole_ids) - growth["kept_here"]) <= same_text
    assert growth["dropped_here"] > 0 and abs(len(whole_ids - grown_ids) - growth["dropped_here"]) <= same_text
    assert "one run over everything would have kept" in growth_report(m)
    assert growth_report(whole) is None


def test_survivors_of_earlier_increments_stay(grown):
    store = open_store(str(grown))
    versions = Versions(store)
    for version in range(2, latest(grown).version + 1):
        before, after = kept(grown, f"web@v{version - 1}"), kept(grown, f"web@v{version}")
        assert set(before) <= set(after)
    newest = versions.resolve("web")
    chosen = [row for ref in newest.attachments if ref.kind == "clusters" for row in read_table(store, ref).to_pylist()]
    assert {row["survivor"] for row in chosen} <= set(kept(grown))


def test_no_text_of_an_earlier_increment_is_read_again(files, tmp_path, monkeypatch):
    increment(tmp_path, files[:2], max_quarantine_rate=1.0)
    for info in list(open_store(str(tmp_path)).list("receipts/")):
        receipt = json.loads((tmp_path / info.key).read_text())
        for ref in receipt["outputs"]:
            if ref["kind"] == "text":
                (tmp_path / "objects" / ref["sha256"][:2] / ref["sha256"]).unlink(missing_ok=True)
    seen = []
    run = Extract.run
    monkeypatch.setattr(Extract, "run", lambda self, store, work: seen.append(work.label) or run(self, store, work))
    second = increment(tmp_path, files, max_quarantine_rate=1.0).manifest
    assert seen and not [label for label in seen if str(files[0]) in label or str(files[1]) in label]
    assert second.version == 2


def test_an_increment_without_news_makes_no_version(grown, files):
    before = latest(grown)
    again = increment(grown, files, max_quarantine_rate=1.0)
    fewer = increment(grown, files[1:3], max_quarantine_rate=1.0)
    assert not again.new and again.manifest == before == fewer.manifest


def test_a_killed_increment_goes_on_where_it_was(files, tmp_path, monkeypatch):
    increment(tmp_path / "a", files[:3])
    increment(tmp_path / "b", files[:3])
    whole = increment(tmp_path / "b", files).manifest
    for stage in (
        "gristmill.stages.dedup.exact.Exact",
        "gristmill.stages.near.link.Link",
        "gristmill.stages.clusters.select_survivors.SelectSurvivors",
        "gristmill.stages.core.shards.MergeLedger",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{stage}.run", fail)
            with pytest.raises(Incomplete):
                increment(tmp_path / "a", files)
        assert latest(tmp_path / "a").version == 1
    assert increment(tmp_path / "a", files).manifest.digest == whole.digest


def fail(self, store, work):
    raise OSError("killed")


def test_two_increments_at_once_lose_nothing_and_relink(files, tmp_path, monkeypatch):
    increment(tmp_path, files[:2], max_quarantine_rate=1.0)
    commit, raced = Versions.commit, []

    def after_another(self, draft, *, expected_parent=None):
        if not raced:
            raced.append(None)
            raced.append(increment(tmp_path, [*files[:2], files[3]], max_quarantine_rate=1.0).manifest)
        return commit(self, draft, expected_parent=expected_parent)

    monkeypatch.setattr(Versions, "commit", after_another)
    mine = increment(tmp_path, [*files[:2], files[4]], max_quarantine_rate=1.0).manifest
    assert (raced[1].version, mine.version, mine.parent.version) == (2, 3, 2)
    # files[4] has records of files[3] or the first: what the other increment kept is not kept twice
    ids = kept(tmp_path)
    assert len(ids) == len(set(ids)) and verify(open_store(str(tmp_path)), deep=True) == []


def test_a_base_that_was_withdrawn_is_not_built_on(files, tmp_path):
    first = increment(tmp_path, files[:2], max_quarantine_rate=1.0).manifest
    increment(tmp_path, files[:3], max_quarantine_rate=1.0)
    versions = Versions(open_store(str(tmp_path)))
    versions.withdraw("web", 2, "bad crawl")
    third = increment(tmp_path, [*files[:2], *files[3:]], max_quarantine_rate=1.0).manifest
    assert (third.version, third.parent) == (3, first.ref)


def test_other_signatures_are_refused(grown, files, tmp_path):
    extra = tmp_path / "more.jsonl"
    extra.write_text('{"text": "one more"}\n')
    with pytest.raises(BadConfig, match=r"recipe\.minhash: web@v\d+ has minhash .*'rows': 8.*other settings"):
        increment(grown, [*files, extra], minhash={"rows": 4}, max_quarantine_rate=1.0)
    with pytest.raises(BadConfig, match=r"recipe\.survivor: web@v\d+ has survivor"):
        increment(grown, [*files, extra], survivor=["-minhash.n_words"], max_quarantine_rate=1.0)


def test_what_cannot_grow_is_said_before_anything_runs(files, tmp_path):
    with pytest.raises(ValueError, match="a dataset extends itself"):
        web.config(files, extends="other")
    with pytest.raises(ValueError, match="leave extends out"):
        web.config(files, extends="web", limit=10)


def test_plan_says_what_an_increment_would_do(grown, files, tmp_path):
    extra = tmp_path / "more.jsonl"
    extra.write_text('{"text": "one more"}\n')
    with pytest.raises(PlanOnly):
        web.run(grown, [*files, extra], plan=True, extends="web", max_quarantine_rate=1.0)


def test_lost_objects_of_the_latest_increment_are_made_again(files, tmp_path):
    increment(tmp_path, files[:3])
    second = increment(tmp_path, files).manifest
    own = [ref for ref in second.shards if ref not in Versions(open_store(str(tmp_path))).manifest("web", 1).shards]
    (tmp_path / own[0].key).unlink()
    (finding,) = verify(open_store(str(tmp_path)))
    assert "run the recipe of the versions it harms again" in finding.message and "Do not withdraw" in finding.message
    again = increment(tmp_path, files)
    assert not again.new and again.manifest == second and verify(open_store(str(tmp_path)), deep=True) == []


def test_questions_about_a_grown_version_know_all_its_inputs(grown):
    store = open_store(str(grown))
    versions = Versions(store)
    ledger = lake.open("web", lake=str(grown)).ledger()
    old = ledger.filter(pc.equal(ledger["reason"], "minhash.duplicate")).to_pylist()[0]
    for story in why(versions, old["id"]).stories:
        assert story.place.names and (story.survivor is None or story.survivor.place.names)
    first, last = versions.manifest("web", 1), versions.resolve("web")
    change = diff(store, first, last)
    assert not change.inputs_removed and change.records.only_a == 0
    assert change.records.both == first.received.count and change.kept.only_a == 0


def test_objects_stay_few_over_many_increments(grown):
    m = latest(grown)
    assert m.version >= 5 and len(generations(m.ledgers)) <= 4
    for kind in ("contents", "signatures", "clusters"):
        assert sum(ref.kind == kind for ref in m.attachments) <= 4


def test_too_much_damage_in_one_increment_is_refused(files, tmp_path):
    increment(tmp_path, files[1:2], max_quarantine_rate=0.0)
    with pytest.raises(GateFailed):
        increment(tmp_path, files[:2], max_quarantine_rate=0.0)
    assert latest(tmp_path).version == 1
