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

from monai_label_app.classifier.artifacts import BORDER, BOX, CUT_OUT, find_artifacts
from monai_label_app.classifier.audit import ELSEWHERE, Audit, Look, Planting, audit
from monai_label_app.classifier.audit_summary import summary
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.data import Example, find_dataset
from monai_label_app.reading import read_frame
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
    said_so, true = (cecum["removed"][BOX][whose] for whose in ("predicted", "true"))
    assert said_so == true, "all three that carry it are predicted right, and nothing else is"
    assert said_so["before"] > 0.6 > 0.35 > said_so["after"]
    assert cecum["planted"]["box"] > cecum["planted"]["before"] + 0.3
    assert cecum["planted"]["paint"] == pytest.approx(cecum["planted"]["before"], abs=0.02)
    assert said["box_planted"] == "real"
    (shortcut,) = said["shortcuts"]
    for words in (
        "normal-cecum: ",
        f"{cecum['evidence'][BOX]['share']:.0%} of the evidence on the navigation box",
        f"p goes from {said_so['before']:.2f} to {said_so['after']:.2f} (3 frames)",
        f"moves p from {cecum['planted']['before']:.2f} to {cecum['planted']['box']:.2f}",
        "(6 frames of other classes)",
    ):
        assert words in shortcut


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


def test_the_probabilities_of_a_planted_box_are_those_of_the_closed_form(dataset):
    """Of teal, 0.5 * (163 + 134) - 18 = 130.5 of 255, less 0.2: so much a pixel, tissue nothing."""
    result = audit(find_dataset(dataset).examples, reader_of(TEAL_READER))
    share = 80 * 90 / (240 * 300)
    score = 60 * share * (130.5 / 255 - 0.2)
    for planting in result.plantings:
        assert planting.before[0] == pytest.approx(1 / (1 + np.e), abs=0.01)
        assert planting.box[0] == pytest.approx(1 / (1 + np.exp(1 - score)), abs=0.03)


def test_shares_are_those_of_the_map(dataset):
    """The map of this network is its one channel; a pixel of the input is 240 / 64 by 300 / 64 of the frame."""
    example = find_dataset(dataset).examples[0]
    (look,) = audit([example], reader_of((0.5, 0.5, 0.5))).looks
    frame = read_frame(example.path).astype(float) / 255
    lit = np.maximum(0.5 * frame.sum(axis=2) - 0.2, 0)
    assert look.predicted == "normal-cecum"
    assert look.shares[BOX] == pytest.approx(lit[160:, :90].sum() / lit.sum(), abs=0.01)
    corners = (frame == 0).all(axis=2)
    assert look.areas[BORDER] == pytest.approx(corners.mean(), rel=0.02)
    assert look.shares[BORDER] < 0.01
    for parts in (look.areas, look.shares):
        assert set(parts) == {BOX, BORDER, ELSEWHERE}
        assert sum(parts.values()) == pytest.approx(1)


def test_where_nothing_speaks_for_the_class_no_evidence_is_counted(dataset):
    result = audit(find_dataset(dataset).examples, reader_of((-1, -1, -1)))
    assert all(look.shares == {} and look.on_artifacts == 0 for look in result.looks)
    said = summary(result)
    assert said["classes"]["polyps"]["evidence"][BORDER]["share"] is None
    assert said["shortcuts"] == []


def look(label: str, predicted: str, share: float) -> Look:
    """A frame a tenth of which is a box that holds some of the evidence."""
    areas, shares = ({BOX: value, ELSEWHERE: 1 - value} for value in (0.1, share))
    chances = np.array([float(name == predicted) for name in CLASSES])
    return Look(Example(Path("a.png"), label, "a"), predicted, areas, shares, chances, {BOX: chances / 2})


@pytest.mark.parametrize(("paint", "named"), [(0.15, True), (0.45, False)])
def test_a_box_that_does_no_more_than_paint_in_its_place_is_no_shortcut(paint, named):
    moments = [np.array([chance, 1 - chance]) for chance in (0.1, 0.5, paint)]
    plantings = tuple(Planting(Example(Path("b.png"), CLASSES[1], "b"), *moments) for _ in range(3))
    said = summary(Audit(CLASSES, (look(CLASSES[1], CLASSES[1], 0.1),), plantings, False, ()))
    assert [sentence.startswith(CLASSES[0]) for sentence in said["shortcuts"]] == [True] * named


def test_evidence_is_of_what_a_frame_is_taken_for_and_what_carries_a_box_of_what_it_is():
    looks = tuple(look(CLASSES[1], CLASSES[0], 0.6) for _ in range(3))
    said = summary(Audit(CLASSES, looks, (), False, ()))["classes"]
    seen = [said[name]["evidence"][BOX] for name in CLASSES]
    assert [(one["frames"], one["wrong"]) for one in seen] == [(3, pytest.approx(0.6)), (0, None)]
    assert [said[name]["carries"][BOX] for name in CLASSES] == [0, 3]
    assert [said[name]["removed"][BOX]["true"]["frames"] for name in CLASSES] == [0, 3]


def test_no_box_is_planted_where_one_was_cut_out(dataset, tmp_path):
    """What is black there already would hide the box, or the paint."""
    cut = frame_of(3, box=True)
    box = find_artifacts(cut).navigation_box
    x0, y0, x1, y1 = box
    cut[y0:y1, x0:x1] = 0
    Image.fromarray(cut).save(tmp_path / "cut.png")
    assert find_artifacts(cut).blacked_out
    examples = [Example(tmp_path / "cut.png", "polyps", "c"), *find_dataset(dataset).examples]
    planted = audit(examples, reader_of(TEAL_READER)).plantings
    assert planted
    assert "cut.png" not in {one.example.path.name for one in planted}


def test_one_clean_frame_is_planted_on_and_named_by_no_rule(dataset):
    examples = find_dataset(dataset).examples
    carrier, clean = examples[0], next(example for example in examples if example.label == "polyps")
    result = audit([carrier, clean], reader_of(TEAL_READER))
    (planting,) = result.plantings
    assert planting.box[0] > planting.paint[0] + 0.3
    assert summary(result)["shortcuts"] == [], "one frame is an anecdote"


@pytest.mark.slow
def test_the_command_prints_and_writes_the_same(dataset, checkpoint, tmp_path):
    result = endolens("audit", dataset, "--json", "--out", tmp_path / "audit")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert files(tmp_path / "audit") == {"audit.csv", "audit.json", "report.html", "worst.png"}
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == said
    with (tmp_path / "audit" / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == said["images"] == 12
    assert sum(row["right"] == "1" for row in rows) == said["right"]
    for row in rows:
        chances = {name: float(row[name]) for name in open_classifier().card.classes}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(chances, key=chances.__getitem__)
    assert sum(bool(row[f"{BOX}: area"]) for row in rows) == 3
    page = (tmp_path / "audit" / "report.html").read_text()
    for words in ("endolens-demo", "not for clinical use", "endolens audit", "data:image/png;base64,"):
        assert words in page
    assert "normal-cecum" in endolens("audit", dataset, "--model", checkpoint).stdout


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


@pytest.mark.slow
def test_no_real_box_fools_the_demonstration_model(real_images):
    """The audit's numbers are those of looking at the frames one by one."""
    classifier = open_classifier()
    found = find_dataset(real_images / "kvasir-8").examples
    examples = [one for number, one in enumerate(found) if one.label == "normal-cecum" or number % 8 == 0]
    said = summary(audit(examples, classifier))
    assert said["shortcuts"] == []
    shares = []
    for example in examples:
        frame = read_frame(example.path)
        box = find_artifacts(frame).navigation_box
        if box is None:
            continue
        seen, (geometry,) = classifier.dissect([frame])
        target = int(seen.scores[0].argmax())
        if classifier.card.classes[target] == "normal-cecum":
            cam = geometry.to_source(seen.grad_cam(classifier.card.target_layer, target)[0])
            x0, y0, x1, y1 = box
            shares.append(cam[y0:y1, x0:x1].sum() / cam.sum())
    held = said["classes"]["normal-cecum"]["evidence"][BOX]
    assert held["frames"] == len(shares)
    assert held["share"] == pytest.approx(np.mean(shares), abs=1e-4)
