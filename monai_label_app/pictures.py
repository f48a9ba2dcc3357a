"""Read JPEG and PNG files as the stills of a scope that writes no DICOM."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from report.endoscopic_image import Still

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
MAX_PIXELS = 64 * 1024 * 1024
"""Largest frame that is read, in pixels; the largest endoscopes today have 8 million."""


class PictureError(ValueError):
    """A file that cannot be used as a picture; the message is one sentence."""


def read_picture(path: Path) -> Still:
    """Decode a JPEG or PNG file, turned as its orientation tag says.

    Raises:
        PictureError: it is missing, no such picture, truncated or unreasonably large.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise PictureError(f"{path} has {width} x {height} pixels, which is more than can be read")
                lossy = image.format == "JPEG"
                pixels = _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise PictureError(f"{path} has more pixels than can be read") from None
    except UnidentifiedImageError:
        raise PictureError(f"{path} is not a JPEG or PNG picture") from None
    except PictureError:
        raise
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise PictureError(f"{path} cannot be read as a picture: {error}") from None
    return Still(pixels, lossy_ratio=pixels.nbytes / path.stat().st_size if lossy else None)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip to white
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        # What is transparent shows nothing: black, as outside the scope's view.
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    return np.array(image.convert("RGB"))
