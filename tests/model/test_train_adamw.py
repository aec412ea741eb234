"""AdamW in one pass on CUDA: when it is asked for, and that a run goes on by it from a checkpoint of any device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from train_windows import tiny_trainer, write_windows

from gristmill.model.train import optim
from gristmill.model.train.metrics import Progress
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.settings import Settings, Source

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_windows(tmp_path_factory.mktemp("windows"))


def test_parameters_on_cuda_alone_have_it() -> None:
    """Of a CUDA device that has shapes and no numbers; there is none here."""
    model = nn.Linear(3, 4)
    assert not optim.build(Optim(1e-3), model, dict(model.named_parameters())).defaults["fused"]
    with FakeTensorMode():
        there = nn.Linear(3, 4, device="cuda")
        built = optim.build(Optim(1e-3), there, dict(there.named_parameters()))
    assert built.defaults["fused"] is True and [group["fused"] for group in built.param_groups] == [True, True]


def test_a_run_goes_on_by_it_from_a_checkpoint_and_ends_where_the_other_does(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch's kernel of the same name for a CPU, which the choice spares."""

    def trained(folder: Path, last: int | None = None) -> Tensor:
        def stop(progress: Progress) -> None:
            if progress.step == last:
                raise KeyboardInterrupt

        trainer = tiny_trainer(source, folder=folder, settings=Settings(checkpoint_every=1), on_step=stop)
        trainer.train()
        return torch.cat([parameter.detach().flatten() for parameter in trainer.trained.values()])

    plain = trained(tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", last=3)
    monkeypatch.setattr(optim, "_in_one_pass", lambda trained: True)
    torch.testing.assert_close(trained(tmp_path / "fused"), plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trained(tmp_path / "stopped"), plain, atol=1e-5, rtol=1e-4)
