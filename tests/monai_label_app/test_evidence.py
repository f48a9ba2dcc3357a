"""The words for what is seen: right place, right share, right artifact."""

from __future__ import annotations

import numpy as np
import pytest

from explainers import regions
from monai_label_app.classifier.artifacts import VARIANTS
from monai_label_app.web.evidence import Evidence, warnings
from monai_label_app.web.preparation import Picture, in_words

GREEN = (20, 150, 110)


def evidence(saliency: np.ndarray, *, predicted: bool = True, probability: float = 0.932) -> Evidence:
    height, width = saliency.shape
    return Evidence("block5_conv4", "polyps", predicted, probability, regions(saliency), {}, width, height)


def blob(x: int, y: int, side: int = 20) -> np.ndarray:
    """A square on a map of 200 × 100 pixels."""
    saliency = np.zeros((100, 200), np.float32)
    saliency[y : y + side, x : x + side] = 1
    return saliency


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (10, 5, "in the upper left part"),
        (170, 75, "in the lower right part"),
        (90, 40, "in the middle"),
        (90, 75, "in the lower part"),
        (10, 40, "in the left part"),
    ],
)
def test_the_sentence_says_where_the_evidence_lies(x: int, y: int, place: str) -> None:
    said = evidence(blob(x, y)).sentence
    assert said == (
        f"The network takes this frame for polyps (93.2 %); its evidence in block5_conv4 lies {place}, "
        "on 2 % of the picture."
    )


def test_several_regions_nothing_and_another_class_are_said() -> None:
    two = evidence(np.maximum(blob(10, 5, 30), blob(150, 60)))
    assert "lies in 2 regions, the largest in the upper left part" in two.sentence
    nothing = evidence(np.zeros((100, 200)), predicted=False, probability=0.0004)
    assert nothing.sentence == "The network gives polyps < 0.1 %; in block5_conv4 nothing stands out for it."


def test_only_a_good_part_of_the_evidence_on_an_artifact_is_a_warning() -> None:
    assert warnings("polyps", {"navigation box": 0.61, "border": 0.1}) == [
        "61 % of the evidence for polyps lies on the navigation box, not on tissue."
    ]


@pytest.fixture
def frame() -> np.ndarray:
    """Reddish tissue in a black border of 40 pixels, with a navigation box in its lower left corner."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[40:440, 40:600] = (170, 90, 70)
    pixels[300:440, 40:200] = GREEN
    return pixels


def test_what_is_found_is_outlined_where_it_is(frame: np.ndarray) -> None:
    box, border = Picture(frame).artifacts("none")
    assert (box.name, border.name) == ("navigation box", "border")
    for artifact, expected, near in ((box, (40, 300, 200, 440), 2), (border, (40, 40, 600, 440), 6)):
        corners = np.array(artifact.outline)
        assert np.abs([*corners.min(axis=0), *corners.max(axis=0)] - np.array(expected)).max() <= near


def test_what_was_removed_is_what_the_network_was_not_shown(frame: np.ndarray) -> None:
    said = {variant: in_words(Picture(frame).artifacts(variant)) for variant in VARIANTS}
    assert said == {
        "none": "Found: navigation box, border. The network saw the frame with them.",
        "box": "Found: navigation box, border. Removed before the network looked: the navigation box (blacked out).",
        "box+border": "Found: navigation box, border. Removed before the network looked: the navigation box "
        "(blacked out) and the border (cropped).",
        "inpaint": "Found: navigation box, border. Removed before the network looked: the navigation box "
        "(painted over) and the border (cropped and painted over).",
    }
    assert in_words([]) == "No navigation box, cut-out or border was found."


def test_shares_are_those_of_the_map_on_each_artifact(frame: np.ndarray) -> None:
    saliency = np.zeros(frame.shape[:2], np.float32)
    saliency[310:330, 60:80] = 3  # on the box
    saliency[100:120, 300:320] = 1  # on tissue
    shares = Picture(frame).shares(saliency)
    assert shares["navigation box"] == pytest.approx(0.75)
    assert shares["border"] == 0
