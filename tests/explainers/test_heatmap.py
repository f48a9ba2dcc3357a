"""Colours, blending and resizing of maps."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from explainers import Geometry, heatmap

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


@pytest.mark.slow
@given(maps)
def test_viridis_is_that_of_a_picture_saved_by_matplotlib(saliency):
    stream = io.BytesIO()
    matplotlib.image.imsave(stream, saliency, vmin=0, vmax=1, cmap="viridis", format="png")
    with Image.open(stream) as picture:
        expected = np.asarray(picture.convert("RGB"))
    assert (heatmap.colourise(saliency, "viridis") == expected).all()


def test_viridis_grows_brighter_on_a_grey_printer_and_blue_to_red_does_not():
    ramp = np.linspace(0, 1, 256)[None]
    uniform, paper = (
        np.asarray(Image.fromarray(heatmap.colourise(ramp, colours)).convert("L"))[0].astype(int)
        for colours in ("viridis", heatmap.BLUE_TO_RED)
    )
    assert (np.diff(uniform) >= 0).all()
    assert uniform[-1] - uniform[0] > 150
    assert (np.diff(paper) < 0).any()


@pytest.mark.parametrize("colours", [heatmap.BLUE_TO_RED, "viridis"])
def test_an_overlay_blends_colours_and_image_by_the_written_formula(polyp, colours):
    saliency = np.random.default_rng(4).random(polyp.shape[:2], dtype=np.float32)
    saliency[:20] = 0
    blended = heatmap.overlay(polyp, saliency, opacity=0.6, colours=colours)
    colour = heatmap.colourise(saliency, colours).astype(float)
    alpha = 0.6 * np.where(saliency < 0.5, 2 * saliency.astype(float), 1)[..., None]
    np.testing.assert_allclose(blended, polyp + alpha * (colour - polyp), atol=0.51)
    assert (blended[:20] == polyp[:20]).all()


def test_colours_that_do_not_exist_are_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"there is no colour map 'virdis'; did you mean viridis"):
        heatmap.colourise([[0, 1]], "virdis")
    with pytest.raises(ValueError, match=r"did you mean blue-red"):
        heatmap.colourise([[0, 1]], "blue-to-red")


@given(hnp.arrays(np.float32, (4, 5), elements=st.integers(-5, 5)), st.sampled_from([0, 50, 99.5, 100]))
def test_full_colour_is_a_percentile_of_the_values_above_zero(saliency, percentile):
    positive = sorted(value for value in saliency.ravel().tolist() if value > 0)
    shown = heatmap.peak(saliency, percentile)
    if not positive:
        assert shown == 0
        return
    place = percentile / 100 * (len(positive) - 1)  # linear between neighbours
    low, high = positive[int(place)], positive[min(int(place) + 1, len(positive) - 1)]
    assert shown == pytest.approx(low + (high - low) * (place % 1), rel=1e-6)


def test_maps_of_one_scale_keep_their_proportions_and_saturate_above_it():
    weak, strong = heatmap.normalise([[0, 1, 2]], scale=4), heatmap.normalise([[0, 4, 9]], scale=4)
    assert weak.tolist() == [[0, 0.25, 0.5]]
    assert strong.tolist() == [[0, 1, 1]]
    assert not heatmap.normalise([[0, 3]], scale=0).any()


@given(hnp.arrays(np.float32, (2, 3, 4, 5), elements=st.floats(-9, 9, width=32)))
def test_the_strength_of_a_gradient_is_its_largest_colour_whatever_the_sign(gradient):
    expected = [
        [[max(abs(float(gradient[n, c, y, x])) for c in range(3)) for x in range(5)] for y in range(4)]
        for n in range(2)
    ]
    assert heatmap.strength(torch.from_numpy(gradient)).tolist() == expected


def test_a_map_that_does_not_fit_the_image_or_is_no_number_is_refused():
    image = np.zeros((4, 5, 3), np.uint8)
    for saliency in (np.ones((5, 4)), np.ones((1, 1)), np.ones((4, 5, 1)), np.float32(1)):
        with pytest.raises(ValueError, match="does not fit an image"):
            heatmap.overlay(image, saliency)
    with pytest.raises(ValueError, match="not finite"):
        heatmap.overlay(image, np.full((4, 5), np.nan))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_shown_as_nothing(broken):
    for show in (heatmap.peak, heatmap.normalise, heatmap.colourise):
        with pytest.raises(ValueError, match="not finite"):
            show(np.array([[broken, 1]]))
    with pytest.raises(ValueError, match="finite"):
        heatmap.normalise(np.ones((2, 2)), broken)


@pytest.mark.parametrize("unit", [1e-50, 1e-310, 1e300])
def test_a_map_of_any_scale_is_normalised(unit):
    assert np.allclose(heatmap.normalise(np.array([[1, 4]]) * unit), [[0.25, 1]])


@pytest.mark.parametrize("prepare", [torch.Tensor.requires_grad_, torch.Tensor.bfloat16, torch.Tensor.double])
def test_a_map_may_be_any_tensor(prepare):
    given = prepare(torch.tensor([[0.0, 1.0], [2.0, 4.0]]))
    plain = np.array([[0, 1], [2, 4]], np.float32)
    assert np.array_equal(heatmap.resize(given, (4, 4)), heatmap.resize(plain, (4, 4)))
    assert np.array_equal(heatmap.normalise(given), heatmap.normalise(plain))
    assert heatmap.peak(given) == 4
    assert np.array_equal(heatmap.colourise(given / 4), heatmap.colourise(plain / 4))
    back = Geometry(6, 6, (1, 1, 5, 5)).to_source(given)
    assert np.array_equal(back, Geometry(6, 6, (1, 1, 5, 5)).to_source(plain))


@pytest.mark.parametrize(
    ("saliency", "size"), [(np.ones((1, 2, 2)), (4, 4)), (np.ones((2, 2)), (0, 4)), ([[]], (4, 4))]
)
def test_what_cannot_be_resized_is_refused(saliency, size):
    with pytest.raises(ValueError, match="cannot be resized to"):
        heatmap.resize(saliency, size)
