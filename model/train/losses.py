"""Losses: cross-entropy of tokens without all their logits, preferences (DPO), policies (GRPO), SigLIP's sigmoid loss.

Each is a sum or a value for every item, never a mean over a batch: whoever accumulates over batches and ranks divides
once, by what was counted everywhere. In shapes: N tokens or items, D channels, V vocabulary, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def token_losses(head: Callable[[Tensor], Tensor], hidden_ND: Tensor, target_N: Tensor, chunk: int) -> Tensor:
    """Cross-entropy of each target in nats, float32 [N]; less it is the target's log-probability.

    `head` makes logits [n, V] of hidden states [n, D], of `chunk` at a time and once more in the backward pass, so that
    no more of them ever exist: a batch's logits would outweigh its model. Costs the head's forward pass a second time.
    """

    def losses(hidden_nD: Tensor, target_n: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden_nD).float(), target_n, reduction="none")

    chunks = zip(hidden_ND.split(chunk), target_N.split(chunk), strict=True)
    # The head draws no random numbers, so there is no state of a generator to restore.
    parts = [checkpoint(losses, *part, use_reentrant=False, preserve_rng_state=False) for part in chunks]
    return torch.cat(parts)


def preference_margins(policy_2P: Tensor, reference_2P: Tensor, beta: float) -> Tensor:
    """Beta times how much more than the reference the policy prefers the chosen side of each pair, [P]. Both are
    log-probabilities of whole answers in nats; chosen and rejected of a pair follow each other."""
    chosen_P, rejected_P = (policy_2P - reference_2P).unflatten(0, (-1, 2)).unbind(1)
    return beta * (chosen_P - rejected_P)


def dpo_losses(margin_P: Tensor) -> Tensor:
    """-log sigmoid of the margin of each pair, [P]. Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7."""
    return -F.logsigmoid(margin_P)


def clipped_losses(policy_N: Tensor, old_N: Tensor, advantage_N: Tensor, clip_ratio: float) -> tuple[Tensor, Tensor]:
    """GRPO's loss of each token without its KL term, [N], and whether clipping took its gradient away, bool [N].

    `policy_N`, `old_N`: log-probabilities in nats, of the model that learns and of the one that drew the tokens. The
    loss is -min(r A, clip(r, 1 - e, 1 + e) A), where r is how much likelier the token has become: what has moved as far
    as the advantage A asks for, by a factor of `clip_ratio` = e, moves no further; what moved against it comes back.
    Source: DeepSeekMath, arXiv 2402.03300, equation 3; PPO, arXiv 1707.06347, equation 7.
    """
    ratio_N = (policy_N - old_N).exp()
    kept_N = ratio_N.clamp(1 - clip_ratio, 1 + clip_ratio)
    free_N, bound_N = ratio_N * advantage_N, kept_N * advantage_N
    return -torch.minimum(free_N, bound_N), bound_N < free_N


def kl_estimates(policy_N: Tensor, reference_N: Tensor) -> Tensor:
    """Of each token an estimate of the KL divergence of the policy from a reference in nats, [N]: never negative, and
    unbiased for tokens that the policy drew. Both are log-probabilities.

    Source: DeepSeekMath, arXiv 2402.03300, equation 4; Schulman 2020, "Approximating KL Divergence", k3.
    """
    log_ratio_N = reference_N - policy_N
    return log_ratio_N.exp() - log_ratio_N - 1


class SigmoidLoss(nn.Module):
    """SigLIP's loss of images and texts: each pair of the batch is a match or none, judged by itself.

    Its temperature (as a logarithm) and bias are learned and start as in the paper. They are no part of the model, and
    are thrown away with this module when the warm-up of an encoder ends.
    Source: Zhai et al. 2023, arXiv 2303.15343, algorithm 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, image_ND: Tensor, text_ND: Tensor, match_NN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sum over all pairs, and N, which the paper divides by. `match_NN`, bool: whether an image (row) and a
        text (column) belong together; None: the i-th ones do, and no others. Equal texts in a batch need it."""
        if match_NN is None:
            match_NN = torch.eye(len(image_ND), dtype=torch.bool, device=image_ND.device)
        cosine_NN = F.normalize(image_ND.float(), dim=-1) @ F.normalize(text_ND.float(), dim=-1).T
        logits_NN = cosine_NN * self.log_temperature.exp() + self.bias
        sign_NN = match_NN.to(logits_NN.dtype) * 2 - 1
        return -F.logsigmoid(sign_NN * logits_NN).sum(), torch.tensor(len(image_ND), device=image_ND.device)
