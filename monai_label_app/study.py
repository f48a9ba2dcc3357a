"""Find a study's images in files and folders, DICOM or pictures."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
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

from monai_label_app.frames import UnreadableError, frames, in_one_line, require_size
from monai_label_app.pictures import PICTURE_SUFFIXES, is_own, read_picture
from monai_label_app.video.decode import VIDEO_SUFFIXES
from monai_label_app.video.dicom_video import LONG, frame_seconds, open_dicom
from monai_label_app.video.recording import OWN_CLIP, Recording, open_files
from report.attributes import CONVERTER, is_own_result
from report.endoscopic_image import Examination, endoscopic_image, study_of

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

TIMELINE = "timeline.html"
"""The page of what was seen in a study's videos."""

_BOOKKEEPING = frozenset({"DICOMDIR", "summary.json", "datastore_v2.json", "manifest.json", TIMELINE})


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

    def file(self, folder: Path) -> Path:
        """A file of it: the one that it lies in, else one in ``folder`` that it is fetched to.

        Raises:
            PacsError: it cannot be fetched.
        """
        place = Path(self.origin)
        if not place.is_file():
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


def read_dicom(path: Path, *, pixels: bool = True) -> Dataset:
    """Read a DICOM file.

    Raises:
        UnreadableError: it is missing, not DICOM, or cut off in the header.
    """
    try:
        dataset = dcmread(path, stop_before_pixels=not pixels)
        _require_identity(dataset)
        if not pixels and "EncapsulatedDocument" in dataset:
            del dataset.EncapsulatedDocument
    except InvalidDicomError:
        raise UnreadableError(f"{path} is neither DICOM nor a picture") from None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise UnreadableError(f"{path} is damaged DICOM: {in_one_line(error)}") from error
    return dataset


def as_file(dataset: Dataset) -> Dataset:
    """The dataset as it is read from a file of it: with preamble and file meta information, and empty in one way."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def _require_identity(dataset: Dataset) -> None:
    """Refuse, by any exception, a header without the UIDs and numbers by which a study is sorted and results named."""
    if not dataset:  # pydicom gives up what it has read where the file ends inside an element of undefined length
        raise ValueError("it is cut off")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = dataset.get(keyword)
        if not uid:
            raise ValueError(f"it has no {keyword}")
        # Folders and files are named by UIDs. Many real ones break the rule against leading zeros.
        if len(uid) > 64 or not re.fullmatch(r"\d+(\.\d+)*", uid):
            raise ValueError(f"its {keyword} is no UID")
    for keyword in ("SeriesNumber", "InstanceNumber", "NumberOfFrames"):
        int(dataset.get(keyword) or 0)


def read_frame(path: Path, number: int = 1) -> NDArray[np.uint8]:
    """One frame of a picture or DICOM file, (H, W, 3) RGB; ``number`` counts from 1.

    Raises:
        ValueError: it is missing, neither of the two, damaged, too small, or has no such frame.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise UnreadableError(f"{path} is not a regular file")
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        dataset = read_dicom(path)
        if reason := Instance(str(path), dataset, lambda: dataset).refusal:
            raise UnreadableError(f"{path} {reason}")
        return require_size(next(frames(dataset, str(path), only=number)).pixels, str(path))
    if number != 1:
        raise UnreadableError(f"{path} has no frame {number}")
    return require_size(read_picture(path).pixels, str(path))


def list_folder(folder: Path) -> Iterator[Path]:
    """Every file under a folder, sorted, without hidden files and bookkeeping; none is opened."""
    found: list[Path] = []
    # Unlike Path.rglob it does not fail where a folder goes while it is looked at.
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".") and name not in _BOOKKEEPING]
    labels = folder / "labels" if (folder / "datastore_v2.json").exists() else None
    yield from (file for file in sorted(found) if file.is_file() and labels not in file.parents)


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file under the given files and folders, sorted, without hidden files, bookkeeping, and maps made here.

    Raises:
        UnreadableError: a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from (file for file in list_folder(path) if not is_own(file))
        elif path.is_file():
            yield path
        elif path.exists():
            raise UnreadableError(f"{path} is not a regular file")
        else:
            raise UnreadableError(f"{path} does not exist")


def read_header(path: Path) -> Dataset:
    """A DICOM file without its pixels; raises as :func:`read_dicom`."""
    return read_dicom(path, pixels=False)


def read_instances(
    paths: Iterable[Path], header_of: Callable[[Path], Dataset] = read_header
) -> tuple[list[Instance], list[Problem]]:
    """Read the headers of files and folders; pictures become VL Endoscopic Images, those of one folder one study.

    Files of videos are passed over.

    Args:
        paths: the files and folders.
        header_of: reads a DICOM file's header, or knows it.

    Returns:
        Every DICOM object once, by SOP Instance UID, then the pictures; and what could not be read.
    """
    instances: dict[str, Instance] = {}
    pictures: dict[Path, list[Path]] = {}
    problems: list[Problem] = []
    for file in find_files(paths):
        if file.suffix.lower() in PICTURE_SUFFIXES:
            pictures.setdefault(file.parent, []).append(file)
            continue
        if file.suffix.lower() in VIDEO_SUFFIXES:
            continue
        try:
            header = header_of(file)
            instances.setdefault(header.SOPInstanceUID, Instance(str(file), header, partial(read_dicom, file)))
        except UnreadableError as error:
            problems.append(Problem(str(file), str(error)))
    for members in pictures.values():
        images, unreadable = convert_pictures(members, Examination())
        for image in images:  # unless the still that was made of it earlier lies among the files
            instances.setdefault(image.header.SOPInstanceUID, image)
        problems += unreadable
    return list(instances.values()), problems


def read_studies(paths: Iterable[Path]) -> tuple[list[Study], list[Problem]]:
    """Sort the images and videos to analyse, from files and folders, into studies.

    The videos of one folder that are no DICOM are one study. Results of this software and objects without pictures
    (reports, presentation states) belong into a study's folder and are passed over there; named as files of their own
    they are refused like any other wrong input. Images that an earlier analysis made of pictures or videos are passed
    over where those themselves are.

    Returns:
        The studies, and what could not be used.
    """
    paths = list(paths)
    named = {str(path) for path in paths}
    files = list(find_files(paths))
    instances, problems = read_instances(files)
    recordings, unreadable = _video_files(files, named)
    stored, damaged = _opened(instances, lambda one: Path(one.origin))
    recordings += stored
    problems += [*unreadable, *damaged]
    images = []
    for instance in instances:
        if instance.is_video:
            continue
        reason = instance.refusal
        if reason is None:
            images.append(instance)
        elif instance.origin in named or not instance.belongs_beside_images:
            problems.append(Problem(instance.origin, f"{instance.origin} {reason}"))
    if recordings or any(image.converted for image in images):
        images = _originals(images)
    return group(images, recordings), problems


def with_videos(study: Study, folder: Path) -> tuple[Study, list[Problem]]:
    """A study of a library with what can be analysed, its videos opened; and what could not be used.

    Args:
        study: of the library.
        folder: gets the videos of an archive, and is kept as long as they are used.

    Raises:
        PacsError: a video cannot be fetched.
    """
    recordings, problems = _opened(study.instances, lambda one: one.file(folder))
    images = [one for one in study.images.instances if not one.is_video]
    return Study(study.uid, tuple(_originals(images) if recordings else images), tuple(recordings)), problems


def _originals(images: Iterable[Instance]) -> list[Instance]:
    """Images without those that an earlier analysis made of pictures or videos."""
    return [one for one in images if one.converted or one.header.get("InstanceCreatorUID") != CONVERTER]


def _opened(
    instances: Iterable[Instance], file_of: Callable[[Instance], Path]
) -> tuple[list[Recording], list[Problem]]:
    """The videos among instances, and which cannot be read."""
    recordings, problems = [], []
    for instance in instances:
        if not instance.is_video:
            continue
        try:
            file = file_of(instance)
            movie = open_dicom(instance.origin, instance.header, file, instance.streamed)
        except UnreadableError as error:
            problems.append(Problem(instance.origin, str(error)))
            continue
        recordings.append(Recording(movie, instance.header, stored=True, size=file.stat().st_size))
    return recordings, problems


def _video_files(files: Iterable[Path], named: Container[str]) -> tuple[list[Recording], list[Problem]]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            folders.setdefault(file.parent, []).append(file)
    recordings: list[Recording] = []
    problems: list[Problem] = []
    for members in folders.values():
        opened, reasons = open_files(members, Examination())
        recordings += opened
        # Clips that were cut here belong into a folder of results.
        problems += [
            Problem(str(path), reason)
            for path, reason in reasons.items()
            if str(path) in named or not reason.endswith(OWN_CLIP)
        ]
    return recordings, problems


def convert_pictures(paths: Iterable[Path], examination: Examination) -> tuple[list[Instance], list[Problem]]:
    """Turn pictures into the VL Endoscopic Images of one study, in the given order."""
    fingerprints: dict[Path, str] = {}
    problems = []
    for path in paths:
        try:
            fingerprints[path] = read_picture(path).fingerprint
        except ValueError as error:
            problems.append(Problem(str(path), str(error)))
    examination = study_of(examination, list(fingerprints.values()))
    instances = []
    seen: dict[str, int] = {}
    for number, (path, fingerprint) in enumerate(fingerprints.items(), start=1):
        copy = seen[fingerprint] = seen.get(fingerprint, 0) + 1

        def read(path: Path = path, number: int = number, copy: int = copy) -> Dataset:
            try:
                return endoscopic_image(read_picture(path), examination, number, copy)
            except ValueError as error:
                raise UnreadableError(str(error)) from error

        header = read()
        del header.PixelData
        instances.append(Instance(str(path), header, read, converted=True))
    return instances, problems


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
