"""A version claims the stages that ran: one that is left out of a pipeline's list is no way to an old version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mixtures
import pytest
import web
from mixtures import sources  # noqa: F401

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.recipe import Resolved
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.mixture import Mixture
from gristmill.pipelines.web import WebRecipe
from gristmill.stages.clusters import sizes as cluster_sizes
from gristmill.stages.mix.pack import Pack
from gristmill.stages.near.compact import Compact
from gristmill.stages.run.ran import WrongClaim
from gristmill.stages.run.runner import Runner

INPUT = Path(__file__).parents[1] / "golden" / "input"
FILES = sorted(INPUT.iterdir())
KINDS: list[dict[str, Any]] = [
    {},
    {"limit": 7},
    {"minhash": None},
    {"min_similarity": None},
    {"paragraphs": {"min_documents": 2, "min_paragraph_bytes": 1}},
    {"extends": "web"},
]


def run(lake: Path, files: list[Path] = FILES, **recipe: Any) -> Any:
    return web.run(lake, files, max_quarantine_rate=1.0, **recipe)


@pytest.mark.parametrize("recipe", KINDS, ids=str)
def test_what_every_kind_of_run_claims_is_what_ran(tmp_path, recipe):
    """The commit would refuse it; and all of it is in receipts, from which a second run takes it."""
    first = run(tmp_path, **recipe)
    assert first.new and not run(tmp_path, **recipe).new
    again = run(tmp_path, dataset="other", **recipe) if "extends" not in recipe else first
    assert again.manifest.stages == first.manifest.stages


def test_a_stage_that_is_left_out_of_the_list_is_named_at_the_commit(tmp_path, monkeypatch):
    """Left out, a raised VERSION of it would give the version of before: its run key would be the same."""
    whole = WebRecipe.stages

    def without_exact(self: WebRecipe, *args: Any) -> Any:
        return tuple(stage for stage in whole(self, *args) if stage.name != "exact")

    monkeypatch.setattr(WebRecipe, "stages", without_exact)
    with pytest.raises(WrongClaim, match=r"web: .*: exact v\d+ ran, and is not claimed"):
        run(tmp_path)
    assert Versions(open_store(str(tmp_path))).numbers("web") == []


def test_a_raised_version_of_any_stage_makes_another_version(tmp_path, monkeypatch):
    first = run(tmp_path)
    monkeypatch.setattr(cluster_sizes.ClusterSizes, "VERSION", cluster_sizes.ClusterSizes.VERSION + 1)
    second = run(tmp_path)
    assert second.new and second.manifest.digest == first.manifest.digest


def test_a_stage_that_is_claimed_and_does_not_run_is_named(tmp_path, monkeypatch):
    whole = WebRecipe.stages
    extra = Compact("ledger").identity()
    monkeypatch.setattr(WebRecipe, "stages", lambda self, *args: (*whole(self, *args), *extra))
    with pytest.raises(WrongClaim, match=r"compact v\d+ .*\"ledger\".* is claimed, and did not run"):
        run(tmp_path)


def test_a_growing_dataset_claims_what_merges_its_objects_where_it_merges_them(tmp_path):
    """Compaction decides a version's ledgers: a new VERSION of it must not give an old version back."""
    for n in range(1, len(FILES) + 1):
        run(tmp_path, FILES[:n], extends="web")
    claimed = [
        sorted(stage.config["kind"] for stage in manifest.stages if stage.name == "compact")
        for manifest in Versions(open_store(str(tmp_path))).manifests("web")
    ]
    assert claimed[0] == [] and any(claimed)
    ledgers = [len(manifest.ledgers) for manifest in Versions(open_store(str(tmp_path))).manifests("web")]
    for n, kinds in enumerate(claimed[1:], start=1):
        assert ("ledger" in kinds) == (ledgers[n] <= ledgers[n - 1])


def test_another_base_after_a_lost_slot_does_not_bring_the_stages_of_the_first(tmp_path, monkeypatch):
    """The increment merges objects of one base, loses its slot, and is made anew on another that needs no merging."""
    for n in range(1, len(FILES)):
        run(tmp_path, FILES[:n], extends="web")
    store, wanted = open_store(str(tmp_path)), []
    real = Versions.commit

    def commit(self: Versions, draft: Any, **more: Any) -> Any:
        if not wanted:
            wanted.append(draft)
            runner.ran.add_stages(Compact("of another base").identity())
            web.run(tmp_path, FILES[:-1], max_quarantine_rate=0.99)  # takes the slot
        return real(self, draft, **more)

    monkeypatch.setattr(Versions, "commit", commit)
    config, runner = web.config(FILES, max_quarantine_rate=1.0, extends="web"), Runner(store, workers=0)
    result = run_pipeline(config, store, runner)
    assert wanted and result.new and result.manifest.parent.version == len(FILES)


def test_no_input_at_all_is_claimed_as_a_whole_recipe(tmp_path):
    """Of no chunk nothing is read, so that stages which the recipe has do not run."""
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    result = run(tmp_path / "lake", [empty], allow_empty=True)
    assert result.manifest.received == Tally() and "extract" in {stage.name for stage in result.manifest.stages}


def test_a_version_that_is_mended_is_checked_as_well(tmp_path, monkeypatch):
    first, store = run(tmp_path), open_store(str(tmp_path))
    for ref in first.manifest.shards:
        store.delete(ref.key)
    assert not run(tmp_path).new and store.info(first.manifest.shards[0].key)
    for ref in first.manifest.shards:
        store.delete(ref.key)
    whole = WebRecipe.stages
    monkeypatch.setattr(Resolved, "key", lambda self, *args: first.manifest.run_key)
    monkeypatch.setattr(WebRecipe, "stages", lambda self, *args: whole(self, *args)[1:])
    with pytest.raises(WrongClaim, match="scan v"):
        run(tmp_path)


def test_a_mixture_claims_what_ran_and_account_by_its_version_alone(sources, tmp_path, monkeypatch):  # noqa: F811
    mixed = mixtures.mix(sources, {"web@v1": 0.7, "math@v1": 0.3}).manifest
    assert [stage.name for stage in mixed.stages] == ["tokenize", "plan", "account", "pack", "ledger"]
    assert mixed.stages[2].config == {}  # as releases before it have it: their run keys hold
    whole = Mixture.stages
    monkeypatch.setattr(Mixture, "stages", property(lambda self: whole.fget(self)[:3]))
    with pytest.raises(WrongClaim, match=r"pack v\d+ .* ran, and is not claimed; ledger v1 ran"):
        mixtures.mix(sources, {"web@v1": 0.6, "math@v1": 0.4})
    monkeypatch.undo()
    monkeypatch.setattr(Pack, "VERSION", Pack.VERSION + 1)
    again = mixtures.mix(sources, {"web@v1": 0.7, "math@v1": 0.3})
    assert again.new and again.manifest.digest == mixed.digest
