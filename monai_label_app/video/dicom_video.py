"""Videos in DICOM: a stream in the pixel data, read where it lies; or frames, each coded by itself."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_fragments, parse_basic_offsets

from monai_label_app.frames import UnreadableError, frames, in_one_line
from monai_label_app.video.decode import TICK, Movie, Shot, VideoFile, reduced

LONG = 90
"""Frames from which a multi-frame image with times is taken for a video, as viewers do."""

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
"""Tags of an item and of the end of a sequence (PS3.5 A.4)."""


def frame_seconds(header: Dataset) -> float | None:
    """Seconds from one frame to the next, as the Cine module tells them; None where it does not."""
    try:
        times = [float(one) for one in header.get("FrameTimeVector") or []][1:]
        rate = float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 0)
        seconds = float(header.get("FrameTime") or (np.mean(times) if times else 0)) / 1000 or (rate and 1 / rate)
    except (ValueError, TypeError, ArithmeticError):  # of a damaged header
        return None
    return seconds if 0 < seconds < np.inf else None


def open_stream(origin: str, header: Dataset, source: Path | Dataset) -> VideoFile:
    """The MPEG-2, H.264 or HEVC stream of an image, of a file or in memory.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    seconds = frame_seconds(header)
    if isinstance(source, Path):
        fragments = _fragments(source, origin)
        movie = VideoFile(lambda: io.BufferedReader(_Joined(source, fragments)), origin, seconds)
    else:
        content = _content(source, origin)
        movie = VideoFile(lambda: io.BytesIO(content), origin, seconds)
    # A bare stream does not say how long it is.
    movie.duration = movie.duration or int(header.get("NumberOfFrames") or 0) * (seconds or 1 / movie.rate)
    return movie


def _content(dataset: Dataset, origin: str) -> bytes:
    """The stream in the pixel data of an image in memory."""
    stream = io.BytesIO(dataset.get("PixelData") or b"")
    try:
        parse_basic_offsets(stream)
        return b"".join(generate_fragments(stream))
    except Exception as error:
        raise UnreadableError(f"{origin} has no pixels that are a stream: {in_one_line(error)}") from None


class _Joined(io.RawIOBase):
    """Parts of a file, (offset, length) each, as one stream."""

    def __init__(self, path: Path, parts: list[tuple[int, int]]) -> None:
        self._file: BinaryIO = path.open("rb")
        self._parts = parts
        self._size = sum(length for _, length in parts)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        before = 0
        for offset, length in self._parts:
            if before <= self._place < before + length:
                self._file.seek(offset + self._place - before)
                count = self._file.readinto(buffer[: before + length - self._place])  # type: ignore[attr-defined]
                self._place += count
                return int(count)
            before += length
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _fragments(path: Path, origin: str) -> list[tuple[int, int]]:
    """Where the fragments of the pixel data lie in a file, without the table of offsets before them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        dcmread(file, stop_before_pixels=True)
        head = file.read(12)
        if head[:4] != b"\xe0\x7f\x10\x00" or head[8:] != b"\xff\xff\xff\xff":
            raise UnreadableError(f"{origin} has no pixels that are a stream")
        parts = []
        while (tag := file.read(4)) == _ITEM:
            length = int.from_bytes(file.read(4), "little")
            # Of a file that is cut off the rest can still be looked at.
            parts.append((file.tell(), min(length, size - file.tell())))
            file.seek(length, io.SEEK_CUR)
    if tag not in (_END, b"") or len(parts) < 2:
        raise UnreadableError(f"{origin} has no pixels that are a stream")
    return parts[1:]


@dataclass(frozen=True)
class _Frame:
    rgb: NDArray[np.uint8]

    def pixels(self, short_side: int | None = None) -> NDArray[np.uint8]:
        height, width = self.rgb.shape[:2]
        size = reduced(width, height, short_side)
        return self.rgb if size == (width, height) else np.asarray(Image.fromarray(self.rgb).resize(size))


class FrameSeries:
    """A multi-frame image with times as a video."""

    def __init__(self, origin: str, dataset: Dataset) -> None:
        self.origin = origin
        self._dataset = dataset
        self._count = int(dataset.get("NumberOfFrames") or 1)
        self.rate = 1 / (frame_seconds(dataset) or 1 / 25)
        self.duration = self._count / self.rate
        self.codec = ""
        self.width, self.height = int(dataset.Columns), int(dataset.Rows)

    def shots(self, start: float = 0.0, number: int = 1) -> Iterator[Shot]:
        """The frames from the first at or after ``start`` seconds, which gets this number."""
        first = int(np.ceil((start - TICK) * self.rate)) + 1
        if first <= 1:
            decoded = frames(self._dataset, self.origin)
        else:
            one_by_one = partial(frames, self._dataset, self.origin)
            decoded = (frame for place in range(first, self._count + 1) for frame in one_by_one(only=place))
        for place, frame in enumerate(decoded):
            yield Shot(number + place, (frame.number - 1) / self.rate, _Frame(frame.pixels))


def open_dicom(origin: str, header: Dataset, source: Path | Dataset, streamed: bool) -> Movie:
    """A DICOM image as a video; ``streamed`` if its pixels are one stream.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    if streamed:
        return open_stream(origin, header, source)
    movie = FrameSeries(origin, dcmread(source) if isinstance(source, Path) else source)
    next(movie.shots())
    return movie
