"""Test-time augmentation: a network that sees every image in several views, and answers with the mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainers.trace import require_scores

View = tuple[tuple[float, float], tuple[float, float]]
"""Where in the image a place in the view lies: a matrix on (x, y), both from -1 at one edge to 1 at the other."""

AS_IT_IS: View = ((1.0, 0.0), (0.0, 1.0))


class ManyViews(nn.Module):
    """A network whose class scores are the mean of those of several views of each image.

    To look at it is to look at the network in it: layers have its names, and a map is the mean of the maps of the
    views, each laid back on the image. What a view leaves out speaks for nothing there.

    Attributes:
        network: what is shown the views.

    Source: Krizhevsky et al., ImageNet Classification with Deep CNNs, NIPS 2012, section 4.1.
    """

    def __init__(self, network: nn.Module, views: Sequence[View]) -> None:
        """Wrap a network.

        Args:
            network: maps images (N, C, H, W) to class scores (N, classes).
            views: one at least. Those that turn an image by a quarter are for square ones.

        Raises:
            ValueError: there is no view, or one from which nothing leads back.
        """
        super().__init__()
        try:
            matrices = [torch.tensor(view, dtype=torch.float64).reshape(2, 2) for view in views]
            inverse = [torch.linalg.inv(matrix) for matrix in matrices]
        except (RuntimeError, ValueError, TypeError):
            inverse = []
        if not inverse or not torch.stack(inverse).isfinite().all():
            raise ValueError("views must be one or more invertible matrices of 2 x 2")
        self.network = network
        # No buffers: in a network of half the bits they would be pixels off.
        self._there, self._back = matrices, inverse

    @property
    def count(self) -> int:
        """How many views."""
        return len(self._there)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N, classes) of images (N, C, H, W)."""
        views = (_sampled(images, view) for view in self._there)
        if torch.is_grad_enabled():  # layers are seen once, with all views
            return self._mean(self._asked(torch.cat(list(views))))
        # One after the other they take the memory of one.
        return self._mean(torch.cat([self._asked(view) for view in views]))

    def lay_back(self, maps: Tensor) -> Tensor:
        """The mean of maps (views · N, …, h, w) of what the network saw, each where it belongs on its image."""
        parts = maps.chunk(self.count)
        return self._mean(torch.cat([_sampled(part, view) for part, view in zip(parts, self._back, strict=True)]))

    def _asked(self, images: Tensor) -> Tensor:
        return require_scores(self.network(images), images)

    def _mean(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.count, -1)).mean(0)


def shown(network: nn.Module) -> nn.Module:
    """The network that is shown the images: of one in several views the one in it, else the network itself."""
    return network.network if isinstance(network, ManyViews) else network


def _sampled(values: Tensor, view: Tensor) -> Tensor:
    """A view of values (N, …, h, w); zero where it shows what lies outside."""
    if view.equal(torch.eye(2).to(view)):
        return values
    planes = values.reshape(len(values), -1, *values.shape[-2:])
    planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
    where = functional.pad(view, (0, 1)).to(planes).expand(len(values), 2, 3)
    with torch.autocast(values.device.type, enabled=False):  # places in half the bits would be pixels off
        grid = functional.affine_grid(where, list(planes.shape), align_corners=False)
        sampled = functional.grid_sample(planes, grid, align_corners=False)
    return sampled.reshape(values.shape).to(values)
