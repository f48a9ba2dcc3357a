"""Frames as they would be: with an artifact of the recording system taken away, or with a navigation box planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.transform import resize

from monai_label_app.classifier.artifacts import BLACK, BORDER, BOX, Artifacts, Box, Frame, Mask, inside, without_border


@dataclass(frozen=True)
class Patch:
    """Pixels (h, w, 3) uint8, and where on a frame they belong: (x0, y0, x1, y1) as shares of its sides, 0 to 1."""

    pixels: Frame
    place: tuple[float, float, float, float]


DRAWN_BOX = Patch(np.full((8, 8, 3), (18, 163, 134), np.uint8), (0.05, 0.66, 0.34, 0.96))
"""A box in the colour and at the place of Kvasir's, for data that has none."""


def without(frame: Frame, found: Artifacts, artifact: str) -> Frame:
    """A frame without one of its artifacts: a border is filled with the tissue beside it, another painted over.

    Cropping would leave most of a border: the corners of the octagon.
    """
    if artifact == BORDER:
        return without_border(frame, found)
    return _painted(frame, inside(frame, found.navigation_box if artifact == BOX else found.blacked_out))


def cut(frame: Frame, box: Box) -> Patch:
    """What lies in a box of a frame, to be planted on another."""
    (x0, y0, x1, y1), (height, width) = box, frame.shape[:2]
    return Patch(frame[y0:y1, x0:x1], (x0 / width, y0 / height, x1 / width, y1 / height))


def plant(frame: Frame, patch: Patch) -> Frame:
    """A frame with a patch at its place, resized to fit."""
    x0, y0, x1, y1 = _fitted(frame, patch)
    fitted = resize(patch.pixels, (y1 - y0, x1 - x0), order=1, preserve_range=True, anti_aliasing=True)
    planted = frame.copy()
    planted[y0:y1, x0:x1] = np.rint(fitted)
    return planted


def cover(frame: Frame, patch: Patch) -> Frame:
    """A frame painted over where :func:`plant` puts a patch: it hides as much, and shows nothing new."""
    return _painted(frame, inside(frame, _fitted(frame, patch)))


def _painted(frame: Frame, mask: Mask) -> Frame:
    # In the frame's own colour: tissue of another would bring the colours of its class.
    lit = ~mask & (frame.max(axis=2) > BLACK)
    painted = frame.copy()
    painted[mask] = np.median(frame[lit], axis=0) if lit.any() else 0
    return painted


def _fitted(frame: Frame, patch: Patch) -> Box:
    """The place of a patch in pixels, one of them at least."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = np.rint(np.array(patch.place) * (width, height, width, height)).astype(int).tolist()
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)
