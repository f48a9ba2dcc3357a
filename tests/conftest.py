"""Fixtures that the tests of all packages share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.network import build

# Commands that packages bring (dciodvfy, monailabel) are beside the interpreter, as in an activated environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# Several test processes share the cores, with the programs that they start.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=3300)
settings.load_profile("unhurried")

REAL_IMAGES = Path(__file__).parents[2] / "shared" / "data"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it, and what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="draw the pictures of docs/ anew, into this folder")
    parser.addoption("--kills", type=int, help="how often a node is killed in each test of test_durability.py")
    parser.addoption("--seed", type=int, default=1, help="of these moments, and of the inputs of tests/fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no processor waits for one in the end."""
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real endoscopy images, which are no part of this repository."""
    if not REAL_IMAGES.is_dir():
        reason = "the folder shared/data of real endoscopy images is not beside the repository's folder"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return REAL_IMAGES


@pytest.fixture(scope="session")
def polyp_files(real_images: Path) -> list[Path]:
    """Three real JPEG files of polyps, of different sizes."""
    files = {}
    for file in sorted((real_images / "kvasir-seg" / "images").glob("*.jpg")):
        with Image.open(file) as image:
            files.setdefault(image.size, file)
        if len(files) == 3:
            break
    return list(files.values())


@pytest.fixture(scope="session")
def polyp(polyp_files: list[Path]) -> NDArray[np.uint8]:
    """A real frame, (H, W, 3) uint8, of odd size: 151 x 203 pixels from the middle of an image."""
    with Image.open(polyp_files[0]) as image:
        middle = np.array(image.convert("RGB"))[200:351, 150:353]
    assert middle.shape == (151, 203, 3)
    return middle


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VGG-19 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build("vgg19", width=1 / 32)
    card = Card(
        name="tiny",
        version="0.1.0",
        width=1 / 32,
        input_size=64,
        training_data="none",
        notice="test model, not for clinical use",
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(path, network, card)
    return path


@pytest.fixture(scope="session")
def classifier(checkpoint: Path) -> Classifier:
    """The tiny VGG-19, opened."""
    return open_classifier(str(checkpoint))


@pytest.fixture(scope="session")
def spotlight() -> Classifier:
    """A network whose map is known: it is the brightness of a frame above one half, and zero where all is darker."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1 / 3)
        network[0].bias.fill_(-0.5)
        network[3].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        network[3].bias.copy_(torch.tensor([1.0, 0.0]))
    card = Card(
        name="spotlight",
        version="2.0",
        architecture="spotlight",
        classes=("polyps", "normal-cecum"),
        input_size=64,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        target_layer="0",
        notice="test model, not for clinical use",
    )
    return Classifier(network, card, "5a" * 32, torch.device("cpu"))
