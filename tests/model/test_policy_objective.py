"""GRPO's loss against its formula written out token by token; what clipping stops; what its KL estimate estimates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from models import ids, text_model
from torch import Tensor

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.train.losses import clipped_losses, kl_estimates
from gristmill.model.train.objective import Batch, PolicyObjective, collate, token_logprobs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> Multimodal:
    return text_model().train()


def window(lengths: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Segments of a prompt of two tokens and an answer, and what was said of them when they were drawn."""
    bounds = np.cumsum([0, *lengths])
    mask = np.ones(bounds[-1], bool)
    for start in bounds[:-1]:
        mask[start : start + 2] = False
    rng, targets = np.random.default_rng(seed), int(mask.sum())
    # About what the model of the tests says of a token, so that some ratios are clipped and others are not.
    drawn = {name: rng.normal(-5.8, 0.5, targets).astype(np.float32) for name in ("old_logprobs", "base_logprobs")}
    return {
        "input_ids": ids(int(bounds[-1]), seed=seed).numpy().astype(np.int32),
        "loss_mask": mask,
        "cu_seqlens": bounds.astype(np.int32),
        "advantages": rng.normal(size=len(lengths)).astype(np.float32),
        **drawn,
    }


def answers_alone(model: Multimodal, batch: Batch) -> list[Tensor]:
    """Log-probabilities of each segment's targets, each segment by itself, from whole logits."""
    answers = []
    for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        tokens, mask = batch.input_ids[start:end], batch.loss_mask[start:end]
        logprobs = model(tokens[None]).logits[0, :-1].log_softmax(-1)
        answers.append(logprobs.gather(1, tokens[1:, None])[:, 0][mask[1:]])
    return answers


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_loss_its_gradients_and_its_measures_are_the_formula(model: Multimodal, beta: float) -> None:
    batch = collate([window([9, 12, 20]), window([8, 5], 1)])
    loss, count, *measures = PolicyObjective(model, beta=beta, clip_ratio=0.2, chunk=9)(batch)
    assert batch.drawn is not None
    formula, expected, at, held = torch.zeros(()), torch.zeros(3), 0, 0
    for advantage, answer in zip(batch.drawn.advantages, answers_alone(model, batch), strict=True):
        of_answer = torch.zeros(())
        for policy in answer:
            old, base = batch.drawn.old_logprobs[at], batch.drawn.base_logprobs[at]
            at += 1
            ratio = policy.exp() / old.exp()
            bound = max(min(ratio, torch.tensor(1.2)), torch.tensor(0.8))
            kl = base.exp() / policy.exp() - (base - policy) - 1
            is_held = bool(bound * advantage < ratio * advantage)
            surrogate = bound * advantage if is_held else ratio * advantage
            of_answer = of_answer + surrogate - beta * kl
            expected += torch.stack([kl, torch.tensor(float(is_held)), old - policy]).detach() / len(answer)
            held += is_held
        formula = formula - of_answer / len(answer)
    assert int(count) == 5 and 0 < held < at, "some tokens are clipped, and not all"
    torch.testing.assert_close(torch.stack(measures), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(loss, formula, atol=1e-3, rtol=1e-3)
    wanted = [parameter for name, parameter in model.named_parameters() if ".adapters." not in name]
    gradients, of_formula = (torch.autograd.grad(value, wanted) for value in (loss, formula))
    for gradient, other in zip(gradients, of_formula, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # within the bounds: the ratio's own slope
        (1.5, 2.0, -2.4, 0.0),  # likelier by more than a fifth, as it should be: no further
        (0.5, 2.0, -1.0, -1.0),  # less likely though it should be likelier: it comes back
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),  # less likely by more than a fifth, as it should be: no further
        (1.5, -2.0, 3.0, 3.0),  # likelier though it should be less likely: it comes back
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipping_ends_the_way_that_the_advantage_asks_for(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    policy = torch.tensor([-3.0], requires_grad=True)
    old = policy.detach() - torch.tensor([ratio]).log()
    losses, held = clipped_losses(policy, old, torch.tensor([advantage]), 0.2)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss, rel=1e-5)
    assert policy.grad is not None and policy.grad.item() == pytest.approx(slope, rel=1e-5)
    assert bool(held) == (slope == 0 != advantage)


def test_the_kl_estimate_is_unbiased_under_the_policy_and_never_negative() -> None:
    policy, reference = (torch.randn(50, generator=torch.Generator().manual_seed(n)).log_softmax(0) for n in (0, 1))
    estimates = kl_estimates(policy, reference)
    assert estimates.min() >= 0 and kl_estimates(policy, policy).abs().max() == 0
    divergence = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * estimates).sum(), divergence)


def test_groups_of_equal_rewards_have_no_gradient_where_the_policy_is_its_own_reference(model: Multimodal) -> None:
    own = window([9, 12])
    logprobs = token_logprobs(model, own, model.config, "float32").numpy()
    batch = collate(
        [own | {"advantages": np.zeros(2, np.float32), "old_logprobs": logprobs, "base_logprobs": logprobs}]
    )
    loss, _, kl, *_ = PolicyObjective(model)(batch)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and kl.item() == pytest.approx(0, abs=1e-6)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and max(float(gradient.abs().max()) for gradient in gradients) < 1e-5


def test_how_windows_are_dealt_out_changes_no_sum(model: Multimodal) -> None:
    windows, objective = [window([9, 12, 20]), window([8, 5], 1)], PolicyObjective(model)
    together = objective(collate(windows))
    apart = [objective(collate([each])) for each in windows]
    for number, value in enumerate(together):
        torch.testing.assert_close(value, apart[0][number] + apart[1][number], atol=1e-4, rtol=1e-4)


def test_an_answer_without_a_target_counts_for_nothing(model: Multimodal) -> None:
    loss, count, *_ = PolicyObjective(model)(collate([window([9, 2, 2])]))
    assert int(count) == 1 and torch.isfinite(loss)


def test_what_was_not_drawn_is_refused(model: Multimodal) -> None:
    plain = {name: array for name, array in window([9, 12]).items() if name in ("input_ids", "loss_mask", "cu_seqlens")}
    with pytest.raises(ValueError, match=r"2 segments with 17 targets, .* none: GRPO needs"):
        PolicyObjective(model)(collate([plain]))
    whole = window([9, 12])
    for name, given in (
        ("advantages", "1, 17 and 17"),
        ("old_logprobs", "2, 1 and 17"),
        ("base_logprobs", "2, 17 and 1"),
    ):
        with pytest.raises(ValueError, match=f"of {given}: GRPO needs"):  # one value would be spread over all
            PolicyObjective(model)(collate([whole | {name: np.zeros(1, np.float32)}]))
