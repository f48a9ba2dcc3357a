"""MONAI Label's train task: the active model learns from the doctors' corrections, and a new version is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.train import TrainTask

from monai_label_app.classifier import checkpoint
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.data import Dataset, Example, read_dataset, read_examples
from monai_label_app.classifier.evaluation import refuse_strange
from monai_label_app.classifier.network import HEAD
from monai_label_app.classifier.registry import Registry
from monai_label_app.classifier.training import HISTORY, Recipe, Training, contents
from monai_label_app.datastore import StudyDatastore
from monai_label_app.folder import alone
from monai_label_app.study import Problem

_log = logging.getLogger(__name__)

_SECONDS = 2.0
"""Between two lines about how far the work is, of which MONAI Label shows the last twenty."""


class Learn(TrainTask):
    """The active model of a folder learns on; the new version is there for ``endolens models activate``.

    Args:
        registry: of the models.
        dataset: labelled pictures that are learned again with the corrections, so that nothing is forgotten; or None.
    """

    def __init__(self, registry: Registry, dataset: Path | None) -> None:
        super().__init__("Learn from corrections; the new version is used once it is activated")
        self._registry, self._dataset = registry, dataset

    def config(self) -> dict[str, Any]:
        """What a request may set: ``epochs``, the highest learning ``rate``, and the first layer that learns."""
        return {"epochs": 10, "rate": 1e-5, "train_from": ""}

    def stats(self) -> dict[str, Any]:
        """How far the latest run is, or how it ended; MONAI Label shows it by ``/info``."""
        runs = self._registry.folder / "runs"
        files = sorted(runs.glob(f"*/{HISTORY}"), key=lambda file: file.stat().st_mtime)
        if not files:
            return {}
        history = json.loads(files[-1].read_text(encoding="utf-8"))
        scores = history["validation_f1"]
        best = {"best_metric": max(scores)} if scores else {}  # 3D Slicer's MONAI Label counts with it where it is
        return {
            "epoch": history["epoch"],
            "total_epochs": history["epochs"],
            **best,
            "train": {"loss": history["loss"]},
            "eval": {"loss": history["validation_loss"], "macro_f1": scores},
        }

    def __call__(self, request: dict[str, Any], datastore: StudyDatastore) -> dict[str, Any]:
        """Train to the end, or go on with a run that was stopped.

        Returns:
            The new ``version`` and what it learned from.

        Raises:
            MONAILabelException: there is nothing to learn from, or the request has a mistake.
        """
        try:
            return self._train({**self.config(), **request}, datastore)
        except ValueError as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from error

    def _train(self, request: dict[str, Any], datastore: StudyDatastore) -> dict[str, Any]:
        active = self._registry.path()
        _, card, _ = checkpoint.load(active)
        problems: list[Problem] = []
        corrected = [one for one, _ in read_examples(datastore.corrected(), problems)]
        for problem in problems:
            _log.warning("left out: %s", problem.reason)
        if not corrected:
            raise ValueError(problems[0].reason if problems else "there is no correction to learn from; save a label")
        found = Dataset(card.classes, (), tuple(corrected))
        if self._dataset:
            found = read_dataset(self._dataset, progress=_logged, corrected=corrected)
        for problem in found.problems:
            _log.warning("left out: %s", problem.reason)
        if found.replaced:
            _log.info("%d pictures of the dataset are not learned, but the corrections of them", len(found.replaced))
        refuse_strange((*found.examples, *corrected), card)
        # What is nearly the same as a corrected frame, or of one group with such, is learned, or nearly so.
        known = {one.group for one in found.extra}
        kept = checkpoint.kept_aside(active)
        kept -= {one.content() for one in (*found.examples, *found.replaced) if one.group in known}
        groups = {one.group for one in found.examples if kept and one.content() in kept}
        aside = tuple(one for one in found.examples if one.group in groups)
        if found.examples and not aside:
            _log.warning("of no picture is it known that the active model did not learn it: none is kept aside")
        examples = (*(one for one in found.examples if one.group not in groups), *found.extra)
        recipe = Recipe(
            architecture=card.architecture,
            width=card.width,
            size=card.input_size,
            preprocess=card.preprocess,
            test_views=card.test_views,
            weights=str(active),
            train_from=str(request["train_from"]) or first_layer(card, corrected),
            epochs=_number(request, "epochs", int, 1, 1000),
            rate=_number(request, "rate", (int, float), 1e-8, 1),
        )
        digest = hashlib.sha256(contents(recipe, (*examples, *aside), {}).encode()).hexdigest()
        folder = self._registry.folder / "runs" / digest[:12]
        with alone(folder):
            training = Training(recipe, card.classes, examples, aside, {}, folder, _logged)
            made = training.run()
            frames = {(one.path.stem, one.frame) for one in corrected}
            readers = {one.by for one in datastore.corrections.current() if (one.image, one.frame) in frames}
            said = f"{len(corrected)} corrections by {len(readers)} readers"
            new = replace(
                made,
                name=card.name,
                version=_next(card),
                notice=card.notice,
                training_data="; ".join(filter(None, [card.training_data, said])),
            )
            learned = checkpoint.learned_from(active).union(one.content() for one in (*examples, *found.replaced))
            checkpoint.save(folder / "model.safetensors", training.network, new, aside=kept, learned=learned)
            version = self._registry.add(folder / "model.safetensors", "MONAI Label's train task")
            (folder / "model.safetensors").unlink()
            training.clear()
        _log.info("%s is there; compare and use it by: endolens models activate %s", version, version[-8:])
        return {"version": version, "active": self._registry.active, "corrections": len(corrected)}


def first_layer(card: Card, corrected: Sequence[Example]) -> str:
    """What learns where nobody says: all of a narrow network, and of a large one as little as can follow regions."""
    if card.width != 1:
        return ""
    return card.target_layer if card.architecture.startswith("vgg") and any(one.region for one in corrected) else HEAD


def _next(card: Card) -> str:
    """The version after: its last number is one more."""
    found = re.fullmatch(r"(.*?)(\d+)(\D*)", card.version)
    return f"{found[1]}{int(found[2]) + 1}{found[3]}" if found else f"{card.version}.1"


def _number(request: dict[str, Any], name: str, kinds: Any, low: float, high: float) -> Any:
    value = request[name]
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise ValueError(f"{name} {value!r} is not a number from {low:g} to {high:g}")
    return value


def _logged(items: Iterable[Any], length: int | None, label: str) -> Iterator[Any]:
    """Hand items on, and say now and then how far the work is."""
    said = 0.0
    for number, item in enumerate(items):
        if time.monotonic() - said > _SECONDS:
            said = time.monotonic()
            _log.info("%s: %d of %s", label, number, length if length is not None else "?")
        yield item
    _log.info("%s: done", label)
