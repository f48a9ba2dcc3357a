"""What is taken away is gone, what is planted is there, and nothing else of a frame changes."""

from __future__ import annotations

import numpy as np
import pytest

from monai_label_app.classifier.artifacts import BORDER, BOX, CUT_OUT, Artifacts, find_artifacts, masks
from monai_label_app.classifier.counterfactual import DRAWN_BOX, Patch, cover, cut, plant, without
from tests.monai_label_app.test_audit import TISSUE, frame_of


def test_the_border_is_what_is_black_up_to_the_edge_and_no_box():
    frame = frame_of(0, box=True)
    frame[100:110, 100:110] = 0  # a lumen is dark, too
    found = masks(frame, find_artifacts(frame))
    expected = (frame == 0).all(axis=2)
    expected[100:110, 100:110] = False
    assert np.array_equal(found[BORDER], expected & ~found[BOX])


def test_a_shadow_at_the_edge_is_no_border():
    frame = np.full((100, 200, 3), 120, np.uint8)
    frame[:5, :30] = 0
    assert masks(frame, find_artifacts(frame)) == {}


def test_a_box_is_painted_over_in_the_colour_of_the_tissue_and_nothing_else_changes():
    frame = frame_of(0, box=True)
    found = find_artifacts(frame)
    before = frame.copy()
    cleaned = without(frame, found, BOX)
    x0, y0, x1, y1 = found.navigation_box
    changed = (cleaned != frame).any(axis=2)
    assert not changed[:, x1:].any()
    assert not changed[:y0].any()
    np.testing.assert_allclose(cleaned[y0:y1, x0:x1].reshape(-1, 3), [TISSUE] * ((y1 - y0) * (x1 - x0)), atol=5)
    assert find_artifacts(cleaned).navigation_box is None
    assert (frame == before).all()


def test_a_cut_out_is_painted_over_and_a_border_is_filled_to_its_last_corner():
    frame = frame_of(0, box=False)
    found = Artifacts(None, (0, 160, 90, 240), (10, 0, 290, 230))
    assert masks(frame, found)[CUT_OUT].sum() == 80 * 90
    assert (without(frame, found, CUT_OUT)[160:, :90] > 0).all()
    border = masks(frame, find_artifacts(frame))[BORDER]
    cleaned = without(frame, find_artifacts(frame), BORDER)
    np.testing.assert_allclose(cleaned[border], np.broadcast_to(TISSUE, (border.sum(), 3)), atol=20)
    assert np.array_equal(cleaned[115:125, 145:155], frame[115:125, 145:155])


def test_a_border_is_filled_with_tissue_and_a_box_beside_it_stays():
    frame = frame_of(0, box=True)
    found = find_artifacts(frame)
    cleaned = without(frame, found, BORDER)
    there = masks(frame, found)
    assert np.array_equal(cleaned[there[BOX]], frame[there[BOX]])
    filled = cleaned[there[BORDER]]
    np.testing.assert_allclose(filled, np.broadcast_to(TISSUE, filled.shape), atol=20)
    assert find_artifacts(cleaned).navigation_box == found.navigation_box


def test_a_box_is_planted_where_it_was_and_paint_covers_the_same_pixels():
    carrier = frame_of(0, box=True)
    patch = cut(carrier, (0, 160, 90, 240))
    clean = np.full((480, 600, 3), TISSUE, np.uint8)
    planted, covered = plant(clean, patch), cover(frame_of(1, box=False), patch)
    expected = np.zeros((480, 600), bool)
    expected[320:, :180] = True
    assert np.array_equal((planted != clean).any(axis=2), expected)
    assert find_artifacts(planted).navigation_box == (0, 320, 180, 480)
    assert len(np.unique(covered[160:, :90].reshape(-1, 3), axis=0)) == 1
    assert np.array_equal(covered[:160], frame_of(1, box=False)[:160])


def test_the_drawn_box_is_found_as_a_real_one_is():
    planted = plant(frame_of(1, box=False), DRAWN_BOX)
    assert find_artifacts(planted).navigation_box == pytest.approx((15, 158, 102, 230), abs=1)


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (7, 1)])
@pytest.mark.parametrize("place", [(0.99, 0.99, 1, 1), (0, 0, 0.01, 0.01), (0.4, 0.4, 0.4001, 0.4001)])
def test_a_frame_of_any_size_can_be_planted_on(sides, place):
    frame, patch = np.zeros((*sides, 3), np.uint8), Patch(np.full((3, 4, 3), 200, np.uint8), place)
    assert (plant(frame, patch) == 200).all(axis=2).sum() == 1
    assert cover(frame, patch).shape == frame.shape
