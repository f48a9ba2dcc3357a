"""What is taken from a video, in DICOM: stills as VL Endoscopic Images, clips as Video Endoscopic Images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    MPEG4HP422D,
    UID,
    ExplicitVRLittleEndian,
    VideoEndoscopicImageStorage,
    VLEndoscopicImageStorage,
)

from report.attributes import MANUFACTURER, completed, compressed_again, compression_history, source_image, take_study
from report.endoscopic_image import Examination, describe_study, set_pixels
from report.terms import long_string
from report.uids import derive

VIDEOS, STILLS, CLIPS = 2, 907, 908
"""Series numbers."""

_METHODS = {"h264": "ISO_14496_10", "hevc": "ISO_23008_2", "mpeg2video": "ISO_13818_2"}
"""Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1) of the codecs that DICOM knows, by FFmpeg's names."""

_REGION = CodedConcept("122865005", "SCT", "Gastrointestinal tract")
"""All that is known of a clip's place without asking the network."""


@dataclass(frozen=True)
class Coding:
    """How a video is coded.

    Attributes:
        codec: by FFmpeg's name, e.g. ``h264``.
        ratio: of its pixels' bytes to its own.
    """

    codec: str
    ratio: float


@dataclass(frozen=True)
class Stream:
    """A stream in an MP4 file, of MPEG-2 in a transport stream, that becomes a Video Endoscopic Image.

    Attributes:
        content: the file, of an even number of bytes.
        frames, rate, width, height: number of frames, frames a second, and their size in pixels.
        level: of H.264, ten times: 41 for level 4.1.
        syntax: transfer syntax of another stream than H.264.
    """

    content: bytes
    frames: int
    rate: float
    width: int
    height: int
    level: int
    syntax: UID | None = None


def video_header(examination: Examination, fingerprint: str) -> Dataset:
    """Patient, study and a UID of a video that is no DICOM object, by its content's fingerprint."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SOPClassUID = VideoEndoscopicImageStorage
    header.SOPInstanceUID = derive("video", examination.study_instance_uid, fingerprint)
    describe_study(header, examination)
    return header


def video_still(
    video: Dataset,
    pixels: NDArray[np.uint8],
    number: int,
    time: float,
    coding: Coding,
    instance_number: int,
    sources: Sequence[tuple[Dataset, int]],
) -> Dataset:
    """Make the VL Endoscopic Image of one frame of a video.

    Args:
        video: its header.
        pixels: (H, W, 3) uint8, RGB.
        number, time: of the frame: counted from 1, and in seconds after the first.
        coding: of the video.
        instance_number: place in the series.
        sources: DICOM objects that hold the frame, by their headers, and its number in each.
    """
    still = _begun(video, VLEndoscopicImageStorage, ExplicitVRLittleEndian)
    still.SOPInstanceUID = derive("video still", video.SOPInstanceUID, number)
    still.file_meta.MediaStorageSOPInstanceUID = still.SOPInstanceUID
    still.SeriesInstanceUID = _stills(video)
    still.SeriesNumber, still.SeriesDescription = STILLS, "Stills of videos"
    still.Manufacturer = ""
    still.InstanceNumber = instance_number
    still.DerivationDescription = f"Frame {number} of a video, {time:.3f} s after its first"
    still.SourceImageSequence = [source_image(source, frame) for source, frame in sources]
    still.update(_history(video, coding))
    set_pixels(still, pixels)
    return still


def is_still(header: Dataset) -> bool:
    """Whether an object is of the series of :func:`video_still`."""
    return bool(header.get("SeriesInstanceUID") == _stills(header))


def _stills(video: Dataset) -> UID:
    return derive("video stills", video.StudyInstanceUID)


def video_clip(
    video: Dataset,
    stream: Stream,
    start: float,
    end: float,
    coding: Coding,
    title: str,
    instance_number: int,
    copied: bool = False,
) -> Dataset:
    """Make the Video Endoscopic Image of a part of a video.

    Args:
        video: its header.
        stream: the part, as H.264.
        start, end: of the part, in seconds after the video's first frame.
        coding: of the video.
        title: what is seen, for the series' description.
        instance_number: place in the study.
        copied: whether the part is the video's stream bit by bit; else it was coded anew.
    """
    clip = _begun(video, VideoEndoscopicImageStorage, _syntax(stream))
    identity = (video.SOPInstanceUID, f"{start:.3f}", f"{end:.3f}", "copied" if copied else "coded anew")
    clip.SOPInstanceUID = derive("video clip", *identity)
    clip.file_meta.MediaStorageSOPInstanceUID = clip.SOPInstanceUID
    # One clip a series: viewers show a video as a series.
    clip.SeriesInstanceUID = derive("video clip series", *identity)
    clip.SeriesNumber, clip.SeriesDescription = CLIPS, long_string(f"Clip, {start:.1f} s to {end:.1f} s: {title}")
    clip.Manufacturer = MANUFACTURER
    clip.InstanceNumber = instance_number
    how = "copied as it was coded" if copied else f"coded anew from {coding.codec} of ratio {coding.ratio:.2f}"
    clip.DerivationDescription = f"Part of a video, from {start:.3f} s to {end:.3f} s, {how}, without sound"
    history = _history(video, coding)
    if not copied:
        ratio = 3 * stream.width * stream.height * stream.frames / len(stream.content)
        history = compressed_again(history, ratio, _METHODS["h264"])
    clip.update(history)
    clip.AnatomicRegionSequence = [_REGION]
    _set_stream(clip, stream)
    return clip


def endoscopic_video(video: Dataset, stream: Stream, coding: Coding, instance_number: int = 1) -> Dataset:
    """Make the Video Endoscopic Image of a whole video that is no DICOM object, by its header."""
    made = _begun(video, VideoEndoscopicImageStorage, _syntax(stream))
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = video.SOPInstanceUID
    made.SeriesInstanceUID = derive("video series", video.SOPInstanceUID)
    made.SeriesNumber, made.SeriesDescription = VIDEOS, "Video"
    made.Manufacturer = ""
    made.InstanceNumber = instance_number
    made.AnatomicRegionSequence = [_REGION]
    made.update(_history(video, coding))
    _set_stream(made, stream)
    return made


def _syntax(stream: Stream) -> UID:
    if stream.syntax is not None:
        return stream.syntax
    return MPEG4HP41 if stream.level <= 41 else MPEG4HP422D


def _set_stream(clip: Dataset, stream: Stream) -> None:
    clip.NumberOfFrames = stream.frames
    clip.FrameIncrementPointer = 0x00181063
    clip.FrameTime = f"{1000 / stream.rate:.6g}"
    clip.CineRate = clip.RecommendedDisplayFrameRate = max(1, round(stream.rate))
    clip.Rows, clip.Columns = stream.height, stream.width
    clip.SamplesPerPixel, clip.PlanarConfiguration = 3, 0
    clip.PhotometricInterpretation = "YBR_PARTIAL_420"
    clip.BitsAllocated = clip.BitsStored = 8
    clip.HighBit, clip.PixelRepresentation = 7, 0
    clip.PixelData = encapsulate([stream.content], has_bot=False)
    clip["PixelData"].VR = "OB"
    clip["PixelData"].is_undefined_length = True


def _begun(video: Dataset, sop_class: UID, syntax: UID) -> Dataset:
    header = completed(video)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    take_study(made, header)
    made.SpecificCharacterSet = header.SpecificCharacterSet
    if "BurnedInAnnotation" in header:
        made.BurnedInAnnotation = header.BurnedInAnnotation
    made.Modality = "ES"
    made.PatientOrientation = None
    made.Laterality = ""
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.AcquisitionContextSequence = []
    return made


def _history(video: Dataset, coding: Coding) -> Dataset:
    """What a video says of its lossy compression; where that is not whole, how it is coded."""
    history = compression_history(video)
    if "LossyImageCompressionRatio" in history and "LossyImageCompressionMethod" in history:
        return history
    history = Dataset()
    history.LossyImageCompression = "01"
    history.LossyImageCompressionRatio = f"{coding.ratio:.2f}"
    if coding.codec in _METHODS:
        history.LossyImageCompressionMethod = _METHODS[coding.codec]
    return history
