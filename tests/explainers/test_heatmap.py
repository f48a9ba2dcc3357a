"""Colours, blending and resizing of maps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from explainers import heatmap

unit = st.floats(0, 1, width=32)
maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=unit)


def test_colours_run_from_blue_through_green_to_red():
    blue, green, red = heatmap.colourise([[0, 0.5, 1]])[0]
    assert blue.argmax() == 2
    assert not blue[:2].any()
    assert green.argmax() == 1
    assert green[1] == 255
    assert green[0] == green[2] < 255
    assert red.argmax() == 0
    assert not red[1:].any()


def test_the_strongest_colour_changes_from_blue_to_green_to_red_and_never_back():
    colours = heatmap.colourise(np.linspace(0, 1, 500)[None])[0].astype(int)
    red, green, blue = colours.T
    assert (np.diff(red[: 500 * 7 // 8]) >= 0).all()
    assert (np.diff(blue[500 // 8 + 1 :]) <= 0).all()
    assert (np.diff(green[:250]) >= 0).all()
    assert (np.diff(green[250:]) <= 0).all()


@given(maps)
def test_overlay_of_a_zero_map_is_the_image_itself(saliency):
    image = np.random.default_rng(1).integers(0, 256, (*saliency.shape, 3), dtype=np.uint8)
    assert (heatmap.overlay(image, np.zeros_like(saliency)) == image).all()
    blended = heatmap.overlay(image, saliency)
    assert blended.dtype == np.uint8
    assert (blended[saliency == 0] == image[saliency == 0]).all()


def test_overlay_reaches_its_opacity_at_half_of_the_maximum():
    image = np.full((1, 3, 3), 200, np.uint8)
    half, full = heatmap.overlay(image, [[0.25, 0.5, 1]], opacity=0.4)[0, 1:].astype(float)
    colour = heatmap.colourise([[0.5, 1]])[0].astype(float)
    np.testing.assert_allclose(half, 0.6 * 200 + 0.4 * colour[0], atol=0.51)
    np.testing.assert_allclose(full, 0.6 * 200 + 0.4 * colour[1], atol=0.51)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1e6, width=32)))
def test_normalise_divides_by_the_maximum_and_keeps_zero(saliency):
    scaled = heatmap.normalise(saliency)
    assert scaled.dtype == np.float32
    if saliency.any():
        np.testing.assert_allclose(scaled, saliency.astype(float) / saliency.max(), rtol=1e-6, atol=1e-37)
    else:
        assert not scaled.any()


@given(maps, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_resize_has_the_asked_size_and_invents_no_values(saliency, size):
    resized = heatmap.resize(saliency, size)
    assert resized.shape == size
    assert resized.min() >= saliency.min() - 1e-6
    assert resized.max() <= saliency.max() + 1e-6


def test_resize_aligns_pixel_areas_as_pillow_does():
    saliency = np.random.default_rng(2).random((7, 5), dtype=np.float32)
    enlarged = Image.fromarray(saliency).resize((35, 49), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(heatmap.resize(saliency, (49, 35)), np.asarray(enlarged), atol=1e-5)
