"""A picture as a DICOM VL Endoscopic Image, for scopes that write no DICOM."""

from __future__ import annotations

import datetime
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.config import IGNORE
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, VLEndoscopicImageStorage

from report.uids import derive


@dataclass(frozen=True)
class Examination:
    """Patient and study of a set of stills. What is not known stays empty.

    Attributes:
        patient_name: DICOM person name, ``Family^Given``.
        patient_birth_date, study_date: YYYYMMDD.
        patient_sex: M, F, O or empty.
        study_time: HHMMSS.
        study_instance_uid: derived from the stills where empty.
    """

    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    study_instance_uid: str = ""

    def __post_init__(self) -> None:
        """Refuse what DICOM cannot hold: ValueError names the attribute and its form."""
        for name in ("patient_birth_date", "study_date"):
            _check_date(name, getattr(self, name))
        if self.study_time and not re.fullmatch("([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9])?)?", self.study_time):
            raise ValueError(f"study_time {self.study_time!r} is not HHMMSS")
        if self.patient_sex not in ("", "M", "F", "O"):
            raise ValueError(f"patient_sex {self.patient_sex!r} is not M, F or O")
        if self.study_instance_uid and not UID(self.study_instance_uid, IGNORE).is_valid:
            raise ValueError(f"study_instance_uid {self.study_instance_uid!r} is not a DICOM UID")
        for name in ("patient_name", "referring_physician_name"):
            _check_name(name, getattr(self, name))
        limits = {"accession_number": 16}
        for field in fields(self):
            value = getattr(self, field.name)
            limit = limits.get(field.name, 64)
            if len(value) > limit or re.search(r"[\\\x00-\x1f\x7f\ud800-\udfff]", value):
                raise ValueError(f"{field.name} holds a control character, a backslash or more than {limit} characters")


def _check_name(name: str, value: str) -> None:
    groups = value.split("=")
    if len(groups) > 3 or any(group.count("^") > 4 for group in groups):
        raise ValueError(f"{name} {value!r} is not a person name, Family^Given^Middle^Prefix^Suffix")


def _check_date(name: str, value: str) -> None:
    if not value:
        return
    try:
        if not re.fullmatch("[0-9]{8}", value):
            raise ValueError
        datetime.datetime.strptime(value, "%Y%m%d")
    except ValueError:
        raise ValueError(f"{name} {value!r} is not a date YYYYMMDD") from None


@dataclass(frozen=True)
class Still:
    """One decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        lossy_ratio: of the lossy compression that the picture came in, e.g. 12.5; None where it was lossless.
    """

    pixels: NDArray[np.uint8]
    lossy_ratio: float | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of size and pixels, hexadecimal: the same picture has the same one wherever it is read."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()


def study_of(examination: Examination, fingerprints: list[str]) -> Examination:
    """Fill in the study UID: without one given it derives from patient, accession number and stills.

    So stills of two patients never share a study by accident, and converting the same stills again gives the same
    study.
    """
    if examination.study_instance_uid:
        return examination
    known = (examination.patient_id, examination.patient_name, examination.accession_number, examination.study_date)
    return replace(examination, study_instance_uid=str(derive("study", *known, *sorted(fingerprints))))


def endoscopic_image(still: Still, examination: Examination, instance_number: int, copy: int = 1) -> Dataset:
    """Make the VL Endoscopic Image of a picture.

    Args:
        still: the picture.
        examination: patient and study; must carry its study UID.
        instance_number: place in the series, from 1.
        copy: counts pictures with the same pixels, which are instances of their own all the same.

    Raises:
        ValueError: the examination has no study UID.
    """
    if not examination.study_instance_uid:
        raise ValueError("the examination has no study UID; fill it in by study_of()")
    study = examination.study_instance_uid
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = VLEndoscopicImageStorage
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = VLEndoscopicImageStorage
    image.SOPInstanceUID = derive("still", study, still.fingerprint, copy)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    describe_study(image, examination)
    image.SeriesInstanceUID = derive("stills", study)
    image.Modality = "ES"
    image.SeriesNumber = 1
    image.SeriesDescription = "Stills"
    image.Manufacturer = ""
    image.InstanceNumber = instance_number
    image.PatientOrientation = None
    image.Laterality = ""
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.AcquisitionContextSequence = []
    image.LossyImageCompression = "00"
    if still.lossy_ratio is not None:
        image.LossyImageCompression = "01"
        image.LossyImageCompressionRatio = f"{still.lossy_ratio:.2f}"
        image.LossyImageCompressionMethod = "ISO_10918_1"
    set_pixels(image, still.pixels)
    return image


def _compress(image: Dataset) -> None:
    """Without loss: OHIF takes the byte that fills up an odd number of uncompressed ones for part of the picture."""
    with suppress(RuntimeError):  # noise, which JPEG-LS would make larger, for which the encoder has no room
        image.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)


def describe_study(image: Dataset, examination: Examination) -> None:
    """Write patient and study into an image."""
    image.StudyInstanceUID = examination.study_instance_uid
    image.StudyID = ""
    image.PatientID = examination.patient_id
    image.PatientName = examination.patient_name
    image.PatientBirthDate = examination.patient_birth_date
    image.PatientSex = examination.patient_sex
    image.StudyDate = examination.study_date
    image.StudyTime = examination.study_time
    image.AccessionNumber = examination.accession_number
    image.ReferringPhysicianName = examination.referring_physician_name
    if examination.study_description:
        image.StudyDescription = examination.study_description


def set_pixels(image: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 3) into an image, as it is; compressed without loss where its bytes are odd in number."""
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    data = pixels.tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
    image["PixelData"].VR = "OB"
    if pixels.size % 2:
        _compress(image)
