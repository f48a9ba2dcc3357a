"""The videos of an examination: what is decoded, and the patient and study that it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import HEVCMP51, MPEG2MPHL, MPEG2MPML, UID

from monai_label_app.folder import temporary
from monai_label_app.frames import UnreadableError
from monai_label_app.video.clips import can_be_copied, copy_whole
from monai_label_app.video.decode import Movie, VideoFile
from report.endoscopic_image import Examination, study_of
from report.endoscopic_video import Coding, Stream, endoscopic_video, video_header

OWN_CLIP = "is a clip made by EndoLens, no recording of a patient"
"""Why a file is refused, as the end of a sentence."""

_MPEG2_MAIN, _MPEG2 = 4, {8: MPEG2MPML, 4: MPEG2MPHL}
"""Main profile of MPEG-2, and the transfer syntax of its levels Main and High (ISO 13818-2, 8)."""

_HEVC_MAIN, _HEVC_LEVEL = 1, 153
"""Profile Main of HEVC, whose eight bits a Video Endoscopic Image has, and its level 5.1 (ISO 23008-2, A.3, A.4)."""

_FASTEST = 60.0
"""Frames a second of MPEG-2 at its level High."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Recording:
    """A video, ready to be decoded.

    Attributes:
        movie: its frames.
        header: of the DICOM object; or one that was made for a file, with the study that it belongs to.
        stored: it is a DICOM object, to which others can refer.
        size: in bytes.
    """

    movie: Movie
    header: Dataset
    stored: bool
    size: int

    @property
    def coding(self) -> Coding:
        """How it is coded; the ratio is that of its pixels, three bytes each, to its bytes."""
        movie = self.movie
        pixels = 3 * movie.width * movie.height * movie.duration * movie.rate
        return Coding(movie.codec, max(1.0, pixels / max(1, self.size)))


def open_files(paths: Iterable[Path], examination: Examination) -> tuple[list[Recording], dict[Path, str]]:
    """Open video files as those of one examination.

    Returns:
        The videos, each once, and why the others are none, in one sentence each.
    """
    movies: dict[str, tuple[Path, VideoFile]] = {}
    problems: dict[Path, str] = {}
    for path in paths:
        try:
            movie = VideoFile(path, str(path))
            if movie.own:
                raise UnreadableError(f"{path} {OWN_CLIP}")
            movies.setdefault(fingerprint(path), (path, movie))
        except UnreadableError as error:
            problems[path] = str(error)
        except OSError as error:
            problems[path] = f"{path} cannot be read: {error.strerror or error}"
    examination = study_of(examination, list(movies))
    return [
        Recording(movie, video_header(examination, print_of), stored=False, size=path.stat().st_size)
        for print_of, (path, movie) in movies.items()
    ], problems


def require_storable(path: Path, name: str) -> None:
    """Refuse a file that is no video, or none that can be stored as DICOM without coding it anew.

    Raises:
        UnreadableError: with the reason, in a sentence that begins with ``name``.
    """
    movie = VideoFile(path, name)
    if movie.own:
        raise UnreadableError(f"{name} {OWN_CLIP}")
    if not (can_be_copied(movie) or _other_syntax(movie)):
        raise UnreadableError(
            f"{name} is coded as {movie.codec}, and only H.264, HEVC and MPEG-2 of the sizes, profiles and levels that "
            "DICOM knows can be stored; endolens analyze takes it as it is"
        )


def as_dicom(path: Path, examination: Examination, print_of: str, number: int) -> Dataset:
    """The Video Endoscopic Image of a file that passed :func:`require_storable`.

    Args:
        path: the file.
        examination: patient and study, with its UID.
        print_of: the file's fingerprint.
        number: place in the series.
    """
    movie = VideoFile(path, str(path))
    recording = Recording(movie, video_header(examination, print_of), stored=False, size=path.stat().st_size)
    syntax = _other_syntax(movie)
    with temporary() as folder:
        copy = copy_whole(movie, folder / ("video.ts" if syntax in _MPEG2.values() else "video.mp4"))
        content = copy.path.read_bytes()
    stream = Stream(content, copy.frames, float(copy.rate), copy.width, copy.height, copy.level, syntax)
    return endoscopic_video(recording.header, stream, recording.coding, number)


def _other_syntax(movie: VideoFile) -> UID | None:
    """The transfer syntax of MPEG-2 or HEVC that DICOM takes as it is; None of another stream."""
    if movie.rotation or not movie.timed:
        return None
    fits = movie.width <= 1920 and movie.height <= 1080 and movie.rate <= _FASTEST
    profile, level = movie.mpeg2 or (0, 0)
    if profile == _MPEG2_MAIN and fits:
        return _MPEG2.get(level)
    profile, level = movie.hevc or (0, 0)
    return HEVCMP51 if movie.plain and profile == _HEVC_MAIN and level <= _HEVC_LEVEL else None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
