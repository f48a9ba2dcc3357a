"""Images that a machine proposes, or a signed report shows, as a DICOM Key Object Selection."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from report.attributes import (
    MANUFACTURER,
    acquisition_equipment,
    completed,
    dated,
    device_observer,
    is_multi_frame,
    person_observer,
    processing_equipment,
    series_description,
    take_study,
)
from report.examination import Evidence, Signature
from report.findings import Algorithm
from report.terms import plain_text
from report.uids import derive

SERIES_NUMBER = 906
ATTACHED_SERIES_NUMBER = 912


def key_objects(
    evidence: Sequence[Evidence], images: Sequence[Dataset], algorithm: Algorithm, reason: str
) -> KeyObjectSelectionDocument:
    """Make the Key Object Selection "Of Interest" of images that a machine proposes.

    Args:
        evidence: the images, with their frames.
        images: their headers, of one study.
        algorithm: who proposes them.
        reason: why these.

    Raises:
        ValueError: no image, or images of several studies.
    """
    headers = _of_one_study(images)
    frames = sorted({f"{one.sop_instance_uid} {one.frame_number}" for one in evidence})
    made_of = (algorithm.name, algorithm.version, *frames)
    said = f"Proposed by {algorithm.name} {algorithm.version}, not by a person. {reason} {algorithm.notice}".strip()
    content = KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=headers,
        observer_device_context=device_observer(algorithm),
        description=plain_text(said),
    )
    study = headers[0].StudyInstanceUID
    uids = derive("key object series", study, *made_of), derive("key objects", study, *made_of)
    title = series_description("proposed images", algorithm)
    return _document(content, evidence, headers, uids, SERIES_NUMBER, title, algorithm)


def attached_images(
    evidence: Sequence[Evidence], images: Sequence[Dataset], algorithm: Algorithm, signature: Signature, report: str
) -> KeyObjectSelectionDocument:
    """Make the Key Object Selection "For Report Attachment" of the images that a signed report shows.

    Args:
        evidence: the images, with their frames.
        images: their headers, of one study.
        algorithm: the machine that took part in the report.
        signature: of the person who chose them.
        report: SOP Instance UID of the signed report, from which the UIDs derive.

    Raises:
        ValueError: no image, or images of several studies.
    """
    headers = _of_one_study(images)
    content = KeyObjectSelection(
        document_title=codes.DCM.ForReportAttachment,
        referenced_objects=headers,
        observer_person_context=person_observer(signature),
        description="Images of the signed report.",
    )
    series = derive("series of attached images", headers[0].StudyInstanceUID)
    uids = series, derive("attached images", report)
    made = _document(content, evidence, headers, uids, ATTACHED_SERIES_NUMBER, "Images of the report", algorithm)
    dated(made, signature)
    return made


def _of_one_study(objects: Sequence[Dataset]) -> list[Dataset]:
    headers = [completed(one) for one in objects]
    if len({header.StudyInstanceUID for header in headers}) != 1:
        raise ValueError("a selection needs images, all of one study")
    return headers


def _document(
    content: KeyObjectSelection,
    evidence: Sequence[Evidence],
    headers: Sequence[Dataset],
    uids: tuple[UID, UID],
    series_number: int,
    description: str,
    algorithm: Algorithm,
) -> KeyObjectSelectionDocument:
    made = KeyObjectSelectionDocument(
        evidence=headers,
        content=content,
        series_instance_uid=uids[0],
        series_number=series_number,
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=description,
        contributing_equipment=[
            *acquisition_equipment(headers[0]),
            processing_equipment(algorithm, f"Selection. {algorithm.notice}"),
        ],
        specific_character_set=headers[0].SpecificCharacterSet,
    )
    take_study(made, headers[0])
    multi_frame = {header.SOPInstanceUID for header in headers if is_multi_frame(header)}
    for item in made.ContentSequence:
        if item.ValueType != "IMAGE":
            continue
        del item.ConceptNameCodeSequence  # TID 2010 has no purpose of reference; highdicom writes one
        (shown,) = item.ReferencedSOPSequence
        if shown.ReferencedSOPInstanceUID in multi_frame:
            numbers = {one.frame_number for one in evidence if one.sop_instance_uid == shown.ReferencedSOPInstanceUID}
            shown.ReferencedFrameNumber = sorted(numbers)
    return made
