"""Frames that show nothing, told cheaply: black or blank, out of the body, blurred, frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter1d

from monai_label_app.classifier.artifacts import BLACK

CLEAR, DARK, OUTSIDE, BLURRED, FROZEN = "clear", "dark", "outside", "blurred", "frozen"
LEFT_OUT = (DARK, OUTSIDE, BLURRED, FROZEN)
"""Why a frame is not classified: it is black or of one colour, out of the body, blurred, or as the one before it."""

SIDE = 144
"""Pixels of the shorter side at which a frame is judged, so that one of any size is judged by the same measures."""

_LIT = 0.1
"""Share of a frame that is lit at least; of 817 real frames the darkest had 0.29."""

_EVEN = 4
"""Standard deviation of the brightness of what is lit, at least, of 255; of 817 real frames the most even had 22."""

_RED, _SATURATION = 0.1, 0.3
"""What is lit of a frame from inside the body is red in more than this share, or half of it has this saturation:
dyed tissue is blue. Of 817 real frames none had less of both; walls, sheets and instruments in white light have.
"""

_SHARP = 0.18
"""Share of the differences between neighbours, squared, that a blur of five pixels takes away, at least (after F. Crete
et al., The blur effect, 2007; squared, so that rounding counts for nothing where all is even). Of 817 real frames the
least sharp had 0.19; of the same, blurred by 2 % of their height, 815 had less than this.
"""

_SAME = 1.0
"""Mean difference from the frame before, of 255, of a frozen one; compression changes less."""


@dataclass(frozen=True)
class Look:
    """What is seen of a frame without a network.

    Attributes:
        quality: ``clear``, or one of :data:`LEFT_OUT`.
        sharpness: 0 to 1; half of 817 real frames had more than 0.52.
        channels: (3, h, w) uint8, a small copy, of which the next frame may be the same again.
    """

    quality: str
    sharpness: float
    channels: NDArray[np.uint8]


def look(frame: NDArray[np.uint8], before: Look | None = None) -> Look:
    """Judge a frame (H, W, 3) RGB; ``before`` is the last one that was clear, of which it may be a copy."""
    channels = _small(frame)
    if before is not None and _same(channels[1], before.channels[1]):
        return Look(FROZEN, before.sharpness, before.channels)
    red, green, blue = channels
    # NumPy is ten times slower along an axis of three.
    brightest = np.maximum(np.maximum(red, green), blue)
    sharpness = _sharpness(brightest)
    return Look(_quality(channels, brightest, sharpness), sharpness, channels)


def _quality(channels: NDArray[np.uint8], brightest: NDArray[np.uint8], sharpness: float) -> str:
    lit = brightest > BLACK
    if lit.mean() < _LIT or brightest[lit].std() < _EVEN:
        return DARK
    red, green, blue = (channel[lit].astype(np.float32) for channel in channels)
    tissue = ((red > 1.1 * green) & (red > 1.1 * blue)).mean()
    pale = np.minimum(np.minimum(red, green), blue) > (1 - _SATURATION) * brightest[lit]
    if tissue < _RED and pale.mean() > 0.5:
        return OUTSIDE
    return CLEAR if sharpness >= _SHARP else BLURRED


def _small(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(frame)
    image = image.reduce(max(1, min(image.size) // SIDE))
    if min(image.size) != SIDE:
        scale = SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return one.shape == other.shape and float(np.abs(one.astype(np.int16) - other).mean()) < _SAME


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Of the middle of a frame, in the direction in which it is sharper: a moved frame is sharp in one."""
    height, width = grey.shape
    middle = grey[height // 8 : -height // 8, width // 8 : -width // 8].astype(np.float32)
    shares = []
    for axis in (0, 1):
        steps = np.abs(np.diff(middle, axis=axis))
        blurred = np.abs(np.diff(uniform_filter1d(middle, 5, axis=axis), axis=axis))
        shares.append((np.maximum(0, steps - blurred) ** 2).sum() / max(1e-6, float((steps**2).sum())))
    return float(max(shares))
