"""What is written under a heatmap: which colour is how much, and what it is a map of."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER = (235, 235, 235), (0, 0, 0)
_LINES_A_PICTURE = 34
_SMALLEST = 12


def captioned(picture: NDArray[np.uint8], text: str, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a strip with a colour bar and a caption under a picture, which itself stays as it is.

    Letters are a 34th of the picture's shorter side, at least 12 pixels; a caption that is too wide is broken between
    words, and within one only where it is wider than the picture.

    Args:
        picture: (H, W, 3) uint8.
        text: the caption.
        colours: (N, 3) uint8, from no evidence to the most that the map shows.

    Returns:
        (H + strip, W, 3) uint8.
    """
    height, width = picture.shape[:2]
    size = max(_SMALLEST, round(min(height, width) / _LINES_A_PICTURE))
    pad = size // 2
    bar = _bar(width, size, colours.tobytes())
    lines = [_line(words, width, size) for words in _wrapped(text, size, width - 2 * pad)]
    return np.concatenate([picture, bar, *lines, np.full((pad, width, 3), _PAPER, np.uint8)])


@lru_cache(maxsize=16)
def _line(words: str, width: int, size: int) -> NDArray[np.uint8]:
    """A line of a caption; what names the model is the same under every picture."""
    strip = Image.new("RGB", (width, round(1.35 * size)), _PAPER)
    ImageDraw.Draw(strip).text((size // 2, 0), words, _INK, _font(size))
    return np.asarray(strip)


@lru_cache(maxsize=16)
def _bar(width: int, size: int, colours: bytes) -> NDArray[np.uint8]:
    """The colours between the words for their ends, the same under every picture of a size."""
    font, pad, line = _font(size), size // 2, round(1.35 * size)
    strip = Image.new("RGB", (width, pad + line), _PAPER)
    draw = ImageDraw.Draw(strip)
    low, high = "none", "most"
    left, right = pad + font.getlength(low) + pad, width - pad - font.getlength(high) - pad
    draw.text((pad, pad), low, _INK, font)
    draw.text((right + pad, pad), high, _INK, font)
    shown = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    shown = shown.resize((max(1, round(right - left)), size), Image.Resampling.BILINEAR)
    strip.paste(shown, (round(left), pad + (line - size) // 2))
    return np.asarray(strip)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: letters of all Europe, where Pillow's own font has those of English."""
    package = find_spec("matplotlib")
    assert package and package.origin
    file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)  # the other fails on some words


@lru_cache(maxsize=1024)
def _length(words: str, size: int) -> float:
    return _font(size).getlength(words)


def _wrapped(text: str, size: int, width: float) -> list[str]:
    lines, length = [""], 0.0
    for word in text.split(" "):
        gap = _length(" ", size) if lines[-1] else 0
        if length + gap + _length(word, size) <= width:
            lines[-1] += f" {word}" if gap else word
            length += gap + _length(word, size)
            continue
        if lines[-1]:
            lines.append("")
        length = 0
        for letter in word:
            if lines[-1] and length + _length(letter, size) > width:
                lines.append("")
                length = 0
            lines[-1] += letter
            length += _length(letter, size)
    return [words.replace("\u00a0", " ") for words in lines]
