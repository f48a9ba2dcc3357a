"""Findings as a DICOM Structured Report that viewers draw on the source images, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContentSequence,
    FindingSite,
    ImageContentItem,
    ImageRegion,
    Measurement,
    MeasurementReport,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from report.attributes import (
    MANUFACTURER,
    PERCENT,
    completed,
    device_observer,
    filled,
    heading,
    identification,
    is_multi_frame,
    is_own_result,
    processing_equipment,
    require_frame,
    series_description,
    tracking,
)
from report.findings import NO_VIDEO, Algorithm, Explanation, Finding, Footage, in_percent
from report.terms import term
from report.uids import derive
from report.video_segments import segments_container

SERIES_NUMBER = 902
_METHOD, _LAYER, _CLASS = "Method", "Target layer", "Class"
"""Algorithm parameters (TID 4019), each written as ``name: value``."""
_PARAMETERS = 4
"""How many there are, the last of which is that of the probability; a notice follows them."""


def findings_report(
    findings: Sequence[Finding],
    sources: Sequence[Dataset],
    algorithm: Algorithm,
    captures: Sequence[Dataset] = (),
    three_dimensional: bool = False,
    footage: Footage = NO_VIDEO,
) -> Dataset:
    """Make the findings report of one study: TID 1500, one TID 1410 group a finding.

    It is complete as far as the machine goes, preliminary and unverified: only a person makes it more. One report
    is one series, because viewers show only the newest report of a series.

    Args:
        findings: at least one; each contour must lie on one of the sources.
        sources: the images that the findings refer to, all of one study; their headers are enough.
        algorithm: the model, named in every group.
        captures: the Secondary Captures that findings name; their headers are enough.
        three_dimensional: a Comprehensive 3D SR, as IHE AI Results asks for, in the place of a Comprehensive SR.
        footage: what was seen when in the study's videos, and the stills of which are among the sources.

    Raises:
        ValueError: no finding, sources of several studies, or a finding on an image or with a capture that is not
            among the given ones, or on a frame that its image does not have.
    """
    headers = {source.SOPInstanceUID: completed(source) for source in sources}
    shown = {capture.SOPInstanceUID: capture for capture in captures}
    if not findings:
        raise ValueError("a findings report needs at least one finding")
    if len({header.StudyInstanceUID for header in (*headers.values(), *captures, *footage.videos)}) != 1:
        raise ValueError("the sources of a findings report must belong to one study")
    missing = [f.sop_instance_uid for f in findings if f.sop_instance_uid not in headers]
    missing += [uid for f in findings for uid in f.captures if uid not in shown]
    if missing:
        raise ValueError(f"finding on {missing[0]}, which is not among the sources")
    first = next(iter(headers.values()))
    maps = sorted({f"{f.explanation.method} {f.explanation.layer}" for f in findings})
    made_of = (first.StudyInstanceUID, algorithm.name, algorithm.version, *maps, *headers, *shown)
    made_of = (*made_of, "3D") if three_dimensional else made_of
    made_of = (*made_of, *map(str, footage.segments))
    asked, measured = cache(partial(_asked, algorithm)), cache(_measured)
    seen_in = {uid: _visual_explanation(capture) for uid, capture in shown.items()}
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device_observer(algorithm)),
        procedure_reported=_procedure(first),
        imaging_measurements=[
            _group(
                finding,
                headers[finding.sop_instance_uid],
                algorithm,
                asked(finding.explanation.method, finding.explanation.layer, finding.explanation.label),
                measured(finding.explanation.probability),
                [seen_in[uid] for uid in finding.captures],
            )
            for finding in findings
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    if footage.segments:
        videos = {video.SOPInstanceUID: video for video in footage.videos}
        content[0].ContentSequence.append(segments_container(footage.segments, videos, headers, algorithm))
    document = (Comprehensive3DSR if three_dimensional else ComprehensiveSR)(
        evidence=[*headers.values(), *captures, *footage.videos],
        content=heading(codes.DCM.ImagingMeasurementReport),
        series_instance_uid=derive("findings series", *made_of),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derive("findings", *made_of),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=series_description("findings", algorithm),
        contributing_equipment=[processing_equipment(algorithm, f"Findings. {algorithm.notice}")],
        specific_character_set=first.SpecificCharacterSet,
    )
    return filled(document, content[0])


def read_findings(report: Dataset) -> list[Finding]:
    """The findings that a report of :func:`findings_report` was made of.

    Probabilities come back to a hundredth of a percent, contours to single precision, as the report holds them.

    Raises:
        ValueError: it is no findings report of this software.
    """
    return [_finding(group) for group in _groups(report)]


def read_algorithm(report: Dataset) -> Algorithm:
    """The model that a report of :func:`findings_report` names.

    Raises:
        ValueError: it is no findings report of this software.
    """
    items = _groups(report)[0][0].ContentSequence
    (name,), (version,) = _texts(items, codes.DCM.AlgorithmName), _texts(items, codes.DCM.AlgorithmVersion)
    parameters = list(_texts(items, codes.DCM.AlgorithmParameters))
    notice = "".join(parameters[_PARAMETERS:])
    return Algorithm(name, version, notice, calibrated=parameters[_PARAMETERS - 1].endswith(", calibrated"))


def _groups(report: Dataset) -> list[PlanarROIMeasurementsAndQualitativeEvaluations]:
    content = None
    if is_own_result(report) and report.get("SOPClassUID") == ComprehensiveSRStorage:
        content = ComprehensiveSR.from_dataset(report).content
    elif is_own_result(report) and report.get("SOPClassUID") == Comprehensive3DSRStorage:
        content = Comprehensive3DSR.from_dataset(report).content
    if not isinstance(content, MeasurementReport):
        raise ValueError(f"{report.get('SOPInstanceUID', 'the object')} is no findings report of {MANUFACTURER}")
    groups: list[PlanarROIMeasurementsAndQualitativeEvaluations] = content.get_planar_roi_measurement_groups()
    return groups


def is_findings_report(header: Dataset) -> bool:
    """Whether an object is a report of :func:`findings_report`; its header is enough."""
    titles = [item.get("CodeValue") for item in header.get("ConceptNameCodeSequence") or []]
    is_report = header.get("SOPClassUID") in (ComprehensiveSRStorage, Comprehensive3DSRStorage)
    return is_report and is_own_result(header) and titles == [codes.DCM.ImagingMeasurementReport.value]


def _procedure(source: Dataset) -> CodedConcept:
    """The study's own procedure code; without one no more than "Imaging procedure" is known."""
    for item in source.get("ProcedureCodeSequence") or []:
        if item.get("CodeValue") and item.get("CodingSchemeDesignator") and item.get("CodeMeaning"):
            return CodedConcept(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
    return CodedConcept(*codes.SCT.ImagingProcedure[:3])


def _asked(algorithm: Algorithm, method: str, layer: str, label: str) -> AlgorithmIdentification:
    """The model and what it was asked, the same items in every group that they hold for."""
    said = "calibrated" if algorithm.calibrated else "not calibrated"
    parameters = [f"{_METHOD}: {method}", f"{_LAYER}: {layer}", f"{_CLASS}: {label}"]
    return identification(algorithm, [*parameters, f"Probability: of the whole frame, {said}"])


def _group(
    finding: Finding,
    source: Dataset,
    algorithm: Algorithm,
    asked: AlgorithmIdentification,
    probability: Measurement,
    reasons: Sequence[ImageContentItem],
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    explanation = finding.explanation
    meaning = term(explanation.label)
    require_frame(source, finding.frame_number)
    multi_frame = is_multi_frame(source)
    image = SourceImageForRegion(
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        referenced_frame_numbers=[finding.frame_number] if multi_frame else None,
    )
    tracking_uid, identifier = tracking(finding, algorithm, multi_frame)
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking_uid, identifier=identifier),
        referenced_region=ImageRegion(
            graphic_type="POLYLINE", graphic_data=np.asarray(finding.contour, dtype=float), source_image=image
        ),
        finding_type=meaning.finding,
        finding_sites=[FindingSite(meaning.site)] if meaning.site else None,
        measurements=[probability],
        algorithm_id=asked,
    )
    group[0].ContentSequence.extend(reasons)
    return group


def _measured(probability: float) -> Measurement:
    return Measurement(codes.DCM.Probability, value=in_percent(probability), unit=PERCENT)


def _visual_explanation(capture: Dataset) -> ImageContentItem:
    """The Secondary Capture that shows why, and of which kind it is (CID 217)."""
    item = ImageContentItem(
        name=CodedConcept(*codes.DCM.VisualExplanation[:3]),
        referenced_sop_class_uid=capture.SOPClassUID,
        referenced_sop_instance_uid=capture.SOPInstanceUID,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    kind = CodeContentItem(
        name=CodedConcept(*codes.SCT.MeasurementMethod[:3]),
        value=capture.DerivationCodeSequence[0],
        relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    item.ContentSequence = ContentSequence([kind])
    return item


def _finding(group: PlanarROIMeasurementsAndQualitativeEvaluations) -> Finding:
    items = group[0].ContentSequence
    # A notice follows, which may look like one of them.
    parameters = list(_texts(items, codes.DCM.AlgorithmParameters))[:_PARAMETERS]
    known = {name: value.removeprefix(" ") for name, _, value in (text.partition(":") for text in parameters)}
    if not {_METHOD, _LAYER, _CLASS} <= set(known):
        raise ValueError(f"a finding does not say its {_METHOD}, {_LAYER} and {_CLASS}")
    (probability,) = group.get_measurements(name=codes.DCM.Probability)
    region: Any = group.roi
    source = region.ContentSequence[0].ReferencedSOPSequence[0]
    number = re.search(r"region (\d+)$", str(group.tracking_identifier))
    return Finding(
        Explanation(known[_METHOD], known[_LAYER], known[_CLASS], round(float(probability.value) / 100, 4)),
        str(source.ReferencedSOPInstanceUID),
        int(source.get("ReferencedFrameNumber") or 1),
        tuple((float(x), float(y)) for x, y in region.value),
        whole_image=number is None,
        number=int(number[1]) if number else 1,
        captures=tuple(
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in items
            if item.ConceptNameCodeSequence[0].CodeValue == codes.DCM.VisualExplanation.value
        ),
    )


def _texts(items: Sequence[Dataset], concept: CodedConcept) -> Iterator[str]:
    return (item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeValue == concept.value)
