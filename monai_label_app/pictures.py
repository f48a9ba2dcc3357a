"""Read JPEG, PNG and TIFF files as the stills of a scope that writes no DICOM."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from report.endoscopic_image import Still

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
MAX_PIXELS = 64 * 1024 * 1024
"""Largest frame that is read, in pixels; the largest endoscopes today have 8 million."""


_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
"""Of the compressions that a TIFF file may hold, by Pillow's names."""


class PictureError(ValueError):
    """A file that cannot be used as a picture; the message is one sentence."""


def read_picture(path: Path) -> Still:
    """Decode a JPEG, PNG or TIFF file, turned as its orientation tag says.

    Raises:
        PictureError: it is missing, no such picture, truncated or unreasonably large, or a TIFF of several pages or of
            32 bits a value.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG", "TIFF")) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(f"{path} has {width} x {height} pixels, which is more than can be read")
                if image.format == "TIFF":
                    _require_still(path, image)
                lossy = image.format == "JPEG" or image.info.get("compression") in _LOSSY_TIFF
                pixels = _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise PictureError(f"{path} has more pixels than can be read") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} is not a JPEG, PNG or TIFF picture") from None
    except PictureError:
        raise
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise PictureError(f"{path} cannot be read as a picture: {error}") from None
    return Still(pixels, lossy_ratio=pixels.nbytes / path.stat().st_size if lossy else None)


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
    if image.has_transparency_data:
        # What is transparent shows nothing: black, as outside the scope's view.
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.array(image.convert("RGB"))
