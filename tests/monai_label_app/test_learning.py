"""``endolens train | crossval``: a checkpoint that other commands take, and the paper's Table I, interrupted or not."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score, precision_score, recall_score

from monai_label_app.classifier.checkpoint import learned_from
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.classifier.crossval import PAPER, crossval
from monai_label_app.classifier.data import read_dataset
from monai_label_app.classifier.network import build
from monai_label_app.classifier.training import FEATURES, Recipe
from monai_label_app.commands import learning
from monai_label_app.folder import alone
from tests.monai_label_app.test_cli import ENDOLENS, assert_refused, endolens, files

SMALL = ("--architecture", "vgg11", "--width", "0.0625", "--size", "64", "--epochs", "2", "--rate", "1e-3")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Thirty pictures of noise, of two classes and two colours, and among the classes polyps."""
    folder, random = tmp_path_factory.mktemp("dataset"), np.random.default_rng(0)
    for number in range(30):
        label = ("normal-cecum", "polyps")[number % 2]
        frame = random.integers(60, 160, (9, 11, 3))
        frame[..., number % 2] += 60
        (folder / label).mkdir(exist_ok=True)
        picture = Image.fromarray(frame.astype(np.uint8)).resize((110, 90), Image.Resampling.BICUBIC)
        picture.save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Five polyps of another source, which look otherwise."""
    folder, random = tmp_path_factory.mktemp("CVC") / "Original", np.random.default_rng(1)
    folder.mkdir()
    for number in range(5):
        frame = random.integers(0, 255, (9, 11, 3)).astype(np.uint8)
        Image.fromarray(frame).resize((110, 90), Image.Resampling.BICUBIC).save(folder / f"c{number}.tif")
    return folder.parent


@pytest.mark.slow
def test_a_trained_checkpoint_serves_the_other_commands(dataset, tmp_path):
    out = tmp_path / "mine.safetensors"
    result = endolens(
        "train", dataset, "--out", out, *SMALL, "--test-views", 2, "--name", "mine", "--notice", "for research"
    )
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "mine") >= {"curves.png", "recipe.json"}
    assert not files(tmp_path / "mine") & {"state.pt", "best.pt"}
    measured = endolens("evaluate", dataset, "--model", out, "--json")
    said = json.loads(measured.stdout)
    assert said["model"]["name"] == "mine"
    assert said["model"]["notice"] == "for research"
    assert said["model"]["preprocess"] == "box+border"
    assert said["model"]["test_views"] == 2
    assert said["images"] == 30
    assert "24 of " in said["model"]["training_data"]
    aside = tmp_path / "mine" / "kept-aside.csv"
    measured = json.loads(endolens("evaluate", aside, "--model", out, "--json").stdout)
    trained = open_classifier(str(out)).card.metrics
    assert (measured["images"], measured["learned"], said["learned"]) == (6, 0, 24)
    assert measured["macro_f1"] == pytest.approx(trained["validation_macro_f1"], abs=1e-4)
    assert open_classifier(str(out)).network.count == 2
    maps = endolens("faithfulness", aside, "--class", "polyps", "--model", out, "--json", "--out", tmp_path / "a.png")
    assert json.loads(maps.stdout)["images"] == measured["per_class"]["polyps"]["images"]
    kept = aside.read_bytes()
    assert_refused(endolens("train", dataset, "--out", out, *SMALL, "--test-views", 2, "--seed", 1), "holds a run with")
    assert aside.read_bytes() == kept, "of the network that is there, not of the one that was refused"
    for command in ("evaluate", "audit"):
        assert endolens(command, aside, "--model", out, "--out", tmp_path / command).exit_code == 0
        assert "the mean over 2 views of a frame" in (tmp_path / command / "report.html").read_text()


@pytest.mark.slow
def test_what_was_kept_aside_is_learned_the_second_time_and_frozen_layers_see_nothing_twice(
    dataset, tmp_path, monkeypatch
):
    shown: list[int] = []

    def progress(items, total, label):
        shown.extend([total] * (label == "Frozen layers"))
        return items

    monkeypatch.setattr(learning, "progress", progress)
    options = (*SMALL, "--train-from", "block4_conv1", "--views", "1")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert endolens("train", dataset, "--out", first, *options).exit_code == 0
    result = endolens("train", dataset, "--out", second, *options, "--refit")
    assert result.exit_code == 0, result.output
    assert shown == [6, 24, 6, 24, 0], "kept aside, learned from; the same again, and all"
    cards = [open_classifier(str(path)).card for path in (first, second)]
    assert (cards[0].metrics, cards[0].temperature) == (cards[1].metrics, cards[1].temperature)
    assert [card.training_data.split(" of ")[0] for card in cards] == ["24", "30"]
    history = json.loads((tmp_path / "second" / "history.json").read_text())["validation_loss"]
    again = json.loads((tmp_path / "second" / "refit" / "history.json").read_text())
    assert len(again["loss"]) == 1 + history.index(min(history)), "as long as what these were measured of"
    assert not list(tmp_path.rglob(FEATURES))
    assert not (tmp_path / "second" / "kept-aside.csv").exists(), "it learned them"


@pytest.mark.slow
def test_that_pictures_to_measure_on_were_learned_is_said(dataset, tmp_path):
    began = tmp_path / "began.safetensors"
    assert endolens("train", dataset, "--out", began, *SMALL).exit_code == 0
    went_on = endolens("train", dataset, "--out", tmp_path / "on.safetensors", *SMALL, "--weights", began, "--seed", 1)
    assert f"of 6 pictures to measure on were learned by {began}" in went_on.stderr
    both = learned_from(tmp_path / "on.safetensors")
    assert learned_from(began) < both and len(both) == 30
    table = endolens("crossval", dataset, "--out", tmp_path / "c", "--variants", "none", "--weights", began, *SMALL)
    assert f"24 of 30 pictures to measure on were learned by {began}" in table.stderr


@pytest.mark.slow
def test_a_run_in_which_nothing_was_learned_gives_way_to_the_next(dataset, tmp_path):
    command = ("train", dataset, "--out", tmp_path / "m.safetensors", *SMALL[:-2], "--train-from", "head")
    assert_refused(endolens(*command, "--rate", "nan"), "the loss is no finite number")
    assert endolens(*command, "--rate", "1e-3").exit_code == 0


def test_results_among_the_pictures_are_refused(dataset):
    for command in ("evaluate", "audit"):
        assert_refused(endolens(command, dataset, "--out", dataset / "polyps"), "would lie in")


@pytest.mark.slow
def test_polyps_of_the_dataset_itself_are_not_counted_twice(dataset, tmp_path):
    found = endolens("evaluate", dataset, "--extra-polyps", dataset / "polyps", "--json")
    assert json.loads(found.stdout)["images"] == 30
    assert found.stderr.count("is nearly the same picture as") == 15


@pytest.mark.slow
def test_a_picture_that_is_another_now_is_another_run(dataset, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "m.safetensors"
    shutil.copytree(dataset, pictures)
    assert endolens("train", pictures, "--out", out, *SMALL).exit_code == 0
    first, second = sorted((pictures / "polyps").iterdir())[:2]
    shutil.copyfile(first, second)
    assert_refused(endolens("train", pictures, "--out", out, *SMALL), "holds a run with other options or pictures")


def test_a_mask_of_two_pictures_is_refused(dataset, tmp_path):
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    shutil.copytree(dataset, pictures)
    shutil.copyfile(pictures / "polyps" / "1.png", pictures / "normal-cecum" / "1.png")
    masks.mkdir()
    Image.new("L", (110, 90), 255).save(masks / "1.png")
    refused = endolens("train", pictures, "--masks", masks, "--out", tmp_path / "m.safetensors", *SMALL)
    assert_refused(refused, "1.png would be the mask of two pictures", "normal-cecum/1.png", "polyps/1.png")


@pytest.mark.slow
def test_a_training_that_is_interrupted_goes_on(dataset, tmp_path):
    out, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    options = (*SMALL[:-4], "--epochs", "12", "--rate", "1e-3", "--validation", "0")
    command = [ENDOLENS, "train", str(dataset), "--out", str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "killed" / "state.pt").is_file():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    assert endolens(*command[1:]).exit_code == 0
    assert endolens("train", dataset, "--out", whole, *options).exit_code == 0
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_full_disk_and_a_damaged_state_are_one_sentence(dataset, tmp_path):
    out = tmp_path / "m.safetensors"
    command = [ENDOLENS, "train", str(dataset), "--out", str(out), *SMALL]
    # No file may have more than 200 kB, as where a disk has no more.
    done = subprocess.run(["bash", "-c", 'ulimit -f 200; exec "$@"', "-", *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("cannot be written; the disk may be full")
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert files(tmp_path / "m") <= {"curves.png", "history.json", "kept-aside.csv", "lock", "recipe.json"} | {
        path.name for path in (tmp_path / "m").glob("events.out.tfevents.*")
    }
    for content in (b"", b"PK\x03\x04 cut off", b"hello world", (tmp_path / "m" / "recipe.json").read_bytes()):
        (tmp_path / "m" / "state.pt").write_bytes(content)
        assert_refused(endolens(*command[1:]), "state.pt is damaged; remove", "and the run begins anew")
    (tmp_path / "m" / "state.pt").unlink()
    assert endolens(*command[1:]).exit_code == 0


@pytest.mark.slow
def test_two_processes_train_one_network_and_say_it_once(dataset, tmp_path):
    """What it begins with is from the pictures of both: all but the layer that learns is as one process makes it."""
    torch.manual_seed(0)
    convolutions = build("vgg11", ("normal-cecum", "polyps"), 1 / 16).features.state_dict()
    save_file({f"features.{name}": tensor for name, tensor in convolutions.items()}, tmp_path / "trunk.safetensors")
    torchrun = [str(Path(ENDOLENS).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "--no-python"]
    options = ("--weights", str(tmp_path / "trunk.safetensors"), "--teacher", "trunk", *SMALL[:-4], "--epochs", "6")
    out, alone = tmp_path / "both.safetensors", tmp_path / "alone.safetensors"
    command = [*torchrun, ENDOLENS, "train", str(dataset), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{out}: 24 pictures") == 1
    history = json.loads((tmp_path / "both" / "history.json").read_text())
    assert (history["epoch"], len(history["loss"]), len(history["validation_f1"])) == (6, 6, 6)
    assert endolens("train", dataset, "--out", alone, *options).exit_code == 0
    both, one = (json.loads(endolens("evaluate", dataset, "--model", path, "--json").stdout) for path in (out, alone))
    assert both["images"] == one["images"] == 30
    assert both["macro_f1"] > 0.9
    assert one["macro_f1"] > 0.9
    states = [load_file(path) for path in (out, alone)]
    for state in states:  # but for the temperature
        state["classifier.6.weight"] /= state["classifier.6.weight"].norm()
    for name in ("features.16.weight", "classifier.0.weight", "classifier.6.weight"):
        torch.testing.assert_close(states[0][name], states[1][name], atol=0.05, rtol=0.05)


@pytest.fixture(scope="module")
def validated(dataset, others, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "table"
    result = endolens("crossval", dataset, "--extra-polyps", others, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    for head in ("(a) none", "(a) box+border", "(b) box", "the paper"):
        assert head in result.stdout
    return out


def said(path: Path) -> tuple[list[str], list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["label"] for row in rows], [row["predicted"] for row in rows]


@pytest.mark.slow
def test_table_one_is_scikit_learns_of_the_predictions(validated):
    content = json.loads((validated / "metrics.json").read_text())
    assert set(content["table"]) == {"a", "b"}
    for variant in ("none", "box", "box+border"):
        true, predicted = said(validated / variant / "predictions.csv")
        assert len(true) == 30
        row = content["table"]["a"][variant]
        # The folds are of one size and mix, so the recall of all is the mean of theirs.
        assert row["macro_recall"] == pytest.approx(recall_score(true, predicted, average="macro"), abs=0.03)
        scores = [np.load(validated / variant / f"fold-{fold}" / "scores.npy") for fold in (1, 2)]
        assert sum(map(len, scores)) == 30 + 2 * 5, "the other polyps are tested on in every fold"
        at = 0
        figures = []
        for each in scores:
            labels = [("normal-cecum", "polyps").index(label) for label in true[at : at + len(each) - 5]] + [1] * 5
            at += len(each) - 5
            guess = each.argmax(1)
            options = {"average": "macro", "zero_division": 0}
            figures.append([score(labels, guess, **options) for score in (precision_score, recall_score, f1_score)])
        names = ("macro_precision", "macro_recall", "macro_f1")
        expected = np.mean(figures, axis=0)
        assert [content["table"]["b"][variant][name] for name in names] == pytest.approx(expected)
        low, high = content["table"]["b"][variant]["confidence"]["macro_f1"]
        assert low <= content["table"]["b"][variant]["macro_f1"] <= high
    page = (validated / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 6
    assert "0.962" not in page
    assert "0.966" in page, "the paper's figures stand beside ours"


@pytest.mark.slow
def test_cross_validation_does_nothing_twice(validated, dataset, others, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in validated.rglob("scores.npy")}
    command = ("crossval", dataset, "--extra-polyps", others, "--out", validated, *SMALL)
    assert endolens(*command).exit_code == 0
    assert_refused(endolens(*command, "--rate", "1e-4"), "holds a run with other options")
    assert_refused(endolens(*command, "--polyps", others), "either learned from")
    shutil.copytree(others, tmp_path / "CVC")
    command = ("crossval", dataset, "--extra-polyps", tmp_path / "CVC", "--out", validated, *SMALL)
    assert_refused(endolens(*command), "holds a run with other options or pictures")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_more_polyps_are_learned_from_where_their_masks_are_and_never_tested_on(dataset, others, tmp_path):
    masks, out = tmp_path / "masks", tmp_path / "table"
    masks.mkdir()
    for number in range(5):
        Image.fromarray(np.pad(np.full((30, 30), 255, np.uint8), ((0, 60), (0, 80)))).save(masks / f"c{number}.png")
    options = ("--variants", "box", "--polyps", others, "--masks", masks)
    assert endolens("crossval", dataset, *options, "--out", out, *SMALL).exit_code == 0
    for fold in (1, 2):
        run = out / "box" / f"fold-{fold}"
        assert (run / "recipe.json").read_text().count(str(others)) == 5
        assert len(np.load(run / "scores.npy")) == 15
        assert max(json.loads((run / "history.json").read_text())["astray"]) > 0, "maps beside the masks"
    assert set(json.loads((out / "metrics.json").read_text())["table"]) == {"a"}
    unguided = endolens("crossval", dataset, *options[:-2], "--out", out, *SMALL)
    assert_refused(unguided, "holds a run with other options")


@pytest.mark.slow
def test_frozen_layers_are_shown_each_picture_once_in_all_folds(dataset, tmp_path):
    shown: dict[str, int] = {}

    def progress(items, total, label):
        shown[label] = shown.get(label, 0) + total
        return items

    recipe = Recipe("vgg11", 1 / 16, size=64, train_from="block4_conv1", views=2, epochs=1)
    made = crossval(read_dataset(dataset), recipe, ["none", "box"], 3, 0, tmp_path, progress)
    assert [len(variant.pooled().examples) for variant in made] == [30, 30]
    assert shown["Frozen layers"] == 2 * 30
    assert not list(tmp_path.rglob(FEATURES))


@pytest.mark.slow
def test_a_cross_validation_asks_each_network_for_its_views(dataset, tmp_path):
    said = {}
    for views in (1, 3):
        folder = tmp_path / str(views)
        folder.mkdir()
        recipe = Recipe("vgg11", 1 / 16, size=64, test_views=views, epochs=1)
        (made,) = crossval(read_dataset(dataset), recipe, ["none"], 2, 0, folder)
        said[views] = made.pooled().scores
    assert said[1].shape == said[3].shape
    assert not np.allclose(said[1], said[3], rtol=1e-4), "the same networks, asked otherwise"


@pytest.mark.parametrize("row", PAPER.values())
def test_the_papers_figures_fit_each_other_under_their_corrected_heads(row):
    precision, recall, specificity, accuracy, _, _ = row
    # Eight balanced classes: one against the rest, an error of recall is spread over seven specificities.
    if recall < 0.9:
        assert specificity == pytest.approx(1 - (1 - recall) / 7, abs=0.006)
        assert accuracy == pytest.approx((recall + 7 * specificity) / 8, abs=0.006)
    assert precision < specificity


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weights", "missing.safetensors"), "missing.safetensors"),
        (("--train-from", "block9_conv1"), "there is no layer"),
        (("--architecture", "resnet18", "--width", "0.5"), "width"),
        (("--architecture", "squeezenet1_0", "--width", "1"), "ends in a linear layer"),
        (("--test-views", "5"), "5 is not in the range 1<=x<=4"),
        (("--rate", "1e30"), "loss is no finite number"),
        (("--rate", "-1"), "-1.0 is not in the range x>0"),
        (("--width", "inf"), "'inf' is not above 0 and at most 4"),
        (("--out", "model.pt"), "must end in .safetensors"),
    ],
)
def test_a_mistake_is_one_sentence(dataset, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(endolens("train", dataset, "--out", "model.safetensors", *SMALL, *options), words)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_and_its_pictures_keep_apart_and_so_do_two_runs(dataset, others, tmp_path):
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    shutil.copytree(dataset, pictures)
    masks.mkdir()
    listed = tmp_path / "lists" / "all.csv"
    listed.parent.mkdir()
    rows = "".join(f"{path},{path.parent.name}\n" for path in pictures.rglob("*.png"))
    listed.write_text(f"path,label\n{rows}")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert_refused(endolens("train", listed, "--out", tmp_path / "lists.safetensors", *SMALL), "is, holds or lies in")
    aside = (pictures / "polyps" / "m.safetensors", "--run", tmp_path / "run")
    assert_refused(endolens("train", pictures, "--out", *aside, *SMALL), "would lie in")
    for out, options in (
        (tmp_path / "pictures.safetensors", ()),
        (pictures / "polyps" / "m.safetensors", ()),
        (tmp_path / "m.safetensors", ("--run", tmp_path)),
        (tmp_path / "m.safetensors", ("--run", pictures / "m", "--polyps", others)),
        (tmp_path / "masks.safetensors", ("--masks", masks)),
    ):
        assert_refused(endolens("train", pictures, "--out", out, *options, *SMALL), "is, holds or lies in")
    for lying, option in ((pictures, "--masks"), (others, "--polyps"), (others, "--extra-polyps"), (masks, "--masks")):
        refused = endolens("crossval", pictures, "--out", lying / "table", option, lying, *SMALL)
        assert_refused(refused, "is, holds or lies in")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert_refused(endolens("train", pictures, "--out", tmp_path / "m.safetensors", "--name", ""), "name and version")
    with alone(tmp_path / "m"):
        refused = endolens("train", pictures, "--out", tmp_path / "m.safetensors", *SMALL)
    assert_refused(refused, "another process works already on the folder")
    assert files(tmp_path / "m") == {"lock"}
    Image.new("L", (110, 90), 255).save(masks / "of-none.png")
    refused = endolens("train", pictures, "--out", tmp_path / "n.safetensors", "--masks", masks, *SMALL)
    assert_refused(refused, "has no mask with the name of a picture")


def test_a_class_that_cannot_be_divided_is_named(dataset, tmp_path):
    lonely = tmp_path / "data"
    for label in ("a", "b"):
        (lonely / label).mkdir(parents=True)
        for number, path in enumerate(sorted((dataset / "polyps").iterdir())[: 1 if label == "b" else 8]):
            (lonely / label / f"{label}{number}.png").write_bytes(path.read_bytes())
    refused = endolens("train", lonely, "--out", tmp_path / "m.safetensors", *SMALL)
    assert_refused(refused, "0.2 of the pictures cannot be kept aside for validation: class b has too few")
    (lonely / "b" / "b1.png").write_bytes(next((dataset / "normal-cecum").iterdir()).read_bytes())
    (lonely / "a" / "copy.png").write_bytes((lonely / "b" / "b1.png").read_bytes())
    for command, out in (("train", tmp_path / "m.safetensors"), ("crossval", tmp_path / "o")):
        refused = endolens(command, lonely, "--out", out, *SMALL)
        assert_refused(refused, "cannot be kept aside for validation")
        assert "b1.png are nearly the same picture, of the classes a and b" in refused.stderr
    assert not list((tmp_path / "o").rglob("scores.npy")), "nothing is trained that cannot be finished"
    assert_refused(endolens("crossval", dataset, "--variants", "boxes", "--out", tmp_path / "o"), "did you mean box")
