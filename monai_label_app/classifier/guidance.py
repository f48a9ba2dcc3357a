"""Teach a network to look where its evidence may lie: on the finding, and never on what the endoscope does not show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def astray(scores: Tensor, activation: Tensor, targets: Tensor, allowed: Tensor) -> Tensor:
    """How far the Grad-CAM maps of the true classes lie beside where they may: -log of the share inside.

    The maps before their ReLU, in units of their own spread, are made a distribution over space by softmax; its part
    inside counts. Where everything is allowed, or nothing, a map counts as right.

    Args:
        scores: (N, classes) before softmax, differentiable twice.
        activation: (N or more, K, h, w), the output of the target layer that led to them; the first N count.
        targets: (N,) indices of the true classes.
        allowed: (N, 1, H, W) at any size, 1 where evidence may lie, else 0.

    Returns:
        (N,), >= 0.

    Source: after Ross et al., Right for the Right Reasons, IJCAI 2017, with Grad-CAM in the place of the gradient.
    """
    if activation.shape[2:].numel() == 1:  # one place is beside nothing
        return scores.new_zeros(len(targets))
    inside = functional.adaptive_max_pool2d(allowed.float(), activation.shape[2:]).flatten(1) > 0.5
    score = scores.gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, activation, create_graph=True)
    maps = (gradient.float().mean((2, 3), keepdim=True) * activation.float()).sum(1).flatten(1)[: len(targets)]
    shares = (2 * maps / maps.std(1, keepdim=True).clamp_min(1e-6)).log_softmax(1)
    limited = inside.any(1) & ~inside.all(1)
    # Where nothing is allowed there is nothing to sum over.
    within = shares.masked_fill(~inside & limited[:, None], -torch.inf).logsumexp(1)
    return torch.where(limited, -within, 0)
