"""Attributes that every derived object takes from its source or states in the same way."""

from __future__ import annotations

from typing import Any

from highdicom import ContributingEquipment
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from report.findings import Algorithm

MANUFACTURER = "EndoLens"

_LOSSY_SYNTAXES: dict[UID, str] = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
    JPEG2000MC: "ISO_15444_2",
    HTJ2K: "ISO_15444_15",
}

_MANDATORY_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2 attributes of patient and study: must stand in a derived object, may be empty."""


def completed(source: Dataset) -> Dataset:
    """The header of a source with every type 2 attribute of patient and study present, empty where it was missing."""
    header = Dataset()
    header.update({element.tag: element for element in source if element.tag.group != 0x7FE0})
    for keyword in _MANDATORY_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    if hasattr(source, "file_meta"):
        header.file_meta = source.file_meta
    return header


def processing_equipment(algorithm: Algorithm, description: str) -> ContributingEquipment:
    """The Contributing Equipment item that says which machine made an object (PS3.3 C.12.1.1)."""
    return ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=algorithm.name[:64],
        software_versions=algorithm.version[:64],
        contribution_description=description[:1024],
    )


def compression_history(source: Dataset) -> dict[str, Any]:
    """Lossy compression that a source has been through, which an image derived from it inherits (PS3.3 C.7.6.1.1.5)."""
    history: dict[str, Any] = {}
    syntax = source.file_meta.get("TransferSyntaxUID") if hasattr(source, "file_meta") else None
    if source.get("LossyImageCompression") == "01" or syntax in _LOSSY_SYNTAXES:
        history["LossyImageCompression"] = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if source.get(keyword) is not None:
                history[keyword] = source[keyword].value
        if "LossyImageCompressionMethod" not in history and syntax in _LOSSY_SYNTAXES:
            history["LossyImageCompressionMethod"] = _LOSSY_SYNTAXES[UID(syntax)]
    elif source.get("LossyImageCompression"):
        history["LossyImageCompression"] = "00"
    return history


def is_own_result(dataset: Dataset) -> bool:
    """Whether an object is a result of this software, which must never become an input of it."""
    return dataset.get("Manufacturer") == MANUFACTURER


def series_description(what: str, algorithm: Algorithm) -> str:
    """Title of a result series, with the model's notice, within the 64 characters of a Long String."""
    return f"{MANUFACTURER} {what}{', ' if algorithm.notice else ''}{algorithm.notice}"[:64]
