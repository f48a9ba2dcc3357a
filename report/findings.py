"""What was found and who found it: plain frozen data that every report object is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom import Dataset

GRAD_CAM, GUIDED_GRAD_CAM = "Grad-CAM", "Guided Grad-CAM"
"""Methods by the names that reports give them."""


def as_reported(probability: float) -> float:
    """A probability, 0 to 1, as reports hold it, to a hundredth of a percent; but 0 and 1 only where it is so."""
    rounded = round(probability, 4)
    return min(max(rounded, 0.0001), 0.9999) if 0 < probability < 1 else rounded


def in_percent(probability: float) -> float:
    """The number of percent that reports hold of a probability, 0 to 1."""
    return round(100 * as_reported(probability), 2)


@dataclass(frozen=True)
class Algorithm:
    """The machine that speaks.

    Attributes:
        name: of the model, e.g. ``endolens-demo``.
        version: that tells two sets of weights apart.
        notice: what must be read beside every result, e.g. ``demonstration model, not for clinical use``; may be empty.
        calibrated: its probabilities were fitted to how often it is right.
    """

    name: str
    version: str
    notice: str = ""
    calibrated: bool = False


@dataclass(frozen=True)
class Explanation:
    """How a heatmap was made: method, target layer, class and the class's probability (0 to 1, else ValueError)."""

    method: str
    layer: str
    label: str
    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability of {self.probability} is none from 0 to 1")


@dataclass(frozen=True)
class Finding:
    """One region of one frame that speaks for a class.

    Attributes:
        explanation: the class, its probability for the whole frame, and the map that the region was cut from.
        sop_instance_uid, frame_number: the source image and its frame, counted from 1.
        contour: closed polygon of (x, y) in source pixels, (0, 0) the outer corner of the first pixel; the image's
            own outline where nothing in the frame stands out. ValueError if a number of it is not finite.
        whole_image: the contour is that outline.
        number: counts the regions of a frame from 1.
        captures: SOP Instance UIDs of the Secondary Captures that show why.
    """

    explanation: Explanation
    sop_instance_uid: str
    frame_number: int
    contour: tuple[tuple[float, float], ...]
    whole_image: bool = False
    number: int = 1
    captures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for point in self.contour for value in point):
            raise ValueError("a contour has numbers that are not finite")


@dataclass(frozen=True)
class Segment:
    """A part of a video in which a class is seen.

    Attributes:
        label: the class.
        start, end: in seconds after the first frame.
        peak, mean: of the class's probability, 0 to 1.
        still: SOP Instance UID of the image that stands for it; empty if what it shows is shown already.
        time: of the still, in seconds.
        video: SOP Instance UID of the DICOM object that shows it: the video, or its clip where that is no DICOM.
        begun, ended: when that object begins and ends, in the same seconds as the other times.
        frame: number of the still in that object, from 1.
    """

    label: str
    start: float
    end: float
    peak: float
    mean: float
    still: str = ""
    time: float = 0.0
    video: str = ""
    begun: float = 0.0
    ended: float = math.inf
    frame: int = 1


@dataclass(frozen=True)
class Footage:
    """What a machine saw in the videos of a study.

    Attributes:
        segments: what was seen when.
        looked_at: frames that were classified.
        frames: frames that were sampled, with those that showed nothing.
        landmarks: sites that the machine can tell → whether one was seen; see :mod:`report.completeness`.
        videos: headers of the DICOM objects that show the segments.
    """

    segments: tuple[Segment, ...] = ()
    looked_at: int = 0
    frames: int = 0
    landmarks: tuple[tuple[str, bool], ...] = ()
    videos: tuple[Dataset, ...] = ()


NO_VIDEO = Footage()
"""Of a study without videos."""
