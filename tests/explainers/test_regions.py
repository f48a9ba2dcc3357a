"""Regions of planted shapes: their outline, box and area are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.draw import polygon2mask
from skimage.measure import label

from explainers import Region, regions


def rectangle(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float64]:
    saliency = np.zeros(shape)
    saliency[y0:y1, x0:x1] = 1
    return saliency


def ellipse(shape: tuple[int, int], x: float, y: float, a: float, b: float) -> NDArray[np.float64]:
    """One inside, by pixel centres, which lie at half pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1).astype(float)


def polygon_area(contour: NDArray[np.float64]) -> float:
    x, y = contour.T
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2


def covered(region: Region, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centres the contour encloses."""
    return polygon2mask(shape, region.contour[:, ::-1] - 0.5)


def assert_well_formed(region: Region, shape: tuple[int, int]) -> None:
    height, width = shape
    assert (region.contour[0] == region.contour[-1]).all()
    assert len(region.contour) >= 4
    assert polygon_area(region.contour) > 0
    assert region.box == (*region.contour.min(axis=0), *region.contour.max(axis=0))
    assert (region.contour >= 0).all()
    assert (region.contour <= [width, height]).all()


def test_a_rectangle_is_outlined_on_its_outer_pixel_edges():
    (region,) = regions(rectangle((40, 60), 10, 5, 30, 17))
    assert region.box == pytest.approx((10, 5, 30, 17), abs=0.01)
    assert region.area == 20 * 12
    assert polygon_area(region.contour) == pytest.approx(20 * 12, abs=4)


def test_coordinates_are_x_y_from_the_outer_corner_of_the_first_pixel():
    (region,) = regions(rectangle((8, 16), 0, 0, 16, 8))
    assert region.box == (0, 0, 16, 8)
    (region,) = regions(rectangle((8, 16), 12, 5, 16, 8))
    assert region.box == pytest.approx((12, 5, 16, 8), abs=0.01)


@pytest.mark.slow
@given(
    st.tuples(st.integers(30, 90), st.integers(30, 90)),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(4, 25), st.floats(4, 25)),
)
def test_a_random_ellipse_is_outlined_within_a_pixel(shape, placed):
    x, y, a, b = placed[0] * shape[1], placed[1] * shape[0], placed[2], placed[3]
    planted = ellipse(shape, x, y, a, b)
    found = regions(planted, minimum_area=0)
    assert len(found) == label(planted, connectivity=1).max()
    if not found:
        return
    region = found[0]
    assert_well_formed(region, shape)
    rows, columns = planted.nonzero()
    assert region.box == pytest.approx(
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), abs=0.6
    )  # the pixels' own extent
    disagreement = covered(region, shape) != planted.astype(bool)
    assert disagreement.sum() <= max(4, 0.1 * planted.sum())
    assert region.area == planted.sum()


def test_the_area_of_a_disc_is_that_of_the_circle():
    (region,) = regions(ellipse((200, 200), 90.5, 110.2, 40, 40))
    assert polygon_area(region.contour) == pytest.approx(np.pi * 40**2, rel=0.02)
    assert region.box == pytest.approx((50.5, 70.2, 130.5, 150.2), abs=1)


def test_a_smooth_map_is_cut_at_half_of_its_maximum_between_pixels():
    rows, columns = np.mgrid[:120, :150] + 0.5
    bell = 7.3 * np.exp(-((columns - 70.3) ** 2 + (rows - 55.8) ** 2) / (2 * 20**2))
    (region,) = regions(bell)
    radius = 20 * np.sqrt(2 * np.log(2))
    distance = np.hypot(*(region.contour - [70.3, 55.8]).T)
    assert np.abs(distance - radius).max() < 0.6


def test_a_hole_is_filled():
    planted = ellipse((100, 100), 50, 50, 30, 30) - ellipse((100, 100), 50, 50, 10, 10)
    (region,) = regions(planted)
    assert covered(region, (100, 100))[50, 50]
    assert polygon_area(region.contour) == pytest.approx(np.pi * 30**2, rel=0.03)
    assert region.area == pytest.approx(np.pi * 30**2, rel=0.03)


def test_an_island_in_a_hole_is_part_of_what_surrounds_it():
    planted = ellipse((100, 100), 50, 50, 30, 30) - ellipse((100, 100), 50, 50, 20, 20)
    planted += ellipse((100, 100), 50, 50, 8, 8)
    (region,) = regions(planted)
    assert polygon_area(region.contour) == pytest.approx(region.area, rel=0.03)


def test_a_thin_ring_is_as_large_as_what_it_surrounds():
    ring = rectangle((100, 100), 20, 20, 60, 60) - rectangle((100, 100), 21, 21, 59, 59)
    (region,) = regions(ring, minimum_area=0.1)
    assert region.area == 1600


def test_specks_are_dropped_and_all_is_dropped_where_only_specks_are():
    speck = rectangle((100, 100), 80, 80, 84, 84)  # 0.16 % of the image
    assert regions(speck) == []
    (region,) = regions(np.maximum(speck, rectangle((100, 100), 10, 10, 30, 30)))
    assert region.box == pytest.approx((10, 10, 30, 30), abs=0.01)


def test_several_regions_come_largest_first():
    planted = rectangle((100, 100), 5, 5, 15, 15) + rectangle((100, 100), 40, 40, 80, 80)
    planted += 0.7 * rectangle((100, 100), 5, 60, 25, 80)
    assert [round(region.area) for region in regions(planted)] == [1600, 400, 100]


def test_what_stays_below_the_threshold_is_no_region_and_joins_none():
    planted = rectangle((60, 60), 5, 20, 20, 40) + rectangle((60, 60), 40, 20, 55, 40)
    planted += 0.49 * rectangle((60, 60), 20, 20, 40, 40)
    left, right = sorted(regions(planted), key=lambda region: region.box)
    # The contour runs where the map itself, between pixels, passes through the threshold.
    assert left.box == pytest.approx((5, 20, 20.5, 40), abs=0.6)
    assert right.box == pytest.approx((39.5, 20, 55, 40), abs=0.6)


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_region_may_touch_the_border(corner):
    height, width = 50, 70
    (region,) = regions(ellipse((height, width), corner[0] * width, corner[1] * height, 20, 15))
    assert_well_formed(region, (height, width))
    x, y = corner[0] * (width - 20), corner[1] * (height - 15)
    assert region.box == pytest.approx((x, y, x + 20, y + 15), abs=1)


@pytest.mark.parametrize("empty", [np.zeros((5, 7)), np.zeros((0, 0))])
def test_a_map_without_a_maximum_has_no_region(empty):
    assert regions(empty) == []


def test_a_map_with_values_that_are_no_numbers_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        regions([[np.nan, 1.0]])


@pytest.mark.slow
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.floats(0, 1, width=16)))
@example(np.array([[1, 0], [0, 0.5]], np.float32))
def test_any_map_gives_a_well_formed_region_for_every_component_that_stands_out(saliency):
    found = regions(saliency, minimum_area=0)
    for region in found:
        assert_well_formed(region, saliency.shape)
    if saliency.any():
        high = binary_fill_holes(saliency / saliency.max() >= 0.5, np.ones((3, 3)))
        components = label(high, connectivity=1)
        clear = set(components[saliency >= 0.8 * saliency.max()])
        assert len(clear) <= len(found) <= components.max()
    else:
        assert not found


@pytest.mark.parametrize("saliency", [1.0, [0, 1], [[[0, 1]]]])
def test_what_is_no_map_is_refused(saliency):
    with pytest.raises(ValueError, match="2 dimensions"):
        regions(saliency)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        regions([[0, 1]], threshold)


def test_the_maximum_alone_is_a_region_with_an_inside_or_none():
    saliency = np.zeros((30, 30))
    saliency[4:14, 6] = saliency[20:28, 20:28] = 1
    for one in regions(saliency, threshold=1, minimum_area=0):
        x0, y0, x1, y1 = one.box
        assert x1 > x0
        assert y1 > y0


def test_a_tensor_that_carries_gradients_is_a_map_too():
    saliency = torch.zeros(20, 20)
    saliency[5:15, 5:15] = 1
    (found,) = regions(saliency.requires_grad_())
    assert found.area == 100
