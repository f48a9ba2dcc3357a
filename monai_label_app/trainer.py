"""MONAI Label's train task: the active model learns from the doctors' corrections, and a new version is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.train import TrainTask

from monai_label_app.classifier import checkpoint
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.classifier.data import Dataset, read_dataset
from monai_label_app.classifier.evaluation import refuse_strange
from monai_label_app.classifier.network import HEAD
from monai_label_app.classifier.registry import Registry
from monai_label_app.classifier.training import HISTORY, Recipe, Training, contents
from monai_label_app.datastore import StudyDatastore
from monai_label_app.folder import alone

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
        corrected = datastore.corrected()
        if not corrected:
            raise ValueError("there is no correction to learn from; save a label first")
        found = read_dataset(self._dataset, progress=_logged) if self._dataset else Dataset(card.classes, ())
        for problem in found.problems:
            _log.warning("left out: %s", problem.reason)
        refuse_strange((*found.examples, *corrected), card)
        kept = checkpoint.kept_aside(active)
        groups = {one.group for one in found.examples if kept and one.content() in kept}
        aside = tuple(one for one in found.examples if one.group in groups)
        if found.examples and not aside:
            _log.warning("of no picture is it known that the active model did not learn it: none is kept aside")
        examples = (*(one for one in found.examples if one.group not in groups), *corrected)
        recipe = Recipe(
            architecture=card.architecture,
            width=card.width,
            size=card.input_size,
            preprocess=card.preprocess,
            test_views=card.test_views,
            weights=str(active),
            train_from=str(request["train_from"]) or ("" if card.width != 1 else HEAD),
            epochs=_number(request, "epochs", int, 1, 1000),
            rate=_number(request, "rate", (int, float), 1e-8, 1),
        )
        digest = hashlib.sha256(contents(recipe, (*examples, *aside), {}).encode()).hexdigest()
        folder = self._registry.folder / "runs" / digest[:12]
        with alone(folder):
            training = Training(recipe, card.classes, examples, aside, {}, folder, _logged)
            made = training.run()
            readers = len({one.by for one in datastore.corrections.current()})
            said = f"{len(corrected)} corrections by {readers} readers"
            new = replace(
                made,
                name=card.name,
                version=_next(card),
                notice=card.notice,
                training_data="; ".join(filter(None, [card.training_data, said])),
            )
            checkpoint.save(folder / "model.safetensors", training.network, new, aside=kept)
            version = self._registry.add(folder / "model.safetensors", "MONAI Label's train task")
            training.clear()
        _log.info("%s is there; compare and use it by: endolens models activate %s", version, version[-8:])
        return {"version": version, "active": self._registry.active, "corrections": len(corrected)}


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
