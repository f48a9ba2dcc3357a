"""Many maps on one picture: a row a layer, a column a class, as in the paper's figure 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 168
"""Longer side of a picture on the sheet, in pixels."""

_GAP, _PAD = 6, 3
_TEXT = 13
_INK, _PAPER = "#111111", "#ffffff"


def contact_sheet(
    cells: Mapping[tuple[str, str], Image.Image],
    rows: Sequence[str],
    columns: Sequence[str],
    caption: Sequence[str],
    marks: Mapping[tuple[str, str], str] | None = None,
) -> NDArray[np.uint8]:
    """Lay pictures out in a grid with their names.

    Args:
        cells: (row, column) → a picture, all of one size, as :func:`thumbnail` makes them. What is missing stays blank.
        rows: names, written to the left; an empty one takes no room.
        columns: names, written above; two lines are possible.
        caption: lines written over it all; wider ones make the sheet wider.
        marks: (row, column) → a word that is written into the corner of its picture, such as ``blank`` for a map
            without evidence, which looks like one of weak evidence.

    Returns:
        (H, W, 3) uint8.
    """
    font = ImageFont.load_default(_TEXT)
    line = _TEXT + 5
    width, height = next(iter(cells.values())).size
    left = _GAP + round(max(font.getlength(name) for name in rows)) + _GAP
    head = max(name.count("\n") + 1 for name in columns) * line
    top = _GAP + len(caption) * line + _GAP
    step = max(width, *(round(font.getlength(part)) for name in columns for part in name.split("\n"))) + _GAP
    full = max([left + len(columns) * step, *(round(font.getlength(text)) + 2 * _GAP for text in caption)])
    sheet = Image.new("RGB", (full, top + head + len(rows) * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, text in enumerate(caption):
        draw.text((_GAP, _GAP + number * line), text, _INK, font)
    for x, column in enumerate(columns):
        draw.multiline_text((left + x * step, top), column, _INK, font)
    for y, row in enumerate(rows):
        upper = top + head + y * (height + _GAP)
        draw.text((_GAP, upper + (height - line) // 2), row, _INK, font)
        for x, column in enumerate(columns):
            if (row, column) in cells:
                sheet.paste(cells[row, column], (left + x * step, upper))
            if marks and (row, column) in marks:
                place, mark = (left + x * step, upper + height - line), marks[row, column]
                draw.rectangle((*place, place[0] + font.getlength(mark) + 2 * _PAD, upper + height - 1), fill=_PAPER)
                draw.text((place[0] + _PAD, place[1]), mark, _INK, font)
    return np.asarray(sheet)


def thumbnail(picture: NDArray[np.uint8]) -> Image.Image:
    """A picture (H, W, 3) at the sheet's size, its proportions kept."""
    image = Image.fromarray(picture)
    factor = CELL / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)
