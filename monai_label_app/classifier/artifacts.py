"""What the recording system put on a frame and is no tissue: the navigation box and the black border.

Networks read a class from them where classes differ in how often they carry them (the paper, section VII).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from skimage.measure import label, regionprops
from skimage.morphology import closing, opening
from skimage.transform import resize

from explainers.layers import unknown

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in source pixels; column x1 and row y1 are the first outside."""

Frame = NDArray[np.uint8]
"""RGB (H, W, 3)."""

Mask = NDArray[np.bool_]
"""(H, W), true inside."""

BOX, CUT_OUT, BORDER = ARTIFACTS = ("navigation box", "cut-out", "border")

VARIANTS = ("none", "box", "box+border", "inpaint")
"""What :func:`clean` takes away: as in the paper's Table I, and so that nothing black stays in its place."""

_COARSE = 120
"""Pixels of the shorter side at which objects are searched for, before their edges are found in full."""

_BOX_SIDES = (0.12, 0.6)
"""Of the frame's sides, how long the sides of a navigation box may be."""

_BOX_FILL = 0.8
"""Share of its rectangle that a box covers at least; text and the drawing of the endoscope cover the rest."""

_BOX_SPREAD = 10
"""Median deviation from the median colour inside a box, at most: it is painted, tissue under green light is not."""

BLACK = 20
"""Largest grey, of 255, of what the endoscope does not show, borders for one; compression spreads light into it."""

_BORDER = 0.01
"""Share of the frame from which what is black up to its edge is a border, and no shadow."""

_CONTENT = 0.1
"""Share of the frame that the content covers at least; a frame with less light is taken as it is."""

_RIM = 0.03
"""Share of the most lit column, or row, that the first one of the content is lit to."""

_BLUR = 2
"""Standard deviation of the blur of what is filled, in pixels of the coarse frame."""

_EDGE = 2
"""Pixels by which a straight edge may waver."""

_SPECKS = 0.02
"""Share of a black row that may be lit, by compression."""

_BELOW = 0.06
"""Share of the frame's height that tissue may show below a cut-out."""

_UPRIGHT, _LEVEL = 0.25, 0.35
"""Share of the right edge of a cut-out, and of the row above it, that is lit; tissue may be dark. The corner of an
octagon or circle has neither edge.
"""


@dataclass(frozen=True)
class Artifacts:
    """What was found on a frame.

    Attributes:
        navigation_box: the picture of the endoscope's position, painted on green; None if there is none.
        blacked_out: where such a box was cut out before, in the lower left corner of the content; None if nowhere.
        content: the smallest rectangle around what the endoscope shows, an octagon or a circle; the whole frame if
            there is no border.
    """

    navigation_box: Box | None
    blacked_out: Box | None
    content: Box


def find_artifacts(frame: Frame) -> Artifacts:
    """Find the navigation box and the black border of a frame."""
    box = _navigation_box(frame)
    lit = np.maximum(np.maximum(frame[..., 0], frame[..., 1]), frame[..., 2]) > BLACK
    content = _content(lit, box)
    return Artifacts(box, None if box else _blacked_out(lit, content), content)


def _green(frame: Frame, share: float = 1.0) -> NDArray[np.bool_]:
    """Pixels of the box's hue, teal to green, or with a ``share`` of it; dyed tissue is bluer."""
    red, green, blue = (frame[..., channel].astype(np.int16) for channel in range(3))
    bluish = green - blue
    return (green - red > 70 * share) & (bluish > 8 * share) & (bluish < 80)


def _navigation_box(frame: Frame) -> Box | None:
    step = max(1, min(frame.shape[:2]) // _COARSE)
    coarse = frame[::step, ::step]
    green = _green(coarse)
    # Lines and drawings in the box do not divide it.
    for component in regionprops(label(closing(green, np.ones((3, 3))), connectivity=1)):
        y0, x0, y1, x1 = component.bbox
        sides = ((x1 - x0) / green.shape[1], (y1 - y0) / green.shape[0])
        if not all(_BOX_SIDES[0] <= side <= _BOX_SIDES[1] for side in sides):
            continue
        if component.area_filled < _BOX_FILL * component.area_bbox:
            continue
        colours = coarse[component.slice][green[component.slice]].astype(np.float32)
        if np.median(np.abs(colours - np.median(colours, axis=0)).max(axis=1)) <= _BOX_SPREAD:
            return _fitted(frame, (x0 * step, y0 * step, x1 * step, y1 * step), 2 * step)
    return None


def _fitted(frame: Frame, box: Box, margin: int) -> Box:
    """The exact edges of a green rectangle whose edges are known to within ``margin`` pixels."""
    left, top = max(0, box[0] - margin), max(0, box[1] - margin)
    green = _green(frame[top : box[3] + margin, left : box[2] + margin], 0.5)
    columns = np.flatnonzero(green[2 * margin : -2 * margin].mean(axis=0) > 0.5)
    rows = np.flatnonzero(green[:, 2 * margin : -2 * margin].mean(axis=1) > 0.5)
    if not (rows.size and columns.size):
        return box
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _content(lit: NDArray[np.bool_], box: Box | None) -> Box:
    height, width = lit.shape
    step = max(1, min(height, width) // _COARSE)
    if box:
        lit = lit.copy()
        lit[box[1] : box[3], box[0] : box[2]] = False
    # Burned-in text, thin and apart, is no content.
    coarse = opening(lit[::step, ::step], np.ones((3, 3)))
    largest = max(regionprops(label(coarse, connectivity=1)), key=lambda one: one.area, default=None)
    if largest is None or largest.area < _CONTENT * coarse.size:
        return 0, 0, width, height
    y0, x0, y1, x1 = (step * edge for edge in largest.bbox)
    left, top = max(0, x0 - step), max(0, y0 - step)
    near = lit[top : y1 + step, left : x1 + step]
    columns, rows = (np.flatnonzero(share > _RIM * share.max()) for share in (near.mean(axis=0), near.mean(axis=1)))
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _blacked_out(lit: NDArray[np.bool_], content: Box) -> Box | None:
    x0, y0, x1, y1 = content
    width, height = x1 - x0, y1 - y0
    lit = lit[y0:y1, x0:x1]
    # How far black reaches from the left, a row: the same for many rows along the right edge of a cut-out.
    reach = np.where(lit.any(axis=1), lit.argmax(axis=1), width)
    lengths, counts = np.unique(reach[height // 3 :], return_counts=True)
    found: list[Box] = []
    for right in lengths[counts > 0.02 * height].tolist():
        if not max(2 * _EDGE, _BOX_SIDES[0] * width) < right <= _BOX_SIDES[1] * width:
            continue
        black = lit[:, : right - _EDGE].mean(axis=1) <= _SPECKS
        changes = np.flatnonzero(np.diff(np.concatenate([[False], black, [False]])))
        top, bottom = max(
            zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True), key=lambda run: run[1] - run[0]
        )
        tall = (bottom - top) / height
        if not (_BOX_SIDES[0] <= tall <= _BOX_SIDES[1] and height - bottom <= _BELOW * height):
            continue
        upright = (np.abs(reach[top:bottom] - right) <= _EDGE).mean()
        level = lit[max(0, top - 3 * _EDGE) : max(0, top - _EDGE), :right]
        if upright >= _UPRIGHT and level.size and level.mean() >= _LEVEL:
            found.append((x0, y0 + top, x0 + right, y0 + bottom))
    return max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def clean(frame: Frame, found: Artifacts, variant: str) -> tuple[Frame, Box]:
    """Take away what was found on a frame, as the paper does.

    Args:
        frame: is not changed.
        found: of this frame.
        variant: one of :data:`VARIANTS`: nothing, the navigation box blacked out, that and the border cropped, or the
            border cropped and all that shows no tissue filled with the colours of the nearest tissue, blurred.

    Returns:
        The picture, and which part of the frame it is.

    Raises:
        ValueError: no such variant.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    height, width = frame.shape[:2]
    content = found.content if variant in ("box+border", "inpaint") else (0, 0, width, height)
    x0, y0, x1, y1 = content
    if variant == "inpaint":
        hidden = np.any([np.zeros(frame.shape[:2], bool), *masks(frame, found).values()], axis=0)
        return _filled(frame[y0:y1, x0:x1], hidden[y0:y1, x0:x1]), content
    cleaned = frame.copy()
    if found.navigation_box and variant != "none":
        left, top, right, bottom = found.navigation_box
        # Compression blurs the box over its edges.
        cleaned[max(0, top - _EDGE) : bottom + _EDGE, max(0, left - _EDGE) : right + _EDGE] = 0
    return cleaned[y0:y1, x0:x1], content


def masks(frame: Frame, found: Artifacts) -> dict[str, Mask]:
    """Where the artifacts of a frame lie: artifact → mask, of those that it carries. No two share a pixel.

    The border is what is black up to the edge of the frame and belongs to no box or cut-out.
    """
    boxes = {BOX: found.navigation_box, CUT_OUT: found.blacked_out}
    made = {name: inside(frame, box) for name, box in boxes.items() if box}
    regions = label(frame.max(axis=2) <= BLACK, connectivity=1)
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    border = np.isin(regions, np.unique(edges[edges > 0]))
    for mask in made.values():
        border &= ~mask
    return {**made, BORDER: border} if border.mean() >= _BORDER else made


def without_border(frame: Frame, found: Artifacts) -> Frame:
    """A frame whose border, if it has one, has the blurred colours of the tissue beside it; a box stays as it is."""
    there = masks(frame, found)
    if BORDER not in there:
        return frame.copy()
    made = _filled(frame, np.any(list(there.values()), axis=0))
    boxes = inside(frame, found.navigation_box) | inside(frame, found.blacked_out)
    return np.where(boxes[..., None], frame, made)


def _filled(frame: Frame, hidden: Mask) -> Frame:
    if not hidden.any() or hidden.all():
        return frame.copy()
    hidden = binary_dilation(hidden, iterations=_EDGE)
    # What is blurred need not be made in full.
    step = max(1, min(hidden.shape) // _COARSE)
    nearest = distance_transform_edt(hidden[::step, ::step], return_distances=False, return_indices=True)
    colours = frame[::step, ::step][tuple(nearest)].astype(np.float32)
    blurred = gaussian_filter(colours, (_BLUR, _BLUR, 0), mode="nearest")
    made = resize(blurred, frame.shape, order=1, preserve_range=True)
    return np.where(hidden[..., None], np.rint(made).astype(np.uint8), frame)


def inside(frame: Frame, box: Box | None) -> Mask:
    """Where a box lies on a frame; nowhere if there is none."""
    mask = np.zeros(frame.shape[:2], dtype=bool)
    if box:
        x0, y0, x1, y1 = box
        mask[y0:y1, x0:x1] = True
    return mask
