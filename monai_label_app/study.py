"""A study and its instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    UID,
    MPEGTransferSyntaxes,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    VideoEndoscopicImageStorage,
    VLEndoscopicImageStorage,
)

from monai_label_app.video.dicom_video import LONG, frame_seconds
from monai_label_app.video.recording import Recording
from report.attributes import is_own_result

READABLE = frozenset(
    {
        VLEndoscopicImageStorage,
        VideoEndoscopicImageStorage,
        SecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
"""SOP classes whose frames can be endoscopy pictures."""

MAX_FRAMES = 200_000
"""Most frames of one image; an hour of video has half as many."""


@dataclass(frozen=True)
class Instance:
    """One object of a study, read only when asked.

    Attributes:
        origin: where it came from, as the user knows it: a path or a UID.
        header: its attributes without the pixels.
        read: returns the whole dataset; raises :class:`UnreadableError`.
        converted: it was made from a picture and stands in no archive yet.
        fetch: of an object in an archive: writes the whole of it to a file, without holding it in memory.
    """

    origin: str
    header: Dataset
    read: Callable[[], Dataset]
    converted: bool = False
    fetch: Callable[[Path], None] | None = None

    @property
    def refusal(self) -> str | None:
        """Why this is no endoscopy picture to analyse, as the end of a sentence; None if it is one."""
        sop_class = UID(self.header.SOPClassUID)
        if sop_class not in READABLE:
            return f"is a {sop_class.name}, not an endoscopic image or Secondary Capture"
        if is_own_result(self.header):
            return "is a result of EndoLens, not a source image"
        if self.streamed:
            return "is a video; only stills and multi-frame images are read"
        if self.frame_count > MAX_FRAMES:
            return f"announces {self.frame_count} frames, which is more than can be read"
        return None

    @property
    def streamed(self) -> bool:
        """Its frames are one MPEG-2, H.264 or HEVC stream.

        Where an archive does not tell the syntax, by its colours, which no other has (PS3.3 C.7.6.3.1.2).
        """
        syntax = _transfer_syntax(self.header)
        if syntax:
            return syntax in MPEGTransferSyntaxes
        return str(self.header.get("PhotometricInterpretation")) == "YBR_PARTIAL_420"

    @property
    def plays(self) -> bool:
        """It is shown as a video, a recording or a clip of one: a stream, or many frames with times."""
        long = self.frame_count >= LONG and frame_seconds(self.header) is not None
        return self.header.SOPClassUID in READABLE and (self.streamed or long)

    @property
    def is_video(self) -> bool:
        """It is watched as a video when its study is analysed: a recording, no clip that was cut here."""
        return self.plays and not is_own_result(self.header)

    @property
    def belongs_beside_images(self) -> bool:
        """A result of ours, or an object without pictures: a report, a presentation state."""
        return is_own_result(self.header) or ("Rows" not in self.header and self.header.SOPClassUID not in READABLE)

    @property
    def path(self) -> Path | None:
        """The DICOM file that it lies in; None if it lies in an archive, or is made of a picture."""
        place = Path(self.origin)
        return place if not self.converted and place.is_file() else None

    def file(self, folder: Path) -> Path:
        """A file of it: the one that it lies in, else one in ``folder`` that it is fetched to.

        Raises:
            PacsError: it cannot be fetched.
        """
        place = self.path
        if place is None:
            place = folder / f"{self.header.SOPInstanceUID}.dcm"
            if self.fetch:
                self.fetch(place)
            else:
                self.read().save_as(place, enforce_file_format=True)
        return place

    @property
    def frame_count(self) -> int:
        """Number of frames that the header announces; 1 for a single-frame image."""
        return int(self.header.get("NumberOfFrames") or 1)


@dataclass(frozen=True)
class Study:
    """The instances of one study, in the order of series and instance numbers, and the videos to be watched."""

    uid: str
    instances: tuple[Instance, ...]
    recordings: tuple[Recording, ...] = ()

    @property
    def images(self) -> Study:
        """The same study with nothing but the images that can be analysed."""
        return Study(self.uid, tuple(instance for instance in self.instances if instance.refusal is None))

    @property
    def videos(self) -> tuple[Instance, ...]:
        """What plays: recordings, then the clips that were cut from them, in their order."""

        def place(video: Instance) -> tuple[bool, int]:
            return not video.is_video, int(video.header.get("InstanceNumber") or 0)

        return tuple(sorted((one for one in self.instances if one.plays), key=place))

    @property
    def watchable(self) -> bool:
        """It has images or videos that can be analysed."""
        return any(one.refusal is None or one.is_video for one in self.instances)

    @property
    def frame_count(self) -> int:
        """Number of frames that the headers of all instances announce."""
        return sum(instance.frame_count for instance in self.instances)


@dataclass(frozen=True)
class Problem:
    """An input that had to be left out, and why, in one sentence."""

    origin: str
    reason: str


def _transfer_syntax(header: Dataset) -> str | None:
    # A header by DICOMweb has no file meta; some archives say the syntax in an attribute of its own.
    meta = getattr(header, "file_meta", {})
    syntax: str | None = meta.get("TransferSyntaxUID") or header.get("AvailableTransferSyntaxUID")
    return syntax


def group(instances: Iterable[Instance], recordings: Iterable[Recording] = ()) -> list[Study]:
    """Sort instances and videos into studies."""
    studies: dict[str, tuple[list[Instance], list[Recording]]] = {}
    for instance in instances:
        studies.setdefault(str(instance.header.StudyInstanceUID), ([], []))[0].append(instance)
    for recording in recordings:
        studies.setdefault(str(recording.header.StudyInstanceUID), ([], []))[1].append(recording)
    return [make_study(uid, *members) for uid, members in studies.items()]


def make_study(uid: str, instances: Iterable[Instance], recordings: Iterable[Recording] = ()) -> Study:
    """A study with its instances in the order in which a viewer shows them."""

    def place(instance: Instance) -> tuple[int, str, int, str]:
        header = instance.header
        series, number = header.get("SeriesNumber"), header.get("InstanceNumber")
        return int(series or 0), str(header.SeriesInstanceUID), int(number or 0), str(header.SOPInstanceUID)

    return Study(uid, tuple(sorted(instances, key=place)), tuple(recordings))
