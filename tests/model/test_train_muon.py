"""Muon for matrices: which they are, that it is torch's, and that a killed run ends with the same bits."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from models import NANO, ids, text_model
from safetensors import safe_open
from train_windows import Tiny, tiny_trainer, write_windows

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.train.metrics import Progress
from gristmill.model.train.optim import Together, build, matrices
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.settings import Source
from gristmill.model.train.state import OPTIMIZER

pytestmark = pytest.mark.usefixtures("one_thread")

MUON = Optim(lr=1e-2, kind="muon")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"))


def test_muon_is_for_the_matrices_of_decoder_and_encoders() -> None:
    model = Multimodal.seeded(NANO, 0)
    chosen, shapes = matrices(model), {name: value.shape for name, value in model.named_parameters()}
    assert {name for name in chosen if name.startswith("language.")} == {
        name for name in shapes if name.startswith("language.layers.") and name.endswith("proj.weight")
    }
    assert all(len(shapes[name]) == 2 for name in chosen)
    assert {part_of(name) for name in chosen} == set(Part) - {Part.LORA_VISION, Part.LORA_SPEECH}
    untied = text_model(tie_word_embeddings=False)
    assert "language.lm_head.weight" in dict(untied.named_parameters()) and "language.lm_head.weight" not in matrices(
        untied
    )


def test_both_take_the_steps_of_torchs_own() -> None:
    model, twin = text_model(), text_model()
    trained = {name: value for name, value in model.named_parameters() if ".adapters." not in name}
    hidden, other = [], {True: list[torch.Tensor](), False: list[torch.Tensor]()}
    for name, value in twin.named_parameters():
        if name.endswith("proj.weight"):
            hidden.append(value)
        elif ".adapters." not in name:
            other[value.ndim > 1 and "embed" not in name].append(value)
    optimizer = build(Optim(lr=1.0, kind="muon", weight_decay=0.2, momentum=0.9), model, trained)
    muon = torch.optim.Muon(hidden, weight_decay=0.2, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": other[True]}, {"params": other[False], "weight_decay": 0.0}], betas=(0.9, 0.95), weight_decay=0.2
    )
    rows = ids(2, 20)
    for lr in (1e-2, 3e-3):
        for each in (model, twin):
            each.zero_grad()
            each(rows).logits.square().mean().backward()
        for group in (*optimizer.param_groups, *muon.param_groups, *adamw.param_groups):
            group["lr"] = lr
        for step in (optimizer.step, muon.step, adamw.step):
            step()
    for (name, value), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(value, expected), name
    assert not optimizer.param_groups[-1]["weight_decay"] and isinstance(optimizer, Together)
    with pytest.raises(ValueError, match="no closure"):
        optimizer.step(lambda: 0.0)


def test_adapters_alone_are_adamws() -> None:
    model = text_model()
    adapters = {name: value for name, value in model.named_parameters() if ".adapters." in name}
    assert isinstance(build(MUON, model, adapters), torch.optim.AdamW)


def test_an_update_has_the_size_of_adamws(source: Source) -> None:
    sizes = {}
    for kind in ("adamw", "muon"):
        model = Tiny()
        before = model.language[2].weight.detach().clone()
        fields = {"optim": Optim(lr=1e-2, kind=kind, weight_decay=0.0), "steps": 1}
        tiny_trainer(source, model=model, stage=fields).train()
        sizes[kind] = float((model.language[2].weight.detach() - before).square().mean().sqrt())
    assert 0.1 * sizes["adamw"] < sizes["muon"] < sizes["adamw"], "a first step of AdamW is the rate in every weight"


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(source: Source, tmp_path: Path) -> None:
    whole, torn, seen = Tiny(), Tiny(), list[Progress]()
    fields = {"optim": MUON}
    end = tiny_trainer(source, tmp_path / "whole", model=whole, stage=fields, on_step=seen.append).train()
    assert seen[-1].loss < seen[0].loss and all(math.isfinite(progress.loss) for progress in seen)
    for last in (3, 6):
        child = os.fork()
        if child == 0:

            def kill(progress: Progress) -> None:
                if progress.step == last:  # noqa: B023
                    os.kill(os.getpid(), 9)

            tiny_trainer(source, tmp_path / "torn", stage=fields, on_step=kill).train()
            os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert tiny_trainer(source, tmp_path / "torn", model=torn, stage=fields).train() == end
    assert all(torch.equal(value, torn.state_dict()[name]) for name, value in whole.state_dict().items())
    with safe_open(tmp_path / "torn" / "step-000000012" / OPTIMIZER, "pt") as file:
        keys = set(file.keys())
    assert {"momentum_buffer:language.2.weight", "exp_avg:language.0.weight", "step:language.2.bias"} <= keys
    assert "exp_avg:language.2.weight" not in keys


@pytest.mark.parametrize(("field", "value"), [("kind", "sgd"), ("momentum", 1.0), ("momentum", -0.1)])
def test_fields_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"optim.{field}={value!r}: allowed"):
        Optim(**{"lr": 1e-3, field: value})  # type: ignore[arg-type]
