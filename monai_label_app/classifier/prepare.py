"""From a frame to the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from explainers import Geometry
from monai_label_app.classifier.artifacts import clean, find_artifacts


def prepare(
    frame: NDArray[np.uint8], size: int, mean: Sequence[float], std: Sequence[float], variant: str = "none"
) -> tuple[Tensor, Geometry]:
    """Clean a frame (H, W, 3), resize it to the network's square input and normalise it.

    Args:
        frame: RGB.
        size: of the input.
        mean, std: of each channel, of values 0 to 1.
        variant: what is taken away first, one of :data:`monai_label_app.classifier.artifacts.VARIANTS`.

    Returns:
        (3, size, size) float32, and the geometry that leads back.
    """
    height, width = frame.shape[:2]
    content = (0, 0, width, height)
    if variant != "none":
        frame, content = clean(frame, find_artifacts(frame), variant)
    normalised = (square(frame, size) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return normalised, Geometry(height, width, content)


def square(picture: NDArray[np.uint8], size: int) -> Tensor:
    """Resize a whole picture (H, W, channels) to (channels, size, size), 0 to 1."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
