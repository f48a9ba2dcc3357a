"""The fully connected head of a VGG network on few pictures: how it starts, and what it may learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torchvision.models.vgg import VGG

_STRENGTH = 0.003
"""Inverse of the regularisation of the first scores (scikit-learn's C): many channels, few pictures."""

_ITERATIONS = 200

_SILENT = 0.1
"""Of the mean spread of the channels: no channel is taken to vary less."""


class _Everywhere(nn.Module):
    """A linear layer that treats every position alike: it works on the mean of (N, channels · positions) over them."""

    def __init__(self, channels: int, outputs: int, positions: int) -> None:
        super().__init__()
        self._positions = positions
        self.linear = nn.Linear(channels, outputs)

    def forward(self, values: Tensor) -> Tensor:
        scores: Tensor = self.linear(values.unflatten(1, (-1, self._positions)).mean(2))
        return scores

    def ordinary(self) -> nn.Linear:
        """A linear layer of the same values that has a weight for every position."""
        made = nn.Linear(self.linear.in_features * self._positions, self.linear.out_features)
        with torch.no_grad():
            made.weight.copy_(self.linear.weight.repeat_interleave(self._positions, dim=1) / self._positions)
            made.bias.copy_(self.linear.bias)
        return made


def start(network: VGG, pooled: Tensor, targets: Tensor) -> None:
    """Give an untrained head of a VGG network its first weights, by the data.

    Its scores start as those of a logistic regression on the mean of every channel, which its first two layers hand
    on; what is learned from there on disturbs the trunk less than random weights would. Until :func:`bake` the first
    layer treats every position alike: a finding may lie anywhere, and 49 times fewer weights learn from few pictures.

    Args:
        network: whose ``classifier`` is changed in place.
        pooled: (N, channels · positions), what the classifier is given for some pictures, of two classes at least.
        targets: (N,) indices of their classes.

    Source: Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR 2022.
    """
    _, second, last = (module for module in network.classifier if isinstance(module, nn.Linear))
    everywhere = _everywhere(network)
    with torch.no_grad():
        _hand_on(everywhere.linear)
        _hand_on(second)
        network.classifier[0] = everywhere
        everywhere.linear.weight.div_(spread(everywhere(pooled))[:, None])
        everywhere.linear.bias.zero_()
        values = second(everywhere(pooled).relu()).relu()
        weights, biases = regression(values, targets, last.out_features, _STRENGTH)
        last.weight.copy_(weights)
        last.bias.copy_(biases)


@dataclass(frozen=True)
class Reading:
    """Scores that are a weighted sum of curves of the means of channels.

    Attributes:
        weights: (classes, channels).
        curve: of the means (N, channels), each channel's own; rising.
        average: (classes,), the scores that the pictures should have on average.
    """

    weights: Tensor
    curve: Callable[[Tensor], Tensor]
    average: Tensor


def pieces(network: VGG) -> int:
    """Of how many lines the head of a VGG network can make a curve of each channel.

    Raises:
        ValueError: of none, for its first layer has fewer units than channels.
    """
    units, channels = network.classifier[0].out_features, _channels(network)
    if units < channels:
        raise ValueError(f"a head of {units} units cannot read {channels} channels; take a wider head")
    return int(units // channels)


def adopt(network: VGG, pooled: Tensor, reading: Reading) -> None:
    """Give the head of a VGG network the scores of a reading.

    Every channel has several of the first layer's units, each a line that begins at another strength: their sum is the
    curve, piece by piece. The second layer hands them on.

    Args:
        network: whose ``classifier`` is changed in place.
        pooled: (N, channels · positions), what the classifier is given for some pictures.
        reading: of the network's channels.

    Raises:
        ValueError: see :func:`pieces`.
    """
    _, second, last = (module for module in network.classifier if isinstance(module, nn.Linear))
    channels, count, everywhere = reading.weights.shape[1], pieces(network), _everywhere(network)
    means = pooled.unflatten(1, (channels, -1)).mean(2)
    steps = means.sort(dim=0).values[torch.linspace(0, len(means) - 1, count + 1).long()]
    slopes = reading.curve(steps).diff(dim=0) / steps.diff(dim=0).clamp_min(1e-6)
    turns = slopes.diff(dim=0, prepend=torch.zeros_like(slopes[:1]))
    with torch.no_grad():
        units = torch.arange(count * channels)
        everywhere.linear.weight.zero_()
        everywhere.linear.bias.zero_()
        everywhere.linear.weight[units, units % channels] = 1
        everywhere.linear.bias[units] = -steps[:-1].flatten()
        _hand_on(second)
        last.weight.zero_()
        last.weight[:, units] = (reading.weights[:, None] * turns).flatten(1)
        last.bias.zero_()
        network.classifier[0] = everywhere
        for module in network.classifier:
            if isinstance(module, nn.Dropout):  # who is told what to say need not guess
                module.p = 0
        last.bias.copy_(reading.average - network.classifier(pooled).mean(0))


def spread(values: Tensor) -> Tensor:
    """How much each channel of values (N, K) varies, (K,): one that is nearly silent must not be blown up by it."""
    varied = values.std(0)
    return varied.clamp_min(_SILENT * varied.mean())


def _everywhere(network: VGG) -> _Everywhere:
    """What the first layer of a VGG network's head is while every position is treated alike; its weights are new."""
    first, channels = network.classifier[0], _channels(network)
    return _Everywhere(channels, first.out_features, first.in_features // channels).to(first.weight)


def _channels(network: VGG) -> int:
    rows, columns = network.avgpool.output_size
    return int(network.classifier[0].in_features // (rows * columns))


def _hand_on(layer: nn.Linear) -> None:
    """Let every output be one of the inputs; where they are fewer than the inputs, a mean of several."""
    outputs, inputs = layer.weight.shape
    layer.weight.zero_()
    layer.bias.zero_()
    for index in range(max(outputs, inputs)):
        layer.weight[index % outputs, index % inputs] = 1
    layer.weight.div_(layer.weight.sum(1, keepdim=True))


def regression(values: Tensor, targets: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression in which all classes weigh the same.

    Args:
        values: (N, K).
        targets: (N,) indices of their classes, two at least.
        classes: how many there are.
        strength: scikit-learn's C.

    Returns:
        Weights (classes, K) and biases (classes,); a class without a picture has the lowest scores.
    """
    centre = values.mean(0)
    made = LogisticRegression(C=strength, max_iter=_ITERATIONS, class_weight="balanced")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what starts or teaches another need not be exact
        made.fit((values - centre).cpu().numpy(), targets.cpu().numpy())
    weights, biases = values.new_zeros(classes, values.shape[1]), values.new_full((classes,), float("-inf"))
    coefficients, constants = (torch.as_tensor(part).to(values) for part in (made.coef_, made.intercept_))
    if len(made.classes_) == 2:  # one row, of the second against the first
        coefficients, constants = (torch.stack([-part[0], part[0]]) / 2 for part in (coefficients, constants))
    weights[made.classes_] = coefficients
    biases[made.classes_] = constants - coefficients @ centre
    return weights, biases.clamp_min(biases[made.classes_].min())


def bake(network: nn.Module) -> None:
    """Make a layer that treats every position alike an ordinary one of the same values."""
    for name, module in list(network.named_modules()):
        if isinstance(module, _Everywhere):
            network.set_submodule(name, module.ordinary().to(module.linear.weight))
