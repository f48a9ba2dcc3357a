"""DICOM images as other systems write them, made from known pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLEndoscopicImageStorage,
    generate_uid,
)

CT = CTImageStorage
ENDOSCOPIC = VLEndoscopicImageStorage
CAPTURE = SecondaryCaptureImageStorage
MULTI_FRAME = MultiFrameTrueColorSecondaryCaptureImageStorage
MULTI_FRAME_GREY = MultiFrameGrayscaleByteSecondaryCaptureImageStorage

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
BY_GDCM = {
    "sv1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jls": gdcm.TransferSyntax.JPEGLSLossless,
    "j2k": gdcm.TransferSyntax.JPEG2000Lossless,
    "j2k-lossy": gdcm.TransferSyntax.JPEG2000,
}
ENCAPSULATED = ["jpeg", "rle", *BY_GDCM]


def image(pixels: NDArray[Any], sop_class: str | None = None, **attributes: Any) -> Dataset:
    """An image of uncompressed pixels: (H, W, 3) or (frames, H, W, 3) RGB, (H, W) or (frames, H, W) grey.

    Args:
        pixels: uint8 or uint16.
        sop_class: VL Endoscopic, or a multi-frame Secondary Capture for several frames, unless given.
        attributes: set last, by keyword; None removes one.
    """
    colour = pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == (4 if colour else 3) else None
    rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if sop_class is None:
        several = MULTI_FRAME if colour else MULTI_FRAME_GREY
        sop_class = (ENDOSCOPIC if colour else CAPTURE) if frames is None else several
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
    dataset.StudyDate, dataset.StudyTime = "20240102", "101112"
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "A1", "House^Gregory"
    dataset.Modality = "ES"
    dataset.Manufacturer = "Scope"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.PatientOrientation, dataset.Laterality = None, ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.ConversionType = "DI"
    dataset.AcquisitionContextSequence = []
    dataset.LossyImageCompression = "00"
    if frames is not None:
        dataset.NumberOfFrames = frames
        dataset.FrameIncrementPointer = 0x00181063
        dataset.FrameTime = "40"
        dataset.BurnedInAnnotation = "NO"
        dataset.PresentationLUTShape = None if colour else "IDENTITY"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    data = pixels.tobytes()
    dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def encapsulated(pixels: NDArray[Any], syntax: str, streams: list[bytes], **attributes: Any) -> Dataset:
    """The same image with compressed frames in place of its pixels."""
    dataset = image(pixels, **attributes)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def by_pillow(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """A picture as Pillow encodes it, e.g. kind "JPEG" or "JPEG2000"."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def by_gdcm(source: Path, target: Path, syntax: int) -> Path:
    """Recompress a file by GDCM to one of its transfer syntaxes, e.g. ``gdcm.TransferSyntax.JPEG2000``."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


def write(dataset: Dataset, path: Path) -> Path:
    """Write a file as it stands."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def of_every_syntax(pixels: NDArray[np.uint8], folder: Path) -> dict[str, Path]:
    """One file of every name in NATIVE and ENCAPSULATED, each of the same frame (H, W, 3)."""
    made = {}
    for name, syntax in NATIVE.items():
        dataset = image(pixels)
        dataset.file_meta.TransferSyntaxUID = syntax
        made[name] = write(dataset, folder / f"{name}.dcm")
    stream = by_pillow(pixels, "JPEG", quality=92)
    dataset = encapsulated(pixels, JPEGBaseline8Bit, [stream], PhotometricInterpretation="YBR_FULL_422")
    made["jpeg"] = write(dataset, folder / "jpeg.dcm")
    dataset = image(pixels)
    dataset.compress(RLELossless)
    made["rle"] = write(dataset, folder / "rle.dcm")
    for name, number in BY_GDCM.items():
        made[name] = by_gdcm(made["explicit"], folder / f"{name}.dcm", number)
    return made
