"""Cut a clip out of a video: as it is coded where a key frame lies right, else coded anew; frame by frame exact.

A clip has no sound: what is said in an examination room belongs to nobody's report.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from monai_label_app.frames import UnreadableError
from monai_label_app.video.decode import OWN, TICK, Movie, VideoFile, shown_at

MARGIN = 1.0
"""Seconds before and after a segment; between half and twice as many where that saves coding anew."""

LONGEST = 60.0
"""Seconds of a clip, at most; of a longer segment the middle of the clip is the still."""

_LARGEST = 1920, 1080
"""Of an H.264 stream of level 4.1 and 4.2, which DICOM takes."""

_PROFILES = frozenset({77, 100})
"""Main and High, which every decoder of DICOM's High Profile reads (H.264, A.2)."""

_LEVEL = 42

_FASTEST = 60.0
"""Frames a second of level 4.2 at the largest size."""

_BLOCKS = 245_760
"""Blocks of 16 x 16 pixels a second of level 4.1 (H.264, table A-1)."""

_CODING = {"profile": "high", "crf": "18", "preset": "veryfast"}
"""Of a clip that is coded anew: by x264, so that no difference is seen."""

_REORDERED = 32
"""Packets after a cut in which a frame from before it could still come; H.264 holds back 16 frames at most."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Clip:
    """A clip that was written.

    Attributes:
        path: an MP4 file of an even number of bytes.
        start, end: in seconds of the video; the end is when its last frame stops being shown.
        frames, rate, width, height: number of frames, frames a second, and their size in pixels.
        copied: the stream is that of the video, bit by bit; else it was coded anew.
        level: of its H.264 stream, ten times: 41 for level 4.1.
    """

    path: Path
    start: float
    end: float
    frames: int
    rate: Fraction
    width: int
    height: int
    copied: bool
    level: int


def cut(movie: Movie, start: float, end: float, around: float, path: Path) -> Clip:
    """Cut the part from ``start`` to ``end`` seconds, with a margin, into an MP4 file of H.264.

    Args:
        movie: the video.
        start, end: of the segment.
        around: the moment that a clip of a part of a long segment is made around.
        path: the file, which is replaced.

    Raises:
        UnreadableError: no frame of it can be decoded any more.
    """
    if end - start > LONGEST - 2 * MARGIN:
        start = min(max(start, around - LONGEST / 2 + MARGIN), end - LONGEST + 2 * MARGIN)
        end = start + LONGEST - 2 * MARGIN
    made = _copied(movie, start, end, path) if isinstance(movie, VideoFile) else None
    made = made or _encoded(movie, max(0.0, start - MARGIN), end + MARGIN, path)
    _fill_up(path)
    return made


def can_be_copied(movie: VideoFile) -> bool:
    """Whether the stream is one that DICOM takes: H.264 of its profiles and levels, whole frames, upright."""
    profile, level = movie.h264 or (0, 0)
    fits = movie.width <= _LARGEST[0] and movie.height <= _LARGEST[1]
    return movie.plain and fits and profile in _PROFILES and level <= _LEVEL


def copy_whole(movie: VideoFile, path: Path, progress: Callable[[float], None] = lambda seconds: None) -> Clip:
    """Copy all of a stream into a file, without sound, its first frame at 0.

    Args:
        movie: the video, of plain H.264 or one that DICOM takes as it is.
        path: the file, which is replaced: ``.mp4``, or ``.ts`` for MPEG-2.
        progress: called with the time of each frame; what it raises ends the work.
    """
    with movie.packets(0) as (stream, packets):
        first = round(movie.first / stream.time_base) if stream.time_base else 0
        count = _mux(stream, _told(packets, movie.time_of, progress), path, first, own=False)
    _fill_up(path)
    rate = Fraction(movie.rate).limit_denominator(1001)
    shape = movie.width, movie.height
    return Clip(path, 0.0, movie.duration, count, rate, *shape, copied=True, level=(movie.h264 or (0, 0))[1])


def code_whole(movie: Movie, path: Path, progress: Callable[[float], None] = lambda seconds: None) -> Clip:
    """Code all of a video anew into an MP4 file of H.264, without sound; for the rest, as :func:`copy_whole`.

    Raises:
        UnreadableError: no frame of it can be decoded any more.
    """
    return _encoded(movie, 0.0, math.inf, path, progress, own=False)


def _copied(movie: VideoFile, start: float, end: float, path: Path) -> Clip | None:
    """The clip without coding anew; None where the stream, or its key frames, do not allow it."""
    if not can_be_copied(movie):
        return None
    with movie.packets(start - 2 * MARGIN) as (stream, packets):
        chosen = _closed(movie, packets, start, end)
        if not chosen:
            return None
        times = sorted(movie.time_of(packet) for packet in chosen)
        step = (times[-1] - times[0]) / max(1, len(times) - 1)
        if len(times) < 2 or max(abs(np.diff(times) - step)) > 0.1 * step:
            return None  # DICOM knows one rate of a video
        _mux(stream, chosen, path, start=chosen[0].pts or 0)
    rate = Fraction(1 / step).limit_denominator(1001)
    shown = movie.width, movie.height
    return Clip(
        path, times[0], times[-1] + step, len(times), rate, *shown, copied=True, level=(movie.h264 or (0, 0))[1]
    )


def _closed(movie: VideoFile, packets: Iterator[Packet], start: float, end: float) -> list[Packet]:
    """Packets from a key frame in the first margin to a cut in the second over which no frame leans; [] if none."""
    kept: list[Packet] = []
    times: list[float] = []
    for packet in packets:
        time = movie.time_of(packet)
        if packet.is_keyframe and time <= max(0.0, start - MARGIN / 2) + TICK:
            kept, times = [], []  # a later one: the shorter clip
        if not kept and not packet.is_keyframe:
            continue
        if time > end + 2 * MARGIN + _REORDERED / movie.rate:
            break
        kept.append(packet)
        times.append(time)
    if not times or times[0] > max(0.0, start - MARGIN / 2) + TICK or times[0] < start - 2 * MARGIN - TICK:
        return []
    if min(times) < times[0]:  # frames that lean on what is before the key frame
        return []
    ended = movie.duration and max(times) >= movie.duration - 2 / movie.rate
    for count in range(1, len(times) + 1):
        before, after = max(times[:count]), times[count:]
        if before + 1 / movie.rate < end + MARGIN / 2 and (after or not ended):
            continue
        if all(one > before for one in after) and before <= end + 2 * MARGIN:
            return kept[:count]
    return []


def _output(path: Path, own: bool = True) -> OutputContainer:
    if path.suffix == ".ts":
        return av.open(str(path), "w", format="mpegts")
    output = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    if own:
        output.metadata.update(OWN)
    return output


def _mux(stream: av.VideoStream, packets: Iterable[Packet], path: Path, start: int = 0, own: bool = True) -> int:
    """Copy coded frames into a file in which ``start``, in the stream's time, is 0; how many they are."""
    count = 0
    with _output(path, own) as output:
        target = output.add_stream_from_template(stream)
        for packet in packets:
            count += 1
            packet.pts = (packet.pts or 0) - start
            packet.dts = (packet.dts or 0) - start
            packet.stream = target
            output.mux(packet)
    return count


def _told(items: Iterable[Item], time_of: Callable[[Item], float], progress: Callable[[float], None]) -> Iterator[Item]:
    for item in items:
        progress(time_of(item))
        yield item


def _encoded(
    movie: Movie,
    start: float,
    end: float,
    path: Path,
    progress: Callable[[float], None] = lambda seconds: None,
    own: bool = True,
) -> Clip:
    """The clip coded anew, at a constant rate: each frame is the one that is shown at its moment."""
    first = next(movie.shots(start), None)
    if first is None:
        raise UnreadableError(f"{movie.origin} has no frame at {start:.1f} s that can be decoded")
    rate = Fraction(min(_FASTEST, movie.rate)).limit_denominator(1001)
    height, width = first.picture.pixels().shape[:2]
    side = min(_LARGEST[1], int(_LARGEST[0] * min(width, height) / max(width, height)))
    height, width = (length // 2 * 2 for length in first.picture.pixels(side).shape[:2])  # colours are of 2 x 2 pixels
    count = 0
    shots = _told(movie.shots(first.time), attrgetter("time"), progress)
    with _output(path, own) as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        level = 41 if -(-width // 16) * -(-height // 16) * rate <= _BLOCKS else _LEVEL
        stream.options = {**_CODING, "level": str(level), "g": str(max(1, round(rate)))}
        steps = (first.time + place / rate for place in itertools.count())
        moments = itertools.takewhile(lambda moment: moment < end - TICK, steps)
        for count, (_, shot) in enumerate(shown_at(moments, shots, movie.rate), start=1):
            pixels = shot.picture.pixels(side)[:height, :width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = count - 1, 1 / rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    shown = first.time + float(count / rate)
    return Clip(path, first.time, shown, count, rate, width, height, copied=False, level=level)


def _fill_up(path: Path) -> None:
    """An even number of bytes, as DICOM wants: of MP4 by an empty box that players pass over (ISO 14496-12, 8.1.2)."""
    if path.stat().st_size % 2:
        with path.open("ab") as file:
            file.write((9).to_bytes(4, "big") + b"free\0")
