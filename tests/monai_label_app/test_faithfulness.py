"""``endolens faithfulness``: what it measures on a folder of pictures, and how it says no."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc

from explainers import dissect
from explainers.faithfulness import Curve, Randomised
from explainers.layers import convolutions
from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.network import build
from monai_label_app.faithfulness import (
    CENTRE,
    RANDOM,
    Evaluation,
    Sample,
    Score,
    evaluate,
    find_samples,
    plot,
    summary,
    table,
)
from tests.dicom_files import by_pillow, image
from tests.dicom_files import write as write_dicom
from tests.monai_label_app.test_cli import ENDOLENS, assert_refused, endolens, files, sentences

CLASSES = ("normal-cecum", "polyps", "esophagitis")
LAYER = "block3_conv2"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small network, quick enough to be shuffled layer by layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build("vgg11", CLASSES, width=1 / 16)
        with torch.no_grad():
            # Unsure of a blank frame, sure of others: an untrained network gives all frames nearly the same scores.
            network.classifier[6].weight.mul_(100)
            network.classifier[6].bias.sub_(network(torch.zeros(1, 3, 64, 64))[0])
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save(path, network, Card("small", "1", "vgg11", 1 / 16, CLASSES, input_size=64, target_layer=LAYER))
    return path


@pytest.fixture(scope="module")
def real(real_images, tmp_path_factory) -> Path:
    """Five real polyps and their masks, in images/ and masks/."""
    folder = tmp_path_factory.mktemp("real")
    smallest = sorted((real_images / "kvasir-seg" / "images").glob("*.jpg"), key=lambda path: path.stat().st_size)[:5]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for file in smallest:
            shutil.copyfile(real_images / "kvasir-seg" / kind / file.name, folder / kind / file.name)
    return folder


@pytest.fixture
def measured(model, tmp_path):
    """Runs the command with ``--json`` and returns what it printed."""

    def run(*arguments: object) -> dict:
        out = ["--out", tmp_path / "plot.png", "--model", model]
        result = endolens("faithfulness", *arguments, "--json", *out)
        assert "Traceback" not in result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture(scope="module")
def on_polyps(real, model, tmp_path_factory) -> dict:
    """What the command finds on the real polyps and their masks."""
    out = tmp_path_factory.mktemp("plot") / "plot.png"
    choice = ["--masks", real / "masks", "--class", "polyps", "--out", out, "--model", model, "--json"]
    result = endolens("faithfulness", real / "images", *choice)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def opened(path: Path, mode: str):
    with Image.open(path) as picture:
        return np.array(picture.convert(mode))


def enlarged(saliency, size: tuple[int, int]):
    return torch.nn.functional.interpolate(saliency[None, None], size, mode="bilinear", align_corners=False)[0, 0]


# What it measures


def test_the_numbers_are_those_of_the_definitions_on_real_polyps(real, model, on_polyps):
    found = on_polyps
    classifier = open_classifier(str(model))
    target = CLASSES.index("polyps")
    pointing, energy, area, middle = [], [], [], []
    for file in sorted((real / "images").iterdir()):
        mask = opened(real / "masks" / file.name, "L") >= 128
        dissection, _ = classifier.dissect([opened(file, "RGB")])
        cam = dissection.grad_cam(LAYER, target)[0]
        source = enlarged(cam, mask.shape).double().numpy()
        pointing.append(mask[source == source.max()].mean())
        energy.append(source[mask].sum() / source.sum())
        area.append(mask.mean())
        middle.append(mask[mask.shape[0] // 2, mask.shape[1] // 2])
    assert found["images"] == 5
    assert found["blank_maps"] == 0
    assert found["pointing_game"] == pytest.approx(np.mean(pointing), abs=1e-6)
    assert found["energy_in_mask"] == pytest.approx(np.mean(energy), rel=1e-4)
    assert found["mask_area"] == pytest.approx(np.mean(area))
    assert found["centre"] == pytest.approx(np.mean(middle))


@pytest.mark.slow
def test_the_areas_are_those_of_the_definitions_on_real_polyps(real, model):
    classifier = open_classifier(str(model))
    method = "guided-backprop"  # its pixels are hardly ever equal
    samples = [Sample(file, None) for file in sorted((real / "images").iterdir())]
    found = summary(evaluate(samples, classifier, method, LAYER, "polyps", steps=4), method)
    target = CLASSES.index("polyps")
    areas = []
    for file in sorted((real / "images").iterdir()):
        dissection, _ = classifier.dissect([opened(file, "RGB")])
        picture = dissection.images[0]
        strongest_first = (
            dissection.guided_backprop(target)[0].abs().max(dim=0).values.flatten().argsort(descending=True)
        )
        blurred = np.stack([gaussian_filter(colour, 64 / 20, mode="nearest") for colour in picture.numpy()])
        for before, after in ((picture, torch.zeros_like(picture)), (torch.from_numpy(blurred), picture)):
            probabilities = []
            for count in (0, 1024, 2048, 3072, 4096):
                changed = before.clone().flatten(1)
                changed[:, strongest_first[:count]] = after.flatten(1)[:, strongest_first[:count]]
                with torch.no_grad():
                    scores = classifier.network(changed.view_as(picture)[None])[0]
                probabilities.append(float(scores.softmax(0)[target]))
            areas.append(auc(np.linspace(0, 1, 5), probabilities))
    assert max(areas) - min(areas) > 0.01
    assert found["deletion_auc"] == pytest.approx(np.mean(areas[::2]), abs=1e-3)
    assert found["insertion_auc"] == pytest.approx(np.mean(areas[1::2]), abs=1e-3)


@pytest.mark.slow
def test_its_own_plot_is_no_picture(real, model, tmp_path):
    folder = tmp_path / "stills"
    shutil.copytree(real / "images", folder)
    for _ in range(2):
        choice = ["--limit", "9", "--model", model, "--steps", "2", "--json", "--out", folder / "plot.png"]
        assert json.loads(endolens("faithfulness", folder, *choice).stdout)["images"] == 5
    assert (folder / "plot.png").exists()


@pytest.mark.slow
def test_without_masks_the_rest_is_measured_with_the_same_numbers(real, measured, on_polyps):
    without = measured(real / "images", "--class", "polyps")
    assert set(without) == set(on_polyps)
    missing = {"pointing_game", "energy_in_mask", "mask_area", "centre", "centre_energy_in_mask"}
    assert {name for name, value in without.items() if value is None} == missing
    assert {name: value for name, value in on_polyps.items() if name not in missing} == {
        name: value for name, value in without.items() if name not in missing
    }
    assert not [name for name, value in on_polyps.items() if value is None]


def test_weights_are_shuffled_from_the_last_layer_to_the_first_on_four_pictures(model, on_polyps):
    found = on_polyps
    network = open_classifier(str(model)).network
    names = [*convolutions(network), "classifier.0", "classifier.3", "classifier.6"]
    assert [step["layer"] for step in found["randomisation"]] == names[::-1]
    for step in found["randomisation"]:
        assert (step["similarity"] is None) == (step["blank"] == 4)
        assert step["similarity"] is None or -1 <= step["similarity"] <= 1
    assert (found["randomisation_images"], found["images"]) == (4, 5)


@pytest.mark.slow
def test_blank_maps_do_not_pass_for_a_perfect_fall(tmp_path):
    steps = [Randomised("last", 0.5, 1), Randomised("first", None, 4)]
    result = Evaluation({"grad-cam": Score()}, images=5, randomised=steps)
    said = table(result)
    assert "of last: 0.50 (1 of 4 maps blank, left out)" in said
    assert "of all layers: not known, for every map is blank" in said
    result.scores["grad-cam"].deletion = result.scores["grad-cam"].insertion = [Curve(np.arange(2), np.arange(2))]
    plot(result, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_saliency_of_a_layer_ignores_what_is_shuffled_after_it(real, model):
    sample = Sample(min((real / "images").iterdir()), None)
    found = summary(evaluate([sample], open_classifier(str(model)), "saliency", LAYER, steps=4), "saliency")
    similarities = {step["layer"]: step["similarity"] for step in found["randomisation"]}
    after = [name for name in similarities if name.startswith(("classifier", "block4", "block5"))]
    assert len(after) > 3
    assert [similarities[name] for name in after] == pytest.approx([1] * len(after))
    assert similarities["block1_conv1"] < 0.999


@pytest.mark.parametrize("method", ["hires-cam", "saliency", "guided-backprop", "guided-grad-cam"])
def test_every_method_is_measured(real, model, method):
    file = min((real / "images").iterdir())
    sample = Sample(file, real / "masks" / file.name)
    found = summary(evaluate([sample], open_classifier(str(model)), method, LAYER, steps=4), method)
    assert found["images"] == 1
    for name in ("pointing_game", "energy_in_mask", "deletion_auc", "insertion_auc"):
        assert 0 <= found[name] <= 1


@pytest.mark.slow
def test_the_predicted_class_is_the_default(real, model):
    classifier = open_classifier(str(model))
    file = min((real / "images").iterdir())
    predicted = CLASSES[int(classifier.dissect([opened(file, "RGB")])[0].scores[0].argmax())]
    default, named, other = (
        summary(evaluate([Sample(file, None)], classifier, "grad-cam", LAYER, *label, steps=4), "grad-cam")
        for label in ([], [predicted], [next(label for label in CLASSES if label != predicted)])
    )
    assert default == named
    assert default != other


def lit(path: Path, box: tuple[int, int, int, int]) -> tuple[Path, Path]:
    """A dark frame, bright in a box, and the mask of that box."""
    left, top, right, bottom = box
    mask = np.zeros((120, 160), np.uint8)
    mask[top:bottom, left:right] = 255
    picture, outline = path.with_suffix(".png"), path.with_name(f"{path.name}_mask.png")
    Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(picture)
    Image.fromarray(mask).save(outline)
    return picture, outline


@pytest.fixture
def sure(spotlight) -> Classifier:
    """The network whose map is known, with a score that a few bright pixels decide."""
    network = copy.deepcopy(spotlight.network)
    with torch.no_grad():
        network[3].weight.copy_(torch.tensor([[40.0], [-40.0]]))
        network[3].bias.copy_(torch.tensor([18.0, -18.0]))
    return Classifier(network, spotlight.card, spotlight.fingerprint, spotlight.device)


def test_the_true_map_of_a_known_network_lies_on_the_object_and_beats_both_baselines(sure, tmp_path):
    boxes = [(10, 10, 60, 50), (110, 80, 150, 110), (100, 5, 150, 40)]
    samples = [Sample(*lit(tmp_path / str(number), box)) for number, box in enumerate(boxes)]
    result = evaluate(samples, sure, "grad-cam", "0", "polyps")
    true, centre, random = (result.scores[kind].means() for kind in ("grad-cam", CENTRE, RANDOM))
    assert true["pointing_game"] == 1
    assert true["energy_in_mask"] > 0.95
    assert centre["pointing_game"] == 0
    share = np.mean([(right - left) * (bottom - top) / (120 * 160) for left, top, right, bottom in boxes])
    assert random["pointing_game"] == random["energy_in_mask"] == pytest.approx(share)
    for other in (centre, random):
        assert true["deletion_auc"] < other["deletion_auc"] - 0.05
        assert true["insertion_auc"] > other["insertion_auc"] + 0.02
    assert (result.images, result.blank, result.problems) == (3, 0, [])
    assert summary(result, "grad-cam")["pointing_game"] == 1
    assert "Blank maps: 0." in table(result)


def test_an_object_in_the_middle_is_where_the_centre_points(sure, tmp_path):
    result = evaluate([Sample(*lit(tmp_path / "a", (60, 40, 100, 80)))], sure, "grad-cam", "0", "polyps")
    assert summary(result, "grad-cam")["centre"] == 1


def test_blank_maps_are_counted(sure, tmp_path):
    Image.new("RGB", (80, 60), (90, 90, 90)).save(tmp_path / "dark.png")
    lit(tmp_path / "lit", (10, 10, 60, 50))
    samples = [Sample(tmp_path / name, None) for name in ("dark.png", "lit.png")]
    result = evaluate(samples, sure, "grad-cam", "0", "polyps")
    assert (result.images, result.blank) == (2, 1)


def test_measuring_leaves_the_network_as_it_was(real, model):
    classifier = open_classifier(str(model))
    before = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    evaluate([Sample(min((real / "images").iterdir()), None)], classifier, "grad-cam", LAYER)
    after = classifier.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert dissect(classifier.network, torch.rand(3, 64, 64)).scores.isfinite().all()


# What it prints and draws


@pytest.mark.slow
def test_the_table_has_a_row_for_the_method_and_each_baseline_and_the_plot_is_a_png(real, model, on_polyps, tmp_path):
    out = tmp_path / "curves.png"
    choice = [real / "images", "--masks", real / "masks", "--class", "polyps"]
    result = endolens("faithfulness", *choice, "--out", out, "--model", model)
    assert result.exit_code == 0, result.output
    rows = {words[0]: words[1:] for words in map(str.split, result.stdout.splitlines()) if words}
    found = on_polyps
    names = ("pointing_game", "energy_in_mask", "deletion_auc", "insertion_auc")
    assert rows["grad-cam"] == [f"{found[name]:.3f}" for name in names]
    assert rows["centre"] == [f"{found[f'centre_{n}' if n != 'pointing_game' else 'centre']:.3f}" for n in names]
    assert rows["random"][:2] == [f"{found['mask_area']:.3f}"] * 2
    assert rows["random"][2:] == [f"{found[f'random_{name}']:.3f}" for name in names[2:]]
    assert f"grad-cam of {LAYER}, class polyps, pictures: 5, small 1+" in result.stdout
    assert f"Plot in {out}" in result.stdout
    with Image.open(out) as plot:
        assert plot.format == "PNG"
        assert plot.width > 1000
        assert len(set(np.asarray(plot.convert("RGB")).reshape(-1, 3)[::7].max(axis=1))) > 20  # lines and letters
    assert files(tmp_path) == {"curves.png"}


def test_without_masks_the_table_says_what_was_not_measured(real, model, tmp_path):
    result = endolens("faithfulness", real / "images", "--limit", 1, "--out", tmp_path / "p.png", "--model", model)
    rows = {words[0]: words[1:] for words in map(str.split, result.stdout.splitlines()) if words}
    assert {tuple(rows[kind][:2]) for kind in ("grad-cam", "centre", "random")} == {("-", "-")}
    assert all(0 <= float(cell) <= 1 for cell in rows["grad-cam"][2:])


# Which pictures


def noise(path: Path, seed: int, size: tuple[int, int] = (60, 80)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 255, size: tuple[int, int] = (60, 80)) -> Path:
    path.parent.mkdir(exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[10:30, 10:40] = value
    Image.fromarray(values).save(path)
    return path


@pytest.mark.slow
def test_pictures_whose_mask_is_missing_empty_or_of_another_size_are_named_and_left_out(model, tmp_path):
    for number, name in enumerate("abcdef"):
        noise(tmp_path / "images" / f"{name}.png", number)
    (tmp_path / "images" / "text.jpg").write_text("no picture")
    mask(tmp_path / "masks" / "a.png")
    mask(tmp_path / "masks" / "b.png", 0)
    mask(tmp_path / "masks" / "c.png", size=(50, 80))
    (tmp_path / "masks" / "d.png").write_text("no mask")
    for suffix in ("jpg", "png"):
        mask(tmp_path / "masks" / f"f.{suffix}")
    mask(tmp_path / "masks" / "text.png")
    arguments = ["--masks", tmp_path / "masks", "--json", "--out", tmp_path / "p.png", "--model", model]
    result = endolens("faithfulness", tmp_path / "images", *arguments)
    found = json.loads(result.stdout)
    assert found["images"] == 1
    assert found["mask_area"] == pytest.approx(20 * 30 / (60 * 80))
    masks = tmp_path / "masks"
    said = {line for line in sentences(result) if line.startswith("left out: ")}
    assert said == {
        f"left out: {masks / 'b.png'} is an empty mask: no pixel reaches 128 of 255",
        f"left out: {masks / 'c.png'} is of 80 x 50 pixels, its image 80 x 60",
        f"left out: {masks / 'd.png'} is not a JPEG, PNG, TIFF or BMP picture",
        f"left out: {tmp_path / 'images' / 'e.png'} has no mask in {masks}",
        f"left out: {tmp_path / 'images' / 'f.png'} has two masks in {masks}",
        f"left out: {tmp_path / 'images' / 'text.jpg'} is not a JPEG, PNG, TIFF or BMP picture",
    }


def test_a_dicom_still_with_a_mask_is_measured_like_the_picture_it_holds(polyp, model, tmp_path):
    outline = np.zeros(polyp.shape[:2], np.uint8)
    outline[30:90, 40:120] = 255
    for name in ("dicom", "picture", "masks"):
        (tmp_path / name).mkdir()
    write_dicom(image(polyp), tmp_path / "dicom" / "a.dcm")
    (tmp_path / "picture" / "a.png").write_bytes(by_pillow(polyp, "PNG"))
    (tmp_path / "masks" / "a.jpg").write_bytes(by_pillow(outline, "JPEG"))
    found = []
    for file in (tmp_path / "dicom" / "a.dcm", tmp_path / "picture" / "a.png"):
        samples, problems = find_samples([file], tmp_path / "masks")
        assert problems == []
        found.append(summary(evaluate(samples, open_classifier(str(model)), "grad-cam", LAYER, steps=4), "grad-cam"))
    one, other = found
    assert one == other
    assert one["mask_area"] == pytest.approx(60 * 80 / outline.size, rel=0.02)


def test_a_limit_takes_pictures_spread_over_the_folder(model, tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_text("no picture")
    result = endolens("faithfulness", tmp_path, "--limit", 3, "--out", tmp_path / "p.png", "--model", model)
    assert_refused(result, "there is no picture to measure")
    named = [line.split()[2] for line in sentences(result) if line.startswith("left out: ")]
    assert named == [str(tmp_path / f"{number}.png") for number in (0, 2, 4)]


@pytest.mark.slow
def test_masks_among_the_pictures_are_not_measured_as_pictures(real, measured):
    assert measured(real, "--masks", real / "masks")["images"] == 5


def test_blank_maps_do_not_change_the_areas_of_the_others(sure, tmp_path):
    Image.new("RGB", (80, 60), (90, 90, 90)).save(tmp_path / "dark.png")
    picture, _ = lit(tmp_path / "lit", (10, 10, 60, 50))
    alone, beside = (
        summary(evaluate(samples, sure, "grad-cam", "0", "polyps"), "grad-cam")
        for samples in ([Sample(picture, None)], [Sample(picture, None), Sample(tmp_path / "dark.png", None)])
    )
    assert beside["deletion_auc"] == alone["deletion_auc"]


# How it says no


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "blok3_conv2"], ["no layer 'blok3_conv2'", "did you mean block3_conv2"]),
        (["--class", "polyp"], ["no class 'polyp'", "did you mean polyps"]),
        (["--class", "all"], ["no class 'all'", *CLASSES]),
        (["--method", "gradcam"], ["no method 'gradcam'", "grad-cam"]),
        (["--out", "none/plot.png"], ["none/plot.png"]),
        (["--model", "none.safetensors"], ["none.safetensors"]),
    ],
)
def test_a_name_that_does_not_exist_is_refused(real, model, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    given = [] if "--model" in options else ["--model", model]
    result = endolens("faithfulness", real / "images", "--limit", 1, *options, *given)
    assert result.exit_code == 1
    assert_refused(result, *words)
    assert result.stdout == ""
    assert files(tmp_path) == set()


def test_missing_and_empty_folders_and_masks_that_fit_nothing_are_refused(real, model, tmp_path):
    (tmp_path / "empty").mkdir()
    out = ["--out", tmp_path / "p.png", "--model", model]
    assert_refused(endolens("faithfulness", tmp_path / "none", *out), f"{tmp_path / 'none'} does not exist")
    assert_refused(endolens("faithfulness", tmp_path / "empty", *out), "there is no picture to measure")
    unmasked = endolens("faithfulness", real / "images", "--masks", tmp_path / "empty", *out)
    assert_refused(unmasked, "there is no picture to measure", f"has no mask in {tmp_path / 'empty'}")
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    "options", [["--masks", "none"], ["--limit", 0], ["--steps", 1], ["--steps", 1001], ["--out", "."], None]
)
def test_wrong_options_are_a_usage_error(real, options):
    result = endolens("faithfulness", *([real / "images", *options] if options else []))
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


@pytest.mark.slow
def test_ending_it_leaves_no_plot(real_images, model, tmp_path):
    process = subprocess.Popen(
        [ENDOLENS, "faithfulness", str(real_images / "kvasir-seg" / "images"), "--model", str(model)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.set_blocking(process.stderr.fileno(), False)
    deadline, said = time.monotonic() + 120, b""
    while b"Measuring" not in said:
        assert process.poll() is None
        assert time.monotonic() < deadline, "it never began"
        said += process.stderr.read() or b""
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    os.set_blocking(process.stderr.fileno(), True)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert stdout == b""
    assert b"Traceback" not in said + stderr
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_the_demonstration_model_looks_at_polyps_more_than_chance(real_images, tmp_path):
    folder = real_images / "kvasir-seg"
    choice = ["--masks", folder / "masks", "--class", "polyps", "--limit", 2, "--json"]
    result = endolens("faithfulness", folder / "images", *choice, "--out", tmp_path / "p.png")
    assert result.exit_code == 0, result.output
    assert "not for clinical use" in result.stderr
    found = json.loads(result.stdout)
    assert found["images"] == 2
    assert found["energy_in_mask"] > found["mask_area"]
    assert found["insertion_auc"] > found["centre_insertion_auc"]
