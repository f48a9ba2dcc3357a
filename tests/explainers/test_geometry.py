"""What is planted in the source image is found there again, whatever part of it the network saw at whatever size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from explainers import Geometry, dissect, heatmap, regions
from explainers.cams import hires_cam


def seer(stride: int) -> nn.Module:
    """A network whose map, of class 0, is its input itself, ``stride`` pixels averaged into one."""
    network = nn.Sequential(
        nn.Conv2d(1, 1, stride, stride, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1, bias=False)
    ).eval()
    with torch.no_grad():
        network[0].weight.fill_(1 / stride**2)
        network[3].weight.fill_(1)
    return network


def seen(
    source: NDArray[np.float32], geometry: Geometry, size: tuple[int, int], stride: int = 1
) -> NDArray[np.float32]:
    """Crop, resize, show to the network, take its Grad-CAM, carry it back."""
    x0, y0, x1, y1 = geometry.content
    crop = torch.from_numpy(source[y0:y1, x0:x1].copy())[None, None]
    resized = functional.interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False)
    dissection = dissect(seer(stride), resized)
    cam = dissection.grad_cam("0", 0)[0]
    assert cam.shape == (size[0] // stride, size[1] // stride)
    torch.testing.assert_close(dissection.cam("0", 0, hires_cam)[0], cam)
    return geometry.to_source(cam)


@st.composite
def views(draw: st.DrawFn) -> tuple[Geometry, tuple[int, int], int, tuple[int, int, int, int], tuple[float, float]]:
    """A source image, a crop of it, the network's size and stride, a rectangle in the crop, one map pixel's extent.

    The rectangle is at least four pixels of the map wide and high: what is smaller the network cannot outline.
    """
    stride = draw(st.sampled_from([1, 2, 4]))
    size, crops, rectangle, pixel = [], [], [], []
    for _ in range(2):
        cells = draw(st.integers(8, 32))
        extent = draw(st.integers(16, 300))
        before, after = draw(st.integers(0, 80)), draw(st.integers(0, 80))
        step = extent / cells
        shortest = int(np.ceil(max(4 * step, 5)))
        length = draw(st.integers(shortest, extent))
        start = before + draw(st.integers(0, extent - length))
        size.append(cells * stride)
        crops.append((before, before + extent, before + extent + after))
        rectangle.append((start, start + length))
        pixel.append(step)
    (y0, y1, height), (x0, x1, width) = crops
    (top, bottom), (left, right) = rectangle
    geometry = Geometry(height, width, (x0, y0, x1, y1))
    return geometry, (size[0], size[1]), stride, (left, top, right, bottom), (pixel[1], pixel[0])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(views())
def test_a_rectangle_comes_back_within_two_pixels_or_one_of_the_map_where_that_is_larger(view):
    geometry, size, stride, (left, top, right, bottom), (step_x, step_y) = view
    source = np.zeros((geometry.height, geometry.width), np.float32)
    source[top:bottom, left:right] = 1
    back = seen(source, geometry, size, stride)
    assert back.shape == source.shape
    (region,) = regions(heatmap.normalise(back), minimum_area=0)
    allowed = np.array([max(2, step_x), max(2, step_y)])
    error = np.abs(np.array(region.box) - (left, top, right, bottom)) / np.tile(allowed, 2)
    assert error.max() <= 1
    # Every point of the contour lies on an edge of the rectangle, to the same tolerance.
    inside = (region.contour - (left, top)) / allowed, ((right, bottom) - region.contour) / allowed
    assert min(part.min() for part in inside) >= -1
    to_the_nearest_edge = np.minimum(np.abs(inside[0]), np.abs(inside[1])).min(axis=1)
    assert to_the_nearest_edge.max() <= 1


@pytest.mark.parametrize(
    "content", [(0, 0, 407, 301), (50, 0, 407, 301), (0, 30, 350, 280), (106, 1, 406, 301)], ids=str
)
@pytest.mark.parametrize(("size", "stride"), [(224, 1), (224, 8), (384, 16)])
def test_a_smooth_blob_comes_back_within_two_pixels_of_its_centre_and_outline(content, size, stride):
    rows, columns = np.mgrid[:301, :407] + 0.5
    x, y, sigma = 230.5, 140.5, 35
    source = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)).astype(np.float32)
    (region,) = regions(heatmap.normalise(seen(source, Geometry(301, 407, content), (size, size), stride)))
    x0, y0, x1, y1 = region.box
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((x, y), abs=2)
    distance = np.hypot(*(region.contour - (x, y)).T)
    assert distance == pytest.approx(np.full(len(distance), sigma * np.sqrt(2 * np.log(2))), abs=2)


@pytest.mark.slow
@given(views(), st.floats(0.125, 100, width=32))
@settings(max_examples=40, deadline=None)
def test_an_even_map_comes_back_even_in_the_content_and_zero_outside(view, value):
    geometry, size, *_ = view
    back = geometry.to_source(np.full(size, value, np.float32))
    x0, y0, x1, y1 = geometry.content
    expected = np.zeros((geometry.height, geometry.width), np.float32)
    expected[y0:y1, x0:x1] = value
    np.testing.assert_allclose(back, expected, rtol=1e-5)
    assert back.dtype == np.float32


@given(views(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_map_keeps_its_scale_on_the_way_back(view, seed):
    geometry, size, *_ = view
    values = np.random.default_rng(seed).random(size).astype(np.float32)
    x0, y0, x1, y1 = geometry.content
    back = geometry.to_source(values)[y0:y1, x0:x1]
    assert back.max() <= values.max() * (1 + 1e-6)
    assert back.min() >= values.min() * (1 - 1e-6)


def test_a_map_at_the_size_of_the_content_comes_back_as_it_is():
    values = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    back = Geometry(20, 30, (4, 5, 13, 12)).to_source(values)
    np.testing.assert_allclose(back[5:12, 4:13], values, rtol=1e-6)
    assert back.sum() == pytest.approx(values.sum())


def test_a_map_of_one_pixel_fills_the_content():
    back = Geometry(6, 8, (1, 2, 5, 6)).to_source([[3.0]])
    assert (back[2:6, 1:5] == 3).all()
    assert back.sum() == 3 * 16


def test_one_geometry_leads_back_from_a_layer_and_from_the_networks_input_to_the_same_place():
    geometry = Geometry(240, 320, (40, 0, 320, 240))
    source = np.zeros((240, 320), np.float32)
    source[80:160, 120:220] = 1
    fine, coarse = (regions(heatmap.normalise(seen(source, geometry, (224, 224), stride)))[0] for stride in (1, 8))
    assert fine.box == pytest.approx((120, 80, 220, 160), abs=2)
    assert coarse.box == pytest.approx(fine.box, abs=8 * 280 / 224)


@pytest.mark.parametrize("content", [(0, 0, 0, 4), (2, 2, 9, 4), (-1, 0, 4, 4), (3, 3, 1, 4)])
def test_a_content_that_is_no_part_of_the_image_is_refused(content):
    with pytest.raises(ValueError, match=r"is no part of an image of 8 x 6"):
        Geometry(6, 8, content)
