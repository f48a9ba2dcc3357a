"""What is written under a heatmap: which colour is how much, and what it is a map of."""

from __future__ import annotations

from functools import lru_cache

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
    font = _font(size)
    pad, line = size // 2, round(1.35 * size)
    lines = _wrapped(text, font, width - 2 * pad)
    strip = Image.new("RGB", (width, 2 * pad + line * (1 + len(lines))), _PAPER)
    draw = ImageDraw.Draw(strip)
    low, high = "none", "most"
    left, right = pad + font.getlength(low) + pad, width - pad - font.getlength(high) - pad
    draw.text((pad, pad), low, _INK, font)
    draw.text((right + pad, pad), high, _INK, font)
    bar = Image.fromarray(colours[None]).resize((max(1, round(right - left)), size), Image.Resampling.BILINEAR)
    strip.paste(bar, (round(left), pad + (line - size) // 2))
    for number, words in enumerate(lines, start=1):
        draw.text((pad, pad + number * line), words, _INK, font)
    return np.concatenate([picture, np.asarray(strip)])


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return [words.replace("\u00a0", " ") for words in lines]
