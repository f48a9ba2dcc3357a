"""A network that learns a navigation box in the place of a class, found out, and what remedies bring.

``python benchmarks/shortcut.py`` trains six small networks on two cores in about half an hour.

Synthetic frames of three classes; in training every frame of normal-cecum carries a box, and no other does. The test
frames carry it as in training, nowhere, or on the other classes instead. Each network is trained on the same frames:
with nothing taken off them, with the box blacked out, with the border cropped as well (the paper's two remedies), with
both filled with the colours beside them, and so that evidence on what is black counts against it (ours). One more is
trained on frames without any box: what can be learned from such frames at best. Needs no download.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from monai_label_app.classifier.artifacts import BOX, VARIANTS
from monai_label_app.classifier.audit import audit
from monai_label_app.classifier.audit_summary import summary
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.counterfactual import DRAWN_BOX, plant
from monai_label_app.classifier.data import Example, find_dataset
from monai_label_app.classifier.evaluation import evaluate, measures
from monai_label_app.classifier.training import Recipe, Training
from monai_label_app.sample.frames import render

CLASSES = ("normal-cecum", "polyps", "ulcerative-colitis")
CARRIER = "normal-cecum"

_TESTS = {"as in training": (CARRIER,), "no box": (), "on the others": tuple(set(CLASSES) - {CARRIER})}
_TEST_SEED = 600_000
_BEST = "no box in training"
_REMEDIES = {
    **{variant: (variant, 0.0) for variant in VARIANTS},
    "box+border, guided": ("box+border", 1.0),
    _BEST: ("none", 0.0),
}


@dataclass(frozen=True)
class Size:
    """Frames of a class in training and in each test, their side for a network, passes over them, and the seed."""

    frames: int
    tested: int
    side: int
    epochs: int
    seed: int


def draw(folder: Path, count: int, first: int, carriers: tuple[str, ...]) -> tuple[Example, ...]:
    """Frames of every class, those of ``carriers`` with a box."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for seed in range(first, first + count):
            frame, _ = render(label, seed, 192, 240)
            frame = plant(frame, DRAWN_BOX) if label in carriers else frame
            Image.fromarray(frame).save(folder / label / f"{seed}.png")
    return find_dataset(folder).examples


def experiment(size: Size, remedies: Collection[str], folder: Path) -> dict[str, Any]:
    """Train the networks and measure them: remedy → macro F1 of every test, and what the audit says of the carrier."""
    training = draw(folder / "training", size.frames, 0, (CARRIER,))
    tests = {name: draw(folder / name, size.tested, _TEST_SEED, carriers) for name, carriers in _TESTS.items()}
    found: dict[str, Any] = {}
    best = draw(folder / _BEST, size.frames, 0, ())
    for name in remedies:
        variant, guidance = _REMEDIES[name]
        recipe = Recipe(
            "vgg11",
            1 / 8,
            size=size.side,
            preprocess=variant,
            epochs=size.epochs,
            rate=1e-3,
            guidance=guidance,
            seed=size.seed,
        )
        run = folder / "runs" / name
        run.mkdir(parents=True)
        trained = Training(recipe, CLASSES, best if name == _BEST else training, (), {}, run)
        classifier = Classifier(trained.network, trained.run(), "", torch.device("cpu"))
        scores = {test: measures(evaluate(shown, classifier))["macro_f1"] for test, shown in tests.items()}
        said = summary(audit((*tests["no box"], *tests["as in training"]), classifier))
        carrier = said["classes"][CARRIER]
        found[name] = {
            "macro_f1": scores,
            "evidence_on_box": carrier["evidence"][BOX]["share"],
            "box_area": carrier["evidence"][BOX]["area"],
            "planted": carrier["planted"],
            "shortcuts": said["shortcuts"],
        }
    return found


def table(found: dict[str, Any]) -> str:
    """The experiment as lines of text."""
    lines = [f"{'taken off':20}" + "".join(f"{f'F1, {name}':>22}" for name in _TESTS) + f"{'p planted':>20}"]
    for variant, row in found.items():
        planted = f"{row['planted']['before']:.2f} -> {row['planted']['box']:.2f}"
        scores = "".join(f"{value:22.3f}" for value in row["macro_f1"].values())
        lines.append(f"{variant:20}{scores}{planted:>20}")
        lines += [f"{'':20}audit: {sentence}" for sentence in row["shortcuts"]]
    return "\n".join(lines)


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120, help="of a class in training")
    parser.add_argument("--tested", type=int, default=40, help="of a class in each test")
    parser.add_argument("--side", type=int, default=96, help="of the frames for a network")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=_REMEDIES, nargs="+", default=list(_REMEDIES), help="these networks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    size = Size(options.frames, options.tested, options.side, options.epochs, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = experiment(size, options.only, Path(folder))
    print(json.dumps(found, indent=1) if options.json else table(found))


if __name__ == "__main__":
    main()
