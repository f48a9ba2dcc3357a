"""What a class is read from on a frame, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from explainers import Region
from report.language import ENGLISH

WORTH_A_WARNING = 0.25
"""From this share of the evidence on, an artifact is named."""


@dataclass(frozen=True)
class Evidence:
    """The Grad-CAM of a layer for a class, on a frame.

    Attributes:
        layer, label: of the map.
        predicted: the label is the class that the network takes the frame for.
        probability: of the class, 0 to 1.
        regions: where the map is at least half of its maximum, in pixels of the frame, the largest first.
        shares: artifact → share of the map that lies on it, 0 to 1, of those that the frame has.
        width, height: of the frame.
    """

    layer: str
    label: str
    predicted: bool
    probability: float
    regions: Sequence[Region]
    shares: Mapping[str, float]
    width: int
    height: int

    @property
    def sentence(self) -> str:
        """What is seen, in one plain sentence."""
        likely = ENGLISH.percent(self.probability)
        begin = f"takes this frame for {self.label} ({likely})" if self.predicted else f"gives {self.label} {likely}"
        if not self.regions:
            return f"The network {begin}; in {self.layer} nothing stands out for it."
        x0, y0, x1, y1 = self.regions[0].box
        place = _place((x0 + x1) / 2 / self.width, (y0 + y1) / 2 / self.height)
        area = sum(one.area for one in self.regions) / (self.width * self.height)
        where = place if len(self.regions) == 1 else f"in {len(self.regions)} regions, the largest {place}"
        return f"The network {begin}; its evidence in {self.layer} lies {where}, on {100 * area:.0f} % of the picture."


def warnings(label: str, shares: Mapping[str, float]) -> list[str]:
    """A sentence for each artifact that a good part of the evidence for a class lies on.

    Args:
        label: the class.
        shares: artifact → share of the evidence that lies on it, 0 to 1.
    """
    return [
        f"{100 * share:.0f} % of the evidence for {label} lies on the {name}, not on tissue."
        for name, share in shares.items()
        if share >= WORTH_A_WARNING
    ]


def _place(x: float, y: float) -> str:
    """Where a point is, given as shares of width and height."""
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    down = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    if not (across or down):
        return "in the middle"
    return f"in the {' '.join(filter(None, (down, across)))} part"
