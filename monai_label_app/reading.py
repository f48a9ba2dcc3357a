"""Find studies, their images and videos, in files and folders, DICOM or pictures."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from monai_label_app.files import find_files, read_dicom, read_header
from monai_label_app.frames import UnreadableError, frames, require_size
from monai_label_app.pictures import PICTURE_SUFFIXES, read_picture
from monai_label_app.study import Instance, Problem, Study, group
from monai_label_app.video.decode import VIDEO_SUFFIXES
from monai_label_app.video.dicom_video import open_dicom
from monai_label_app.video.recording import OWN_CLIP, Recording, open_files
from report.attributes import CONVERTER
from report.endoscopic_image import Examination, endoscopic_image, study_of


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
