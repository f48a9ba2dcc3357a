"""What an analysis is asked for, what came of it, and how that is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.study import Problem
from report.findings import GRAD_CAM, Algorithm


@dataclass(frozen=True)
class Wanted:
    """What an analysis writes beside a Grad-CAM heatmap of every frame and the findings, and how.

    Attributes:
        guided: guided Grad-CAM heatmaps too.
        layer_walk: a series that shows the Grad-CAM of the last layer of each size, from the first to the last.
        caption: a strip under every heatmap says what it is.
        compression: of heatmaps, one of :data:`report.secondary_capture.COMPRESSIONS`.
        comprehensive_3d: a Comprehensive 3D SR in the place of a Comprehensive SR.
        segmentation: the regions of every frame as a Segmentation too.
        key_images: a Key Object Selection of the surest image of each class, with its heatmap.
        report: a draft of the examination's report, as a Structured Report, as PDF and in FHIR.
    """

    guided: bool = False
    layer_walk: bool = False
    caption: bool = True
    compression: str = "lossless"
    comprehensive_3d: bool = False
    segmentation: bool = False
    key_images: bool = False
    report: bool = False


USUAL = Wanted()
"""Nothing beside."""


@dataclass
class FrameResult:
    """A frame's line in ``summary.json``; ``outputs`` are the objects that speak of it."""

    source: str
    sop_instance_uid: str
    frame: int
    predicted: str
    probabilities: dict[str, float]
    regions: list[dict[str, Any]]
    outputs: list[str] = field(default_factory=list)


@dataclass
class StudyResult:
    """What came of a study: frames, the result objects in the order they were made, and what was left out.

    ``fhir`` is the draft of the report as JSON, where it was wanted; ``videos`` and ``segments`` are the lines of
    ``summary.json`` on videos, and ``files`` what else was written beside the objects.
    """

    study_uid: str
    fhir: str = ""
    frames: list[FrameResult] = field(default_factory=list)
    objects: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    videos: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def rename(self, place: Callable[[str], str]) -> None:
        """Name every result in every line anew, where it lies now."""
        for frame in self.frames:
            frame.outputs = [place(output) for output in frame.outputs]
        for line in [*self.videos, *self.segments]:
            line.update({key: place(line[key]) for key in ("still", "clip", "clip_dicom", "timeline") if line.get(key)})


def algorithm_of(classifier: Classifier) -> Algorithm:
    """The classifier as the report names it."""
    card = classifier.card
    return Algorithm(card.name, classifier.version, card.notice, calibrated=card.temperature != 1)


def summary(classifier: Classifier, results: list[StudyResult], problems: list[Problem]) -> str:
    """``summary.json``: the model, every frame with its regions in source pixels, and what was left out."""
    card = classifier.card
    left_out = [*problems, *(problem for result in results for problem in result.problems)]
    content = {
        "model": {
            "name": card.name,
            "version": classifier.version,
            "architecture": card.architecture,
            "classes": list(card.classes),
            "method": GRAD_CAM,
            "layer": card.target_layer,
            "notice": card.notice,
        },
        "frames": [vars(line) for result in results for line in result.frames],
        "videos": [line for result in results for line in result.videos],
        "segments": [line for result in results for line in result.segments],
        "problems": [vars(problem) for problem in left_out],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def write(dataset: Dataset, folder: Path, written: list[Path]) -> Path:
    """Write an object into a folder, which is made if it is not there; its path is added to those ``written``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    written.append(path)
    return path
