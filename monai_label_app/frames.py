"""Decode an image's pixels, frame by frame, to RGB of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from monai_label_app.pictures import MAX_PIXELS

_ENDS_WITH_MARKER = frozenset([*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes])


class UnreadableError(ValueError):
    """An input that cannot be used; the message is one sentence for the user."""


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
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if "PixelData" not in dataset:
        raise UnreadableError(f"{origin} has no pixels")
    if not dataset.PixelData or rows * columns == 0 or _frame_count(dataset) < 1:
        raise UnreadableError(f"{origin} has no frames")
    if rows * columns > MAX_PIXELS:
        raise UnreadableError(f"{origin} has frames of {columns} x {rows} pixels, which is more than can be read")
    try:
        _require_whole(dataset)
        numbers = range(1, _frame_count(dataset) + 1) if only is None else [only]
        if only is not None and not 1 <= only <= _frame_count(dataset):
            raise UnreadableError(f"has no frame {only}")
        decoded = get_decoder(dataset.file_meta.TransferSyntaxUID).iter_array(
            dataset, indices=[number - 1 for number in numbers], as_rgb=True
        )
        for number, (pixels, description) in zip(numbers, decoded, strict=True):
            yield Frame(_to_rgb(pixels, str(description["photometric_interpretation"]), dataset), number)
    except UnreadableError as error:
        raise UnreadableError(f"{origin} {error}") from None
    except Exception as error:
        raise UnreadableError(f"{origin} has pixels that cannot be decoded: {str(error).splitlines()[0]}") from error


def _frame_count(dataset: Dataset) -> int:
    frames = dataset.get("NumberOfFrames")
    return 1 if frames is None else int(frames)


def _require_whole(dataset: Dataset) -> None:
    """Decoders return a grey remainder for a bit stream that was cut off; its missing end marker gives it away."""
    if dataset.file_meta.TransferSyntaxUID not in _ENDS_WITH_MARKER:
        return
    count = _frame_count(dataset)
    found = 0
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        found += 1
        if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise UnreadableError(f"has a truncated frame {found}")
    if found != count:
        raise UnreadableError(f"has {found} of the {count} frames that it announces")


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
