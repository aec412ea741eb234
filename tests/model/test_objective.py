"""Objectives against plain formulas on whole logits of each segment alone; and that those logits never exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import ids, text_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.losses import SigmoidLoss, dpo_losses, preference_margins, token_losses
from gristmill.model.train.objective import Batch, Objective, PreferenceObjective, collate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> Multimodal:
    return text_model().train()


def window(lengths: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """As a shard holds it; all first tokens of segments but one are marked as targets, which they never are."""
    tokens = sum(lengths)
    mask = torch.rand(tokens, generator=torch.Generator().manual_seed(seed)).numpy() < 0.6
    starts = np.cumsum([0, *lengths])
    mask[starts[1:-1]] = True
    return {
        "input_ids": ids(tokens, seed=seed).numpy().astype(np.int32),
        "loss_mask": mask,
        "cu_seqlens": starts.astype(np.int32),
    }


def logprobs_alone(model: Multimodal, batch: Batch) -> list[Tensor]:
    """Log-probabilities of each segment's targets, each segment by itself, from whole logits."""
    parts = []
    for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        tokens, mask = batch.input_ids[start:end], batch.loss_mask[start:end]
        logprobs = model(tokens[None]).logits[0, :-1].log_softmax(-1)
        parts.append(logprobs.gather(1, tokens[1:, None])[:, 0][mask[1:]])
    return parts


def same_gradients(model: Multimodal, loss: Tensor, formula: Tensor) -> None:
    wanted = [item for item in model.named_parameters() if ".adapters." not in item[0]]
    gradients = torch.autograd.grad(loss, [parameter for _, parameter in wanted])
    expected = torch.autograd.grad(formula, [parameter for _, parameter in wanted])
    for (name, _), gradient, other in zip(wanted, gradients, expected, strict=True):
        assert other.abs().max() > 0, name
        torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_loss_and_gradients_are_those_of_each_segment_alone(model: Multimodal, chunk: int) -> None:
    batch = collate([window([5, 1, 30, 12]), window([40], 1), window([2, 2], 2)])
    loss, count = Objective(model, chunk=chunk)(batch)
    alone = torch.cat(logprobs_alone(model, batch))
    assert int(count) == len(alone) < int(batch.loss_mask.sum()), "first tokens are marked, and no targets"
    torch.testing.assert_close(loss, -alone.sum(), atol=1e-3, rtol=1e-5)
    same_gradients(model, loss, -alone.sum())


def test_how_windows_are_dealt_out_changes_no_sum(model: Multimodal) -> None:
    objective, windows = Objective(model), [window([9, 8], 1), window([20], 2), window([3, 3, 3], 3)]
    loss, count = objective(collate(windows))
    apart = [objective(collate([each])) for each in windows]
    torch.testing.assert_close(loss, torch.stack([each for each, _ in apart]).sum(), atol=1e-4, rtol=1e-6)
    assert int(count) == sum(int(n) for _, n in apart)


def test_a_border_is_never_crossed(model: Multimodal) -> None:
    """Whatever the last token of a segment is, the loss of the next one does not change."""
    objective, batch = Objective(model), collate([window([6, 9])])
    batch.loss_mask[:6] = False
    other = batch.input_ids.clone()
    other[5] = other[5] % 200 + 50
    assert not torch.equal(other, batch.input_ids)
    changed = Batch(other, batch.loss_mask, batch.cu_seqlens)
    assert torch.equal(objective(batch)[0], objective(changed)[0])


def test_a_batch_without_targets_has_gradients_of_zero(model: Multimodal) -> None:
    batch = collate([window([6, 1])])
    batch.loss_mask[1:6] = False
    loss, count = Objective(model)(batch)
    loss.backward()
    assert (loss.item(), int(count)) == (0, 0)
    gradients = [parameter.grad for name, parameter in model.named_parameters() if ".adapters." not in name]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_logits_never_exist_whole_neither_forward_nor_backward() -> None:
    model = text_model(adapters=(), vocab_size=4000, hidden_size=48).train()
    batch, weight, chunk = collate([window([70, 80])]), 4000 * 48, 50
    assert len(batch.targets) > 80, "more than a chunk, and than the weights of the head weigh"
    largest = {}
    for size in (chunk, 1000):
        with Largest() as seen:
            loss, _ = Objective(model, chunk=size)(batch)
            loss.backward()
        largest[size] = seen.elements
    assert largest[chunk] == chunk * 4000 > weight
    assert largest[1000] == len(batch.targets) * 4000, "the counter sees logits"


def test_nothing_of_the_logits_waits_for_the_backward_pass() -> None:
    weight, hidden = torch.randn(4000, 8, requires_grad=True), torch.randn(100, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        losses = token_losses(lambda x: F.linear(x, weight), hidden, torch.arange(100), 10)
    assert losses.requires_grad and max(kept, default=0) <= weight.numel() == 32_000


def test_only_targets_reach_the_head(model: Multimodal, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, head = [], model.language.head
    monkeypatch.setattr(model.language, "head", lambda hidden: rows.append(len(hidden)) or head(hidden))
    batch = collate([window([30, 30])])
    Objective(model, chunk=16)(batch)
    assert sum(rows) == len(batch.targets) < 50 and max(rows) == 16


def with_references(batch: Batch, seed: int = 5) -> Batch:
    values = torch.randn(len(batch.cu_seqlens) - 1, generator=torch.Generator().manual_seed(seed)) * 20 - 60
    return Batch(batch.input_ids, batch.loss_mask, batch.cu_seqlens, reference_logprobs=values)


@pytest.mark.parametrize("nll_weight", [0.0, 0.7])
def test_dpo_is_its_formula(model: Multimodal, nll_weight: float) -> None:
    batch = with_references(collate([window([9, 12, 20, 6]), window([8, 8], 1)]))
    loss, pairs, *measures = PreferenceObjective(model, beta=0.3, nll_weight=nll_weight, chunk=9)(batch)
    parts, reference = logprobs_alone(model, batch), batch.reference_logprobs
    assert reference is not None
    formula, expected = torch.zeros(()), torch.zeros(4)
    for pair in range(3):
        chosen, rejected = 2 * pair, 2 * pair + 1
        # As TRL's DPOTrainer has it, loss_type "sigmoid": beta times (policy's log-ratio - reference's log-ratio);
        # its metrics are rewards/margins, rewards/accuracies, logps/chosen and nll_loss.
        chosen_reward = 0.3 * (parts[chosen].sum() - reference[chosen])
        rejected_reward = 0.3 * (parts[rejected].sum() - reference[rejected])
        nll = -parts[chosen].mean()
        formula = formula - torch.sigmoid(chosen_reward - rejected_reward).log() + nll_weight * nll
        accurate = (chosen_reward > rejected_reward).float()
        expected += torch.stack([chosen_reward - rejected_reward, accurate, parts[chosen].sum(), nll]).detach()
    assert int(pairs) == 3
    torch.testing.assert_close(torch.stack(measures), expected, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(loss, formula, atol=1e-3, rtol=1e-4)
    same_gradients(model, loss, formula)


def test_dpo_with_itself_as_reference_is_log_2_a_pair(model: Multimodal) -> None:
    batch, objective = collate([window([9, 12, 20, 6])]), PreferenceObjective(model)
    with torch.no_grad():
        logprobs, counts = objective.logprobs(batch)
    assert int(counts.sum()) == len(batch.targets)
    loss, *_ = objective(Batch(batch.input_ids, batch.loss_mask, batch.cu_seqlens, reference_logprobs=logprobs))
    assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-5)


def test_dpo_does_not_overflow() -> None:
    losses = dpo_losses(preference_margins(torch.tensor([-1e5, 0.0, 0.0, -1e5]), torch.zeros(4), 0.5))
    assert losses.tolist() == [5e4, 0.0]


def test_dpo_refuses_half_a_pair_and_no_references(model: Multimodal) -> None:
    objective, batch = PreferenceObjective(model), collate([window([5, 5, 5])])
    with pytest.raises(ValueError, match="3 segments, reference_logprobs there: DPO needs both sides"):
        objective(with_references(batch))
    with pytest.raises(ValueError, match="reference_logprobs none"):
        objective(collate([window([5, 5])]))


def test_the_sigmoid_loss_is_its_formula_and_learns_its_own_parameters() -> None:
    loss, image, text = SigmoidLoss(), torch.randn(5, 16, requires_grad=True), torch.randn(5, 16, requires_grad=True)
    match = torch.eye(5, dtype=torch.bool)
    match[1, 3] = match[3, 1] = True
    with torch.no_grad():
        loss.log_temperature.fill_(0.5)
        loss.bias.fill_(-0.3)
    for given in (None, match):
        total, count = loss(image, text, given)
        formula = torch.zeros(())
        for i in range(5):
            for j in range(5):
                z = 1.0 if i == j or (given is not None and match[i, j]) else -1.0
                cosine = image[i] @ text[j] / image[i].norm() / text[j].norm()
                formula = formula - torch.sigmoid(z * (loss.log_temperature.exp() * cosine + loss.bias)).log()
        assert int(count) == 5
        torch.testing.assert_close(total, formula, atol=1e-4, rtol=1e-5)
        inputs = [image, text, *loss.parameters()]
        for actual, expected in zip(
            torch.autograd.grad(total, inputs), torch.autograd.grad(formula, inputs), strict=True
        ):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_the_sigmoid_loss_starts_as_in_the_paper() -> None:
    loss = SigmoidLoss()
    assert loss.log_temperature.exp().item() == pytest.approx(10) and float(loss.bias.detach()) == -10


def test_windows_become_a_batch_end_to_end() -> None:
    windows = [window([3, 4]), window([5], 1)]
    batch = collate(windows)
    assert batch.cu_seqlens.tolist() == [0, 3, 7, 12] and batch.segments.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert batch.input_ids.tolist() == [*windows[0]["input_ids"].tolist(), *windows[1]["input_ids"].tolist()]
    assert batch.input_ids.dtype == torch.int64 and batch.loss_mask.dtype == torch.bool
    moved = batch.to("meta")
    assert moved.input_ids.is_meta and moved.cu_seqlens.is_meta


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss_mask": torch.ones(3)}, "loss_mask of 3 tokens, input_ids of 4"),
        ({"cu_seqlens": torch.tensor([0, 3])}, r"cu_seqlens \[0, 3\]: needed is 0, rising to the 4 tokens"),
        ({"cu_seqlens": torch.tensor([0, 3, 2, 4])}, "needed is 0, rising"),
        ({"reference_logprobs": torch.zeros(2)}, "reference_logprobs of 2 segments, of 1"),
    ],
)
def test_a_batch_that_does_not_fit_together_is_refused(values: dict[str, Tensor], message: str) -> None:
    whole = {"input_ids": torch.arange(4), "loss_mask": torch.ones(4), "cu_seqlens": torch.tensor([0, 4])}
    with pytest.raises(ValueError, match=message):
        Batch(**{**whole, **values})
    with pytest.raises(ValueError, match="a batch of no windows"):
        collate([])
