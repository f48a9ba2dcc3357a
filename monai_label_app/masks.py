"""Masks of objects, which lie in a folder of their own under the names of their pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_label_app.pictures import PICTURE_SUFFIXES, PictureError, read_picture

_OBJECT = 128
"""Grey from which a pixel is the object; JPEG blurs its edges."""


def find_masks(folder: Path) -> dict[str, list[Path]]:
    """Name of a picture without its suffix → its masks, of which there should be one."""
    named: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            named.setdefault(path.stem, []).append(path)
    return named


def masks_by_picture(folder: Path) -> dict[str, Path]:
    """Name of a picture without its suffix → its mask.

    Raises:
        ValueError: a picture has two.
    """
    named = find_masks(folder)
    if twice := next((paths for paths in named.values() if len(paths) > 1), None):
        raise ValueError(f"{twice[0]} and {twice[1]} are masks of one picture")
    return {name: path for name, (path,) in named.items()}


def read_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a mask: (H, W), true on the object.

    Raises:
        PictureError: it cannot be read, is empty, or is not of its picture's ``size`` (H, W).
    """
    mask: NDArray[np.bool_] = read_picture(path).pixels.max(axis=2) >= _OBJECT
    if mask.shape != size:
        raise PictureError(f"{path} is of {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}")
    if not mask.any():
        raise PictureError(f"{path} is an empty mask: no pixel reaches {_OBJECT} of 255")
    return mask
