"""From the network's input back to the source image: crop and resize undone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from explainers import heatmap


@dataclass(frozen=True)
class Geometry:
    """Which part of the source image the network saw.

    Attributes:
        height, width: of the source image, in pixels.
        content: (x0, y0, x1, y1), the part that was resized to the network's input, in source pixels.

    Raises:
        ValueError: the content is empty or leaves the image.
    """

    height: int
    width: int
    content: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.content
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            raise ValueError(f"{self.content} is no part of an image of {self.width} x {self.height}")

    def to_source(self, saliency: ArrayLike | Tensor) -> NDArray[np.float32]:
        """Carry a map (h, w), of a layer or of the network's input, back to the source image.

        Returns:
            (height, width) float32, zero outside the content; bilinear, so on the scale of the map.

        Raises:
            ValueError: the map has other than two dimensions.
        """
        x0, y0, x1, y1 = self.content
        source = np.zeros((self.height, self.width), np.float32)
        source[y0:y1, x0:x1] = heatmap.resize(saliency, (y1 - y0, x1 - x0))
        return source
