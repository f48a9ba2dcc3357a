"""The grid of pictures: every one in its place, whole, with its names."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from explainers.contact_sheet import CELL, contact_sheet, thumbnail

ROWS, COLUMNS = ["block1_conv1", "block1_conv2", "block5_conv4"], ["polyps\n76.4%", "normal-cecum\n12.0%"]
CAPTION = ["grad-cam by a network"]
WIDTH, HEIGHT = CELL, 60


def colour(row: int, column: int) -> tuple[int, int, int]:
    return 255, 40 * (row + 1), 40 * (column + 1)


def plain(row: int, column: int) -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), colour(row, column))


def cells(rows: list[str], columns: list[str]) -> dict[tuple[str, str], Image.Image]:
    return {(row, column): plain(y, x) for (y, row), (x, column) in itertools.product(*map(enumerate, (rows, columns)))}


def box(sheet, shade):
    """Where a colour is: x, y, width and height of its rectangle, and how many pixels have it."""
    ys, xs = np.nonzero((sheet == shade).all(axis=2))
    return xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1, len(xs)


def ink(part) -> bool:
    """Whether anything dark is written there."""
    return bool((part.max(axis=2) < 128).any())


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text("abc_019", min_size=1, max_size=20), min_size=1, max_size=4, unique=True),
    st.lists(st.from_regex(r"[a-z-]{1,20}(\n[0-9%.]{1,8})?", fullmatch=True), min_size=1, max_size=4, unique=True),
    st.lists(st.text("abc xyz", max_size=60), min_size=1, max_size=3),
)
def test_every_picture_is_whole_and_in_its_row_and_column_whatever_the_names(rows, columns, caption):
    sheet = contact_sheet(cells(rows, columns), rows, columns, caption)
    places = [[box(sheet, colour(y, x)) for x in range(len(columns))] for y in range(len(rows))]
    for y, x in np.ndindex(len(rows), len(columns)):
        left, top, width, height, pixels = places[y][x]
        assert (width, height, pixels) == (WIDTH, HEIGHT, WIDTH * HEIGHT)
        assert left == places[0][x][0]
        assert top == places[y][0][1]
    assert all(a[0] + WIDTH < b[0] for a, b in itertools.pairwise(places[0]))
    assert all(a[0][1] + HEIGHT < b[0][1] for a, b in itertools.pairwise(places))


def test_names_stand_beside_their_rows_and_above_their_columns():
    sheet = contact_sheet(cells(ROWS, COLUMNS), ROWS, COLUMNS, CAPTION)
    first = box(sheet, colour(0, 0))
    assert ink(sheet[: first[1] - 40, : first[0]])  # the caption
    for y in range(len(ROWS)):
        _, top, *_ = box(sheet, colour(y, 0))
        assert ink(sheet[top : top + HEIGHT, : first[0]])
    for x in range(len(COLUMNS)):
        left, top, *_ = box(sheet, colour(0, x))
        assert ink(sheet[top - 40 : top, left : left + WIDTH])


def test_a_name_is_written_at_its_own_row_only():
    rows = ["", "named", " "]
    sheet = contact_sheet(cells(rows, COLUMNS), rows, COLUMNS, CAPTION)
    left = box(sheet, colour(0, 0))[0]
    tops = [box(sheet, colour(y, 0))[1] for y in range(3)]
    assert [ink(sheet[top : top + HEIGHT, :left]) for top in tops] == [False, True, False]


def test_an_empty_row_name_takes_no_room():
    unnamed = contact_sheet(cells([""], COLUMNS), [""], COLUMNS, CAPTION)
    named = contact_sheet(cells(["block1_conv1"], COLUMNS), ["block1_conv1"], COLUMNS, CAPTION)
    assert box(unnamed, colour(0, 0))[0] <= 12
    assert box(named, colour(0, 0))[0] > 60


def test_what_is_missing_stays_blank():
    some = cells(ROWS, COLUMNS)
    left, top, *_ = box(contact_sheet(some, ROWS, COLUMNS, CAPTION), colour(1, 1))
    del some[ROWS[1], COLUMNS[1]]
    sheet = contact_sheet(some, ROWS, COLUMNS, CAPTION)
    assert (sheet[top : top + HEIGHT, left : left + WIDTH] == 255).all()
    assert box(sheet, colour(2, 1))[-1] == WIDTH * HEIGHT


def test_no_caption_is_no_mistake():
    sheet = contact_sheet(cells(ROWS, COLUMNS), ROWS, COLUMNS, [])
    assert box(sheet, colour(2, 1))[-1] == WIDTH * HEIGHT


def test_a_long_caption_makes_the_sheet_wider_and_is_not_cut():
    caption = "full colour: the maximum, one for all classes of a layer, not for clinical use " * 2
    narrow, wide = (contact_sheet(cells(["a"], ["b"]), ["a"], ["b"], [text]) for text in ("short", caption))
    assert wide.shape[1] > narrow.shape[1]
    assert ink(wide[:30, -40:])
    assert (wide[:, -2:] == 255).all()


@pytest.mark.parametrize("name", ["息肉", "полип", "polyp 🙂", "Zökum"])
def test_a_name_in_any_script_makes_a_sheet(name):
    sheet = contact_sheet(cells([name], [name]), [name], [name], [name])
    assert box(sheet, colour(0, 0))[-1] == WIDTH * HEIGHT


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_thumbnail_has_the_longer_side_of_a_cell_and_keeps_proportions_and_colour(width, height):
    small = thumbnail(np.full((height, width, 3), (10, 200, 30), np.uint8))
    assert max(small.size) == CELL
    shorter = CELL * min(width, height) / max(width, height)
    assert abs(min(small.size) - max(1, shorter)) <= 0.5
    assert (np.asarray(small) == (10, 200, 30)).all()


def test_a_thumbnail_shows_the_picture_the_right_way_up(polyp):
    small = np.asarray(thumbnail(polyp)).astype(float)
    ys, xs = (np.linspace(0, length - 1, count).round().astype(int) for length, count in zip((151, 203), small.shape))  # noqa: B905
    assert np.corrcoef(small.ravel(), polyp[ys][:, xs].ravel())[0, 1] > 0.95


def test_a_mark_stands_in_the_corner_of_its_picture_alone():
    cells = {("a", name): thumbnail(np.full((80, 100, 3), 120, np.uint8)) for name in ("x", "y")}
    plain = contact_sheet(cells, ["a"], ["x", "y"], [])
    marked = contact_sheet(cells, ["a"], ["x", "y"], [], {("a", "y"): "blank"})
    rows, columns = (plain != marked).any(axis=2).nonzero()
    grey = np.argwhere((plain == 120).all(axis=2))
    (top, left), (bottom, right) = grey.min(axis=0), grey.max(axis=0)
    assert rows.min() > (top + bottom) / 2
    assert rows.max() <= bottom
    assert (left + right) / 2 < columns.min()
    assert columns.max() <= right - CELL / 2
