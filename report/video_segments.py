"""What was seen when in videos, as measurement groups of a findings report, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TcoordContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from report.attributes import PERCENT, identification, is_multi_frame
from report.findings import Algorithm, Segment, in_percent
from report.terms import PRIVATE, plain_text, term
from report.uids import derive

_CLASS = "Class:"
_SEGMENTS = CodedConcept("VIDEO-SEGMENTS", PRIVATE, "Segments of videos")
_SOURCE = CodedConcept("121112", "DCM", "Source of Measurement")
_BEST = CodedConcept(*codes.DCM.BestIllustrationOfFinding[:3])
_MEAN, _PEAK = (CodedConcept(*code[:3]) for code in (codes.SCT.Mean, codes.SCT.Maximum))


def segments_container(
    segments: Sequence[Segment], videos: Mapping[str, Dataset], stills: Mapping[str, Dataset], algorithm: Algorithm
) -> ContainerContentItem:
    """The part of a findings report on videos: one TID 1501 group a segment.

    It stands beside the findings and not among them, where viewers look for places on images and fail without one.

    Args:
        segments: each with its video.
        videos, stills: SOP Instance UID → header, of all that the segments name.
        algorithm: the model.
    """
    container = ContainerContentItem(_SEGMENTS, relationship_type=RelationshipTypeValues.CONTAINS)
    groups = [_group(one, videos[one.video], stills.get(one.still), algorithm) for one in segments]
    container.ContentSequence = ContentSequence(groups)
    return container


def read_segments(report: Dataset) -> list[Segment]:
    """The segments that a findings report names, with times in seconds of the video that each names.

    Times come back to a millisecond, probabilities to a hundredth of a percent, as the report holds them.
    """
    return [
        _segment(group.ContentSequence)
        for part in report.get("ContentSequence") or []
        if _concept(part) == _SEGMENTS.value
        for group in part.ContentSequence
    ]


def _group(segment: Segment, video: Dataset, still: Dataset | None, algorithm: Algorithm) -> ContentItem:
    meaning, label = term(segment.label), plain_text(segment.label)
    start, end = (
        round(min(max(moment, segment.begun), segment.ended) - segment.begun, 3)
        for moment in (segment.start, segment.end)
    )
    uid = derive("segment", segment.video, start, end, segment.label, algorithm.version)
    said = "calibrated" if algorithm.calibrated else "not calibrated"
    group: Any
    (group,) = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=uid, identifier=f"{label}, {start:.3f} s to {end:.3f} s of a video"),
        finding_type=meaning.finding,
        finding_sites=[FindingSite(meaning.site)] if meaning.site else None,
        algorithm_id=identification(
            algorithm, [f"{_CLASS} {label}", f"Probability: of the frames that were looked at, {said}"]
        ),
        measurements=[
            Measurement(codes.DCM.Probability, in_percent(chance), PERCENT, derivation=derivation)
            for chance, derivation in ((segment.mean, _MEAN), (segment.peak, _PEAK))
        ],
    )
    group.ContentSequence.append(_times(_SOURCE, "SEGMENT", [start, end], _image(video)))
    if still is not None:
        best = _image(still, _BEST, RelationshipTypeValues.CONTAINS)
        moment = round(segment.time - segment.begun, 3)
        frame = [segment.frame] if is_multi_frame(video) else None
        group.ContentSequence.extend([best, _times(_BEST, "POINT", [moment], _image(video, frames=frame))])
    return group


def _times(name: CodedConcept, kind: str, seconds: list[float], video: ImageContentItem) -> TcoordContentItem:
    item = TcoordContentItem(
        name, kind, referenced_time_offsets=seconds, relationship_type=RelationshipTypeValues.CONTAINS
    )
    item.ContentSequence = ContentSequence([video])
    return item


def _image(
    header: Dataset,
    name: CodedConcept = _SOURCE,
    relation: RelationshipTypeValues = RelationshipTypeValues.SELECTED_FROM,
    frames: list[int] | None = None,
) -> ImageContentItem:
    return ImageContentItem(name, header.SOPClassUID, header.SOPInstanceUID, frames, relationship_type=relation)


def _segment(items: Sequence[Dataset]) -> Segment:
    named = {(_concept(item), item.ValueType): item for item in items}
    chances = {
        modifier.ConceptCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in items
        if item.ValueType == "NUM"
        for modifier in item.ContentSequence
    }
    label = next(
        item.TextValue.removeprefix(_CLASS).removeprefix(" ")
        for item in items
        if _concept(item) == codes.DCM.AlgorithmParameters.value and item.TextValue.startswith(_CLASS)
    )
    source = named[_SOURCE.value, "TCOORD"]
    start, end = map(float, source.ReferencedTimeOffsets)
    peak, mean = (round(chances[code.value] / 100, 4) for code in (_PEAK, _MEAN))
    segment = Segment(label, start, end, peak, mean, video=str(_shown(source).ReferencedSOPInstanceUID))
    still, moment = named.get((_BEST.value, "IMAGE")), named.get((_BEST.value, "TCOORD"))
    if still is None or moment is None:
        return segment
    return replace(
        segment,
        still=str(still.ReferencedSOPSequence[0].ReferencedSOPInstanceUID),
        time=float(moment.ReferencedTimeOffsets),
        frame=int(_shown(moment).get("ReferencedFrameNumber") or 1),
    )


def _shown(times: Dataset) -> Dataset:
    """The reference to the video that times are of."""
    video: Dataset = times.ContentSequence[0].ReferencedSOPSequence[0]
    return video


def _concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)
