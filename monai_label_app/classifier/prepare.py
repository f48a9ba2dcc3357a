"""From a frame to the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from explainers import Geometry


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
