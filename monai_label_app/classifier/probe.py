"""What a pretrained trunk knows of few pictures: a logistic regression on more than the head is told."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.models.vgg import VGG

from monai_label_app.classifier.head import regression
from monai_label_app.classifier.precision import mixed_precision

_STRENGTH = 0.02
"""Inverse of the regularisation (scikit-learn's C): many channels, few pictures."""

_BLOCKS = 2
"""The last ones; textures, by which few pictures are told apart well, are in the one before the last."""


class Probe(nn.Module):
    """A logistic regression on how strongly every channel of the last two blocks of a VGG answers to a frame.

    Its own copy of the layers stays as it is while the network learns, so that it can be the network's teacher.

    Source: Alain & Bengio, Understanding intermediate layers using linear classifier probes, ICLR 2017.
    """

    _scores: nn.Linear

    def __init__(self, learning: nn.Module) -> None:
        """Copy the convolutions.

        Args:
            learning: a VGG network, or the rest of one by :func:`monai_label_app.classifier.network.split`.

        Raises:
            ValueError: it has no convolution of a VGG network, or it normalises batches.
        """
        super().__init__()
        layers = learning.features if isinstance(learning, VGG) else learning
        found = list(layers.children()) if isinstance(layers, nn.Sequential) else []
        kept = [copy.deepcopy(one) for one in found if isinstance(one, (nn.Conv2d, nn.ReLU, nn.MaxPool2d))]
        normalised = any(isinstance(one, nn.BatchNorm2d) for one in found)
        if normalised or not any(isinstance(one, nn.Conv2d) for one in kept):
            raise ValueError(
                "only the convolutions of a VGG network without batch normalisation can teach it, "
                "and one of them must learn"
            )
        self._layers = nn.ModuleList(kept).requires_grad_(False).eval()

    def means(self, images: Tensor) -> Tensor:
        """What the regression is given, (N, channels), of what the copied layers are given."""
        blocks = [images]
        with torch.no_grad(), mixed_precision(images.device):
            for layer in self._layers:
                images = layer(images)
                if isinstance(layer, nn.MaxPool2d):
                    blocks.append(images)
        return torch.cat([block.float().mean((2, 3)) for block in blocks[-_BLOCKS:]], dim=1).log1p()

    def fit(self, means: Tensor, targets: Tensor, classes: int) -> None:
        """Fit the regression.

        Args:
            means: (N, channels), by :meth:`means`.
            targets: (N,) indices of their classes, two at least.
            classes: how many there are.
        """
        spread = means.std(0).clamp_min(1e-6)
        weights, biases = regression(means / spread, targets, classes, _STRENGTH)
        self._scores = nn.Linear(means.shape[1], classes).requires_grad_(False).to(means.device)
        self._scores.weight.copy_(weights / spread)
        self._scores.bias.copy_(biases)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, classes) before softmax."""
        scores: Tensor = self._scores(self.means(images))
        return scores
