"""What a pretrained trunk knows of few pictures: a logistic regression on more than a VGG's head is told."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import VGG

from monai_label_app.classifier.head import Reading, regression, spread
from monai_label_app.classifier.precision import mixed_precision

_STRENGTH = 0.05
"""Inverse of the regularisation (scikit-learn's C): many channels, few pictures."""

_SHRINKAGE = 0.5
"""How far the spread within the classes is taken to be the same in all directions, 0 to 1."""

_FLOOR = 0.1
"""Added to a mean before its logarithm: what a channel answers to nothing."""

_ROOM = 1 / 4
"""Of the channels of a layer; more of them are too many to give up."""


class Probe(nn.Module):
    """A logistic regression on how strongly the channels answer that the last block of a VGG is given and puts out.

    Textures, by which few pictures are told apart well, are in what the block is given, and the head is not told of
    them. Its own copy of the layers stays as it is while the network learns, so that it can be the network's teacher.

    Source: Alain & Bengio, Understanding intermediate layers using linear classifier probes, ICLR 2017.
    """

    _scores: nn.Linear

    def __init__(self, learning: nn.Module, classes: int) -> None:
        """Copy the convolutions.

        Args:
            learning: a VGG network, or the rest of one by :func:`monai_label_app.classifier.network.split`.
            classes: how many are told apart.

        Raises:
            ValueError: it has no convolution of a VGG network, it normalises batches, or it has no channels to spare.
        """
        super().__init__()
        found = _layers(learning)
        normalised = any(isinstance(one, nn.BatchNorm2d) for one in found)
        if normalised or not any(isinstance(one, nn.Conv2d) for one in found):
            raise ValueError(
                "only the convolutions of a VGG network without batch normalisation can teach it, "
                "and one of them must learn"
            )
        layers = copy.deepcopy(found)
        pools = [place for place, one in enumerate(layers, start=1) if isinstance(one, nn.MaxPool2d)]
        begin = pools[-2] if len(pools) > 1 else 0
        self._before, self._block = nn.Sequential(*layers[:begin]), nn.ModuleList(layers[begin:])
        self.requires_grad_(False).eval()
        convolutions = [one for one in self._block if isinstance(one, nn.Conv2d)]
        answers = [one.out_channels for one in convolutions]
        self._widths, self._classes = [convolutions[0].in_channels, *answers, answers[-1]], classes
        if 2 * classes > _ROOM * min(answers):
            raise ValueError(
                f"layers of {min(answers)} channels have none to spare for {classes} classes; take a wider network"
            )

    def means(self, images: Tensor) -> Tensor:
        """Of what the copied layers are given: (N, channels) of the last block's input, convolutions and output."""
        with torch.no_grad(), mixed_precision(images.device):
            images = self._before(images)
            seen = [images]
            for layer in self._block:
                images = layer(images)
                if not isinstance(layer, nn.Conv2d):
                    seen.append(images)
        return torch.cat([one.float().mean((2, 3)) for one in seen], dim=1)

    def _read(self, means: Tensor) -> Tensor:
        """What the regression is given: the block's input as it is, its output by its logarithm."""
        given, *_, put_out = means.split(self._widths, dim=1)
        return torch.cat([given, _logarithm(put_out)], dim=1)

    def fit(self, means: Tensor, targets: Tensor) -> None:
        """Fit the regression, in a space where pictures of a class differ alike in all directions.

        Args:
            means: (N, channels), by :meth:`means`.
            targets: (N,) indices of their classes, two at least.
        """
        values = self._read(means)
        centre, parts = values.mean(0), values.split((self._widths[0], self._widths[-1]), dim=1)
        scale = torch.cat([spread(part) for part in parts]).clamp_min(1e-6)
        values = (values - centre) / scale
        white = _whitening(values, targets)
        weights, biases = regression(values @ white, targets, self._classes, _STRENGTH)
        self._scores = nn.Linear(values.shape[1], self._classes).requires_grad_(False).to(means.device)
        self._scores.weight.copy_(weights @ white.T / scale)
        self._scores.bias.copy_(biases - self._scores.weight @ centre)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes) before softmax."""
        scores: Tensor = self._scores(self._read(self.means(images)))
        return scores

    def hand_down(self, learning: nn.Module, means: Tensor) -> Reading:
        """Let the last block of the network itself carry to its head what the regression reads in the block's input.

        For every class two of the quietest channels of each layer are given up: one carries what speaks for the class
        at a position, smoothed a little by each layer, the other what speaks against it.

        Args:
            learning: whose convolutions were copied; changed in place.
            means: (N, channels), by :meth:`means`, that the regression was fitted to.

        Returns:
            How the head has this regression's scores from the block's new output.
        """
        given, *answers, _ = means.split(self._widths, dim=1)
        read, heard = self._scores.weight.split((self._widths[0], self._widths[-1]), dim=1)
        carried = torch.cat([read, -read])
        layers = [one for one in _layers(learning) if isinstance(one, nn.Conv2d)][-len(answers) :]
        carriers = torch.arange(0)
        with torch.no_grad():
            for place, (layer, answer) in enumerate(zip(layers, answers, strict=True)):
                following = layers[place + 1 : place + 2]
                heeded = answer.mean(0)
                for other in following:
                    heeded = heeded * other.weight.abs().sum((0, 2, 3))
                quiet = heeded.argsort()[: len(carried)]
                weight, bias = layer.parameters()
                weight[quiet], bias[quiet] = 0, 0
                if not place:
                    weight[quiet, :, 1, 1], bias[quiet] = carried, -carried @ given.mean(0)
                else:
                    weight[quiet, carriers] = 1 / weight[0, 0].numel()
                for other in following:
                    other.weight[:, quiet] = 0
                carriers = quiet
            weights, same = heard.clone(), torch.eye(self._classes).to(heard)
            weights[:, carriers] = torch.cat([same, -same], dim=1)
        plain = torch.isin(torch.arange(weights.shape[1]).to(carriers), carriers)
        average = self._scores(self._read(means)).mean(0)
        return Reading(weights, lambda values: torch.where(plain, values, _logarithm(values)), average)


def _logarithm(means: Tensor) -> Tensor:
    return means.add(_FLOOR).log()


def _whitening(values: Tensor, targets: Tensor) -> Tensor:
    """The matrix (K, K) that makes the covariance of values (N, K) within their classes the identity."""
    members = functional.one_hot(targets).to(values)
    centres = (members.T @ values) / members.sum(0)[:, None].clamp_min(1)
    within = (values - centres[targets]).double().T.cov(correction=0)
    alike = within.diagonal().mean() * torch.eye(len(within)).to(within)
    sizes, directions = torch.linalg.eigh(torch.lerp(within, alike, _SHRINKAGE))
    return (directions / sizes.clamp_min(1e-12).sqrt()).float()


def _layers(learning: nn.Module) -> Sequence[nn.Module]:
    layers = learning.features if isinstance(learning, VGG) else learning
    found = layers.children() if isinstance(layers, nn.Sequential) else ()
    return [one for one in found if isinstance(one, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d))]
