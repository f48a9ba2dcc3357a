"""Checkpoints: what is saved comes back, and what is wrong is said."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from explainers.views import ManyViews
from monai_label_app.classifier.checkpoint import Card, CheckpointError, load, save
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.classifier.network import TEST_VIEWS, build

CARD = Card(
    name="small",
    version="1",
    width=1 / 32,
    classes=("lesion", "läsionsfrei"),
    metrics={"accuracy": 0.5},
    temperature=1.5,
)


def test_network_and_card_come_back(tmp_path: Path) -> None:
    network = build("vgg19", CARD.classes, CARD.width)
    save(tmp_path / "model.safetensors", network, CARD)
    again, card, fingerprint = load(tmp_path / "model.safetensors")
    assert card == CARD
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert len(fingerprint) == 64
    # Any safetensors reader finds the card.
    with safe_open(tmp_path / "model.safetensors", framework="np") as archive:
        assert json.loads(archive.metadata()["card"])["classes"] == ["lesion", "läsionsfrei"]


def test_a_card_of_several_views_is_served_by_their_mean_and_its_maps_lie_on_the_frame(tmp_path: Path) -> None:
    network = build("vgg19", CARD.classes, CARD.width)
    for views in (1, 3):
        save(tmp_path / f"{views}.safetensors", network, replace(CARD, test_views=views))
    save(tmp_path / "again.safetensors", open_classifier(str(tmp_path / "3.safetensors")).network, CARD)
    assert load(tmp_path / "again.safetensors")[1] == CARD
    frame = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    one, several = (open_classifier(str(tmp_path / f"{views}.safetensors")) for views in (1, 3))
    assert several.layers == one.layers
    assert one.version != several.version, "the card is part of the fingerprint"
    seen, _ = several.dissect([frame])
    torch.testing.assert_close(seen.scores, ManyViews(network, TEST_VIEWS[:3])(one.dissect([frame])[0].images).detach())
    torch.testing.assert_close(seen.scores.cpu(), several.scores([frame]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen.scores.cpu(), one.scores([frame]), rtol=1e-4, atol=1e-5)
    assert seen.grad_cam(CARD.target_layer, 0).shape == one.dissect([frame])[0].grad_cam(CARD.target_layer, 0).shape


def test_weights_of_half_the_bits_are_the_same_but_for_rounding_in_half_the_room(tmp_path: Path) -> None:
    network = build("vgg19", CARD.classes, CARD.width)
    save(tmp_path / "whole", network, CARD)
    save(tmp_path / "half", network, CARD, half=True)
    again, card, _ = load(tmp_path / "half")
    assert card == CARD
    for before, after in zip(network.parameters(), again.parameters(), strict=True):
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before, rtol=2**-11, atol=2**-24)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "whole").stat().st_size


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, build("vgg19", CARD.classes, CARD.width), CARD)
    assert load(tmp_path / "a")[2] != load(tmp_path / "b")[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": "wide"}, "width"),
        ({"name": None}, "name"),
        ({"version": ""}, "version"),
        ({"input_size": 0}, "input_size"),
        ({"std": (0, 0, 0)}, "std"),
        ({"mean": (0.5,)}, "mean"),
        ({"preprocess": "magic"}, "preprocess"),
        ({"test_views": 0}, "test_views"),
        ({"test_views": 5}, "test_views"),
        ({"test_views": "all"}, "test_views"),
        ({"test_views": 2.0}, "test_views"),
        ({"test_views": True}, "test_views"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"classes": ("a", "a")}, "distinct"),
        ({"classes": ("a\\b", "c")}, "classes"),
        ({"notice": "two\nlines"}, "notice"),
        ({"notice": "two\u2028lines"}, "notice"),
        ({"classes": ("a\u0085b", "c")}, "classes"),
        ({"classes": ("a", " ")}, "blank"),
        ({"classes": ("a", "b ")}, "blank"),
        ({"architecture": "vgg20"}, "vgg20"),
        ({"architecture": "vgg16"}, "does not fit its own card"),
        ({"classes": ("a", "b", "c")}, "does not fit its own card"),
        ({"target_layer": "block6_conv1"}, "block6_conv1"),
    ],
)
def test_card_that_is_wrong_is_refused_in_one_sentence(tmp_path: Path, change: dict, words: str) -> None:
    network = build("vgg19", CARD.classes, CARD.width)
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), file, metadata={"card": json.dumps({**asdict(CARD), **change})})
    with pytest.raises(CheckpointError, match=words) as refusal:
        load(file)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100])
def test_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(tmp_path / "model.safetensors")


def test_weights_without_a_card_and_cut_off_weights_are_refused(tmp_path: Path) -> None:
    network = build("vgg19", CARD.classes, CARD.width)
    save_file(network.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="no model card"):
        load(tmp_path / "bare.safetensors")
    save(tmp_path / "whole.safetensors", network, replace(CARD, name="whole"))
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load(tmp_path / "cut.safetensors")
