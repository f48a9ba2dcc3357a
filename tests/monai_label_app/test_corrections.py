"""What a doctor may say of a frame, and which of several opinions counts."""

from __future__ import annotations

import json
import re

import pytest
from pydicom import dcmread

from monai_label_app.classifier.network import KVASIR_CLASSES
from monai_label_app.corrections import Correction, Corrections, parse
from monai_label_app.sample import STUDY


def test_the_latest_opinion_of_a_frame_counts_and_none_is_lost(tmp_path):
    corrections = Corrections(tmp_path / "corrections.jsonl")
    said = [
        Correction("1.2", "polyps", "Ada", 1, ((0.0, 0.5), (3.0, 4.0), (9.0, 1.0)), "demo 1", "clear"),
        Correction("1.2", "esophagitis", "Bo", 2),
        Correction("1.3", "polyps", "Ada"),
        Correction("1.2", "normal-cecum", "Bo", 1),
    ]
    for one in said:
        corrections.add(one)
    found = Corrections(tmp_path / "corrections.jsonl")
    assert [(one.image, one.label, one.by, one.frame, one.region) for one in found.all()] == [
        (one.image, one.label, one.by, one.frame, one.region) for one in said
    ]
    assert all(one.at.endswith("+00:00") for one in found.all())
    assert {(one.image, one.frame): one.label for one in found.current()} == {
        ("1.2", 1): "normal-cecum",
        ("1.2", 2): "esophagitis",
        ("1.3", 1): "polyps",
    }
    found.withdraw("1.2", "Ada")
    assert [one.image for one in found.current()] == ["1.3"]
    found.add(said[0])
    assert {one.image: one.by for one in found.current()} == {"1.3": "Ada", "1.2": "Ada"}
    assert len(json.loads(found.history("1.2"))["corrections"]) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (["polyps"], "is an object"),
        ({"class": "cancer", "by": "x"}, "no class 'cancer'"),
        ({"class": ["polyps"], "by": "x"}, "no class"),
        ({"class": "polyps"}, "reader's name"),
        ({"class": "polyps", "by": "  "}, "reader's name"),
        ({"class": "polyps", "by": 7}, "'by' must be a text"),
        ({"class": "polyps", "by": "x" * 501}, "at most 500"),
        ({"class": "polyps", "by": "x", "frame": 2}, "no frame 2; the image has 1"),
        ({"class": "polyps", "by": "x", "frame": True}, "no frame True"),
        (b'{"class": "polyps", "by": "Dr. \\ud83d"}', "'by' has characters that stand for nothing"),
        ({"class": "polyps", "by": "x", "comment": "a\0"}, "'comment' has characters that stand for nothing"),
        ({"class": "polyps", "by": "x", "region": [[1, 1], [2, 2]]}, "2 points"),
        ({"class": "polyps", "by": "x", "region": [[5, 5], [9, 9], [7, 7]]}, "'region' has no area"),
        ({"class": "polyps", "by": "x", "region": [[1, 1], [2, 2], [1e9, 1]]}, "outside the image"),
        (b'{"class": "polyps", "by": "x", "region": [[1, 1], [2, 2], [NaN, 1]]}', "outside the image"),
        ({"class": "polyps", "by": "x", "region": [[1, 1], [2, 2], [10**400, 1]]}, "outside the image"),
        ({"class": "polyps", "by": "x", "region": "all"}, "list of [x, y]"),
        ({"class": "polyps", "by": "x", "at": "1999"}, "has no at"),
        (b" " * 200_000, "too long"),
    ],
)
def test_a_correction_with_a_mistake_is_refused_in_a_sentence(content, said):
    header = dcmread(next(STUDY.glob("*.dcm")), stop_before_pixels=True)
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(sent, header, KVASIR_CLASSES)
