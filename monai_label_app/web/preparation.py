"""What lies on a frame that is no tissue, and what of it the network was not shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from explainers import regions
from explainers.faithfulness import energy_in_mask
from monai_label_app.classifier.artifacts import BORDER, BOX, CUT_OUT, Artifacts, Mask, find_artifacts, masks

Outline = list[tuple[float, float]]
"""Corners (x, y) in pixels of the frame; (0, 0) is the outer corner of the first."""

_REMOVED: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "box": {BOX: "blacked out"},
    "box+border": {BOX: "blacked out", BORDER: "cropped"},
    "inpaint": {BOX: "painted over", CUT_OUT: "painted over", BORDER: "cropped and painted over"},
}
"""What :func:`monai_label_app.classifier.artifacts.clean` does to each artifact, by its variant."""

_COARSE = 240
"""Pixels of the shorter side at which the border is outlined."""


@dataclass(frozen=True)
class Artifact:
    """One thing on a frame that is no tissue.

    Attributes:
        name: "navigation box", "cut-out" or "border".
        outline: around it; of the border, around the picture inside.
        removed: what was done to it before the network looked; empty if nothing.
    """

    name: str
    outline: Outline
    removed: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame's pixels, (H, W, 3) uint8 RGB, and what lies on them. It is looked for when it is first asked for."""

    pixels: NDArray[np.uint8]

    @cached_property
    def found(self) -> Artifacts:
        """The boxes of what was found."""
        return find_artifacts(self.pixels)

    @cached_property
    def masks(self) -> Mapping[str, Mask]:
        """Artifact → where it lies, (H, W); only what the frame carries."""
        return masks(self.pixels, self.found)

    def shares(self, saliency: NDArray[np.float32]) -> dict[str, float]:
        """Artifact → the share of a map (H, W) that lies on it, 0 to 1."""
        return {name: energy_in_mask(saliency, mask) for name, mask in self.masks.items()}

    def artifacts(self, variant: str) -> list[Artifact]:
        """What was found, and what became of it under one of :data:`monai_label_app.classifier.artifacts.VARIANTS`."""
        boxes = {BOX: self.found.navigation_box, CUT_OUT: self.found.blacked_out}
        return [
            Artifact(
                name,
                _corners(box) if (box := boxes.get(name)) else _around(~mask),
                _REMOVED[variant].get(name, ""),
            )
            for name, mask in self.masks.items()
        ]


def in_words(artifacts: list[Artifact]) -> str:
    """What was found and removed, in one or two sentences."""
    if not artifacts:
        return "No navigation box, cut-out or border was found."
    found = f"Found: {', '.join(one.name for one in artifacts)}."
    removed = [f"the {one.name} ({one.removed})" for one in artifacts if one.removed]
    if not removed:
        return f"{found} The network saw the frame with {'it' if len(artifacts) == 1 else 'them'}."
    return f"{found} Removed before the network looked: {' and '.join(removed)}."


def _corners(box: tuple[int, int, int, int]) -> Outline:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _around(mask: Mask) -> Outline:
    """The outline of the largest part of a mask, as fine as is worth drawing."""
    step = max(1, min(mask.shape) // _COARSE)
    found = regions(mask[::step, ::step])
    return [(float(x), float(y)) for x, y in step * found[0].contour] if found else []
