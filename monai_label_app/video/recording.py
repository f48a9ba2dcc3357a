"""The videos of an examination: what is decoded, and the patient and study that it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from monai_label_app.frames import UnreadableError
from monai_label_app.video.decode import Movie, VideoFile
from report.endoscopic_image import Examination, study_of
from report.endoscopic_video import Coding, video_header

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
            movies.setdefault(_fingerprint(path), (path, movie))
        except UnreadableError as error:
            problems[path] = str(error)
        except OSError as error:
            problems[path] = f"{path} cannot be read: {error.strerror or error}"
    examination = study_of(examination, list(movies))
    return [
        Recording(movie, video_header(examination, print_of), stored=False, size=path.stat().st_size)
        for print_of, (path, movie) in movies.items()
    ], problems


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
