"""Versions of a model: which is used is decided by a comparison, and one command goes back."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from monai_label_app import journal
from monai_label_app.classifier.checkpoint import Card, load, save
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.classifier.comparison import compare
from monai_label_app.classifier.data import find_dataset
from monai_label_app.classifier.network import build
from monai_label_app.classifier.registry import Registry
from monai_label_app.folder import alone
from tests.monai_label_app.test_cli import ENDOLENS, assert_refused, endolens

CLASSES = ("blue", "red")


def checkpoint(path: Path, version: str, blueness: float) -> Path:
    """A network that tells blue pictures from red ones where ``blueness`` is 1, and takes one for the other at -1."""
    network = build("vgg11", CLASSES, width=1 / 64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # The first channel carries blue minus red through every layer, each time as it is.
        first, *others = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
        first.weight[0, 2, 1, 1], first.weight[0, 0, 1, 1] = 1.0, -1.0
        for layer in others:
            layer.weight[0, 0, 1, 1] = 1.0
        head = [layer for layer in network.classifier if isinstance(layer, torch.nn.Linear)]
        head[0].weight[0, :49] = 1.0
        head[1].weight[0, 0] = 1.0
        head[2].weight[0, 0], head[2].bias[1] = blueness, 0.1 * blueness
    save(path, network, Card("colours", version, "vgg11", 1 / 64, CLASSES, input_size=32, target_layer="block5_conv2"))
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for number in range(6):
        for label, colour in (("blue", (20, 30, 200)), ("red", (200, 30, 20))):
            (folder / label).mkdir(exist_ok=True)
            pixels = np.full((40, 40, 3), colour, np.uint8) + np.uint8(number)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "models"


def models(*arguments: object, folder: Path):
    return endolens("models", *arguments, "--models", folder, *(["--by", "Ada"] if arguments[0] != "list" else []))


def fingerprint(folder: Path, version: str) -> str:
    return next(name for name in Registry(folder).versions if f"-{version}+" in name).rpartition("+")[2]


@pytest.fixture
def two(folder, dataset, tmp_path) -> Path:
    """A good version that is active, and a bad one that is not."""
    for version, blueness in (("1.0.0", 1.0), ("1.1.0", -1.0)):
        result = models("add", checkpoint(tmp_path / f"{version}.safetensors", version, blueness), folder=folder)
        assert result.exit_code == 0, result.output
    result = models("activate", fingerprint(folder, "1.0.0"), "--dataset", dataset, folder=folder)
    assert result.exit_code == 0, result.output
    assert "macro F1 1.000 on 12 pictures; no model was active before" in result.stdout
    return folder


def test_the_active_version_is_the_one_that_other_commands_use(two, dataset):
    found = json.loads(endolens("evaluate", dataset, "--model", two, "--json").stdout)
    assert found["model"]["version"] == f"1.0.0+{fingerprint(two, '1.0.0')}"
    assert found["macro_f1"] == 1


def test_a_version_that_does_worse_needs_a_reason_and_one_command_goes_back(two, dataset):
    bad = fingerprint(two, "1.1.0")
    refused = models("activate", bad, folder=two)
    assert_refused(refused, "macro F1 0.000, of the active model 1.000", "stays as it is, unless you give a --reason")
    assert Registry(two).active.endswith(fingerprint(two, "1.0.0"))
    assert models("activate", bad, "--reason", "a trial", folder=two).exit_code == 0
    assert open_classifier(str(two)).version == f"1.1.0+{bad}", "the next request uses it, without a restart"
    assert "1.0.0" in models("rollback", folder=two).stdout
    assert open_classifier(str(two)).version.startswith("1.0.0")
    assert_refused(models("rollback", folder=two), "no model that was active before")
    listed = models("list", folder=two).stdout
    assert "* colours-1.0.0+" in listed
    assert "a trial" in listed
    content = json.loads(models("list", "--json", folder=two).stdout)
    assert [act["act"] for act in content["acts"]] == ["add", "add", "activate", "activate", "rollback"]
    assert {act["by"] for act in content["acts"]} == {"Ada"}
    comparison = content["acts"][3]["comparison"]
    assert (comparison["only_candidate"], comparison["only_active"]) == (0, 12)
    assert comparison["p"] == pytest.approx(binomtest(0, 12).pvalue)


def test_what_a_version_learned_is_nothing_to_compare_it_on(two, dataset, tmp_path):
    new = checkpoint(tmp_path / "new.safetensors", "1.2.0", 1.0)
    network, card, _ = load(new)
    save(new, network, card, learned=[one.content() for one in find_dataset(dataset).examples[:5]])
    assert models("add", new, folder=two).exit_code == 0
    result = models("activate", fingerprint(two, "1.2.0"), folder=two)
    assert "on 7 pictures (5 more, which one of the models learned, do not count)" in result.stdout
    save(
        new, network, replace(card, version="1.3.0"), learned=[one.content() for one in find_dataset(dataset).examples]
    )
    assert models("add", new, folder=two).exit_code == 0
    assert_refused(models("activate", fingerprint(two, "1.3.0"), folder=two), "were learned by one of the models")


def test_a_model_of_more_classes_needs_a_reason_and_can_become_active(two, dataset, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(dataset, more)
    shutil.copytree(dataset / "red", more / "green")
    network = build("vgg11", ("blue", "green", "red"), width=1 / 64)
    card = Card("more", "1", "vgg11", 1 / 64, ("blue", "green", "red"), input_size=32, target_layer="block5_conv2")
    save(tmp_path / "more.safetensors", network, card)
    assert models("add", tmp_path / "more.safetensors", folder=two).exit_code == 0
    refused = models("activate", fingerprint(two, "1"), "--dataset", more, folder=two)
    assert_refused(refused, "give a --reason")
    result = models("activate", fingerprint(two, "1"), "--dataset", more, "--reason", "more classes", folder=two)
    assert "on 18 pictures; the active model does not know green" in result.stdout


def test_the_same_checkpoint_is_there_once(two, tmp_path):
    before = Registry(two).versions
    assert models("add", tmp_path / "1.0.0.safetensors", folder=two).exit_code == 0
    assert Registry(two).versions == before
    assert [act["act"] for act in Registry(two).acts].count("add") == 2


def test_what_the_last_comparison_was_on_is_the_default_and_a_change_of_it_is_said(two, dataset, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "blue" / "0.png").unlink()
    same = checkpoint(tmp_path / "same.safetensors", "1.2.0", 1.0)
    assert models("add", same, folder=two).exit_code == 0
    refused = models("activate", fingerprint(two, "1.2.0"), "--dataset", other, folder=two)
    assert_refused(refused, "these are not the pictures of the comparison before", "give a --reason")
    result = models("activate", fingerprint(two, "1.2.0"), "--dataset", other, "--reason", "x", folder=two)
    assert "on 11 pictures" in result.stdout
    assert models("rollback", folder=two).exit_code == 0
    assert "on 12 pictures" in models("activate", fingerprint(two, "1.2.0"), folder=two).stdout, "as before all that"


def test_a_version_that_two_add_at_once_is_there_once(folder, tmp_path):
    file = checkpoint(tmp_path / "m.safetensors", "1", 1.0)
    command = [ENDOLENS, "models", "add", str(file), "--models", str(folder)]
    adding = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(one.wait(), one.communicate()[1]) for one in adding] == [(0, "")] * 4
    assert [act["act"] for act in Registry(folder).acts] == ["add"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("activate", "nothing"), "no version 'nothing'"),
        (("add", "missing.safetensors"), "missing.safetensors is not a readable safetensors file"),
        (("rollback",), "no model that was active before"),
    ],
)
def test_what_is_not_there_is_one_sentence(two, arguments, said):
    assert_refused(models(*arguments, folder=two), said)


def test_a_folder_without_an_active_model_is_refused(folder, dataset, tmp_path):
    folder.mkdir()
    assert_refused(models("list", folder=folder), "has no model")
    assert_refused(endolens("evaluate", dataset, "--model", folder), "has no active model; see endolens models --help")
    models("add", checkpoint(tmp_path / "one.safetensors", "1", 1.0), folder=folder)
    version = fingerprint(folder, "1")
    assert_refused(models("activate", version, folder=folder), "name the pictures to compare on by --dataset")


def test_a_version_whose_file_is_gone_is_not_gone_back_to_and_holds_nobody_up(two, dataset):
    good, bad = Registry(two).active, fingerprint(two, "1.1.0")
    assert models("activate", bad, "--reason", "a trial", folder=two).exit_code == 0
    (two / f"{good}.safetensors").rename(two / "elsewhere")
    assert_refused(models("rollback", folder=two), f"no version '{good}'")
    assert Registry(two).active.endswith(bad), "as before"
    (two / "elsewhere").rename(two / f"{good}.safetensors")
    (two / f"{Registry(two).active}.safetensors").unlink()
    result = models("activate", good, "--dataset", dataset, folder=two)
    assert result.exit_code == 0, result.output
    assert "+" + bad + ", active before, is gone" in result.stdout


def test_two_cannot_be_compared_and_activated_at_once_and_what_was_left_out_is_said(two, dataset, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "red" / "0.png").write_bytes(b"cut off")
    command = ("activate", fingerprint(two, "1.1.0"), "--dataset", other, "--reason", "x")
    with alone(two):
        assert_refused(models(*command, folder=two), "another process works already on the folder")
    result = models(*command, folder=two)
    assert result.exit_code == 0, result.output
    assert f"left out: {other / 'red' / '0.png'}" in result.stderr


def test_worse_is_who_has_the_lower_macro_f1_whoever_is_right_more_often(two, dataset, tmp_path):
    """Of eight pictures called blue two are red, and one called red is: who says blue to all errs once, else twice."""
    examples = find_dataset(dataset).examples
    blue, red = examples[:6], examples[6:9]
    shown = [*blue, *(replace(one, label="blue") for one in red[:2]), red[2]]
    always = open_classifier(str(checkpoint(tmp_path / "always.safetensors", "2", 1.0)))
    with torch.no_grad():
        always.network.classifier[-1].bias[0] = 100
    found = compare(always, open_classifier(str(two)), shown)
    assert (found["only_candidate"], found["only_active"]) == (2, 1)
    assert found["candidate"]["accuracy"] == pytest.approx(8 / 9)
    assert found["candidate"]["macro_f1"] == pytest.approx((16 / 17 + 0) / 2)
    assert found["active"]["macro_f1"] == pytest.approx((6 / 7 + 1 / 2) / 2)
    assert found["worse"]


def test_equal_models_are_told_apart_by_nothing(two, dataset):
    same = open_classifier(str(two))
    found = compare(same, same, find_dataset(dataset).examples)
    assert (found["only_candidate"], found["only_active"], found["p"], found["worse"]) == (0, 0, 1.0, False)


def test_a_line_that_a_crash_cut_off_neither_counts_nor_spoils_the_next(tmp_path):
    file = tmp_path / "a" / "journal.jsonl"
    journal.append(file, {"act": "one", "text": "é\nü"})
    with file.open("ab") as stream:
        stream.write(b'{"act": "tw')
    journal.append(file, {"act": "three"})
    assert [line["act"] for line in journal.read(file)] == ["one", "three"]
    assert next(iter(journal.read(file)))["text"] == "é\nü"
