"""The regions of a frame as a DICOM Segmentation, a segment each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import codes
from pydicom.uid import VLEndoscopicImageStorage
from skimage.draw import polygon2mask

from report.attributes import (
    MANUFACTURER,
    completed,
    compression_history,
    is_multi_frame,
    processing_equipment,
    require_frame,
    series_description,
    tracking,
)
from report.findings import Algorithm, Finding
from report.terms import long_string, term
from report.uids import derive

SERIES_NUMBER = 905
_PLACE = frozenset(
    {"FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient", "ImageOrientationPatient"}
    | {"PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation"}
)
"""Where in space a source says that it lies, some of it or all: of an endoscope's picture it is not taken over."""
_COLOUR = CIELabColor.from_rgb(255, 255, 0)
"""Yellow: of the colours that no tissue has, the one that OHIF draws a report's contours in."""


def segmentation(
    findings: Sequence[Finding], source: Dataset, algorithm: Algorithm, instance_number: int = 1
) -> Segmentation:
    """Make the binary Segmentation of a frame's regions: all pixels whose centre a contour encloses.

    One Segmentation is one series, because viewers show one or two of a series.

    Args:
        findings: of one frame; those on the whole image are left out, as they say that no region stands out.
        source: the image; its header is enough.
        algorithm: the model.
        instance_number: place in the series.

    Raises:
        ValueError: the findings are of several frames, of one that the source does not have or of another image, or
            none of them encloses a pixel.
    """
    header = completed(source)
    seen = {(one.sop_instance_uid, one.frame_number) for one in findings}
    if len(seen) > 1 or any(uid != header.SOPInstanceUID for uid, _ in seen):
        raise ValueError("the findings of a segmentation must be of one frame of its source")
    for _, number in seen:
        require_frame(header, number)
    masks = [(one, _mask(one, (header.Rows, header.Columns))) for one in findings if not one.whole_image]
    masks = [(finding, mask) for finding, mask in masks if mask.any()]
    if not masks:
        raise ValueError("there is no region to segment")
    frame, multi_frame = findings[0].frame_number, is_multi_frame(header)
    made_of = (algorithm.name, algorithm.version, *dict.fromkeys(_map(finding) for finding, _ in masks))
    result = Segmentation(
        source_images=[_single(header)],
        pixel_array=np.stack([mask for _, mask in masks], axis=-1)[None],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, finding, algorithm, multi_frame) for number, (finding, _) in enumerate(masks, start=1)
        ],
        series_instance_uid=derive("segmentation series", header.SOPInstanceUID, frame, *made_of),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derive("segmentation", header.SOPInstanceUID, frame, *made_of),
        instance_number=instance_number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=long_string(algorithm.name),
        software_versions=long_string(algorithm.version),
        device_serial_number=long_string(algorithm.version),
        content_label="REGIONS",
        content_description=long_string(algorithm.notice) or None,
        series_description=series_description(_title(header, frame if multi_frame else None), algorithm),
        contributing_equipment=[processing_equipment(algorithm, f"Regions. {algorithm.notice}")],
        specific_character_set=header.SpecificCharacterSet,
    )
    # Packed anew: highdicom does not join frames of fewer than 8 pixels, and ends on the letter 0 for a zero byte.
    result.PixelData = pack_bits(np.stack([mask for _, mask in masks]).ravel().astype(np.uint8))
    dimensions = derive("segmentation dimensions", result.SOPInstanceUID)  # where highdicom draws a UID each time
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    # An endoscope's picture has no anatomical orientation: the attribute is required, and empty.
    result.PatientOrientation = []
    result.update(compression_history(header))
    for item in _references(result, header.SOPInstanceUID):
        item.ReferencedSOPClassUID = header.SOPClassUID
    if multi_frame:
        for item in result.PerFrameFunctionalGroupsSequence:
            item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame
    return result


def _title(header: Dataset, frame: int | None) -> str:
    number = header.get("InstanceNumber")
    return "regions" + (f" of image {number}" if number else "") + (f", frame {frame}" if frame else "")


def _map(finding: Finding) -> str:
    explanation = finding.explanation
    return f"{explanation.method} {explanation.layer} {explanation.label}"


def _mask(finding: Finding, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies in the contour, which counts from the corner of the first pixel."""
    mask: np.ndarray = polygon2mask(shape, np.array(finding.contour)[:, ::-1] - 0.5)
    return mask


def _single(header: Dataset) -> Dataset:
    """A frame's header as that of a still that lies nowhere, of which highdicom takes one at a time."""
    still = Dataset()
    left = {*_PLACE, "NumberOfFrames"}
    still.update({element.tag: element for element in header if element.keyword not in left})
    still.file_meta = header.file_meta
    still.add_new("SOPClassUID", "UI", VLEndoscopicImageStorage)
    return still


def _references(dataset: Dataset, uid: str) -> Iterator[Dataset]:
    """Every item, at any depth, that refers to an instance."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            if item.get("ReferencedSOPInstanceUID") == uid:
                yield item
            yield from _references(item, uid)


def _describe(number: int, finding: Finding, algorithm: Algorithm, multi_frame: bool) -> SegmentDescription:
    meaning = term(finding.explanation.label)
    uid, identifier = tracking(finding, algorithm, multi_frame)
    return SegmentDescription(
        segment_number=number,
        segment_label=long_string(identifier),
        segmented_property_category=meaning.category,
        segmented_property_type=meaning.finding,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(algorithm.name),
            family=codes.DCM.ArtificialIntelligence,
            version=long_string(algorithm.version),
        ),
        tracking_uid=uid,
        tracking_id=identifier,
        anatomic_regions=[meaning.site] if meaning.site else None,
        display_color=_COLOUR,
    )
