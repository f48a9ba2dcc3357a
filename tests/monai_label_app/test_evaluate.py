"""``endolens evaluate``: its numbers are scikit-learn's of the model's answers; what it leaves out it names."""

from __future__ import annotations

import copy
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from PIL import Image

from monai_label_app.classifier.checkpoint import save
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.network import calibrate
from monai_label_app.pictures import read_picture
from monai_label_app.sample.frames import render
from tests.monai_label_app.test_cli import assert_refused, endolens, files

SHOWN = ("esophagitis", "normal-cecum", "polyps")


def draw(path: Path, label: str, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(label, seed, 120, 144)[0]).save(path)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Four rendered frames of three classes, so small that the demonstration model is sometimes wrong."""
    folder = tmp_path_factory.mktemp("rendered")
    for label in SHOWN:
        for seed in range(700_000, 700_004):
            draw(folder / label / f"{seed}.png", label, seed)
    return folder


@pytest.fixture(scope="module")
def evaluated(rendered, tmp_path_factory) -> tuple[dict, Path]:
    """What the command prints of the rendered frames, and the folder that it writes."""
    out = tmp_path_factory.mktemp("out") / "evaluation"
    result = endolens("evaluate", rendered, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    assert "endolens-demo: demonstration model for research and education, not for clinical use" in result.stderr
    return json.loads(result.stdout), out


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_measured(said: dict, labels: list[str], predicted: list[str]) -> None:
    """The metrics are scikit-learn's."""
    present = sorted(set(labels))
    means = {"labels": present, "average": "macro", "zero_division": 0}
    assert said["images"] == len(labels)
    assert said["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert said["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(labels, predicted, **means))
    assert said["macro_precision"] == pytest.approx(sklearn.metrics.precision_score(labels, predicted, **means))
    assert said["macro_recall"] == pytest.approx(sklearn.metrics.recall_score(labels, predicted, **means))
    confusion = sklearn.metrics.confusion_matrix(labels, predicted, labels=said["classes"])
    assert said["confusion"] == confusion.tolist()
    assert list(said["per_class"]) == present
    for label, row in said["per_class"].items():
        own, theirs = np.array(labels) == label, np.array(predicted) == label
        assert row["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(own, theirs))
        assert row["accuracy"] == pytest.approx((own == theirs).mean())
        assert row["specificity"] == pytest.approx((~theirs[~own]).mean())
        assert row["images"] == own.sum()
        for name, (low, high) in said["confidence"]["per_class"][label].items():
            assert low <= row[name] + 1e-9
            assert row[name] - 1e-9 <= high
    for name in ("mcc", "accuracy", "specificity"):
        assert said[f"macro_{name}"] == pytest.approx(np.mean([row[name] for row in said["per_class"].values()]))


@pytest.mark.slow
def test_the_numbers_are_those_of_what_the_model_says_of_each_picture(rendered, evaluated):
    said, _ = evaluated
    classifier = open_classifier()
    labels, predicted = [], []
    for file in sorted(rendered.rglob("*.png")):
        dissection, _ = classifier.dissect([read_picture(file).pixels])
        labels.append(file.parent.name)
        predicted.append(classifier.card.classes[int(dissection.probabilities[0].argmax())])
    assert 0.3 < said["accuracy"] < 1  # else the rest would show little
    assert_measured(said, labels, predicted)
    assert said["classes"] == list(classifier.card.classes)
    assert (said["model"]["name"], said["model"]["version"]) == ("endolens-demo", classifier.version)
    for name in ("accuracy", "macro_f1", "macro_mcc"):
        low, high = said["confidence"][name]
        assert low <= said[name] <= high
        assert low < high


def test_the_folder_has_every_prediction_the_metrics_and_plots(rendered, evaluated):
    said, out = evaluated
    assert files(out) == {"predictions.csv", "metrics.json", "confusion.png", "reliability.png", "report.html"}
    assert json.loads((out / "metrics.json").read_text()) == said
    rows = predictions(out / "predictions.csv")
    assert {row["file"] for row in rows} == {str(path) for path in rendered.rglob("*.png")}
    chances = np.array([[float(row[label]) for label in said["classes"]] for row in rows])
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert [row["predicted"] for row in rows] == [said["classes"][index] for index in chances.argmax(axis=1)]
    assert_measured(said, [row["label"] for row in rows], [row["predicted"] for row in rows])
    for name in ("confusion.png", "reliability.png"):
        with Image.open(out / name) as plot:
            assert plot.format == "PNG"
            assert len(np.unique(np.asarray(plot.convert("L")))) > 20


def test_the_report_needs_no_other_file_and_says_what_it_is_of(rendered, evaluated):
    said, out = evaluated
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="([^"]{22})', page) == ["data:image/png;base64,"] * 2
    assert "<script" not in page
    for words in (
        f"endolens-demo {said['model']['version']}",
        "demonstration model for research and education, not for clinical use",
        f"endolens evaluate {rendered} --json --out {out}",
        f"{said['macro_f1']:.3f}",
        "synthetic frames",
    ):
        assert words in page


@pytest.mark.slow
def test_the_table_has_a_row_a_class_their_mean_and_its_interval(rendered, evaluated):
    said, _ = evaluated
    result = endolens("evaluate", rendered)
    rows = {line[:16].strip(): line[16:].split() for line in result.stdout.splitlines() if line}
    names = ("precision", "recall", "specificity", "accuracy", "mcc", "f1")
    for label, row in said["per_class"].items():
        assert rows[label] == [*(f"{row[name]:.3f}" for name in names), "4"]
    assert rows["mean"] == [f"{said[f'macro_{name}']:.3f}" for name in names]
    assert rows["95 % to"] == [f"{said['confidence'][f'macro_{name}'][1]:.3f}" for name in names]
    assert "5 of the model's have none" in result.stdout
    assert f"{said['accuracy']:.1%} of 12 pictures" in result.stdout


@pytest.mark.slow
def test_polyps_of_another_source_are_counted_among_the_others(rendered, tmp_path):
    for seed in range(3):
        draw(tmp_path / "CVC" / "Original" / f"{seed}.tif", "polyps", 800_000 + seed)
        draw(tmp_path / "CVC" / "Ground Truth" / f"{seed}.tif", "normal-cecum", seed)
    said = json.loads(endolens("evaluate", rendered, "--extra-polyps", tmp_path / "CVC", "--json").stdout)
    assert said["images"] == 15
    assert {label: row["images"] for label, row in said["per_class"].items()} == dict(
        zip(SHOWN, (4, 4, 7), strict=True)
    )
    assert said["extra_polyps"] == str(tmp_path / "CVC")


def test_what_cannot_be_read_is_named_and_the_rest_is_measured(rendered, tmp_path):
    for name in ("polyps/700000.png", "esophagitis/700001.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes((rendered / name).read_bytes())
    (tmp_path / "data" / "polyps" / "cut.png").write_bytes((rendered / "polyps" / "700001.png").read_bytes()[:900])
    result = endolens("evaluate", tmp_path / "data", "--json", "--out", tmp_path / "out")
    assert_refused(result, tmp_path / "data" / "polyps" / "cut.png", "1 of the pictures could not be used")
    assert json.loads(result.stdout)["images"] == 2
    assert "cut.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for path in (tmp_path / "data").rglob("*.png"):
        path.write_text("no picture")
    nothing = endolens("evaluate", tmp_path / "data", "--out", tmp_path / "none")
    assert_refused(nothing, "none of the pictures can be read")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_measured_is_refused_in_one_sentence(rendered, tmp_path):
    for label in ("ileum", "polyps"):
        draw(tmp_path / "data" / label / "a.png", "polyps", 1)
    out = ["--out", tmp_path / "out"]
    strange = endolens("evaluate", tmp_path / "data", *out)
    assert_refused(strange, "endolens-demo does not know ileum; it knows dyed-lifted-polyps")
    assert_refused(endolens("evaluate", tmp_path / "none", *out), "does not exist")
    assert_refused(endolens("evaluate", rendered / "polyps", *out), "has no folder a class")
    assert_refused(endolens("evaluate", rendered, "--model", tmp_path / "none.safetensors", *out), "none.safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_calibrated_checkpoint_is_less_sure_and_right_as_often(rendered, evaluated, tmp_path):
    demo = open_classifier()
    network = copy.deepcopy(demo.network)
    calibrate(network, 3.0)
    save(tmp_path / "mild.safetensors", network, replace(demo.card, name="mild", temperature=3.0))
    out = tmp_path / "out"
    said = json.loads(
        endolens("evaluate", rendered, "--model", tmp_path / "mild.safetensors", "--json", "--out", out).stdout
    )
    assert said["confusion"] == evaluated[0]["confusion"]
    assert said["model"]["temperature"] == 3
    cool, warm = (
        np.array([[float(row[label]) for label in said["classes"]] for row in predictions(folder / "predictions.csv")])
        for folder in (evaluated[1], out)
    )
    powers = cool ** (1 / 3)
    # Probabilities are written in few digits, and the cube root of one near 0 moves by hundredths.
    np.testing.assert_allclose(warm, powers / powers.sum(axis=1, keepdims=True), atol=0.03)


def test_scores_are_those_of_a_dissection_whatever_mode_the_network_is_in(classifier, polyp):
    frames = [polyp, polyp[::2, ::3].copy()]
    expected = classifier.dissect(frames)[0].scores
    torch.testing.assert_close(classifier.scores(frames), expected)
    training = Classifier(copy.deepcopy(classifier.network).train(), classifier.card, "", classifier.device)
    torch.testing.assert_close(training.scores(frames), expected)
    assert all(module.training for module in training.network.modules())


def test_broken_weights_are_refused(classifier, polyp):
    network = copy.deepcopy(classifier.network)
    with torch.no_grad():
        network.classifier[6].bias[0] = float("nan")
    with pytest.raises(ValueError, match="its weights are broken"):
        replace(classifier, network=network).scores([polyp])


@pytest.mark.slow
def test_real_frames_and_real_polyps_of_another_source(real_images, tmp_path):
    cvc = tmp_path / "CVC" / "Original"
    cvc.mkdir(parents=True)
    for file in sorted((real_images / "lesion-video").glob("*.png"))[:10]:
        with Image.open(file) as picture:
            picture.convert("RGB").save(cvc / f"{file.stem}.tif")
    out = tmp_path / "out"
    result = endolens("evaluate", real_images / "kvasir-8", "--extra-polyps", cvc.parent, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    rows = predictions(out / "predictions.csv")
    assert len(rows) == 173
    assert_measured(json.loads(result.stdout), [row["label"] for row in rows], [row["predicted"] for row in rows])
