"""Real frames are looked at; those that show nothing are told by why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from monai_label_app.video.quality import BLURRED, CLEAR, DARK, FROZEN, OUTSIDE, look


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def real_frames(real_images) -> list[np.ndarray]:
    """Of every class, with dyed tissue, borders and boxes."""
    files = [
        file for folder in sorted((real_images / "kvasir-8").iterdir()) for file in sorted(folder.glob("*.*g"))[:8]
    ]
    return [read(file) for file in [*files, *sorted((real_images / "lesion-video").glob("*.png"))[::6]]]


def test_no_real_frame_is_left_out(real_frames):
    assert [look(frame).quality for frame in real_frames] == [CLEAR] * len(real_frames)


def test_blurred_ones_are(real_frames):
    found = [
        look(np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(min(frame.shape[:2]) / 30)))).quality
        for frame in real_frames
    ]
    assert found.count(BLURRED) >= 0.95 * len(found)


def test_what_shows_nothing_is_named_by_why(real_frames):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 12, (240, 320, 3), dtype=np.uint8)
    assert look(noise).quality == DARK
    assert look(np.full((240, 320, 3), (0, 0, 255), np.uint8)).quality == DARK, "a blue screen"
    room = np.repeat(
        np.kron(rng.integers(60, 255, (24, 32), dtype=np.uint8), np.ones((10, 10), np.uint8))[..., None], 3, 2
    )
    assert look(room).quality == OUTSIDE


def test_a_frame_that_is_shown_again_is_frozen_and_one_that_moved_is_not(real_frames):
    frame = real_frames[0]
    before = look(frame)
    noisy = np.clip(frame + np.random.default_rng(1).normal(0, 1, frame.shape), 0, 255).astype(np.uint8)
    assert look(noisy, before).quality == FROZEN
    assert look(np.roll(frame, 6, axis=1), before).quality == CLEAR
