"""How a training went, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_label_app.folder import whole
from monai_label_app.pictures import write_plot


@dataclass
class History:
    """What each epoch brought: losses of classes and of maps; of the pictures kept aside, loss and macro F1."""

    loss: list[float] = field(default_factory=list)
    astray: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_f1: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The epoch, from 1, of the lowest loss of the pictures kept aside."""
        return 1 + int(np.argmin(self.validation_loss))


def plot(history: History, path: Path) -> None:
    """Draw how a training went, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    for values, label in (
        (history.loss, "classes"),
        (history.astray, "maps beside what they should show"),
        (history.validation_loss, "classes, validation"),
    ):
        if values:
            losses.plot(range(1, len(values) + 1), values, label=label)
    losses.set(title="loss", xlabel="epoch", ylim=(0, None))
    losses.legend()
    quality.plot(range(1, len(history.validation_f1) + 1), history.validation_f1)
    quality.set(title="macro F1, validation", xlabel="epoch", ylim=(0, 1))
    with whole(path) as partial:
        write_plot(figure, partial)
