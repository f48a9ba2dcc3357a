"""The images that a report proposes, as a DICOM Key Object Selection."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.sr.codedict import codes

from report.attributes import MANUFACTURER, completed, device_observer, processing_equipment, series_description
from report.findings import Algorithm
from report.terms import plain_text
from report.uids import derive

SERIES_NUMBER = 906


def key_objects(objects: Sequence[Dataset], algorithm: Algorithm, reason: str) -> KeyObjectSelectionDocument:
    """Make the Key Object Selection "Of Interest" of images that a machine proposes.

    Args:
        objects: the images, of one study; their headers are enough.
        algorithm: who proposes them.
        reason: why these.

    Raises:
        ValueError: no image, or images of several studies.
    """
    headers = [completed(one) for one in objects]
    if len({header.StudyInstanceUID for header in headers}) != 1:
        raise ValueError("a selection needs images, all of one study")
    made_of = (algorithm.name, algorithm.version, *sorted(header.SOPInstanceUID for header in headers))
    study = headers[0].StudyInstanceUID
    said = f"Proposed by {algorithm.name} {algorithm.version}, not by a person. {reason} {algorithm.notice}".strip()
    made = KeyObjectSelectionDocument(
        evidence=headers,
        content=KeyObjectSelection(
            document_title=codes.DCM.OfInterest,
            referenced_objects=headers,
            observer_device_context=device_observer(algorithm),
            description=plain_text(said),
        ),
        series_instance_uid=derive("key object series", study, *made_of),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derive("key objects", study, *made_of),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=series_description("proposed images", algorithm),
        contributing_equipment=[processing_equipment(algorithm, f"Selection. {algorithm.notice}")],
        specific_character_set=headers[0].SpecificCharacterSet,
    )
    for item in made.ContentSequence:
        if item.ValueType == "IMAGE":  # TID 2010 has no purpose of reference; highdicom writes one
            del item.ConceptNameCodeSequence
    return made
