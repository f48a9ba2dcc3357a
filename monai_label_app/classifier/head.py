"""The fully connected head of a VGG network on few pictures: how it starts, and what it may learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchvision.models.vgg import VGG

_FAINT = 0.1
"""Standard deviation of the first scores."""


class _Tied(nn.Module):
    """A weight that is the same at every position: (outputs, channels) as (outputs, channels · positions)."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self._positions = positions

    def forward(self, weight: Tensor) -> Tensor:
        return weight.repeat_interleave(self._positions, dim=1) / self._positions

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.unflatten(1, (-1, self._positions)).sum(2)


def start(network: VGG, pooled: Tensor) -> None:
    """Give an untrained head of a VGG network its first weights, by the data.

    Its first layer treats every position alike until :func:`bake`: a finding may lie anywhere, and 49 times fewer
    weights learn from few pictures. Every hidden unit is scaled and shifted to mean 0 and deviation 1 over the
    pictures, and the last layer starts near zero.

    Args:
        network: whose ``classifier`` is changed in place.
        pooled: (N, channels · positions), what the classifier is given for some pictures.

    Source: for the scale, Krähenbühl et al., Data-dependent Initializations of CNNs, ICLR 2016.
    """
    first, *_, last = linear = [module for module in network.classifier if isinstance(module, nn.Linear)]
    rows, columns = network.avgpool.output_size
    tied = _Tied(rows * columns)
    values = pooled
    with torch.no_grad():
        for layer in linear:
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            if layer is first:
                layer.weight.copy_(tied(tied.right_inverse(layer.weight)))
            made = layer(values)
            if layer is last:
                layer.weight.mul_(_FAINT / made.std())
            else:
                scale = made.std(0).clamp_min(1e-6)
                layer.weight.div_(scale[:, None])
                layer.bias.sub_(made.mean(0) / scale)
            values = layer(values).relu()
    parametrize.register_parametrization(first, "weight", tied)


def bake(network: nn.Module) -> None:
    """Make every tied weight an ordinary one of the same values."""
    for module in network.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
