"""From a map to contours and boxes: where a finding is, in words a viewer understands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from shapely import get_coordinates, linestrings, simplify
from skimage.measure import find_contours, label, regionprops

from explainers.heatmap import finite

THRESHOLD = 0.5
"""A region is where the map reaches this share of its own maximum."""

MINIMUM_AREA = 0.002
"""Regions below this share of the image are dropped as specks."""

_TRIANGLE = 4
"""Points of the smallest closed polygon; what barely reaches the threshold encloses nothing."""


@dataclass(frozen=True)
class Region:
    """One connected region of a map.

    Coordinates are continuous image coordinates (x, y): (0, 0) is the outer corner of the first pixel, (width,
    height) that of the last, as in DICOM's SCOORD (PS3.3 C.18.6.1.2); the centre of the first pixel is (0.5, 0.5).

    Attributes:
        contour: (points, 2) float, closed: the last point repeats the first.
        box: (x0, y0, x1, y1), the smallest upright rectangle around the contour.
        area: of what is outlined, holes included, in pixels.
    """

    contour: NDArray[np.float64]
    box: tuple[float, float, float, float]
    area: float


def regions(saliency: ArrayLike, threshold: float = THRESHOLD, minimum_area: float = MINIMUM_AREA) -> list[Region]:
    """Outline where a map (H, W) is at least ``threshold`` of its maximum, the largest region first.

    Holes are part of the region around them, with all that lies in them. An all-zero map has no region.

    Raises:
        ValueError: the map has other than two dimensions or values that are not finite numbers, or the threshold is not
            above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is a share of the map's maximum, above 0 and at most 1, not {threshold}")
    values = finite(saliency)
    peak = values.max(initial=0.0)
    if not peak > 0:
        return []
    below = np.nextafter(threshold, 0)
    # All that is in question, and what lies beside it. A ring of zeros closes contours that leave the image.
    lines = (np.flatnonzero(values.max(axis=axis) / peak >= threshold) for axis in (1, 0))
    around = tuple(slice(max(0, line[0] - 1), line[-1] + 2) for line in lines)
    asked = values[around]
    padded = np.zeros([length + 2 for length in asked.shape])
    np.divide(asked, peak, out=padded[1:-1, 1:-1])
    # A region is connected by edges, so what surrounds it by corners too. What does not hang together with the ring is
    # a hole, and part of the region around it.
    outside = label(padded < threshold, connectivity=2)
    components = label(outside != outside[0, 0], connectivity=1)
    found = []
    for component in regionprops(components):
        if component.area < minimum_area * values.size:
            continue
        place = tuple(slice(part.start - 1, part.stop + 1) for part in component.slice)
        # Only this component stands above the threshold: one closed outline, or none around a pixel that barely
        # reaches it.
        inside = components[place] == component.label
        alone = np.minimum(padded[place], below)
        np.maximum(padded[place], threshold, out=alone, where=inside)
        for outline in find_contours(alone, below):
            corner = [part.start + whole.start for part, whole in zip(place, around, strict=True)]
            contour = _contour(outline + corner, values.shape)
            if len(contour) >= _TRIANGLE and np.ptp(contour, axis=0).all():
                found.append(Region(contour, _box(contour), float(component.area)))
    return sorted(found, key=lambda region: -region.area)


def _contour(outline: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    # From (row, column) at pixel centres of the padded map to (x, y) at pixel corners of the map itself.
    simple = simplify(linestrings(outline), tolerance=0.25, preserve_topology=False)
    contour = get_coordinates(simple)[:, ::-1] - 0.5
    return np.clip(contour, 0, np.array(shape[::-1]))


def _box(contour: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = contour.min(axis=0), contour.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
