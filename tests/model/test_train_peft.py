"""Fine-tuning an adapter against transformers and peft: the same losses, step by step, from the same files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from train_windows import stage, window, write_windows

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.parts import Part
from gristmill.model.shards.order import Permutation
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Objective
from gristmill.model.train.optim import Optim
from gristmill.model.train.schedule import Schedule

COUNT, LENGTH, BATCH, STEPS, SEED, VOCAB = 11, 60, 3, 40, 5, 280

pytestmark = pytest.mark.usefixtures("one_thread")


def losses_of_peft(base: Any, adapter: Path) -> list[float]:
    """Each sample of a step's windows in a row of its own; nothing of this project but the order and the windows."""
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_sum, targets = 0.0, 0
        for position in range(step * BATCH, (step + 1) * BATCH):
            number = Permutation(COUNT, SEED, position // COUNT)[position % COUNT]
            row = window(number, LENGTH - (LENGTH // 3 if number % 5 == 4 else 0), VOCAB)
            for first, last in itertools.pairwise(row["cu_seqlens"].tolist()):
                ids = torch.from_numpy(row["input_ids"][first:last]).long()
                learn = torch.from_numpy(row["loss_mask"][first:last])
                logits = model(input_ids=ids[None]).logits[0, :-1]
                loss = cross_entropy(logits[learn[1:]], ids[1:][learn[1:]], reduction="sum")
                loss.backward()
                loss_sum, targets = loss_sum + loss.item(), targets + int(learn[1:].sum())
        for parameter in trained:
            assert parameter.grad is not None
            parameter.grad /= targets
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss_sum / targets)
    return losses


def test_an_adapter_learns_as_with_peft(tmp_path: Path) -> None:
    base, seen = hf.tiny_text(), list[Progress]()
    base.save_pretrained(tmp_path)
    hf.save_adapter(base, tmp_path / "speech-lora", 6, 9, seed=2)
    source = write_windows(tmp_path / "data", COUNT, LENGTH, VOCAB)
    model = load_hf(tmp_path)
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".adapters." not in name}
    fields = {
        "trainable": {Part.LORA_SPEECH},
        "steps": STEPS,
        "seed": SEED,
        "optim": Optim(lr=4e-3),
        "schedule": Schedule("constant"),
    }
    Trainer(
        stage(**fields),
        model,
        Objective(model, adapter="speech"),
        source,
        config=model.config,
        base="tiny",
        on_step=seen.append,
    ).train()
    losses = [progress.loss for progress in seen]
    assert losses == pytest.approx(losses_of_peft(base, tmp_path / "speech-lora"), abs=1e-4)
    assert sum(losses[-5:]) < sum(losses[:5]) - 2, "an adapter that learns nothing would be equal, too"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in frozen.items())
