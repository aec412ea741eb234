"""Switches of a run that change what a step costs, and not what is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from training import config, prepare, stage, train

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.pipelines.training.run import TrainRun
from gristmill.stages.train import local

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recomputed_blocks_give_the_same_bits_and_need_less_memory(store: Store, tmp_path: Path) -> None:
    prepare(store)
    other = open_store(str(shutil.copytree(store.uri, tmp_path / "other")))
    plain, recomputed = train(store, stage()).manifest, train(other, stage(), run={"recompute": True}).manifest
    assert [ref.sha256 for ref in plain.shards] == [ref.sha256 for ref in recomputed.shards]
    versions = Versions(store)
    reckoned = [{"recompute": on, "device": "cuda"} for on in (False, 0.5, True)]  # operations are not tried out for it
    kept, half, less = (
        config(stage(steps=4), run=run).outlook(versions).values[0]["memory"]["activations"] for run in reckoned
    )
    assert less < half < kept and less < 0.9 * kept


@pytest.mark.parametrize("share", [1.5, -0.1])
def test_a_share_of_the_blocks_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValidationError, match=f"recompute={share}: allowed is a share of the blocks, 0 to 1"):
        TrainRun.model_validate({"recompute": share})


def test_blocks_are_compiled_when_a_run_asks_for_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiling does is tested with the blocks: here it is asked for, of the model that is trained."""
    prepare(store)
    compiled: list[Multimodal] = []
    monkeypatch.setattr(local, "compile_blocks", compiled.append)
    train(store, stage(gates=[]), run={"compile": True})
    assert [type(model) for model in compiled] == [Multimodal]


def test_shares_are_not_compiled() -> None:
    with pytest.raises(ValidationError, match="compile=True, shard=True: blocks whose weights are in shares"):
        TrainRun.model_validate({"shard": True, "compile": True})
