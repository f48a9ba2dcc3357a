"""The main job, top to bottom: a study → predictions → maps → findings → DICOM objects.

Threads share it: one reads images, some run the network on them, one makes the objects.
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from pydicom import Dataset

from explainers import heatmap
from monai_label_app.ahead import ahead
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, UnreadableError, frames, in_one_line, require_size
from monai_label_app.proposal import propose
from monai_label_app.results import USUAL, FrameResult, StudyResult, Wanted, algorithm_of, write
from monai_label_app.seeing import Heatmap, Look, Seen, at_once, compute_alone, look
from monai_label_app.study import Instance, Problem, Study
from report.attributes import CONVERTER, header_of
from report.findings import NO_VIDEO, Explanation, Finding, Footage, as_reported
from report.secondary_capture import heatmap_capture
from report.segmentation import segmentation
from report.structured_report import findings_report

_AHEAD = 2
"""Frames that are read before the network is free for them, and that wait for their objects."""

_OF_AN_IMAGE = (ValueError, TypeError, AttributeError, KeyError, IndexError)
"""What libraries raise of an image that they cannot use."""

_COLOURS = heatmap.colourise(np.linspace(0, 1, 256))


@dataclass
class _Image:
    """An instance on its way through the analysis, and what came of it so far, which an error undoes."""

    instance: Instance
    header: Dataset = field(default_factory=Dataset)
    still: list[Path] = field(default_factory=list)
    looked: int = 0
    written: list[Path] = field(default_factory=list)
    lines: list[FrameResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    captures: list[Dataset] = field(default_factory=list)
    error: Exception | None = None

    @property
    def problem(self) -> Problem:
        """The error, for the user."""
        assert self.error
        origin, unreadable = self.instance.origin, isinstance(self.error, UnreadableError)
        return Problem(
            origin, str(self.error) if unreadable else f"{origin} cannot be reported: {in_one_line(self.error)}"
        )


def analyze(
    study: Study,
    classifier: Classifier,
    folder: Path,
    progress: Callable[[int], None] = lambda frames: None,
    wanted: Wanted = USUAL,
    footage: Footage = NO_VIDEO,
) -> StudyResult:
    """Analyse a study's images and write its result objects as DICOM files.

    An instance that cannot be read is left out and named in the result; the others are analysed.

    Args:
        study: the images.
        classifier: the network.
        folder: exists; gets ``stills/`` (images made from pictures), ``heatmaps/`` and ``findings/``.
        progress: called with the number of frames that are done since the last call, by another thread too; what it
            raises ends the work.
        wanted: which objects.
        footage: what was seen in the study's videos, whose stills are among the images.
    """
    result = StudyResult(study.uid)
    images = [_Image(instance) for instance in study.instances]
    numbers = count(1)
    under_way = at_once(classifier) + _AHEAD
    with (
        ThreadPoolExecutor(1, "objects", initializer=compute_alone) as objects,
        closing(ahead(_frames(images, folder), _AHEAD)) as read,
    ):

        def add(image: _Image, frame: Frame, looked: Future[Look]) -> None:
            _add(image, frame, looked, classifier, next(numbers), wanted, folder)
            progress(1)

        waiting: deque[tuple[Future[Look], Future[None]]] = deque()
        try:
            for image, frame in read:
                looked = look(frame.pixels, classifier, wanted.guided, wanted.layer_walk)
                waiting.append((looked, objects.submit(add, image, frame, looked)))
                if len(waiting) > under_way:
                    waiting.popleft()[1].result()
            for _, added in waiting:
                added.result()
        finally:
            # The network's threads are not this study's alone.
            for looked, _ in waiting:
                looked.cancel()
            objects.shutdown(cancel_futures=True)
    findings: list[Finding] = []
    sources: list[Dataset] = []
    captures: list[Dataset] = []
    for image in images:
        progress(image.instance.frame_count - image.looked)  # those of an instance that is left out
        if image.error:
            # A frame may be damaged after good ones: of such an instance nothing is kept.
            for path in image.written:
                path.unlink()
            result.problems.append(image.problem)
            continue
        result.frames += image.lines
        result.objects += image.written
        findings += image.findings
        captures += image.captures
        sources.append(image.header)
    if findings:
        algorithm = algorithm_of(classifier)
        document = findings_report(findings, sources, algorithm, captures, wanted.comprehensive_3d, footage)
        report = write(document, folder / "findings", result.objects)
        for line in result.frames:
            line.outputs.append(str(report))
        propose(study, result, findings, [*sources, *captures], classifier, wanted, folder, footage)
    _spare_the_collector()
    return result


@cache
def _spare_the_collector() -> None:
    """Have Python's collector pass over what the first study loaded: it took a third of a second every few studies."""
    gc.freeze()


def captures_of(
    source: Dataset, frame: Frame, seen: Seen, classifier: Classifier, number: int = 1, wanted: Wanted = USUAL
) -> list[Dataset]:
    """The Secondary Captures of a frame's heatmaps; ``number`` is the frame's place in the study."""
    captures: list[Dataset] = []
    in_series = Counter(one.series for one in seen.heatmaps)
    place = Counter({series: (number - 1) * count for series, count in in_series.items()})
    for one in seen.heatmaps:
        place[one.series] += 1
        captures.append(
            heatmap_capture(
                source,
                frame.number,
                heatmap.overlay(frame.pixels, one.saliency),
                _explanation(one, seen),
                algorithm_of(classifier),
                instance_number=place[one.series],
                series=one.series,
                colours=_COLOURS if wanted.caption else None,
                compression=wanted.compression,
            )
        )
    return captures


def findings_of(source: Dataset, frame: Frame, seen: Seen, captures: Sequence[Dataset] = ()) -> list[Finding]:
    """One finding a region; where nothing stands out, one on the whole image that says so."""
    height, width = frame.pixels.shape[:2]
    outline = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height), (0.0, 0.0))
    # In single precision, as a report holds it: what is read back is what was found.
    contours = [tuple(map(tuple, region.contour.astype(np.float32).tolist())) for region in seen.regions]
    return [
        Finding(
            _explanation(seen.heatmaps[0], seen),
            source.SOPInstanceUID,
            frame.number,
            contour,
            whole_image=not contours,
            number=number,
            captures=tuple(capture.SOPInstanceUID for capture in captures),
        )
        for number, contour in enumerate(contours or [outline], start=1)
    ]


def _frames(images: Sequence[_Image], folder: Path) -> Iterator[tuple[_Image, Frame]]:
    """Every frame that can be looked at, and its image; one that cannot be read gets the error."""
    patient = None
    for image in images:
        origin = image.instance.origin
        try:
            dataset = image.instance.read()
            if patient and [dataset.get("PatientID")] != patient:
                raise UnreadableError(f"{origin} has another Patient ID than the rest of its study")
            if image.instance.converted:
                dataset.InstanceCreatorUID = CONVERTER
                image.still = [write(dataset, folder / "stills", image.written)]
            image.header = header_of(dataset)  # without pixels: a long study does not fill the memory
            for frame in frames(dataset, origin):
                require_size(frame.pixels, origin)
                yield image, frame
        except _OF_AN_IMAGE as error:
            image.error = error
        else:
            patient = patient or [dataset.get("PatientID")]


def _add(
    image: _Image, frame: Frame, looked: Future[Look], classifier: Classifier, number: int, wanted: Wanted, folder: Path
) -> None:
    """Make and write the objects of a frame, ``number`` of its study; where that fails, its image gets the error."""
    image.looked += 1
    if image.error:
        return
    try:
        header, seen = image.header, looked.result().seen(classifier.card.classes)
        made = captures_of(header, frame, seen, classifier, number, wanted)
        outputs = [*image.still, *(write(capture, folder / "heatmaps", image.written) for capture in made)]
        new = findings_of(header, frame, seen, made)
        if wanted.segmentation and seen.regions:
            regions_of = segmentation(new, header, algorithm_of(classifier), number)
            outputs.append(write(regions_of, folder / "segmentations", image.written))
        image.lines.append(_frame_result(image.instance, header, frame, seen, outputs))
        image.findings += new
        image.captures += map(header_of, made)
    except _OF_AN_IMAGE as error:
        image.error = error


def _explanation(one: Heatmap, seen: Seen) -> Explanation:
    return Explanation(one.method, one.layer, seen.predicted, as_reported(seen.probabilities[seen.predicted]))


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
