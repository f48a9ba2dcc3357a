"""Decode a video frame by frame, in constant memory however long it is, from any moment on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from monai_label_app.frames import UnreadableError, in_one_line
from monai_label_app.pictures import MAX_PIXELS

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".wmv", ".asf"}
)

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,h264,hevc,m4v"
"""Containers and bare streams that are opened, by FFmpeg's names. None of them leads to another file or address, as a
playlist does.
"""

_UNSEEKABLE = frozenset({"mpeg", "mpegvideo"})
"""Containers whose times are wrong after a jump; they are decoded from the beginning."""

_BACK = (0.0, 5.0, 30.0, math.inf)
"""Seconds before a wanted moment at which decoding starts, tried in turn: not every container finds a key frame."""

_PLAUSIBLE = 120.0
"""Frames a second above which the frames are counted: a file that has no one rate announces 1000."""

_PAUSE = 600.0
"""Seconds that a frame is shown at most; what comes later has a time that is damaged, and years would be looked at."""

TICK = 1e-4
"""Seconds within which two times are the same."""

OWN = {"comment": "EndoLens"}
"""Metadata of every clip that is cut here, so that none is ever taken for a recording of a patient."""


class Picture(Protocol):
    """A decoded frame that is not converted yet."""

    def pixels(self, short_side: int | None = None) -> NDArray[np.uint8]:
        """RGB, (H, W, 3) uint8, upright; with the shorter side reduced to this many pixels if it is longer."""


@dataclass(frozen=True)
class Shot:
    """One frame of a video.

    Attributes:
        number: of the frame, counted from 1.
        time: in seconds after the first frame.
        picture: what it shows.
    """

    number: int
    time: float
    picture: Picture


class Movie(Protocol):
    """A video that can be decoded from any moment on.

    Attributes:
        origin: its name, as the user knows it.
        duration: in seconds, as it announces; 0 if it announces none.
        rate: mean number of frames a second.
        codec: by FFmpeg's name; empty where each frame is coded by itself.
        width, height: of the frames as they are coded, in pixels.
    """

    origin: str
    duration: float
    rate: float
    codec: str
    width: int
    height: int

    def shots(self, start: float = 0.0, number: int = 1) -> Iterator[Shot]:
        """The frames in their order, from the first at or after ``start`` seconds, which gets this number.

        Damaged frames are left out; the frames end where the file can be read no further.
        """


@dataclass(frozen=True)
class Decoded:
    """A frame as FFmpeg decodes it, a :class:`Picture`."""

    frame: av.VideoFrame
    # To make ready for a size takes as long as to convert a frame: shared by those of a video.
    converter: VideoReformatter = field(default_factory=VideoReformatter)

    def pixels(self, short_side: int | None = None) -> NDArray[np.uint8]:
        """RGB, upright, reduced to ``short_side``."""
        width, height = reduced(self.frame.width, self.frame.height, short_side)
        made = self.converter.reformat(self.frame, width, height, "rgb24", interpolation="AREA")
        turns = round((self.frame.rotation or 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(made.to_ndarray(), turns))


class VideoFile:
    """A video in a file or a stream of bytes.

    Args:
        source: a path, or what opens bytes that can be sought in.
        origin: its name, as the user knows it.
        frame_time: seconds a frame, where the stream has no times of its own.

    Raises:
        UnreadableError: it is no video that can be decoded; the message is one sentence.
    """

    def __init__(self, source: Path | Callable[[], BinaryIO], origin: str, frame_time: float | None = None) -> None:
        self.origin = origin
        self._source = source
        try:
            with self._open() as container:
                self._describe(container, frame_time)
        except UnreadableError as error:
            raise UnreadableError(f"{origin} {error}") from None
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableError(f"{origin} {_reason(source, error)}") from None

    def shots(self, start: float = 0.0, number: int = 1) -> Iterator[Shot]:
        """The frames from the first at or after ``start`` seconds, which gets this number."""
        converter = VideoReformatter()
        for back in _BACK:
            decoded = self._decode(start - back)
            first = next(decoded, None)
            if first is None or (first[0] > start + TICK and start - back > 0):
                continue
            wanted = (one for one in chain([first], decoded) if one[0] >= start - TICK)
            for place, (time, frame) in enumerate(wanted, number):
                yield Shot(place, time, Decoded(frame, converter))
            return

    @property
    def h264(self) -> tuple[int, int] | None:
        """Profile and level of an H.264 stream, as its sequence parameter set numbers them; None of another."""
        if self.codec != "h264":
            return None
        if self._extra[:1] == b"\1":  # as in MP4 (ISO 14496-15, 5.3.3.1)
            return self._extra[1], self._extra[3]
        _, mark, sequence = self._extra.partition(b"\0\0\1\x67")
        return (sequence[0], sequence[2]) if mark and len(sequence) > 2 else None

    @property
    def mpeg2(self) -> tuple[int, int] | None:
        """Profile and level of an MPEG-2 stream, as its sequence extension numbers them; None of another."""
        _, _, extension = self._extra.partition(b"\0\0\1\xb5")
        if self.codec != "mpeg2video" or len(extension) < 2 or extension[0] >> 4 != 1:
            return None
        return extension[0] & 7, extension[1] >> 4

    @property
    def hevc(self) -> tuple[int, int] | None:
        """Profile and level of an HEVC stream in MP4 or Matroska (ISO 14496-15, 8.3.3.1); None of another."""
        if self.codec != "hevc" or self._extra[:1] != b"\1" or len(self._extra) < 13:
            return None
        return self._extra[1] & 31, self._extra[12]

    @contextmanager
    def packets(self, start: float) -> Iterator[tuple[av.VideoStream, Iterator[Packet]]]:
        """The stream, and its coded frames from a key frame before ``start`` seconds on, in the order of decoding."""
        with self._open() as container:
            stream = container.streams.video[0]
            self._seek(container, start)
            yield stream, _in_order(one for one in container.demux(stream) if one.pts is not None)

    @property
    def plain(self) -> bool:
        """Whole, upright frames in eight bits and 4:2:0, with times, that can be jumped to."""
        return self.seekable and not self.interlaced and not self.rotation and self.pixel_format == "yuv420p"

    def frame_times(self) -> NDArray[np.float64]:
        """When each frame of a video with times is shown, in seconds after the first: (N,), rising. None is decoded."""
        with self.packets(0) as (_, packets):
            times = np.array(sorted(map(self.time_of, packets)))
        return times[times > -TICK]

    def time_of(self, packet: Packet) -> float:
        """When a coded frame is shown, in seconds after the first frame."""
        return float((packet.pts or 0) * (packet.time_base or Fraction(0)) - self.first)

    def _open(self) -> InputContainer:
        source = str(self._source) if isinstance(self._source, Path) else self._source()
        return av.open(source, "r", options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"})

    def _describe(self, container: InputContainer, frame_time: float | None) -> None:
        self.own = OWN.items() <= container.metadata.items()
        if not container.streams.video:
            raise UnreadableError("has sound and no picture" if container.streams.audio else "has no picture")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnreadableError("is coded in a way that cannot be decoded here")
        with self._open() as unread:  # what is encrypted in part could be decoded, to noise
            if any(packet.has_sidedata("encryption_info") for packet in islice(unread.demux(video=0), 1)):
                raise UnreadableError("is encrypted")
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise UnreadableError(f"has frames of {context.width} x {context.height} pixels, more than can be read")
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.rate = 1 / frame_time if frame_time else float(rate)
        length = stream.duration and stream.time_base and float(stream.duration * stream.time_base)
        self.duration = float(length or (container.duration or 0) / av.time_base)
        self.codec = context.name
        self.width, self.height, self.pixel_format = context.width, context.height, context.pix_fmt or ""
        self._extra = bytes(context.extradata or b"")
        first = next(_frames_of(container), None)
        if first is None:
            raise UnreadableError("has no frame that can be decoded")
        self.interlaced, self.rotation = first.interlaced_frame, first.rotation or 0
        # A bare stream has no times; one that lies may have some, and none at the beginning.
        self.timed = first.pts is not None
        self.seekable = self.timed and container.format.name not in _UNSEEKABLE
        self.first = first.pts * first.time_base if first.pts is not None and first.time_base else Fraction(0)
        if self.timed and stream.start_time is not None and stream.time_base:
            # What was recorded in the middle of a stream has coded frames that nothing can be made of before the first.
            self.duration = max(0.0, self.duration - max(0.0, float(self.first - stream.start_time * stream.time_base)))
        if self.timed and not frame_time and self.rate > _PLAUSIBLE:
            times = self.frame_times()
            self.rate = (len(times) - 1) / float(times[-1]) if len(times) > 1 else 25.0

    def _decode(self, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            # Two frames earlier, which removing the lines of interlaced ones looks at.
            try:
                self._seek(container, start - 2 / self.rate)
            except av.FFmpegError:
                return
            frames = _frames_of(container)
            before = None
            for index, frame in enumerate(_deinterlaced(frames, stream) if self.interlaced else frames):
                time = index / self.rate
                if self.timed and frame.pts is not None and frame.time_base is not None:
                    time = float(frame.pts * frame.time_base - self.first)
                if before is not None and time > before + _PAUSE:
                    return
                yield time, frame
                before = time

    def _seek(self, container: InputContainer, start: float) -> None:
        stream = container.streams.video[0]
        if start > 0 and self.seekable and stream.time_base:
            container.seek(int((Fraction(start) + self.first) / stream.time_base), stream=stream)


def shown_at(moments: Iterator[float], shots: Iterator[Shot], rate: float) -> Iterator[tuple[float, Shot]]:
    """Each of rising moments, in seconds, with the frame that is shown then; until the last frame's time is over.

    Args:
        moments: without end, or not.
        shots: the frames, from the one that is shown at the first moment on.
        rate: frames a second: the last one is shown for as long as the others are.
    """
    shown, moment = next(shots, None), next(moments, None)
    for following in chain(shots, [None]):
        if shown is None:
            return
        end = following.time if following else shown.time + min(1 / rate, _PAUSE)
        while moment is not None and moment < end - TICK:
            yield moment, shown
            moment = next(moments, None)
        if moment is None:
            return
        shown = following


def reduced(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """(width, height) with the shorter side of this length, unless it is shorter already."""
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _frames_of(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Every frame that can be decoded."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):  # the file ends, or is cut off
            return
        try:
            yield from packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:  # damaged; those after it may be whole
            continue


def _in_order(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Packets that all say when they are to be decoded: Matroska does not tell it of the first after a jump."""
    waiting: list[Packet] = []
    for packet in packets:
        waiting.append(packet)
        if packet.dts is None:
            continue
        for place, one in enumerate(waiting):
            one.dts = packet.dts - (len(waiting) - 1 - place) * max(1, packet.duration or 0)
        yield from waiting
        waiting = []
    for packet in waiting:  # of a video of very few frames
        packet.dts = packet.pts
        yield packet


def _deinterlaced(frames: Iterator[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Interlaced frames with both halves of one moment; the others as they are."""
    graph = Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    )
    graph.link_nodes(*nodes).configure()
    for frame in chain(frames, [None]):
        graph.push(frame)
        while True:
            try:
                yield graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                break


def _reason(source: Path | Callable[[], BinaryIO], error: Exception) -> str:
    """Why something is no video, as the end of a sentence."""
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(source, Path):
        try:
            if source.stat().st_size == 0:
                return "is empty"
            with Image.open(source) as image:
                return f"is a {image.format} picture, not a video"
        except Exception:
            pass
    if isinstance(error, av.InvalidDataError):
        return "is no video that can be read, or is cut off before its index"
    return f"cannot be read as a video: {in_one_line(error)}"
