"""Decode an image's pixels, frame by frame, to RGB of 8 bits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import parse_fragments
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSTransferSyntaxes

from monai_label_app.codestream import damage
from monai_label_app.pictures import MAX_PIXELS

# GDCM decodes these too, but paints what is missing and aborts the process where a stream is damaged.
_PLUGIN = {
    **dict.fromkeys([JPEGBaseline8Bit, JPEGExtended12Bit, *JPEG2000TransferSyntaxes], "pillow"),
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
}


MIN_SIDE = 32
"""Smallest side of a frame that is shown to a network, in pixels; enlarged to its input, less would look like more."""


class UnreadableError(ValueError):
    """An input that cannot be used; the message is one sentence for the user."""


def in_one_line(error: Exception) -> str:
    """The message of an error by another library, for the end of a sentence; the error's name where it has none."""
    # pydicom adds where in its source it happened, how to program it otherwise, and the bytes of a value, which can be
    # a patient's name; Pillow names what it reads by its address in memory.
    text = re.split(r"Traceback \(most recent|To replace this error", str(error))[0]
    text = re.sub(r"<[\w.]+ object at 0x\w+>", "", re.sub("received b.* with length", "received a length of", text))
    return " ".join(text.split()) or type(error).__name__


def without_login(address: str) -> str:
    """An address as it may be shown: nothing before an @, which may be a password, and no query. A path stays."""
    scheme, separator, rest = address.partition("://")
    return scheme + separator + re.split("[?#]", rest)[0].rpartition("@")[2] if separator else address


@dataclass(frozen=True)
class Frame:
    """One picture of an instance: (H, W, 3) uint8 RGB, and its number, counted from 1."""

    pixels: NDArray[np.uint8]
    number: int


def frames(dataset: Dataset, origin: str, only: int | None = None) -> Iterator[Frame]:
    """Decode the frames of an image, one at a time, or ``only`` the one of this number, counted from 1.

    Any photometric interpretation becomes RGB of 8 bits; grayscale goes through its modality and VOI transformations.

    Raises:
        UnreadableError: no pixels, no frames, truncated or damaged pixels, or a frame of unreasonable size.
    """
    try:
        _require_frames(dataset)
        count = _frame_count(dataset)
        if only is not None and not 1 <= only <= count:
            raise UnreadableError(f"has no frame {only}")
        numbers = range(1, count + 1) if only is None else [only]
        if reason := damage(dataset, count):
            raise UnreadableError(reason)
        syntax = dataset.file_meta.TransferSyntaxUID
        decoded = get_decoder(syntax).iter_array(
            dataset,
            indices=[number - 1 for number in numbers],
            as_rgb=True,
            decoding_plugin=_PLUGIN.get(syntax, ""),
        )
        for number, (pixels, description) in zip(numbers, decoded, strict=True):
            yield Frame(_to_rgb(pixels, str(description["photometric_interpretation"]), dataset), number)
    except UnreadableError as error:
        raise UnreadableError(f"{origin} {error}") from None
    except Exception as error:
        raise UnreadableError(f"{origin} has pixels that cannot be decoded: {in_one_line(error)}") from error


def require_size(pixels: NDArray[np.uint8], origin: str) -> NDArray[np.uint8]:
    """The frame (H, W, 3) itself.

    Raises:
        UnreadableError: it is too small to be shown to a network.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UnreadableError(f"{origin} has a frame of {width} x {height} pixels; a side needs {MIN_SIDE}")
    return pixels


def _require_frames(dataset: Dataset) -> None:
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if "PixelData" not in dataset:
        raise UnreadableError("has no pixels")
    if not dataset.PixelData or rows * columns == 0 or _frame_count(dataset) < 1:
        raise UnreadableError("has no frames")
    if rows * columns > MAX_PIXELS:
        raise UnreadableError(f"has frames of {columns} x {rows} pixels, which is more than can be read")
    announced, held = _frame_count(dataset), _frames_held(dataset)
    if announced > held:
        raise UnreadableError(f"is truncated: it announces {announced} frames and holds {held}")


def _frames_held(dataset: Dataset) -> int:
    """How many frames the pixel data can be at most."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return parse_fragments(dataset.PixelData)[0]
    chroma = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    bits = int(dataset.Rows) * int(dataset.Columns) * chroma * int(dataset.BitsAllocated)
    return len(dataset.PixelData) * 8 // max(1, bits)


def _frame_count(dataset: Dataset) -> int:
    frames = dataset.get("NumberOfFrames")
    return 1 if frames is None else int(frames)


def _to_rgb(pixels: NDArray, photometric: str, dataset: Dataset) -> NDArray[np.uint8]:
    if photometric == "PALETTE COLOR":
        return _to_8_bits(apply_color_lut(pixels, dataset), int(dataset.RedPaletteColorLookupTableDescriptor[2]))
    if photometric.startswith("MONOCHROME"):
        values = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset, prefer_lut=True).astype(np.float64)
        bottom, top = _grey_range(dataset)
        grey = np.clip((values - bottom) / (top - bottom), 0, 1)
        if photometric == "MONOCHROME1":
            grey = 1 - grey
        return np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    if photometric == "RGB":
        return _to_8_bits(pixels, int(dataset.BitsStored))
    raise UnreadableError(f"has photometric interpretation {photometric}, which is not a colour that can be read")


def _grey_range(dataset: Dataset) -> tuple[float, float]:
    """Black and white of the values that come out of the modality and VOI transformations."""
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        if dataset.get(sequence):
            return 0.0, 2.0 ** int(dataset[sequence][0].LUTDescriptor[2]) - 1
    signed = int(dataset.get("PixelRepresentation") or 0)
    bits = int(dataset.BitsStored)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    bottom, top = sorted((low * slope + intercept, high * slope + intercept))
    return bottom, top


def _to_8_bits(pixels: NDArray, bits: int) -> NDArray[np.uint8]:
    if bits > 8:
        pixels = pixels >> (bits - 8)
    return np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)
