"""Mixtures through kills, input that cannot be mixed, damage and takedown: whole and the same, or a clear error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mixtures
import pytest
import toy
from drafts import draft
from mixtures import windows
from waiting import PATIENCE, until

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import DamagedObject, read_table
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.shards.files import DamagedShard
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.tokenize import forget_tokenizers
from gristmill.stages.mix.windows import read_windows, shard_files
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

ROOT = Path(__file__).parents[2]


sources = mixtures.sources


@pytest.mark.parametrize("fault", ["tokenize", "plan", "account", "pack", "ledger", "commit"])
def test_a_run_that_dies_is_finished_by_the_same_command(sources, store, fault, tmp_path):
    class Dies(Runner):
        def map(self, title, works):
            works = list(works)
            if title == fault:
                super().map(title, works[: len(works) // 2])
                raise KeyboardInterrupt
            return super().map(title, works)

        def about_to(self, title, label):
            if title == fault:
                raise KeyboardInterrupt

    shares = {"web@v1": 0.6, "math@v1": 0.4}
    with pytest.raises(KeyboardInterrupt):
        mixtures.mix(store, shares, Dies(store, workers=0), shard_tokens=9_000)
    assert Versions(store).latest("mix") is None
    runner = Runner(store, workers=0)
    finished = mixtures.mix(store, shares, runner, shard_tokens=9_000)
    done = {title: before for title, before, _ in runner.history}
    assert done["tokenize"] == (4 if fault != "tokenize" else 2)
    again = mixtures.mix(store, shares, shard_tokens=9_000)
    assert not again.new and again.manifest == finished.manifest
    unhurt = mixtures.mix(store, shares, dataset="other", shard_tokens=9_000).manifest  # receipts serve it
    assert unhurt.digest == finished.manifest.digest


def test_the_driver_is_killed_on_ray_and_the_same_command_finishes(sources):
    command = [sys.executable, "-m", "pipelines", "run", "conf/mixture.yaml", "--lake", sources.uri]
    for setting in ("tokenizer=bpe@v1", "sources={web@v1: 0.6, math@v1: 0.4}", "window=128", "shard_tokens=2000"):
        command += ["--set", f"recipe.{setting}"]
    receipts = Path(sources.uri, "receipts")
    before = sum(1 for _ in receipts.rglob("*.json"))
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: sum(1 for _ in receipts.rglob("*.json")) >= before + 8, "eight receipts", by=run, pause=0.01)
    os.killpg(run.pid, signal.SIGKILL)  # Ray's processes as well
    assert run.wait() == -signal.SIGKILL
    assert Versions(sources).latest("mix") is None
    again = subprocess.run(
        [*command, "--set", "run.workers=0"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    unhurt = mixtures.mix(sources, {"web@v1": 0.6, "math@v1": 0.4}, dataset="other", shard_tokens=2_000).manifest
    assert result["new"] and result["digest"] == unhurt.digest


@pytest.mark.parametrize(
    ("shares", "recipe", "message"),
    [
        ({}, {}, "recipe.sources is empty: give exact versions and weights"),
        ({"web": 1}, {}, "recipe.sources: 'web' is no exact version: give NAME@vN or NAME@TAG; today .* web@v1"),
        ({"web@latest": 1}, {}, "is no exact version"),
        ({"web@v7": 1}, {}, "recipe.sources: web has no v7; it has v1"),
        ({"wob@v1": 1}, {}, "there is no dataset 'wob' .*; it has bpe, math, web"),
        ({"web.limit@v1": 1}, {}, "is a preview of a few records"),
        ({"bpe@v1": 1}, {}, r"recipe.sources: bpe@v1: it holds a tokenizer, no records with texts"),
        ({"web@v1": 1}, {"tokenizer": ""}, "recipe.tokenizer is empty"),
        ({"web@v1": 1}, {"tokenizer": "web@v1"}, "recipe.tokenizer: web@v1 is no tokenizer"),
        (
            {"web@v1": 1},
            {"tokens": 10**9},
            "recipe.sources: web@v1 has .* more than max_epochs=4. At most recipe.tokens=",
        ),
    ],
)
def test_what_cannot_be_mixed_is_a_clear_error(sources, shares, recipe, message):
    with pytest.raises(BadConfig, match=message):
        mixtures.mix(sources, shares, **recipe)


def test_a_version_and_the_one_that_grew_from_it_are_not_mixed(sources):
    versions = Versions(sources)
    base = versions.resolve("web@v1")
    versions.commit(draft("web", "grown", ["07"], base.shards))
    with pytest.raises(BadConfig, match="web@v1 and web@v2 share shards"):
        mixtures.mix(sources, {"web@v1": 1, "web@v2": 1})


def test_windows_that_are_not_whole_are_refused_by_name(sources, tmp_path):
    manifest = mixtures.mix(sources, {"web@v1": 1}, shard_tokens=9_000).manifest
    (tar, _), (other, _) = shard_files(manifest)[:2]
    path, second = ((tmp_path_of(sources) / ref.key) for ref in (tar, other))
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-512])
    with pytest.raises(DamagedShard, match=tar.sha256):
        read_windows(sources, manifest)
    path.write_bytes(second.read_bytes())
    with pytest.raises(DamagedShard, match=tar.sha256):
        windows(sources, manifest)


def test_an_index_with_a_changed_byte_is_refused_by_name(sources):
    manifest = mixtures.mix(sources, {"web@v1": 1}, shard_tokens=9_000).manifest
    _, index = shard_files(manifest)[0]
    toy.flip(sources, index.key, index.bytes - 30)
    with pytest.raises(OSError, match=index.sha256):
        read_windows(sources, manifest)


def test_a_tokenizer_with_two_changed_bytes_makes_no_mixture(sources):
    """Two letters of a tokenizer.json that changed places gave other windows under valid receipts."""
    (ref,) = Versions(sources).manifest("bpe", 1).shards
    data = sources.get(ref.key)
    at = data.index(b'"the"') if b'"the"' in data else data.index(b'"in"')
    sources.put(ref.key, data[: at + 1] + data[at + 2 : at + 3] + data[at + 1 : at + 2] + data[at + 3 :])
    forget_tokenizers()
    with pytest.raises(Incomplete, match=rf"DamagedObject: {ref.key}"):
        mixtures.mix(sources, {"web@v1": 1})
    with pytest.raises(DamagedObject, match=ref.sha256):
        tokenizer_of(
            Versions(sources), mixtures.documents(sources, "other", mixtures.texts(9)).model_copy(update=_NAMES)
        )
    assert "mixture" not in Versions(sources).names()


_NAMES = {"sources": (VersionRef(dataset="bpe", version=1, digest="", role="tokenizer"),)}


def tmp_path_of(store):
    return Path(store.uri.removeprefix("file://"))


def test_what_is_taken_down_is_cut_out_of_the_mixture_and_a_new_one_is_without_it(sources):
    versions = Versions(sources)
    manifest = mixtures.mix(sources, {"math@v1": 1}).manifest
    gone = read_table(sources, manifest.members[0])["member"][0].as_py()
    plan = plan_forget(versions, Suppression(ids=frozenset({gone})))
    assert {(dataset.dataset, dataset.base) for dataset in plan.affected} == {("math", 1), ("mix", 1)}
    forget(versions, plan, "a request")
    assert versions.withdrawn("mix").keys() == {1} and versions.latest("math") == versions.latest("mix") == 2
    assert gone not in {
        member["member"] for w in mixtures.windows(sources, versions.resolve("mix")) for member in w.meta["members"]
    }
    with pytest.raises(BadConfig, match="math@v1 was withdrawn"):
        mixtures.mix(sources, {"math@v1": 1})
    clean = mixtures.mix(sources, {"math@v2": 1}).manifest
    assert gone not in {row["id"] for row in Dataset(sources, clean).ledger().to_pylist()}
    assert not verify(sources, [str(clean)], deep=True)


def test_a_tokenizer_that_saw_what_is_taken_down_withdraws_nothing(sources):
    versions = Versions(sources)
    mixtures.mix(sources, {"web@v1": 1})
    gone = Dataset(sources, versions.resolve("math@v1")).to_arrow()["id"][0].as_py()
    plan = plan_forget(versions, Suppression(ids=frozenset({gone})))
    assert {derived.ref: (derived.role, derived.withdraw) for derived in plan.derived} == {
        "bpe@v1": ("trained_on", False),
        "mix@v1": ("tokenizer", False),
    }
    forget(versions, plan, "a request")
    assert versions.withdrawn("mix") == {} == versions.withdrawn("bpe")


def test_a_mixture_that_was_withdrawn_does_not_come_back(sources):
    mixture = mixtures.mix(sources, {"web@v1": 1}).manifest
    Versions(sources).withdraw("mix", mixture.version, "bad weights")
    with pytest.raises(GateFailed, match="bad weights"):
        mixtures.mix(sources, {"web@v1": 1})
