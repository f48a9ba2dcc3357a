"""From a map to a picture: resize, scale to 0..1, colour, lay over the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional


def resize(saliency: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map (h, w) to ``size`` (H, W) bilinearly, pixel areas aligned, values kept."""
    tensor = torch.as_tensor(np.asarray(saliency), dtype=torch.float32)[None, None]
    resized: NDArray[np.float32] = functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    return resized


def strength(gradient: Tensor) -> Tensor:
    """How strongly each pixel acts, whichever way: the largest ``|gradient|`` of its colours, (N, C, H, W) → (N, H, W).

    Source: Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014 workshop, section 3.1.
    """
    return gradient.abs().amax(dim=1)


def normalise(saliency: ArrayLike) -> NDArray[np.float32]:
    """Divide a map >= 0 by its own maximum: 0..1, float32. A map that is all zero stays all zero."""
    values = np.asarray(saliency, dtype=np.float32)
    peak = values.max(initial=0.0)
    return values / peak if peak > 0 else np.zeros_like(values)


def colourise(saliency: ArrayLike) -> NDArray[np.uint8]:
    """Colour a map 0..1 from blue through green to red, the paper's colours: (H, W) → (H, W, 3) uint8."""
    values = np.clip(np.asarray(saliency, dtype=np.float32), 0, 1)[..., None]
    centres = np.array([3, 2, 1], dtype=np.float32)
    return np.rint(255 * np.clip(1.5 - np.abs(4 * values - centres), 0, 1)).astype(np.uint8)


def overlay(image: NDArray[np.uint8], saliency: ArrayLike, opacity: float = 0.45) -> NDArray[np.uint8]:
    """Lay a map 0..1 (H, W) over an image (H, W, 3).

    Where the map is zero the image shows unchanged, so a map that is all zero gives back the image itself; the
    opacity grows with the map and reaches ``opacity`` at half of the maximum.
    """
    values = np.clip(np.asarray(saliency, dtype=np.float32), 0, 1)[..., None]
    alpha = opacity * np.minimum(1, 2 * values)
    blended: NDArray[np.uint8] = np.rint((1 - alpha) * image + alpha * colourise(values[..., 0])).astype(np.uint8)
    return blended
