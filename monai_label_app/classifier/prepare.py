"""From a frame to the network's input, and from the network's maps back to the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from explainers import heatmap


@dataclass(frozen=True)
class Geometry:
    """Which part of the source image the network saw.

    Attributes:
        height, width: of the source image, in pixels.
        content: (x0, y0, x1, y1), the part that was resized to the network's input, in source pixels.
    """

    height: int
    width: int
    content: tuple[int, int, int, int]

    def to_source(self, saliency: NDArray[np.float32]) -> NDArray[np.float32]:
        """Carry a map (h, w) of the network's input back: (height, width), zero outside the content."""
        x0, y0, x1, y1 = self.content
        source = np.zeros((self.height, self.width), np.float32)
        source[y0:y1, x0:x1] = heatmap.resize(saliency, (y1 - y0, x1 - x0))
        return source


def prepare(
    frame: NDArray[np.uint8], size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Geometry]:
    """Resize a frame (H, W, 3) to the network's square input and normalise it.

    Returns:
        (3, size, size) float32, and the geometry that leads back.
    """
    height, width = frame.shape[:2]
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    resized = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    normalised = (resized - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return normalised, Geometry(height, width, (0, 0, width, height))
