"""Videos whose every frame is known, and videos of real images with known segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import VideoEndoscopicImageStorage

from tests import dicom_files

Pixels = NDArray[np.uint8]

_ROWS, _COLUMNS, _BLOCK = 3, 4, 32


def numbered(number: int) -> Pixels:
    """A frame (96, 128, 3) that shows its number, 0 to 4095, as twelve black and white blocks."""
    bits = np.array([number >> bit & 1 for bit in range(_ROWS * _COLUMNS)]).reshape(_ROWS, _COLUMNS)
    grey = np.where(bits, 230, 20).astype(np.uint8).repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)
    return np.repeat(grey[..., None], 3, axis=2)


def number_of(pixels: Pixels) -> int:
    """The number that a frame shows, whatever compression did to it."""
    height, width = pixels.shape[:2]
    rows = (np.arange(_ROWS) + 0.5) * height / _ROWS
    columns = (np.arange(_COLUMNS) + 0.5) * width / _COLUMNS
    bits = pixels[rows.astype(int)][:, columns.astype(int)].mean(axis=2).ravel() > 120
    return int(sum(int(bit) << place for place, bit in enumerate(bits)))


def encode(
    path: Path,
    frames: Iterable[Pixels],
    codec: str = "libx264",
    rate: int = 25,
    options: dict[str, str] | None = None,
    milliseconds: Sequence[int] | None = None,
    container: str | None = None,
    sound: bool = False,
    pixels: str = "yuv420p",
) -> Path:
    """Write a video; with ``milliseconds`` the time of each frame, else at a constant rate."""
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=1000 if milliseconds else rate)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixels
        stream.options = {"x265-params": "log-level=none", **(options or {})} if codec == "libx265" else options or {}
        if sound:
            _hiss(output)
        for index, picture in enumerate([first, *frames] if milliseconds else _with(first, frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[index], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _with(first: Pixels, others: Iterator[Pixels]) -> Iterator[Pixels]:
    yield first
    yield from others


def _hiss(output: Any) -> None:
    sound = output.add_stream("aac", rate=44100)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 44100)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
    frame.rate = 44100
    output.mux(sound.encode(frame))
    output.mux(sound.encode())


def only_sound(path: Path) -> Path:
    """A file of sound without a picture."""
    with av.open(str(path), "w") as output:
        _hiss(output)
    return path


def copied(source: Path, path: Path, options: dict[str, str]) -> Path:
    """The picture of a video in another file, as it is coded, with these options of its container."""
    with av.open(str(source)) as container, av.open(str(path), "w", options=options) as output:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                output.mux(packet)
    return path


def wrapped(path: Path, syntax: str, frames: int, rate: float, parts: int = 1) -> Dataset:
    """A video file as the Video Endoscopic Image of a scope, its stream in so many fragments."""
    with av.open(str(path)) as container:
        shape = container.streams.video[0].codec_context
        blank = np.zeros((2, shape.height, shape.width, 3), np.uint8)
    dataset = dicom_files.image(
        blank,
        sop_class=VideoEndoscopicImageStorage,
        NumberOfFrames=frames,
        FrameTime=str(1000 / rate),
        PhotometricInterpretation="YBR_PARTIAL_420",
        LossyImageCompression="01",
    )
    content = path.read_bytes()
    content += b"\0" * (len(content) % 2)
    size = -(-len(content) // parts) + 1 & ~1
    dataset.PixelData = encapsulate([content[i : i + size] for i in range(0, len(content), size)], has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def pan(file: Path, count: int, size: tuple[int, int], seed: int) -> list[Pixels]:
    """So many frames, (width, height) each, of a camera that moves over a picture and comes nearer or goes away."""
    random = np.random.default_rng(seed)
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    shares = np.linspace(*(1 - 0.2 * random.random(2)), count)
    places = np.linspace(*random.random((2, 2)), count)
    scale = min(image.width / size[0], image.height / size[1])
    made = []
    for share, (x, y) in zip(shares, places, strict=True):
        width, height = size[0] * scale * share, size[1] * scale * share
        left, top = x * (image.width - width), y * (image.height - height)
        box = (left, top, left + width, top + height)
        made.append(np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box)))
    return made


def blurred(frames: Iterable[Pixels]) -> list[Pixels]:
    """Out of focus, by a thirtieth of their height."""
    return [
        np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(frame.shape[0] / 30))) for frame in frames
    ]


def faded(before: Sequence[Pixels], after: Sequence[Pixels], count: int) -> list[Pixels]:
    """``after``, its first frames mixed with the last one of ``before``."""
    weights = (np.arange(count) + 1) / (count + 1)
    mixed = [
        np.rint(weight * new + (1 - weight) * before[-1]).astype(np.uint8)
        for weight, new in zip(weights, after, strict=False)
    ]
    return [*mixed, *after[count:]]
