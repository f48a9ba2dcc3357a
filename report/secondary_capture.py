"""A heatmap as a DICOM Secondary Capture."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from report.attributes import (
    MANUFACTURER,
    completed,
    compression_history,
    is_multi_frame,
    processing_equipment,
    series_description,
)
from report.findings import Algorithm, Explanation
from report.uids import derive

SERIES_NUMBER = 901


def heatmap_capture(
    source: Dataset,
    frame_number: int,
    picture: NDArray[np.uint8],
    explanation: Explanation,
    algorithm: Algorithm,
    instance_number: int = 1,
) -> SCImage:
    """Make the Secondary Capture of a heatmap over its frame.

    The object belongs to the source's patient and study, references the source frame, says how and by what it was
    made, and has UIDs derived from all that, so that making it again makes the same instance.

    Args:
        source: the image that was explained; its header is enough.
        frame_number: of the source, counted from 1.
        picture: (H, W, 3) uint8, RGB.
        explanation: method, layer, class and probability.
        algorithm: the model.
        instance_number: place in the heatmap series.

    Raises:
        ValueError, TypeError: the picture is not (H, W, 3) uint8.
    """
    header = completed(source)
    made_of = (algorithm.name, algorithm.version, explanation.method, explanation.layer)
    description = (
        f"{explanation.method} of layer {explanation.layer} for class {explanation.label} "
        f"(probability {explanation.probability:.1%}) by {algorithm.name} {algorithm.version}"
    )
    capture = SCImage.from_ref_dataset(
        header,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=derive("heatmap series", header.StudyInstanceUID, *made_of),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derive("heatmap", header.SOPInstanceUID, frame_number, *made_of, explanation.label),
        instance_number=instance_number,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[processing_equipment(algorithm, description)],
        series_description=series_description(explanation.method, algorithm),
    )
    # An endoscope's picture has no anatomical orientation and no side: the attributes are required, and empty.
    capture.PatientOrientation = []
    capture.Laterality = ""
    # "The equipment that originally acquired the data" (PS3.3 C.7.3.1.1.1); viewers show no thumbnail of OT.
    capture.Modality = "ES"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.ConversionType = "WSD"
    capture.DerivationDescription = description + (f". {algorithm.notice}" if algorithm.notice else "")
    capture.SourceImageSequence = [_reference(header, frame_number)]
    if header.get("BurnedInAnnotation"):
        capture.BurnedInAnnotation = header.BurnedInAnnotation
    for keyword, value in compression_history(header).items():
        setattr(capture, keyword, value)
    return capture


def _reference(source: Dataset, frame_number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if is_multi_frame(source):
        item.ReferencedFrameNumber = frame_number
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [CodedConcept(*purpose[:3])]
    return item
