"""From a frame to the network's input and back: what is planted in the frame comes back in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from explainers import heatmap, regions
from monai_label_app.classifier.artifacts import VARIANTS
from monai_label_app.classifier.prepare import prepare

GREY, BRIGHT = 90, 250


@given(
    size=st.tuples(st.integers(101, 611), st.integers(101, 611)),
    middle=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    network=st.sampled_from([64, 224]),
)
@settings(max_examples=30, deadline=None)
def test_a_planted_rectangle_comes_back_in_its_place(size, middle, network):
    height, width = size
    half_height, half_width = height // 8, width // 8
    y, x = int(middle[0] * height), int(middle[1] * width)
    frame = np.full((height, width, 3), GREY, np.uint8)
    frame[y - half_height : y + half_height, x - half_width : x + half_width] = BRIGHT
    tensor, geometry = prepare(frame, network, (GREY / 255,) * 3, (1, 1, 1))
    assert tensor.shape == (3, network, network)
    back = geometry.to_source(tensor[0].numpy())
    assert back.shape == (height, width)
    (region,) = regions(heatmap.normalise(back.clip(0)))
    # Half of the maximum lies on the edge; one pixel of the network is several of the frame.
    tolerance = 1 + 0.5 * max(height, width) / network
    planted = (x - half_width, y - half_height, x + half_width, y + half_height)
    assert region.box == pytest.approx(planted, abs=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_blob_on_a_coarse_map_comes_back_within_two_pixels_of_its_centre(variant):
    height, width = 301, 407
    rows, columns = np.mgrid[:height, :width] + 0.5
    blob = np.exp(-((columns - 260.5) ** 2 + (rows - 110.5) ** 2) / (2 * 30**2))
    frame = np.repeat((GREY + 160 * blob).astype(np.uint8)[..., None], 3, axis=2)
    # An octagon with a box over its lower left corner, as endoscopes show it.
    frame[rows - columns > 150] = frame[rows + columns > 600] = 0
    frame[:12], frame[-7:], frame[:, :25], frame[:, -31:] = 0, 0, 0, 0
    frame[205:285, 10:120] = (18, 163, 134)
    tensor, geometry = prepare(frame, 224, (GREY / 255,) * 3, (1, 1, 1), variant)
    assert geometry.content == (
        (25, 12, width - 31, height - 7) if variant in ("box+border", "inpaint") else (0, 0, width, height)
    )
    coarse = functional.avg_pool2d(tensor[None, :1].clip(0), 8)[0, 0].numpy()  # 28 x 28, as a late layer is
    back = heatmap.normalise(geometry.to_source(coarse).clip(0))
    centre = (back * columns).sum() / back.sum(), (back * rows).sum() / back.sum()
    assert centre == pytest.approx((260.5, 110.5), abs=2)
    (region,) = regions(back)
    x0, y0, x1, y1 = region.box
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((260.5, 110.5), abs=2)


def test_the_input_is_normalised_channel_by_channel():
    frame = np.empty((10, 20, 3), np.uint8)
    frame[:] = (51, 102, 204)
    tensor, _ = prepare(frame, 8, (0.1, 0.2, 0.3), (0.5, 0.4, 0.25))
    expected = [(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.4, (0.8 - 0.3) / 0.25]
    np.testing.assert_allclose(tensor.numpy(), np.broadcast_to(np.reshape(expected, (3, 1, 1)), (3, 8, 8)), atol=1e-6)
