"""Fine-tuning an adapter against transformers and peft: the same losses, step by step, from the same files."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hf
import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import cross_entropy
from train_windows import stage, window, write_arrays, write_windows

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.parts import Part
from gristmill.model.phi4.routing import Adapter
from gristmill.model.shards.order import Permutation
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Objective
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import Schedule
from gristmill.model.train.settings import Source

COUNT, LENGTH, BATCH, STEPS, SEED, VOCAB = 11, 60, 3, 40, 5, 280

pytestmark = pytest.mark.usefixtures("one_thread")


LR = 4e-3
Row = tuple[Tensor, Tensor, dict[str, Tensor] | None]
"""Tokens, which of them are learned, and inputs; None: no adapter."""


def rows_of_text(steps: int) -> list[list[Row]]:
    """The samples of each step, in the order of the windows."""
    by_step: list[list[Row]] = []
    for step in range(steps):
        by_step.append([])
        for position in range(step * BATCH, (step + 1) * BATCH):
            number = Permutation(COUNT, SEED, position // COUNT)[position % COUNT]
            row = window(number, LENGTH - (LENGTH // 3 if number % 5 == 4 else 0), VOCAB)
            ids, learn = torch.from_numpy(row["input_ids"]).long(), torch.from_numpy(row["loss_mask"])
            for first, last in itertools.pairwise(row["cu_seqlens"].tolist()):
                by_step[-1].append((ids[first:last], learn[first:last], {}))
    return by_step


def losses_of_peft(base: Any, adapter: Path, steps: list[list[Row]]) -> list[float]:
    """Each sample of a step in a row of its own; with nothing of this project. Text beside images takes no adapter."""
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for rows in steps:
        optimizer.zero_grad()
        loss_sum, targets = 0.0, 0
        for ids, learn, inputs in rows:
            bare = inputs is None  # as the router has it, where a sample has no image
            with model.disable_adapter() if bare else nullcontext():
                logits = model(input_ids=ids[None], **(inputs or {})).logits[0, :-1].float()
            loss = cross_entropy(logits[learn[1:]], ids[1:][learn[1:]], reduction="sum")
            if not bare:
                loss.backward()
            loss_sum, targets = loss_sum + loss.item(), targets + int(learn[1:].sum())
        for parameter in trained:
            assert parameter.grad is not None
            parameter.grad /= targets
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss_sum / targets)
    return losses


def losses_of_ours(folder: Path, source: Source, adapter: Adapter, **fields: Any) -> list[float]:
    """Of the trainer, from the same files; that the base is the same afterwards."""
    model, seen = load_hf(folder), list[Progress]()
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".adapters." not in name}
    fields = {"seed": SEED, "optim": Optim(lr=LR), "schedule": Schedule("constant"), **fields}
    objective = Objective(model, adapter=adapter)
    Trainer(stage(**fields), model, objective, source, config=model.config, base="x", on_step=seen.append).train()
    after = model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in frozen.items()
    )
    return [progress.loss for progress in seen]


def test_an_adapter_learns_as_with_peft(tmp_path: Path) -> None:
    base = hf.tiny_text()
    base.save_pretrained(tmp_path)
    hf.save_adapter(base, tmp_path / "speech-lora", 6, 9, seed=2)
    source = write_windows(tmp_path / "data", COUNT, LENGTH, VOCAB)
    losses = losses_of_ours(tmp_path, source, "speech", trainable={Part.LORA_SPEECH}, steps=STEPS)
    assert losses == pytest.approx(losses_of_peft(base, tmp_path / "speech-lora", rows_of_text(STEPS)), abs=1e-4)
    assert sum(losses[-5:]) < sum(losses[:5]) - 2, "an adapter that learns nothing would be equal, too"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_float32_adapter_over_a_bfloat16_base_learns_as_with_peft(tmp_path: Path, precision: str) -> None:
    base, steps = hf.tiny_text().bfloat16(), 10
    base.save_pretrained(tmp_path)
    hf.save_adapter(base, tmp_path / "speech-lora", 6, 9, seed=2)
    source = write_windows(tmp_path / "data", COUNT, LENGTH, VOCAB)
    fields = {"trainable": {Part.LORA_SPEECH}, "steps": steps, "precision": precision}
    losses = losses_of_ours(tmp_path, source, "speech", **fields)
    assert losses == pytest.approx(losses_of_peft(base, tmp_path / "speech-lora", rows_of_text(steps)), rel=0.01)
    assert losses[-1] < losses[0] - 0.1


def test_an_adapter_of_images_learns_as_with_peft_where_text_takes_none(tmp_path: Path) -> None:
    base, pick = hf.tiny_multimodal(), np.random.default_rng(0)
    base.save_pretrained(tmp_path)
    hf.save_adapter(base, tmp_path / "vision-lora", 4, 8, seed=1)
    arrays, rows = list[dict[str, np.ndarray]](), list[list[Row]]()
    for _ in range(3):  # a window with an image between texts; its one crop is its global view too
        tile = pick.integers(0, 256, (448, 448, 3)).astype(np.uint8)
        pixels = (torch.from_numpy(tile).permute(2, 0, 1).float() - 127.5) / 127.5
        inputs = {"image_pixel_values": pixels.expand(1, 2, -1, -1, -1), "image_sizes": torch.tensor([[448, 448]])}
        inputs["image_attention_mask"] = torch.ones(1, 2, 32, 32)
        words = [pick.integers(0, VOCAB, 20) for _ in range(2)]
        seen = np.concatenate([words[0][:5], np.full(hf.IMAGE_TOKENS, hf.IMAGE), words[0][5:]])
        samples = [words[0], seen, words[1]]
        learns = [np.arange(len(sample)) % 2 + (sample == hf.IMAGE) == 1 for sample in samples]
        learns[1] &= seen != hf.IMAGE
        for learn in learns:
            learn[0] = False
        ids, learned = np.concatenate(samples).astype(np.int32), np.concatenate(learns)
        ends = np.cumsum([0, *map(len, samples)]).astype(np.int32)
        arrays.append(
            {
                "input_ids": ids,
                "loss_mask": learned,
                "cu_seqlens": ends,
                "tiles": tile[None],
                "image_sizes": np.array([[448, 448]]),
            }
        )
        given = (None, inputs, None)
        rows.append(
            [
                (torch.from_numpy(a).long(), torch.from_numpy(b), c)
                for a, b, c in zip(samples, learns, given, strict=True)
            ]
        )
    source = write_arrays(tmp_path / "data", arrays)
    order = [[Permutation(3, SEED, (2 * step + k) // 3)[(2 * step + k) % 3] for k in range(2)] for step in range(6)]
    expected = losses_of_peft(
        base, tmp_path / "vision-lora", [[row for number in step for row in rows[number]] for step in order]
    )
    losses = losses_of_ours(tmp_path, source, "auto", trainable={Part.LORA_VISION}, steps=6, batch=2)
    assert losses == pytest.approx(expected, abs=1e-4)
    assert losses[-1] < losses[0] - 0.1
