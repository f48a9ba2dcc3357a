"""The videos of an examination: what is decoded, and the patient and study that it belongs to."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from monai_label_app.frames import UnreadableError
from monai_label_app.video.clips import can_be_copied, copy_whole
from monai_label_app.video.decode import Movie, VideoFile
from report.endoscopic_image import Examination, study_of
from report.endoscopic_video import Coding, Stream, endoscopic_video, video_header

OWN_CLIP = "is a clip made by EndoLens, no recording of a patient"
"""Why a file is refused, as the end of a sentence."""

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
    if not can_be_copied(movie):
        raise UnreadableError(
            f"{name} is coded as {movie.codec}, and only plain H.264 video of up to 1920 x 1080 pixels can be stored; "
            "endolens analyze takes it as it is"
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
    with tempfile.TemporaryDirectory(prefix="endolens-video-") as folder:
        copy = copy_whole(movie, Path(folder) / "video.mp4")
        content = copy.path.read_bytes()
    stream = Stream(content, copy.frames, float(copy.rate), copy.width, copy.height, copy.level)
    return endoscopic_video(recording.header, stream, recording.coding, number)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
