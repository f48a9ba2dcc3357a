"""What MONAI Label's train task makes of corrections and a dataset, and how it says no."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monailabel.interfaces.exception import MONAILabelException
from PIL import Image

from monai_label_app.classifier.checkpoint import Card, kept_aside, learned_from, load, save
from monai_label_app.classifier.data import Example, find_dataset
from monai_label_app.classifier.network import KVASIR_CLASSES
from monai_label_app.classifier.registry import Registry
from monai_label_app.corrections import Correction
from monai_label_app.datastore import StudyDatastore, open_datastore
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from monai_label_app.trainer import Learn, first_layer
from tests.dicom_files import image, write


@pytest.fixture
def datastore(tmp_path) -> StudyDatastore:
    shutil.copytree(STUDY, tmp_path / "studies" / "study")
    library = FolderLibrary(tmp_path / "studies")
    return open_datastore(library, str(tmp_path / "studies"), lambda: KVASIR_CLASSES)


@pytest.fixture
def registry(tmp_path, checkpoint, dataset) -> Registry:
    network, card, _ = load(checkpoint)
    aside = [example.content() for example in aside_of(dataset)]
    save(tmp_path / "active.safetensors", network, replace(card, test_views=2), aside=aside)
    registry = Registry(tmp_path / "models")
    registry.activate(registry.add(tmp_path / "active.safetensors", "test"), "test", {"worse": False})
    return registry


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder, random = tmp_path_factory.mktemp("dataset"), np.random.default_rng(0)
    for number in range(10):
        for label, colour in (("polyps", (200, 90, 60)), ("esophagitis", (90, 60, 200))):
            (folder / label).mkdir(exist_ok=True)
            pixels = np.clip(random.normal(colour, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def aside_of(dataset) -> list[Example]:
    """What the active version did not learn: two pictures of each class, no share that a division would choose."""
    return [example for example in find_dataset(dataset).examples if example.path.stem in ("3", "4")]


@pytest.mark.slow
def test_dataset_and_corrections_are_learned_together_and_a_part_is_kept_aside(datastore, registry, dataset):
    images = datastore.list_images()
    for frame, uid in enumerate(images[:3]):
        region = ((10.0, 10.0), (90.0, 10.0), (90.0, 90.0)) if frame else ()
        datastore.corrections.add(Correction(uid, "polyps", "Ada" if frame else "Bo", region=region))
    task = Learn(registry, dataset)
    assert task.stats() == {}
    answer = task({"epochs": 2}, datastore)
    assert answer["version"] != answer["active"] == registry.active
    assert answer["corrections"] == 3
    card = load(registry.path(answer["version"]))[1]
    assert card.classes == KVASIR_CLASSES
    assert card.test_views == 2, "as of the version that it went on from"
    assert card.version == "0.1.1"
    assert card.training_data == "none; 3 corrections by 2 readers"
    assert card.metrics["validation_images"] == 4
    kept = {example.content() for example in aside_of(dataset)}
    for version in (registry.active, answer["version"]):
        assert kept_aside(registry.path(version)) == kept
    assert (task.stats()["epoch"], task.stats()["total_epochs"], len(task.stats()["eval"]["macro_f1"])) == (2, 2, 2)
    assert 0 <= task.stats()["best_metric"] <= 1
    (recipe,) = (registry.folder / "runs").glob("*/recipe.json")
    pictures = json.loads(recipe.read_text())["pictures"]
    assert len(pictures) == 23
    aside = {str(example.path) for example in aside_of(dataset)}
    assert {path for path, *_ in pictures[-4:]} == aside, "which nothing was learned from"
    assert not list(recipe.parent.glob("*.pt"))


def test_where_nothing_is_kept_aside_there_is_no_score(datastore, registry):
    datastore.corrections.add(Correction(datastore.list_images()[0], "polyps", "Ada"))
    task = Learn(registry, None)
    task({"epochs": 1}, datastore)
    assert task.stats()["epoch"] == 1
    assert "best_metric" not in task.stats(), "3D Slicer's MONAI Label multiplies it where it is"


@pytest.mark.slow
def test_what_was_not_learned_is_known_wherever_it_lies_and_else_nothing_is_calibrated(
    datastore, registry, dataset, tmp_path
):
    datastore.corrections.add(Correction(datastore.list_images()[0], "polyps", "Ada"))
    kept = kept_aside(registry.path())
    alone = Learn(registry, None)({"epochs": 1}, datastore)["version"]
    assert kept_aside(registry.path(alone)) == kept, "still not learned"
    moved = tmp_path / "moved"
    shutil.copytree(dataset, moved)
    again = Path(moved / "polyps" / "again.png")
    Image.open(moved / "polyps" / "3.png").resize((80, 80)).save(again)
    answer = Learn(registry, moved)({"epochs": 1}, datastore)
    assert load(registry.path(answer["version"]))[1].metrics["validation_images"] == 5, "and a near-duplicate of one"
    strange = tmp_path / "strange"
    for label in ("polyps", "esophagitis"):
        shutil.copytree(dataset / label, strange / label, ignore=shutil.ignore_patterns("3.png", "4.png"))
    answer = Learn(registry, strange)({"epochs": 1}, datastore)
    card = load(registry.path(answer["version"]))[1]
    assert (card.temperature, card.metrics) == (1, {})


@pytest.mark.slow
def test_what_a_doctor_corrected_is_learned_as_that_and_judges_nothing(datastore, registry, dataset, tmp_path):
    aside = aside_of(dataset)
    for number, example in enumerate(aside[:3]):  # of which the first two are corrected
        still = image(example.read())
        write(still, tmp_path / "studies" / f"{number}.dcm")
        if number < 2:
            datastore.corrections.add(Correction(str(still.SOPInstanceUID), "polyps", "Ada"))
    answer = Learn(registry, dataset)({"epochs": 1}, datastore)
    assert answer["corrections"] == 2
    (recipe,) = (registry.folder / "runs").glob("*/recipe.json")
    pictures = {path: label for path, _, _, label, *_ in json.loads(recipe.read_text())["pictures"]}
    assert len(pictures) == 20, "each once: as it is in the dataset, or as it was corrected"
    assert not {str(example.path) for example in aside[:2]} & set(pictures)
    version = registry.path(answer["version"])
    assert load(version)[1].metrics["validation_images"] == 2
    assert kept_aside(version) == {example.content() for example in aside[2:]}
    assert len(learned_from(version)) == 20, "of the corrected ones the pictures in the dataset, too"
    assert not learned_from(version) & kept_aside(version)


@pytest.mark.slow
def test_corrections_that_cannot_be_read_are_left_out_and_not_counted(datastore, registry, tmp_path, caplog):
    first, second = datastore.list_images()[:2]
    damaged = Path(datastore.get_image_uri(first)).resolve()
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    datastore.corrections.add(Correction(first, "polyps", "Ada"))
    with pytest.raises(MONAILabelException) as error:
        Learn(registry, None)({"epochs": 1}, datastore)
    assert "is damaged DICOM" in error.value.msg
    datastore.corrections.add(Correction(second, "polyps", "Bo"))
    answer = Learn(registry, None)({"epochs": 1}, datastore)
    assert answer["corrections"] == 1
    assert load(registry.path(answer["version"]))[1].training_data.endswith("1 corrections by 1 readers")
    assert first in caplog.text


@pytest.mark.parametrize(
    ("width", "architecture", "region", "first"),
    [
        (1.0, "vgg19", True, "block5_conv4"),
        (1.0, "vgg19", False, "head"),
        (1.0, "resnet18", True, "head"),
        (0.5, "vgg19", True, ""),
    ],
)
def test_of_a_large_network_learns_what_can_follow_the_regions(width, architecture, region, first):
    card = Card("n", "1", architecture, width, target_layer="block5_conv4")
    example = Example(Path("a"), "polyps", "a", region=((0, 0), (1, 0), (1, 1)) if region else ())
    assert first_layer(card, [example]) == first


def test_a_class_that_the_model_does_not_know_is_one_sentence(datastore, registry, dataset, tmp_path):
    shutil.copytree(dataset / "polyps", tmp_path / "more" / "warts")
    shutil.copytree(dataset / "polyps", tmp_path / "more" / "polyps")
    datastore.corrections.add(Correction(datastore.list_images()[0], "polyps", "Ada"))
    with pytest.raises(MONAILabelException, match="does not know warts"):
        Learn(registry, tmp_path / "more")({}, datastore)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"epochs": 0}, "epochs 0 is not a number from 1 to 1000"),
        ({"epochs": "many"}, "epochs 'many' is not a number"),
        ({"epochs": True}, "epochs True is not a number"),
        ({"rate": 0}, "rate 0 is not a number"),
        ({"rate": float("nan")}, "rate nan is not a number"),
        ({"train_from": "block9"}, "no layer 'block9'"),
    ],
)
def test_a_request_with_a_mistake_is_one_sentence(datastore, registry, request_, said):
    datastore.corrections.add(Correction(datastore.list_images()[0], "polyps", "Ada"))
    with pytest.raises(MONAILabelException) as error:
        Learn(registry, None)(request_, datastore)
    assert said in error.value.msg
    assert len(registry.versions) == 1


def test_without_a_correction_there_is_nothing_to_learn(datastore, registry, dataset):
    datastore.corrections.add(Correction("1.2.3", "polyps", "Ada"))  # whose image has gone
    with pytest.raises(MONAILabelException) as error:
        Learn(registry, dataset)({}, datastore)
    assert "there is no correction to learn from" in error.value.msg
