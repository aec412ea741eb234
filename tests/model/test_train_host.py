"""What a pass of training asks of its device: nothing that the host knows of the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from models import ids, text_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gristmill.model.train.objective import Batch, Objective

pytestmark = pytest.mark.usefixtures("one_thread")


class Device(TorchDispatchMode):
    """Takes some tensors, and what follows from them, for those of another device, and notes what is asked of it: for
    each number that Python reads, and for each shape that depends on numbers, the host would have to wait."""

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self._there = {tensor.untyped_storage()._cdata for tensor in tensors}
        self._alive = list(tensors)  # else another memory may get the number of one that is gone
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.untyped_storage()._cdata in self._there for tensor in given):
            name = func._overloadpacket.__name__
            self.asked += [name] * (
                name in ("nonzero", "_local_scalar_dense", "unique_consecutive", "equal", "bincount")
            )
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self._there.add(leaf.untyped_storage()._cdata)
                    self._alive.append(leaf)
        return output


@pytest.mark.parametrize("adapter", ["auto", "speech"])
def test_a_pass_over_text_asks_nothing_of_the_device(adapter: str) -> None:
    batch = Batch(ids(31), torch.ones(31, dtype=torch.bool), torch.tensor([0, 9, 20, 31]))
    model = text_model().train()
    there = replace(batch, input_ids=batch.input_ids.clone(), cu_seqlens=batch.cu_seqlens.clone(), on_host=batch)
    with Device(there.input_ids, there.cu_seqlens, *model.parameters()) as device:
        loss, _ = Objective(model, adapter=adapter)(there)
        loss.backward()
    assert device.asked == []
    with device:
        Objective(model, adapter=adapter)(replace(there, on_host=None))
    assert device.asked, "it was asked where its batches come from nowhere"


def test_a_batch_that_moves_stays_known_on_the_host() -> None:
    batch = Batch(ids(31), torch.ones(31, dtype=torch.bool), torch.tensor([0, 9, 20, 31]))
    moved = batch.to("meta")
    assert moved.on_host is batch and moved.to("meta").on_host is batch and batch.to("cpu").on_host is None
    assert moved.targets.is_meta and len(moved.targets) == len(batch.targets) == 28
