"""``endolens audit``: a network that reads a class from the navigation box is told from one that does not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from explainers.faithfulness import energy_in_mask
from monai_label_app.classifier.artifacts import find_artifacts
from monai_label_app.classifier.audit import BORDER, BOX, CUT_OUT, audit, masks, plant, summary, without
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Example, find_dataset
from monai_label_app.study import read_frame
from tests.monai_label_app.test_cli import assert_refused, endolens, files

CLASSES = ("normal-cecum", "polyps")
TEAL, TISSUE = (18, 163, 134), (170, 90, 70)


def frame_of(seed: int, *, box: bool) -> np.ndarray:
    """Tissue in an octagon as a scope shows it, with or without a teal box in the lower left corner."""
    random = np.random.default_rng(seed)
    frame = np.clip(random.normal(TISSUE, 12, (240, 300, 3)), 40, 255)
    rows, columns = np.mgrid[:240, :300]
    corner = np.minimum(rows, 239 - rows) + np.minimum(columns, 299 - columns) < 50
    frame[corner] = 0
    if box:
        frame[160:240, :90] = TEAL
    return frame.astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Twelve frames of two classes; half of those of the cecum carry a box."""
    folder = tmp_path_factory.mktemp("dataset")
    for number in range(12):
        label = CLASSES[number % 2]
        (folder / label).mkdir(exist_ok=True)
        picture = Image.fromarray(frame_of(number, box=label == "normal-cecum" and number < 6))
        picture.save(folder / label / f"{number}.png")
    return folder


def reader_of(colour: tuple[float, float, float], preprocess: str = "none") -> Classifier:
    """A network whose score of the first class is how much of a colour a frame has: its map is known."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)
            with torch.no_grad():
                self.conv.weight.copy_(torch.tensor(colour).view(1, 3, 1, 1))
                self.conv.bias.fill_(-0.2)

        def forward(self, images):
            found = self.conv(images).relu().mean((1, 2, 3))
            return torch.stack([60 * found, torch.ones_like(found)], dim=1)

    card = Card("reader", "1", classes=CLASSES, input_size=64, mean=(0, 0, 0), std=(1, 1, 1), target_layer="conv",
                preprocess=preprocess)  # fmt: skip
    return Classifier(Reader().eval(), card, "0" * 64, torch.device("cpu"))


TEAL_READER = (-1.0, 0.5, 0.5)


def test_a_network_that_reads_the_box_is_found_out(dataset):
    result = audit(find_dataset(dataset).examples, reader_of(TEAL_READER))
    said = summary(result)
    cecum = said["classes"]["normal-cecum"]
    assert cecum["carries"][BOX] == 3
    assert cecum["evidence"][BOX]["frames"] == 3
    assert cecum["evidence"][BOX]["share"] > 0.95, "nothing else in the frame is teal"
    assert cecum["evidence"][BOX]["area"] == pytest.approx(80 * 90 / (240 * 300), rel=0.1)
    assert cecum["removed"][BOX]["before"] > 0.6 > 0.35 > cecum["removed"][BOX]["after"]
    assert cecum["planted"]["box"] > cecum["planted"]["before"] + 0.3
    assert cecum["planted"]["control"] == pytest.approx(cecum["planted"]["before"], abs=0.02)
    assert said["box_planted"] == "real"
    assert any("planting a navigation box moves p" in sentence for sentence in said["shortcuts"])
    assert all(sentence.startswith("normal-cecum") for sentence in said["shortcuts"])


def test_what_the_card_takes_off_fools_nobody(dataset):
    said = summary(audit(find_dataset(dataset).examples, reader_of(TEAL_READER, "box")))
    assert said["shortcuts"] == []
    planted = said["classes"]["normal-cecum"]["planted"]
    assert planted["box"] == pytest.approx(planted["before"], abs=0.02)


def test_a_network_that_reads_the_tissue_has_no_shortcut(dataset):
    assert summary(audit(find_dataset(dataset).examples, reader_of((0.5, -0.1, -0.1))))["shortcuts"] == []


def test_without_a_box_in_the_data_one_is_drawn(dataset):
    examples = [example for example in find_dataset(dataset).examples if example.label == "polyps"]
    said = summary(audit(examples, reader_of(TEAL_READER)))
    assert said["box_planted"] == "drawn"
    cecum = said["classes"]["normal-cecum"]
    assert cecum["planted"]["box"] > cecum["planted"]["before"] + 0.3


def test_shares_are_those_of_the_map_and_the_border_is_what_is_black_up_to_the_edge(dataset):
    example = find_dataset(dataset).examples[0]
    frame = read_frame(example.path)
    classifier = reader_of((0.5, 0.5, 0.5))
    (look,) = audit([example], classifier).looks
    seen, (geometry,) = classifier.dissect([frame])
    cam = geometry.to_source(seen.grad_cam("conv", look.predicted)[0])
    box = np.zeros(frame.shape[:2], bool)
    x0, y0, x1, y1 = find_artifacts(frame).navigation_box
    box[y0:y1, x0:x1] = True
    assert look.shares[BOX] == pytest.approx(energy_in_mask(cam, box))
    border = masks(frame, find_artifacts(frame))[BORDER]
    assert not (border & box).any()
    assert border.sum() == pytest.approx(((frame == 0).all(axis=2) & ~box).sum(), rel=0.02)


def test_an_artifact_is_taken_away_and_nothing_else(dataset):
    frame = frame_of(0, box=True)
    found = find_artifacts(frame)
    cleaned = without(frame, found, BOX)
    x0, y0, x1, y1 = found.navigation_box
    changed = (cleaned != frame).any(axis=2)
    assert not changed[:, x1:].any()
    assert not changed[:y0].any()
    assert np.abs(cleaned[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5].astype(float) - TISSUE).max() < 15
    assert find_artifacts(cleaned).navigation_box is None


def test_a_patch_is_planted_in_its_place_and_nowhere_else():
    frame, patch = np.zeros((100, 200, 3), np.uint8), np.full((7, 5, 3), 200, np.uint8)
    planted = plant(frame, patch, (0.1, 0.5, 0.3, 0.9))
    expected = np.zeros((100, 200), bool)
    expected[50:90, 20:60] = True
    assert np.array_equal((planted == 200).all(axis=2), expected)
    assert not frame.any()


def test_the_command_prints_and_writes_the_same(dataset, tmp_path):
    result = endolens("audit", dataset, "--json", "--out", tmp_path / "audit")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert files(tmp_path / "audit") == {"audit.csv", "audit.json", "report.html", "worst.png"}
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == said
    with (tmp_path / "audit" / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == said["images"] == 12
    assert sum(bool(row[f"{BOX}: area"]) for row in rows) == 3
    page = (tmp_path / "audit" / "report.html").read_text()
    for words in ("endolens-demo", "not for clinical use", "endolens audit", "data:image/png;base64,"):
        assert words in page
    assert "normal-cecum" in endolens("audit", dataset).stdout


def test_what_cannot_be_audited_is_one_sentence(tmp_path, dataset):
    assert_refused(endolens("audit", tmp_path / "missing"), "does not exist")
    strange = tmp_path / "strange"
    for label in ("apples", "pears"):
        (strange / label).mkdir(parents=True)
        Image.fromarray(frame_of(1, box=False)).save(strange / label / "1.png")
    assert_refused(endolens("audit", strange, "--out", tmp_path / "out"), "does not know apples, pears")
    assert not (tmp_path / "out").exists()


def test_an_unreadable_picture_is_left_out(dataset, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    result = audit([*find_dataset(dataset).examples, Example(broken, "polyps", "x")], reader_of(TEAL_READER))
    assert len(result.looks) == 12
    assert "broken.png" in result.problems[0].reason


@pytest.mark.slow
def test_real_cut_outs_and_boxes_are_counted(real_images):
    examples = [e for e in find_dataset(real_images / "kvasir-8").examples if e.label in ("normal-cecum", "polyps")]
    said = summary(audit(examples, reader_of((0.5, 0.5, 0.5))))["classes"]
    with (real_images / "kvasir-8" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for label in ("normal-cecum", "polyps"):
        boxes = sum(row["cls"] == label and row["nav"] == "yes" for row in rows)
        assert said[label]["carries"][BOX] == boxes
    assert said["polyps"]["carries"][CUT_OUT] >= 8
