"""The shortcut experiment, small: a network that reads a box in the place of a class fails without it, and is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHORTCUT = Path(__file__).parents[1] / "benchmarks" / "shortcut.py"


@pytest.mark.slow
def test_a_box_on_one_class_in_training_is_learned_and_named_and_inpainting_takes_it_away():
    size = ["--frames", "32", "--tested", "8", "--side", "64", "--epochs", "16"]
    command = [sys.executable, SHORTCUT, *size, "--only", "none", "inpaint", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    fooled = found["none"]
    scores = fooled["macro_f1"]
    assert scores["as in training"] > scores["no box"] + 0.15, "the class is lost with its box"
    assert scores["on the others"] < scores["no box"], "and seen where the box is"
    assert fooled["planted"]["box"] > fooled["planted"]["before"] + 0.5
    assert any(
        sentence.startswith("normal-cecum: ") and "planting a navigation box moves p" in sentence
        for sentence in fooled["shortcuts"]
    )
    mended = found["inpaint"]
    assert abs(mended["planted"]["box"] - mended["planted"]["before"]) < 0.1
    assert mended["macro_f1"]["on the others"] > scores["on the others"] + 0.15
    assert not any(
        sentence.startswith("normal-cecum: ") and "navigation box" in sentence for sentence in mended["shortcuts"]
    )
