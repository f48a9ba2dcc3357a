"""Findings as a DICOM Structured Report that viewers draw on the source images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from report.attributes import MANUFACTURER, completed, is_multi_frame, processing_equipment, series_description
from report.findings import Algorithm, Finding
from report.terms import term
from report.uids import derive

SERIES_NUMBER = 902
_PERCENT = CodedConcept("%", "UCUM", "Percent")


def findings_report(findings: Sequence[Finding], sources: Sequence[Dataset], algorithm: Algorithm) -> ComprehensiveSR:
    """Make the findings report of one study: Comprehensive SR, TID 1500, one TID 1410 group a finding.

    It is complete as far as the machine goes, preliminary and unverified: only a person makes it more. One report
    is one series, because viewers show only the newest report of a series.

    Args:
        findings: at least one; each contour must lie on one of the sources.
        sources: the images that the findings refer to, all of one study; their headers are enough.
        algorithm: the model, named in every group.

    Raises:
        ValueError: no finding, sources of several studies, or a finding on an image that is not among the sources.
    """
    headers = {source.SOPInstanceUID: completed(source) for source in sources}
    if not findings:
        raise ValueError("a findings report needs at least one finding")
    if len({header.StudyInstanceUID for header in headers.values()}) != 1:
        raise ValueError("the sources of a findings report must belong to one study")
    missing = [f.sop_instance_uid for f in findings if f.sop_instance_uid not in headers]
    if missing:
        raise ValueError(f"finding on {missing[0]}, which is not among the sources")
    first = next(iter(headers.values()))
    maps = sorted({f"{f.explanation.method} {f.explanation.layer}" for f in findings})
    made_of = (first.StudyInstanceUID, algorithm.name, algorithm.version, *maps, *headers)
    return ComprehensiveSR(
        evidence=list(headers.values()),
        content=MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_device(algorithm)),
            procedure_reported=_procedure(first),
            imaging_measurements=[
                _group(finding, headers[finding.sop_instance_uid], algorithm) for finding in findings
            ],
            title=codes.DCM.ImagingMeasurementReport,
        ),
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


def _device(algorithm: Algorithm) -> ObserverContext:
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derive("device", algorithm.name, algorithm.version),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=algorithm.name,
        ),
    )


def _procedure(source: Dataset) -> CodedConcept:
    """The study's own procedure code; without one no more than "Imaging procedure" is known."""
    for item in source.get("ProcedureCodeSequence") or []:
        if item.get("CodeValue") and item.get("CodingSchemeDesignator") and item.get("CodeMeaning"):
            return CodedConcept(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
    return CodedConcept(*codes.SCT.ImagingProcedure[:3])


def _group(finding: Finding, source: Dataset, algorithm: Algorithm) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    explanation = finding.explanation
    meaning = term(explanation.label)
    multi_frame = is_multi_frame(source)
    image = SourceImageForRegion(
        referenced_sop_class_uid=source.SOPClassUID,
        referenced_sop_instance_uid=source.SOPInstanceUID,
        referenced_frame_numbers=[finding.frame_number] if multi_frame else None,
    )
    frame = f", frame {finding.frame_number}" if multi_frame else ""
    what = "whole image, no region stands out" if finding.whole_image else f"region {finding.number}"
    parameters = [f"{explanation.method} of layer {explanation.layer}"]
    if algorithm.notice:
        parameters.append(algorithm.notice)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derive(
                "region",
                *(finding.sop_instance_uid, finding.frame_number, finding.number),
                *(algorithm.version, explanation.method, explanation.layer, explanation.label),
            ),
            identifier=f"{explanation.label}{frame}, {what}",
        ),
        referenced_region=ImageRegion(
            graphic_type="POLYLINE", graphic_data=np.asarray(finding.contour, dtype=float), source_image=image
        ),
        finding_type=meaning.finding,
        finding_sites=[FindingSite(meaning.site)] if meaning.site else None,
        measurements=[Measurement(codes.DCM.Probability, value=round(100 * explanation.probability, 2), unit=_PERCENT)],
        algorithm_id=AlgorithmIdentification(
            name=algorithm.name, version=algorithm.version, parameters=parameters, manufacturer=MANUFACTURER
        ),
    )
