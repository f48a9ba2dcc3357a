"""The main job, top to bottom: a study → predictions → maps → findings → DICOM objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from explainers import Region, heatmap, regions
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, UnreadableError, frames, in_one_line, require_size
from monai_label_app.study import Instance, Problem, Study
from report.attributes import CONVERTER
from report.findings import Algorithm, Explanation, Finding
from report.secondary_capture import heatmap_capture
from report.structured_report import findings_report

METHOD = "Grad-CAM"
BATCH = 8


@dataclass(frozen=True)
class Seen:
    """What the network saw in one frame.

    Attributes:
        predicted: the class with the highest probability.
        probabilities: class → probability, 0 to 1, summing to 1.
        saliency: Grad-CAM of the predicted class, (H, W) at source size, 0 to 1 of its own maximum.
        regions: of that map, the largest first; none where the map is zero.
    """

    predicted: str
    probabilities: dict[str, float]
    saliency: NDArray[np.float32]
    regions: list[Region]


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
    """What came of a study: frames, the result objects in the order they were made, and what was left out."""

    study_uid: str
    frames: list[FrameResult] = field(default_factory=list)
    objects: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def analyze(
    study: Study, classifier: Classifier, folder: Path, progress: Callable[[], None] = lambda: None
) -> StudyResult:
    """Analyse a study and write its result objects as DICOM files.

    An instance that cannot be read is left out and named in the result; the others are analysed.

    Args:
        study: the images.
        classifier: the network.
        folder: exists; gets ``stills/`` (images made from pictures), ``heatmaps/`` and ``findings/``.
        progress: called after every instance.
    """
    result = StudyResult(study.uid)
    findings: list[Finding] = []
    sources: list[Dataset] = []
    for instance in study.instances:
        written: list[Path] = []
        try:
            dataset = instance.read()
            if sources and dataset.get("PatientID") != sources[0].get("PatientID"):
                raise UnreadableError(f"{instance.origin} has another Patient ID than the rest of its study")
            still: list[Path] = []
            if instance.converted:
                dataset.InstanceCreatorUID = CONVERTER
                still.append(_write(dataset, folder / "stills", written))
            lines: list[FrameResult] = []
            found: list[Finding] = []
            for frame, seen in see(dataset, instance.origin, classifier):
                number = len(result.frames) + len(lines) + 1
                capture = capture_of(dataset, frame, seen, classifier, instance_number=number)
                outputs = [*still, _write(capture, folder / "heatmaps", written)]
                lines.append(_frame_result(instance, dataset, frame, seen, outputs))
                found += findings_of(dataset, frame, seen, classifier)
        except (ValueError, TypeError) as error:
            # A frame may be damaged after good ones: of such an instance nothing is kept.
            for path in written:
                path.unlink()
            unreadable = isinstance(error, UnreadableError)
            reason = str(error) if unreadable else f"{instance.origin} cannot be reported: {in_one_line(error)}"
            result.problems.append(Problem(instance.origin, reason))
        else:
            result.frames += lines
            result.objects += written
            findings += found
            del dataset.PixelData
            sources.append(dataset)
        progress()
    if findings:
        report = _write(
            findings_report(findings, sources, algorithm_of(classifier)), folder / "findings", result.objects
        )
        for line in result.frames:
            line.outputs.append(str(report))
    return result


def see(dataset: Dataset, origin: str, classifier: Classifier, only: int | None = None) -> Iterator[tuple[Frame, Seen]]:
    """Predict and explain every frame of an image, or ``only`` this one, a batch at a time.

    Raises:
        UnreadableError: its pixels cannot be used, or it is too small.
    """
    remaining = frames(dataset, origin, only)
    while batch := list(islice(remaining, BATCH)):
        layer = classifier.card.target_layer
        dissection, geometries = classifier.dissect([require_size(frame.pixels, origin) for frame in batch])
        top = dissection.probabilities.argmax(dim=1).tolist()
        maps = dissection.grad_cam(layer, top).cpu().numpy()
        for index, frame in enumerate(batch):
            saliency = heatmap.normalise(geometries[index].to_source(maps[index]))
            named = dict(zip(classifier.card.classes, dissection.probabilities[index].tolist(), strict=True))
            yield frame, Seen(classifier.card.classes[top[index]], named, saliency, regions(saliency))


def algorithm_of(classifier: Classifier) -> Algorithm:
    """The classifier as the report names it."""
    return Algorithm(classifier.card.name, classifier.version, classifier.card.notice)


def explanation_of(seen: Seen, classifier: Classifier) -> Explanation:
    """How the map of a frame was made."""
    return Explanation(METHOD, classifier.card.target_layer, seen.predicted, seen.probabilities[seen.predicted])


def capture_of(source: Dataset, frame: Frame, seen: Seen, classifier: Classifier, instance_number: int = 1) -> Dataset:
    """The Secondary Capture of a frame's heatmap."""
    picture = heatmap.overlay(frame.pixels, seen.saliency)
    explanation, algorithm = explanation_of(seen, classifier), algorithm_of(classifier)
    return heatmap_capture(source, frame.number, picture, explanation, algorithm, instance_number)


def findings_of(source: Dataset, frame: Frame, seen: Seen, classifier: Classifier) -> list[Finding]:
    """One finding a region; where nothing stands out, one on the whole image that says so."""
    height, width = frame.pixels.shape[:2]
    outline = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height), (0.0, 0.0))
    contours = [tuple((float(x), float(y)) for x, y in region.contour) for region in seen.regions]
    return [
        Finding(
            explanation_of(seen, classifier),
            source.SOPInstanceUID,
            frame.number,
            contour,
            whole_image=not contours,
            number=number,
        )
        for number, contour in enumerate(contours or [outline], start=1)
    ]


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
            "method": METHOD,
            "layer": card.target_layer,
            "notice": card.notice,
        },
        "frames": [vars(line) for result in results for line in result.frames],
        "problems": [vars(problem) for problem in left_out],
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _frame_result(instance: Instance, dataset: Dataset, frame: Frame, seen: Seen, outputs: list[Path]) -> FrameResult:
    return FrameResult(
        source=instance.origin,
        sop_instance_uid=dataset.SOPInstanceUID,
        frame=frame.number,
        predicted=seen.predicted,
        probabilities=seen.probabilities,
        regions=[
            {
                "class": seen.predicted,
                "contour": region.contour.round(2).tolist(),
                "box": [round(v, 2) for v in region.box],
            }
            for region in seen.regions
        ],
        outputs=[str(path) for path in outputs],
    )


def _write(dataset: Dataset, folder: Path, written: list[Path]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    written.append(path)
    return path
