"""A heatmap as a DICOM Secondary Capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless

from report.attributes import (
    MANUFACTURER,
    completed,
    compressed_again,
    compression_history,
    processing_equipment,
    require_frame,
    series_description,
    source_image,
    take_study,
)
from report.caption import captioned
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Algorithm, Explanation
from report.language import ENGLISH
from report.terms import short_text, visual_explanation
from report.uids import derive


@dataclass(frozen=True)
class HeatmapSeries:
    """A series that heatmaps go into: its title and number."""

    title: str
    number: int


HEATMAPS = HeatmapSeries(GRAD_CAM, 901)
GUIDED_HEATMAPS = HeatmapSeries(GUIDED_GRAD_CAM, 903)
LAYER_WALK = HeatmapSeries("layer walk", 904)
SAVED_VIEWS = HeatmapSeries("saved views", 907)

COMPRESSIONS: dict[str, UID] = {
    "lossless": JPEGLSLossless,
    "jpeg": JPEGBaseline8Bit,
    "none": ExplicitVRLittleEndian,
}
"""How pixels are stored, by name: JPEG-LS without loss where that is smaller, baseline JPEG, or as they are."""


def heatmap_capture(
    source: Dataset,
    frame_number: int,
    picture: NDArray[np.uint8],
    explanation: Explanation,
    algorithm: Algorithm,
    instance_number: int = 1,
    series: HeatmapSeries = HEATMAPS,
    colours: NDArray[np.uint8] | None = None,
    compression: str = "lossless",
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
        instance_number: place in the series.
        series: which of the study's series of heatmaps.
        colours: (N, 3) uint8, from no evidence to the most that the map shows. Where given, a strip under the picture
            shows them and says what the map is of; else the picture is stored bare.
        compression: one of :data:`COMPRESSIONS`.

    Raises:
        ValueError, TypeError: the picture is not (H, W, 3) uint8, the source has no such frame, or there is no such
            compression.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"there is no compression {compression!r}; there are {', '.join(COMPRESSIONS)}")
    header = completed(source)
    require_frame(header, frame_number)
    label, chance = explanation.label, ENGLISH.percent(explanation.probability)
    if colours is not None:
        model = " ".join(filter(None, (algorithm.name, algorithm.version)))
        unbroken = chance.replace(" ", "\u00a0")
        words = (f"{label} {unbroken}", explanation.method, explanation.layer, model, algorithm.notice)
        picture = captioned(picture, "\u00a0· ".join(filter(None, words)), colours)
    made_of = (algorithm.name, algorithm.version, series.title)
    looks = ("bare" if colours is None else "captioned", "lossy" if compression == "jpeg" else "lossless")
    description = (
        f"{explanation.method} of layer {explanation.layer} for class {label} (probability {chance}) by "
        f"{algorithm.name} {algorithm.version}"
    )
    capture = _capture(
        header,
        picture,
        compression,
        series_instance_uid=derive("heatmap series", header.StudyInstanceUID, *made_of),
        series_number=series.number,
        sop_instance_uid=derive(
            "heatmap",
            header.SOPInstanceUID,
            frame_number,
            *made_of,
            explanation.method,
            explanation.layer,
            label,
            *looks,
        ),
        instance_number=instance_number,
        manufacturer=MANUFACTURER,
        contributing_equipment=[processing_equipment(algorithm, description)],
        series_description=series_description(series.title, algorithm),
    )
    take_study(capture, header)
    # An endoscope's picture has no anatomical orientation and no side: the attributes are required, and empty.
    capture.PatientOrientation = []
    capture.Laterality = ""
    # "The equipment that originally acquired the data" (PS3.3 C.7.3.1.1.1); viewers show no thumbnail of OT.
    capture.Modality = "ES"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.ConversionType = "WSD"
    history = compression_history(header)
    before = ""
    if compression == "jpeg":
        again = compressed_again(history, picture.nbytes / len(capture.PixelData), "ISO_10918_1")
        if history.get("LossyImageCompression") == "01" and again["LossyImageCompressionMethod"].VM == 1:
            before = "Its source had been compressed with loss before, by a ratio or method that it does not say"
        history = again
    capture.update(history)
    capture.DerivationDescription = short_text(". ".join(filter(None, (description, before, algorithm.notice))))
    capture.DerivationCodeSequence = [visual_explanation(explanation.method)]
    capture.SourceImageSequence = [source_image(header, frame_number)]
    if "BurnedInAnnotation" in header:
        capture.BurnedInAnnotation = header.BurnedInAnnotation
    return capture


def _capture(header: Dataset, picture: NDArray[np.uint8], compression: str, **attributes: Any) -> SCImage:
    def stored_as(syntax: UID) -> SCImage:
        return SCImage.from_ref_dataset(
            header,
            pixel_array=picture,
            photometric_interpretation="YBR_FULL_422" if syntax == JPEGBaseline8Bit else "RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid=syntax,
            **attributes,
        )

    try:
        return stored_as(COMPRESSIONS[compression])
    except RuntimeError:
        if compression != "lossless":
            raise
        # JPEG-LS makes noise and tiny pictures larger than they are, for which the encoder has no room.
        return stored_as(ExplicitVRLittleEndian)
