"""A cluster of several nodes of which one dies in the middle of a run: what comes out is what one node makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import web
from ray_cluster import Cluster, cluster_at
from s3_server import S3Server
from training import prepare, stage, train
from waiting import PATIENCE, until

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.stages.run.private import new_folder

SMALL = 40_000
"""Bytes of a piece of work: there are enough of them to be in the middle."""
STEPS, EVERY = 30, 5
"""Of a training, and between two of its checkpoints."""


@pytest.fixture(scope="module")
def cluster(s3: S3Server) -> Iterator[Cluster]:
    """Its nodes know the store, as pods have its address and keys from a secret."""
    folder = new_folder()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        try:
            with cluster_at(folder) as cluster:
                yield cluster
        finally:
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def digest(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    lake = tmp_path_factory.mktemp("alone")
    return web.run(lake, web.crawl_files(sample), scan={"chunk_bytes": SMALL}).manifest.digest


def arguments(config: str, lake: str, **values: Any) -> list[str]:
    """Of a run; `a__b=c` is the setting a.b=c."""
    settings = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in values.items()]
    return [f"conf/{config}.yaml", "--lake", lake, *(part for setting in settings for part in ("--set", setting))]


def crawl(sample: Path, lake: str, **more: Any) -> list[str]:
    """Of a run of the crawl, cut small, by two workers."""
    recipe = {"recipe__inputs": [f"{sample}/crawl/*"], "recipe__max_quarantine_rate": 0.2}
    recipe |= {"recipe__scan__chunk_bytes": SMALL, "recipe__shards__target_bytes": 100_000}
    return arguments("web", lake, **recipe, run__workers=2, **more)


def finish(cluster: Cluster, run: Sequence[str]) -> tuple[dict[str, Any], str]:
    """(the result of a run, what it said): a node other than the head dies while one of its workers works."""
    driver = cluster.driver(*run)
    until(cluster.lose_a_node_at_work, "work on a node", by=driver, pause=0.1)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    [result] = out.splitlines()  # and nothing of what Ray tells of the node
    return json.loads(result), err


def test_a_node_dies_in_the_middle_and_the_run_goes_on_without_it(cluster, sample, s3_lake, digest):
    cluster.add(1)
    result, _ = finish(cluster, crawl(sample, s3_lake))
    assert result["digest"] == digest
    store = open_store(s3_lake)
    assert verify(store, deep=True) == [] and Versions(store).numbers("web") == [1]


def test_a_lake_in_a_folder_has_to_be_mounted_by_every_node(cluster, sample, tmp_path, digest):
    cluster.add(1)
    refused = cluster.driver(*crawl(sample, str(tmp_path / "lake")))
    _, err = refused.communicate(timeout=PATIENCE)
    assert refused.returncode == 2
    assert f"error: the lake {tmp_path / 'lake'} is a directory, but the Ray cluster has 2 nodes" in err
    assert "Use an s3:// lake, or set run.shared_filesystem: true" in err
    result, _ = finish(cluster, crawl(sample, str(tmp_path / "lake"), run__shared_filesystem=True))
    assert result["digest"] == digest


def test_a_node_with_a_rank_dies_and_the_training_goes_on_from_its_checkpoint(cluster, s3_lake, tmp_path):
    cluster.add(1)
    cluster.add(1)  # it takes the place of the one that dies
    store = open_store(s3_lake)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def lost() -> bool:
        checkpointed = any("/checkpoints/" in info.key for info in store.list("runs/"))
        return checkpointed and cluster.lose_a_node_at_work("RayTrainWorker")

    driver = cluster.program(Path(__file__).with_name("train_lake.py"), s3_lake, "ray", 2, STEPS, EVERY, TMPDIR=scratch)
    until(lost, "a rank on a node after a checkpoint", by=driver, pause=0.1)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    trained = json.loads(out.splitlines()[-1])
    local = open_store(str(tmp_path / "local"))
    prepare(local)
    expected = train(local, stage(batch=4, steps=STEPS)).manifest.statistics["training"]
    assert (trained["world"], trained["order"]) == (2, expected["order"])
    assert trained["metrics"] == list(range(1, STEPS + 1))
    assert list(dict.fromkeys(trained["shown"])) == trained["metrics"]  # some again, from the checkpoint on
    assert trained["final_loss"] == pytest.approx(expected["final_loss"], abs=1e-3)
    assert trained["left"] == []  # no folder of a run in the lake
    assert not list(scratch.glob("grist-*"))
