"""What a training sees: no view makes or hides a lesion, classes are drawn evenly, frozen layers change nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from monai_label_app.classifier.augmentation import ZOOM, views
from monai_label_app.classifier.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from monai_label_app.classifier.data import Example
from monai_label_app.classifier.prepare import prepare
from monai_label_app.classifier.training_set import Draws, Features, TrainingSet, Views
from monai_label_app.console import silent


@pytest.mark.slow
@example(seed=1712199)  # dark and of low resolution
@given(seed=st.integers(1, 2**31 - 1))
def test_a_view_keeps_the_mask_on_the_object_and_the_object_in_the_picture(seed):
    image, allowed = torch.full((3, 128, 128), 0.2), torch.zeros(1, 128, 128)
    image[:, 40:80, 20:52], allowed[:, 40:80, 20:52] = 0.7, 1
    made = views().set_random_state(seed)({"image": image, "allowed": allowed})
    grey = made["image"].mean(0)
    bright, inside = grey > (grey.min() + grey.max()) / 2, made["allowed"][0] > 0.5  # whatever its light
    overlap = (bright & inside).sum() / (bright | inside).sum()
    assert overlap > 0.8, "only the edge may blur"
    assert 40 * 32 * 0.9 < inside.sum() < 40 * 32 * ZOOM**2 * 1.1, "nothing of it was cut away"


@pytest.fixture
def pictures(tmp_path) -> TrainingSet:
    """Twelve pictures of noise in two classes, nine and three; the first has a mask."""
    random = np.random.default_rng(0)
    examples = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(60, 255, (48, 80, 3), dtype=np.uint8)).save(path)
        examples.append(Example(path, "a" if number < 9 else "b", str(path)))
    mask = np.zeros((48, 80), np.uint8)
    mask[:, :40] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "0.png")
    return TrainingSet(examples, ("a", "b"), 32, "none", {"0": tmp_path / "masks" / "0.png"})


def test_the_plain_view_is_what_the_classifier_sees(pictures):
    image, (target, allowed) = Views(pictures, IMAGENET_MEAN, IMAGENET_STD)[0, 0]
    frame = np.asarray(Image.open(pictures.examples[0].path))
    served, _ = prepare(frame, 32, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(image, served, atol=0.01), "but for the rounding to bytes"
    assert target == 0
    assert allowed[0, :, :15].all()
    assert not allowed[0, :, 17:].any()
    assert Views(pictures, IMAGENET_MEAN, IMAGENET_STD)[1, 0][1][1].all(), "without a mask all but black is allowed"


def test_the_same_seed_is_the_same_view(pictures):
    source = Views(pictures, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(source[3, 7][0], source[3, 7][0])
    assert not torch.equal(source[3, 7][0], source[3, 8][0])


def test_an_unreadable_picture_is_left_out_and_named(tmp_path, pictures):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    found = TrainingSet([*pictures.examples, Example(broken, "a", "x")], ("a", "b"), 32, "none", {})
    assert len(found.examples) == len(found.pixels) == len(found.targets) == 12
    assert "broken.png" in found.problems[0].reason


def test_frozen_layers_give_what_they_would_have_given(pictures, tmp_path):
    source = Views(pictures, IMAGENET_MEAN, IMAGENET_STD)
    frozen = nn.Conv2d(3, 4, 3)
    features = Features(source, frozen, [2, 5, 9], 3, tmp_path / "features", silent)
    made, (target, _) = features[9, 0]
    with torch.no_grad():
        expected = frozen(source[9, 0][0][None])[0]
    assert torch.allclose(made, expected, atol=0.01, rtol=1e-3), "but for half precision"
    assert target == 1
    _, (_, allowed) = features[2, 0]
    assert allowed.shape == (1, 30, 30)
    again = Features(source, nn.Conv2d(3, 4, 3), [2, 5, 9], 3, tmp_path / "features", silent)
    assert torch.equal(again[9, 0][0], made), "what is there is not made again"
    assert len({float(features[5, seed][0].sum()) for seed in range(30)}) == 3, "as many views as were asked for"


def test_frozen_layers_that_were_interrupted_go_on_and_are_shared_by_other_sets(pictures, tmp_path):
    source = Views(pictures, IMAGENET_MEAN, IMAGENET_STD)
    shown: list[int] = []

    def interrupted(items, total, _):
        shown.append(total)
        yield from list(items)[:2]
        raise KeyboardInterrupt

    def whole(items, total, _):
        shown.append(total)
        return items

    frozen = nn.Conv2d(3, 4, 3)
    with pytest.raises(KeyboardInterrupt):
        Features(source, frozen, [2, 5, 9], 3, tmp_path / "features", interrupted)
    made = Features(source, frozen, [2, 5, 9], 3, tmp_path / "features", whole)
    others = TrainingSet([pictures.examples[index] for index in (9, 0)], ("a", "b"), 32, "none", {})
    again = Features(Views(others, IMAGENET_MEAN, IMAGENET_STD), frozen, [0, 1], 3, tmp_path / "features", whole)
    assert shown == [3, 1, 1]
    for seed in range(3):
        assert torch.equal(again[0, seed][0], made[9, seed][0])


def test_a_disk_without_room_is_noticed_before_the_work(pictures, tmp_path, monkeypatch):
    source, asked = Views(pictures, IMAGENET_MEAN, IMAGENET_STD), ([2, 5, 9], 3, tmp_path / "features", silent)
    room = SimpleNamespace(free=3 * (3 * 5 * 30 * 30 * 2) - 1)
    monkeypatch.setattr("monai_label_app.classifier.training_set.shutil.disk_usage", lambda _: room)
    with pytest.raises(ValueError, match=r"features has 0\.0 GB free, .* take fewer views, or a later layer"):
        Features(source, nn.Conv2d(3, 4, 3), *asked)
    assert not list((tmp_path / "features").iterdir())
    room.free += 1 + 3 * 128  # and the heads of the files
    Features(source, nn.Conv2d(3, 4, 3), *asked)
    assert sum(path.stat().st_size for path in (tmp_path / "features").iterdir()) <= room.free


@given(sizes=st.lists(st.integers(1, 300), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_every_class_weighs_the_same_and_is_drawn_by_the_root_of_its_size(sizes, seed):
    targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    draws = Draws(targets, range(len(targets)), seed)
    drawn = [index for index, _ in draws]
    counts = np.bincount(targets.numpy()[drawn], minlength=len(sizes))
    assert counts == pytest.approx(np.sqrt(sizes) / np.sqrt(sizes).sum() * sum(sizes), abs=1)
    weighed = counts * draws.weights().numpy()
    assert weighed == pytest.approx(np.full(len(sizes), counts.sum() / len(sizes)), rel=1e-5)
    for label, size in enumerate(sizes):
        times = np.bincount(np.array(drawn)[targets.numpy()[drawn] == label], minlength=1)
        assert times.max() <= -(-counts[label] // size), "everyone once before anyone twice"


def test_an_epoch_is_the_same_again_and_unlike_the_next():
    draws = Draws(torch.tensor([0] * 30 + [1] * 10), range(40), seed=3)
    first = list(draws)
    assert list(draws) == first
    draws.epoch = 1
    assert list(draws) != first


def test_several_processes_share_an_epoch_between_them():
    targets = torch.tensor([0] * 30 + [1] * 10)
    whole = list(Draws(targets, range(40), 0))
    parts = [list(Draws(targets, range(40), 0, rank, 2)) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole[: 2 * len(parts[0])])
