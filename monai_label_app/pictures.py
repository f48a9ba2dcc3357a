"""Read JPEG, PNG, TIFF and BMP files as the stills of a scope that writes no DICOM."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from report.endoscopic_image import Still

if TYPE_CHECKING:  # a second to import
    from matplotlib.figure import Figure

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 64 * 1024 * 1024
"""Largest frame that is read, in pixels; the largest endoscopes today have 8 million."""

_OWN = {"Software": "EndoLens"}
"""Text in every PNG of maps or plots that is written here, so that none is ever taken for a picture of a patient."""

_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
"""Of the compressions that a TIFF file may hold, by Pillow's names."""


class PictureError(ValueError):
    """A file that cannot be used as a picture; the message is one sentence."""


def read_picture(path: Path) -> Still:
    """Decode a JPEG, PNG, TIFF or BMP file, turned as its orientation tag says.

    Raises:
        PictureError: it is missing, no such picture, truncated or unreasonably large, a TIFF of several pages or of 32
            bits a value, or a map or plot that was written here.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG", "TIFF", "BMP")) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(f"{path} has {width} x {height} pixels, which is more than can be read")
                if _is_own(image):
                    raise PictureError(f"{path} is a map or plot made by EndoLens, no picture of a patient")
                if image.format == "TIFF":
                    _require_still(path, image)
                lossy = image.format == "JPEG" or image.info.get("compression") in _LOSSY_TIFF
                pixels = _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise PictureError(f"{path} has more pixels than can be read") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} is not a JPEG, PNG, TIFF or BMP picture") from None
    except PictureError:
        raise
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise PictureError(f"{path} cannot be read as a picture: {error}") from None
    return Still(pixels, lossy_ratio=pixels.nbytes / path.stat().st_size if lossy else None)


def write_own(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write a map or sheet (H, W, 3) as PNG that says that it was made here."""
    text = PngInfo()
    for name, value in _OWN.items():
        text.add_text(name, value)
    Image.fromarray(pixels).save(path, "PNG", compress_level=3, pnginfo=text)


def write_plot(figure: Figure, path: Path | BinaryIO) -> None:
    """Write a plot as PNG that says that it was made here."""
    figure.savefig(path, dpi=110, format="png", metadata=_OWN)


def is_own(path: Path) -> bool:
    """Whether a file is a PNG of maps or plots that was written here, or the numbers of a map."""
    if path.suffix.lower() != ".png":
        return path.suffix == ".npy"
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return _is_own(image)
    except (OSError, ValueError, Image.DecompressionBombError):  # for whoever reads it to complain of
        return False


def _is_own(image: Image.Image) -> bool:
    return all(image.info.get(name) == value for name, value in _OWN.items())


def _require_still(path: Path, image: Image.Image) -> None:
    pages = getattr(image, "n_frames", 1)
    if pages != 1:
        raise PictureError(f"{path} has {pages} pages, and a picture has one")
    if image.mode in ("I", "F"):  # whose white could be any number
        raise PictureError(f"{path} has values of 32 bits, not 8 or 16")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip to white
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    layer = image.convert("RGBA") if image.has_transparency_data else None
    # What is transparent shows nothing: black, as outside the scope's view. Where all is, nobody wrote how far.
    if layer and layer.getchannel("A").getextrema() != (0, 0):
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.array(image.convert("RGB"))
