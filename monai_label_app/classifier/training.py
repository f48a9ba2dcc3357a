"""Train a classifier on labelled pictures by MONAI's engine and, where there are masks, on where it looks.

A run has a folder with its recipe, curves, TensorBoard logs and, until it ends, the state after its last epoch: started
again after a kill it goes on from there and ends as if nothing had been.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import TensorBoardStatsHandler
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvision.models.vgg import VGG

from explainers.layers import convolutions
from monai_label_app.classifier.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Card
from monai_label_app.classifier.data import Example, digest
from monai_label_app.classifier.distributed import (
    as_the_leader,
    device,
    leader_first,
    leads,
    of_the_leader,
    rank,
    ranks,
    together,
)
from monai_label_app.classifier.head import adopt, bake, pieces, start
from monai_label_app.classifier.history import History, plot
from monai_label_app.classifier.learner import Learner, Loss
from monai_label_app.classifier.metrics import confusion_matrix, summary, temperature
from monai_label_app.classifier.network import (
    Width,
    build,
    calibrate,
    in_views,
    last_layer,
    load_pretrained,
    split,
    target_layer,
)
from monai_label_app.classifier.probe import Probe
from monai_label_app.classifier.teacher import TRUNK, ask, mix, open_teacher
from monai_label_app.classifier.training_set import Draws, Features, TrainingSet, Views
from monai_label_app.console import Progress, silent
from monai_label_app.folder import settle, whole

_BATCH = 16
_DECAY = 0.02
_LARGEST_GRADIENT = 5.0
_NEW_LAYER = 6
"""How many times faster the last layer learns where it is new: it is only a start, the rest was learned before."""
_LOOKS = 3
"""Epochs of views that a new head starts from."""
_STATE, _BEST = "state.pt", "best.pt"

FEATURES = ".features"
"""Folder of a run, or of a cross-validation's, for what frozen layers make; no class has such a name."""

HISTORY = "history.json"
"""Of a run's folder: how far it is, and the numbers behind its curves."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        architecture, width: as in :class:`Card`.
        size: of the input, in pixels.
        preprocess: what is taken off a frame first.
        test_views: as in :class:`Card`.
        weights: ``imagenet``, a safetensors file, or nothing.
        teacher: a checkpoint that it learns from too, see :mod:`.teacher`; or ``trunk``, see :mod:`.probe`.
        train_from: the first layer that learns, a VGG convolution or ``head``; what comes before is frozen and run
            only once. Nothing: all learn.
        views: of each picture that frozen layers, and a trunk that teaches, are shown.
        epochs: passes over the pictures.
        patience: epochs without a better validation loss after which it stops early.
        rate: the highest learning rate.
        guidance: weight of the loss on maps beside what they should show; see :mod:`.guidance`.
        seed: of everything random.
    """

    architecture: str = "vgg19"
    width: Width = 1.0
    size: int = 224
    preprocess: str = "box+border"
    test_views: int = 1
    weights: str = ""
    teacher: str = ""
    train_from: str = ""
    views: int = 8
    epochs: int = 30
    patience: int = 10
    rate: float = 1e-4
    guidance: float = 0.3
    seed: int = 0


class Training:
    """One run: a network, its pictures, and how far it is."""

    def __init__(
        self,
        recipe: Recipe,
        classes: Sequence[str],
        examples: Sequence[Example],
        validation: Sequence[Example],
        masks: Mapping[str, Path],
        folder: Path,
        progress: Progress = silent,
        features: Path | None = None,
    ) -> None:
        """Read the pictures and prepare the network; what an earlier run left in the folder is taken up.

        Args:
            recipe: how it is trained.
            classes: one output each.
            examples: what is trained on.
            validation: what is kept aside for early stopping and calibration; may be empty.
            masks: of objects, by the name of their picture without suffix; see :class:`TrainingSet`.
            folder: of the run; exists.
            progress: shows how far the work is.
            features: folder of what the frozen layers make, where several runs of one recipe but for their pictures
                share it; nothing: in the run's own.

        Raises:
            ValueError: the recipe has a mistake, the weights cannot be read, or the folder holds another run.
        """
        self.recipe, self.classes, self.folder, self._progress = recipe, tuple(classes), folder, progress
        self.history = History()
        self._device = device()
        torch.manual_seed(recipe.seed)
        self.network = build(recipe.architecture, classes, recipe.width).to(self._device)
        self.network.to(memory_format=torch.channels_last)  # half the time of a convolution on a processor
        calibrate(self.network, 1)  # one that cannot be is refused before the work
        chosen = target_layer(self.network)
        layer = convolutions(self.network)[chosen]
        self._card = Card(
            name="endolens",
            version="1.0.0",
            architecture=recipe.architecture,
            width=recipe.width,
            classes=self.classes,
            input_size=recipe.size,
            preprocess=recipe.preprocess,
            test_views=recipe.test_views,
            target_layer=chosen,
        )
        new = list(self.network.state_dict())
        if recipe.weights:
            new = load_pretrained(self.network, recipe.architecture, recipe.weights)
        frozen, learning = split(self.network, recipe.train_from) if recipe.train_from else (None, self.network)
        self._teacher: nn.Module | None = None
        if recipe.teacher == TRUNK:
            self._teacher = Probe(learning, len(classes)).to(self._device)
            pieces(self.network)  # one that has none is refused before the work
            missing = [name for name in new if name.startswith("features.")]
            if missing:
                raise ValueError(f"the trunk cannot teach: {missing[0]} is not pretrained; give --weights that have it")
        elif recipe.teacher:
            same = (classes, recipe.size, recipe.preprocess, self._device)
            self._teacher = open_teacher(Path(recipe.teacher), *same, recipe.train_from, frozen)

        with leader_first():
            claim(folder, recipe, [*examples, *validation], masks)
        pictures = TrainingSet([*examples, *validation], classes, recipe.size, recipe.preprocess, masks, progress)
        self.problems = pictures.problems
        aside = set(validation)
        training = [index for index, example in enumerate(pictures.examples) if example not in aside]
        self._aside = [index for index, example in enumerate(pictures.examples) if example in aside]
        self._draws = Draws(pictures.targets, training, recipe.seed, rank(), ranks())
        self._seen = Views(pictures, IMAGENET_MEAN, IMAGENET_STD)
        seen: Any = self._seen
        self._kept_aside: Any = seen
        if frozen is not None:
            frozen.eval()
            kept = features or folder / FEATURES
            with leader_first():
                if self._aside:
                    self._kept_aside = Features(seen, frozen, self._aside, 1, kept, progress)
                seen = Features(seen, frozen, training, recipe.views, kept, progress)
        batch = max(1, _BATCH // ranks())
        self._loader = DataLoader(seen, batch, sampler=self._draws, drop_last=len(self._draws) > batch)

        guided = recipe.guidance > 0 and layer in set(learning.modules())
        self._learner = Learner(learning, layer if guided else None).to(self._device)
        if isinstance(self._teacher, Probe):
            means, targets = self._shown(self._teacher.means, "Asking the trunk", recipe.views)
            self._teacher.fit(means, targets)
            as_the_leader(self._teacher)
            reading = self._teacher.hand_down(learning, means)
            adopt(self.network, self._shown(self._pooled, "Starting the head", 1)[0], reading)
            # All that is left to learn is where to look; more would disturb what was handed down.
            self.network.requires_grad_(False)
            layer.requires_grad_(True)
        elif isinstance(self.network, VGG) and "classifier.0.weight" in new:
            start(self.network, *self._shown(self._pooled, "Starting the head"))
        self._optimiser = self._make_optimiser(bool(recipe.weights) and len(new) > 0)
        steps = recipe.epochs * len(self._loader)
        rates = [group["lr"] for group in self._optimiser.param_groups]
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimiser, rates, total_steps=steps)

    def run(self, last: int | None = None) -> Card:
        """Train to the end, or to the epoch ``last``, and calibrate.

        Returns:
            The card of :attr:`network`, which is in evaluation mode then.
        """
        loss = Loss(self._draws.weights(), self.recipe.guidance)
        handlers = [TensorBoardStatsHandler(log_dir=str(self.folder), output_transform=_loss_of)] if leads() else []
        trainer = SupervisedTrainer(
            self._device,
            self.recipe.epochs,
            self._loader,
            DistributedDataParallel(self._learner) if ranks() > 1 else self._learner,
            self._optimiser,
            loss,
            prepare_batch=self._prepare_batch,
            train_handlers=handlers,
            amp=self._device.type == "cuda",
            decollate=False,
        )
        left = (self.recipe.epochs - self._resume(trainer)) * len(self._loader)
        ticks = iter(self._progress(range(left), left, "Training"))

        def begin() -> None:
            # So that an epoch is the same whether or not the run was interrupted before it.
            self._draws.epoch = trainer.state.epoch
            torch.manual_seed(self.recipe.seed + trainer.state.epoch)
            loss.parts.clear()

        def step() -> None:
            self._schedule.step()
            next(ticks, None)

        def end() -> None:
            if trainer.state.epoch == last:
                trainer.terminate()
            self._note(trainer, [float(np.mean(part)) for part in zip(*loss.parts, strict=True)])

        def clip() -> None:
            if trainer.scaler:  # of half the bits, gradients are multiplied by what the scaler takes off here
                trainer.scaler.unscale_(self._optimiser)
            nn.utils.clip_grad_norm_(self._learner.parameters(), _LARGEST_GRADIENT)

        trainer.add_event_handler(Events.EPOCH_STARTED, begin)
        trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, clip)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, end)
        if left:
            trainer.run()
        for _ in ticks:
            pass
        return self._finish()

    def _prepare_batch(self, batch: Any, device: torch.device, *_: Any, **__: Any) -> tuple[Tensor, Any]:
        images, (targets, allowed) = batch
        images, taught = images.to(device), None
        if self._teacher:
            mixed = mix(images)
            images = torch.cat([images, mixed])
            taught = ask(self._teacher, images if isinstance(self._teacher, Probe) else mixed)
        return images, (targets.to(device), allowed.to(device), taught)

    def clear(self) -> None:
        """Remove what a finished run needs no more: the state to go on from, and what frozen layers made."""
        for name in (_STATE, _BEST):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / FEATURES, ignore_errors=True)

    def _shown(self, look: Callable[[Tensor], Tensor], label: str, looks: int = _LOOKS) -> tuple[Tensor, Tensor]:
        """What is seen of a few views of every picture, and their classes (N,)."""
        seen: list[Tensor] = []
        classes: list[Tensor] = []
        self._learner.eval()
        with torch.no_grad():
            for self._draws.epoch in range(looks):
                for images, (targets, _) in self._progress(self._loader, len(self._loader), label):
                    seen.append(look(images.to(self._device)))
                    classes.append(targets)
        values = torch.cat(seen).float()
        if not values.isfinite().all():
            raise ValueError("the convolutions put out values that are not finite numbers; the weights are broken")
        return together(values), together(torch.cat(classes).to(self._device))

    def _pooled(self, images: Tensor) -> Tensor:
        """What the fully connected head is given."""
        given: list[Tensor] = []
        head = self.network.get_submodule("classifier")
        hook = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        self._learner(images)
        hook.remove()
        return given[0]

    def _make_optimiser(self, new_head: bool) -> torch.optim.Optimizer:
        last = list(last_layer(self.network).parameters())
        others = [one for one in self._learner.parameters() if all(one is not other for other in last)]
        rate = self.recipe.rate
        groups = [{"params": others, "lr": rate}, {"params": last, "lr": _NEW_LAYER * rate if new_head else rate}]
        return torch.optim.AdamW(groups, weight_decay=_DECAY, fused=True)

    def _note(self, trainer: SupervisedTrainer, losses: list[float]) -> None:
        """Keep what an epoch brought, and stop where nothing has improved for long."""
        if not np.isfinite(losses).all():
            self.clear()  # nothing goes on from here, and another run may take its place
            (self.folder / HISTORY).unlink(missing_ok=True)
            raise ValueError("the loss is no finite number any more; take a lower rate")
        history = self.history
        history.loss.append(losses[0])
        history.astray.append(losses[1])
        if self._aside:
            scores, labels = self._validate()
            shares = 1 / torch.bincount(labels, minlength=len(self.classes)).clamp_min(1)
            weighed = functional.cross_entropy(scores, labels, shares).to(self._device)
            history.validation_loss.append(of_the_leader(weighed).item())
            history.validation_f1.append(self._f1(scores, labels))
            if history.best == trainer.state.epoch:
                with leader_first():  # which all load in the end
                    if leads():
                        self._save(self.folder / _BEST, self._learner.state_dict())
            elif trainer.state.epoch - history.best >= self.recipe.patience:
                trainer.terminate()
        if not leads():
            return
        state = {
            "epoch": trainer.state.epoch,
            "stopped": trainer.should_terminate,
            "history": asdict(history),
            "learner": self._learner.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": trainer.scaler.state_dict() if trainer.scaler else {},
        }
        self._save(self.folder / _STATE, state)
        with whole(self.folder / HISTORY) as partial:
            numbers = {"epoch": trainer.state.epoch, "epochs": self.recipe.epochs, **asdict(history)}
            partial.write_text(json.dumps(numbers), encoding="utf-8")
        plot(history, self.folder / "curves.png")

    def _f1(self, scores: Tensor, labels: Tensor) -> float:
        confusion = confusion_matrix(labels.numpy(), scores.argmax(1).numpy(), len(self.classes))
        return float(summary(confusion)["macro_f1"])

    def _resume(self, trainer: SupervisedTrainer) -> int:
        """Take up the state of an earlier run; the number of epochs that it had done."""
        if not (self.folder / _STATE).is_file():
            return 0
        state = self._load(_STATE)
        self.history = History(**state["history"])
        self._learner.load_state_dict(state["learner"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        if trainer.scaler:
            trainer.scaler.load_state_dict(state["scaler"])
        if state["stopped"]:
            return self.recipe.epochs
        epochs = {"epoch": state["epoch"], "max_epochs": self.recipe.epochs, "epoch_length": len(self._loader)}
        trainer.load_state_dict(epochs)
        return int(state["epoch"])

    def _validate(self) -> tuple[Tensor, Tensor]:
        """Scores (N, classes) and classes (N,) of the pictures kept aside, on the CPU."""
        self._learner.eval()
        return self._ask(lambda images: self._learner(images)[0], self._kept_aside)

    def _try(self) -> tuple[Tensor, Tensor]:
        """As :meth:`_validate`, of the finished network as it will be asked: whole, in its views and in all bits."""
        return self._ask(in_views(self.network, self.recipe.test_views), self._seen, self._progress)

    def _ask(
        self, network: Callable[[Tensor], Tensor], pictures: Any, progress: Progress = silent
    ) -> tuple[Tensor, Tensor]:
        loader = DataLoader(pictures, _BATCH, sampler=[(index, 0) for index in self._aside])
        scores, labels = [], []
        with torch.inference_mode():
            for images, (targets, _) in progress(loader, len(loader), "Calibrating"):
                scores.append(network(images.to(self._device)).cpu())
                labels.append(targets)
        return torch.cat(scores), torch.cat(labels)

    def _finish(self) -> Card:
        found = 1.0
        metrics: dict[str, float] = {}
        if self._aside:
            self._learner.load_state_dict(self._load(_BEST))
        bake(self.network)
        self.network.eval()
        if self._aside:
            scores, labels = self._try()
            found = temperature(labels.numpy(), scores.double().numpy())
            f1 = self._f1(scores, labels)
            metrics = {"validation_macro_f1": f1, "validation_images": len(self._aside)}
        calibrate(self.network, found)
        rounded = {name: round(float(value), 4) for name, value in metrics.items()}
        return replace(self._card, temperature=found, metrics=rounded)

    def _load(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            content = torch.load(path, map_location=self._device, weights_only=True)
        except (MemoryError, torch.OutOfMemoryError, PermissionError):
            raise
        except Exception:  # of a damaged file torch raises nearly anything
            content = None
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{path} is damaged; remove {self.folder / _STATE}, and the run begins anew")
        return content

    @staticmethod
    def _save(path: Path, content: Any) -> None:
        with whole(path) as partial:
            try:
                torch.save(content, partial)
            except RuntimeError:  # torch's, in words of its own
                raise OSError(errno.ENOSPC, "cannot be written; the disk may be full", str(path)) from None
            settle(partial)


def contents(recipe: Recipe, examples: Sequence[Example], masks: Mapping[str, Path]) -> str:
    """What a run is of, as JSON: files by name and by content."""

    def known(path: Path | str) -> list[str]:
        return [str(path), digest(Path(path))] if str(path) else []

    pictures = [
        [*known(one.path), one.frame, one.label, one.region, *known(masks.get(one.path.stem, ""))] for one in examples
    ]
    networks = {name: known(getattr(recipe, name)) for name in ("weights", "teacher")}
    return json.dumps({**asdict(recipe), **networks, "pictures": pictures}, indent=1)


def claim(folder: Path, recipe: Recipe, examples: Sequence[Example], masks: Mapping[str, Path]) -> None:
    """Write into a run's folder what it is of.

    Raises:
        ValueError: something else was learned there.
    """
    content = contents(recipe, examples, masks)
    path = folder / "recipe.json"
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    if path.is_file() and any(any(folder.rglob(name)) for name in (_STATE, HISTORY, "scores.npy")):
        raise ValueError(f"{folder} holds a run with other options or pictures; remove it, or name another folder")
    shutil.rmtree(folder / FEATURES, ignore_errors=True)
    with whole(path) as partial:
        partial.write_text(content, encoding="utf-8")


def _loss_of(output: Any) -> float:
    return float(output["loss"].detach())
