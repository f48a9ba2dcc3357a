"""Measures of whether a map is true, against their definitions written out again."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc
from torch import nn

from explainers.faithfulness import deletion, energy_in_mask, insertion, pointing_game


class Evidence(nn.Module):
    """Its score for class 0 is a weighted sum of the pixels, for class 1 nothing: probabilities are known by hand.

    Keeps every image it was given.
    """

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.given = []

    def forward(self, images):
        self.given += [image.clone() for image in images]
        evidence = (images.sum(dim=1) * self.weights).sum(dim=(1, 2))
        return torch.stack([evidence, torch.zeros_like(evidence)], dim=1)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def random_image(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(3, height, width)))


def blurred(image):
    """Insertion's start, by another library: a Gaussian of one twentieth of the shorter side, edges repeated."""
    sigma = min(image.shape[1:]) / 20
    return np.stack([gaussian_filter(colour, sigma, mode="nearest") for colour in image.numpy()])


sizes = st.tuples(st.integers(2, 9), st.integers(2, 9))
grades = st.integers(-3, 3).map(float)
pairs = sizes.flatmap(
    lambda size: st.tuples(
        hnp.arrays(np.float64, size, elements=grades), hnp.arrays(np.bool_, size).filter(lambda mask: mask.any())
    )
)


# Deletion and insertion


@pytest.mark.slow
@given(sizes, st.integers(2, 20), st.integers(0, 99))
def test_deletion_is_the_probability_by_hand_after_the_strongest_pixels_are_gone(size, steps, seed):
    image, weights = random_image(*size, seed), np.random.default_rng(seed + 1).normal(size=size)
    saliency = np.random.default_rng(seed + 2).permutation(size[0] * size[1]).reshape(size)
    curve = deletion(Evidence(weights), image, saliency, target=0, steps=steps)
    worth = {
        (row, column): float(weights[row, column] * image[:, row, column].sum())
        for row in range(size[0])
        for column in range(size[1])
    }
    strongest_first = sorted(worth, key=lambda pixel: -saliency[pixel])
    for step, (share, probability) in enumerate(zip(curve.share, curve.probability, strict=True)):
        gone = round(share * len(worth))
        assert abs(gone - step * len(worth) / steps) <= 0.5
        left = sum(worth[pixel] for pixel in strongest_first[gone:])
        assert probability == pytest.approx(sigmoid(left), abs=1e-9)
    assert (curve.share[0], curve.share[-1]) == (0, 1)
    assert curve.probability[-1] == pytest.approx(0.5)


def test_the_other_class_has_the_other_probability():
    image, weights, saliency = random_image(5, 6), np.ones((5, 6)), np.arange(30).reshape(5, 6)
    one, other = (deletion(Evidence(weights), image, saliency, target).probability for target in (0, 1))
    np.testing.assert_allclose(one + other, 1)


@pytest.mark.slow
@given(sizes, st.integers(2, 20), st.integers(0, 99))
def test_insertion_puts_the_strongest_pixels_of_the_original_into_the_blurred_image(size, steps, seed):
    image = random_image(*size, seed)
    saliency = np.random.default_rng(seed + 2).permutation(size[0] * size[1]).reshape(size)
    network = Evidence(np.ones(size))
    curve = insertion(network, image, saliency, target=0, steps=steps)
    start = blurred(image)
    for share, given_image in zip(curve.share, network.given, strict=True):
        sharp = saliency >= saliency.size - round(share * saliency.size)
        np.testing.assert_allclose(given_image.numpy(), np.where(sharp, image.numpy(), start), atol=1e-9)


def test_insertion_starts_at_the_blurred_and_ends_at_the_original_frame(polyp):
    image = torch.from_numpy(polyp).permute(2, 0, 1) / 255
    network = Evidence(np.zeros(image.shape[1:]))
    insertion(network, image, polyp.sum(axis=2), target=0, steps=2)
    first, _, last = network.given
    np.testing.assert_allclose(first.numpy(), blurred(image), atol=1e-5)
    assert torch.equal(last, image)


@settings(max_examples=50)
@given(sizes, st.integers(2, 20))
def test_the_area_is_that_of_scikit_learn(size, steps):
    rng = np.random.default_rng(steps)
    for measure in (deletion, insertion):
        curve = measure(Evidence(rng.normal(size=size)), random_image(*size), rng.random(size), 0, steps)
        assert curve.area == pytest.approx(auc(curve.share, curve.probability))


@pytest.mark.slow
@given(st.tuples(st.integers(10, 20), st.integers(10, 20)), st.integers(0, 99))
def test_no_map_beats_the_true_importance_of_the_pixels(size, seed):
    rng = np.random.default_rng(seed)
    image, weights = random_image(*size, seed), rng.normal(size=size) / 100  # far from the sigmoid's ends
    network = Evidence(weights)
    loss = weights * image.sum(dim=0).numpy()
    gain = weights * (image.numpy() - blurred(image)).sum(axis=0)
    for measure, truth, sign in ((deletion, loss, 1), (insertion, gain, -1)):
        best, worst = (sign * measure(network, image, saliency, 0).area for saliency in (truth, -truth))
        other = sign * measure(network, image, rng.random(size), 0).area
        assert best - 1e-9 <= other <= worst + 1e-9
        assert best < worst - 1e-3


@pytest.mark.slow
@settings(max_examples=40)
@given(pairs)
def test_only_the_order_of_a_map_counts(pair):
    saliency, _ = pair
    image, network = random_image(*saliency.shape), Evidence(np.random.default_rng(3).normal(size=saliency.shape))
    for measure in (deletion, insertion):
        curves = [
            measure(network, image, changed, 0).probability
            for changed in (saliency, 3 * saliency - 7, np.exp(saliency), saliency**3)
        ]
        for curve in curves[1:]:
            assert (curve == curves[0]).all()


@pytest.mark.slow
@settings(max_examples=40)
@given(pairs)
def test_no_pixel_goes_before_a_stronger_one(pair):
    saliency, _ = pair
    network = Evidence(np.ones(saliency.shape))
    deletion(network, torch.ones(1, *saliency.shape, dtype=torch.float64), saliency, 0, steps=saliency.size)
    assert [int((image == 0).sum()) for image in network.given] == list(range(saliency.size + 1))
    for image in network.given[1:-1]:
        gone = image[0].numpy() == 0
        assert saliency[gone].min() >= saliency[~gone].max()


def test_equal_pixels_go_in_the_same_order_each_time_and_from_everywhere():
    network = Evidence(np.ones((32, 32)))
    for _ in range(2):
        deletion(network, torch.ones(3, 32, 32), np.zeros((32, 32)), 0, steps=2)
    half, again = network.given[1], network.given[4]
    assert torch.equal(half, again)
    quarters = [half[0, y : y + 16, x : x + 16].sum().item() for y in (0, 16) for x in (0, 16)]
    assert sum(quarters) == 512
    assert all(90 < quarter < 166 for quarter in quarters)  # 128 each, give or take


def test_measuring_leaves_the_image_as_it_was():
    image = random_image(6, 6)
    before = image.clone()
    for measure in (deletion, insertion):
        measure(Evidence(np.ones((6, 6))), image, np.arange(36).reshape(6, 6), 0)
    assert torch.equal(image, before)


def test_more_steps_than_pixels_are_no_mistake():
    curve = deletion(Evidence(np.ones((2, 2))), torch.ones(3, 2, 2), np.arange(4).reshape(2, 2), 0, steps=16)
    assert set(curve.share) == {0, 0.25, 0.5, 0.75, 1}
    assert len(curve.probability) == 17


@pytest.mark.parametrize("measure", [deletion, insertion])
def test_a_map_of_another_size_and_a_class_that_does_not_exist_are_refused(measure):
    network, image = Evidence(np.ones((4, 5))), random_image(4, 5)
    with pytest.raises(ValueError, match=r"a map of \(5, 4\) does not fit"):
        measure(network, image, np.ones((5, 4)), 0)
    for target in (-1, 2):
        with pytest.raises(ValueError, match=rf"there is no class {target}; the network has classes 0 to 1"):
            measure(network, image, np.ones((4, 5)), target)


# Pointing game and energy in mask


@pytest.mark.slow
@settings(max_examples=50)
@given(pairs)
def test_the_pointing_game_is_the_share_of_the_peaks_that_lie_on_the_object(pair):
    saliency, mask = pair
    highest = max(value for row in saliency.tolist() for value in row)
    peaks = [place for place in np.ndindex(saliency.shape) if saliency[place] == highest]
    assert pointing_game(saliency, mask) == pytest.approx(sum(bool(mask[peak]) for peak in peaks) / len(peaks))


@settings(max_examples=50)
@given(pairs)
def test_the_energy_in_a_mask_is_the_positive_part_inside_over_all_of_it(pair):
    saliency, mask = pair
    inside = sum(max(saliency[place], 0) for place in np.ndindex(saliency.shape) if mask[place])
    total = sum(max(saliency[place], 0) for place in np.ndindex(saliency.shape))
    assert energy_in_mask(saliency, mask) == pytest.approx(inside / total if total else 0)
    assert energy_in_mask(1000 * saliency, mask) == pytest.approx(energy_in_mask(saliency, mask))
    if total and not mask.all():
        assert energy_in_mask(saliency, mask) + energy_in_mask(saliency, ~mask) == pytest.approx(1)


@pytest.mark.slow
@settings(max_examples=50)
@given(pairs)
def test_a_map_without_a_peak_points_like_a_random_point(pair):
    _, mask = pair
    for value in (0.0, 0.7):
        assert pointing_game(np.full(mask.shape, value), mask) == pytest.approx(mask.mean())


def test_the_mask_of_a_real_polyp_as_a_map_is_all_on_it_and_its_opposite_nowhere(real_images):
    file = min((real_images / "kvasir-seg" / "masks").glob("*.jpg"))
    with Image.open(file) as picture:
        mask = (np.asarray(picture.convert("L")) >= 128) * np.uint8(255)
    for measure in (pointing_game, energy_in_mask):
        assert measure(mask, mask) == 1
        assert measure(255 - mask, mask) == 0
    assert energy_in_mask(np.ones(mask.shape), mask) == pytest.approx((mask > 0).mean())


def test_evidence_in_a_navigation_box_is_found_in_its_share(spotlight, real_images):
    boxes = json.loads((real_images / "kvasir-seg" / "navigation_boxes.json").read_text())
    left, top, right, bottom = (edge // 10 for edge in boxes[min(boxes)])
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[top:bottom, left:right] = 255  # 0.5 above one half
    frame[0:4, 40:50] = 153  # 0.1 above one half
    box = np.zeros((64, 64), bool)
    box[top:bottom, left:right] = True
    cam = spotlight.dissect([frame])[0].grad_cam("0", 0)[0]
    strong, weak = 0.5 * box.sum(), 0.1 * 40
    assert energy_in_mask(cam, box) == pytest.approx(strong / (strong + weak), rel=1e-4)
    assert pointing_game(cam, box) == 1


@pytest.mark.parametrize("measure", [pointing_game, energy_in_mask])
def test_a_mask_of_another_size_and_an_empty_one_are_refused(measure):
    with pytest.raises(ValueError, match=r"a map of \(2, 3\) and a mask of \(3, 2\) do not fit"):
        measure(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="the mask has values that are not finite"):
        measure(np.ones((2, 3)), np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="the mask is empty"):
        measure(np.ones((2, 3)), np.zeros((2, 3)))


def test_curves_of_a_network_in_training_mode_are_those_in_evaluation_mode_and_leave_it_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 36, 2))
    image, saliency = torch.rand(3, 8, 8), np.random.default_rng(0).random((8, 8))
    before = copy.deepcopy(network.state_dict())
    for curve in (deletion, insertion):
        trained = curve(network.train(), image, saliency, 1, 4)
        assert all(module.training for module in network.modules())
        np.testing.assert_array_equal(trained.probability, curve(network.eval(), image, saliency, 1, 4).probability)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_what_would_give_a_wrong_curve_is_refused(curve):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 2))
    image, saliency = torch.rand(3, 4, 4), np.ones((4, 4))
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken[1].weight.fill_(torch.nan)
    for inputs, said in (
        ((broken, image, saliency, 0), "scores are not finite"),
        ((network, image * torch.nan, saliency, 0), "image has values that are not finite"),
        ((network, image, saliency * np.nan, 0), "map has values that are not finite"),
        ((network, image, saliency, 0, 0), "needs a step at least"),
        ((network, image[:2], saliency, 0), "cannot take images"),
        ((network, image[0], saliency, 0), "does not fit an image"),
        ((network, image, saliency, 2), "no class 2"),
    ):
        with pytest.raises(ValueError, match=said):
            curve(*inputs)


def test_a_map_with_values_that_are_no_numbers_or_of_other_dimensions_is_refused():
    for measure in (pointing_game, energy_in_mask):
        with pytest.raises(ValueError, match="not finite"):
            measure([[np.nan, 1]], [[1, 0]])
        with pytest.raises(ValueError, match="2 dimensions"):
            measure([[[0, 1]]], [[[1, 0]]])


def test_energy_of_the_largest_numbers_does_not_overflow():
    assert energy_in_mask([[1e308, 1e308], [1e308, 1e308]], [[1, 0], [0, 0]]) == 0.25


@pytest.mark.parametrize("curve", [deletion, insertion])
def test_tensors_of_a_training_loop_give_the_same_curve(curve, classifier, polyp):
    image = classifier.dissect([polyp])[0].images[0]
    saliency = torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(2))
    expected = curve(classifier.network, image, saliency, 0, 2).probability
    for same in (image.clone().requires_grad_(), image.double()):
        found = curve(classifier.network, same, saliency.clone().requires_grad_(), 0, 2).probability
        np.testing.assert_allclose(found, expected, atol=1e-6)
    coarse = curve(classifier.network, image.bfloat16(), saliency, 0, 2).probability
    np.testing.assert_allclose(coarse, expected, atol=0.02)


@pytest.mark.parametrize("target", [[1], 1.0, True, "polyps"])
def test_a_class_that_is_no_index_is_refused_in_words(classifier, target):
    with pytest.raises(TypeError, match="index, an integer"):
        deletion(classifier.network, torch.zeros(3, 64, 64), np.ones((64, 64)), target)
