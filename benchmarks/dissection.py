"""How fast and how frugal explainers.dissection is, side by side with captum, pytorch-grad-cam and the floor."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from captum.attr import GuidedGradCam, LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from explainers.dissection import dissect
from explainers.layers import convolutions
from monai_label_app.classifier.network import build

QUICK_RUNS = 3
"""How often a round measures what takes seconds; what takes minutes it measures once."""

BATCH = 8
STATUS = Path("/proc/self/status")

Contestants = dict[str, Callable[[], float]]
"""Name → a function that runs once and returns the seconds it took."""

Rounds = list[dict[str, float]]
"""The seconds of each contestant in each round."""


@dataclass(frozen=True)
class Measure:
    """One line of the report; ``target`` is a bound on ``value`` from below or, if not ``at_least``, from above."""

    what: str
    value: float
    unit: str
    target: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value keeps to its target."""
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        value, target = f"{self.value:.3g}{self.unit}", f"{'≥' if self.at_least else '≤'} {self.target:g}{self.unit}"
        return f"{self.what:<64}{value:>9}   {target:<8}  {'met' if self.met else 'NOT MET'}"


def seconds(work: Callable[[], object]) -> float:
    """The wall-clock time of one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def floor(network: nn.Module, images: Tensor) -> None:
    """The least that maps of every layer and class can cost: one forward and, for each class, one backward."""
    images = images.clone().requires_grad_()
    scores = network(images)
    for target in range(scores.shape[1]):
        torch.autograd.grad(scores[:, target].sum(), images, retain_graph=True)


def grad_cams(network: nn.Module, images: Tensor) -> None:
    """Ours: Grad-CAM of every layer and class."""
    list(dissect(network, images).maps("grad-cam"))


def full_set(network: nn.Module, images: Tensor, *, of_class: bool) -> None:
    """Ours: Grad-CAM and guided Grad-CAM of every layer and class, and what guides it."""
    dissection = dissect(network, images)
    for layer, target, _ in dissection.maps("grad-cam"):
        dissection.guided_grad_cam(str(layer), int(target or 0), of_class=of_class)


def second_layer(network: nn.Module, images: Tensor) -> float:
    """Ours: the seconds that another layer of a class takes after one was seen."""
    dissection = dissect(network, images)
    first, *_, last = dissection.layers
    dissection.grad_cam(last, 0)
    return seconds(lambda: dissection.grad_cam(first, 0))


def out_of_place(network: nn.Module) -> nn.Module:
    """The same network on the same parameters, with no ReLU in place: captum raises on those of torchvision."""
    twin = copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return twin


def captum_pairs(method: type[LayerGradCam | GuidedGradCam], network: nn.Module, image: Tensor, classes: int) -> None:
    """Captum, as its documentation shows it: each layer and class by itself."""
    image = image.clone().requires_grad_()
    for layer, target in itertools.product(convolutions(network).values(), range(classes)):
        options = {"relu_attributions": True} if method is LayerGradCam else {}
        method(network, layer).attribute(image, target, **options)


def pytorch_grad_cam_pairs(network: nn.Module, image: Tensor, classes: int) -> None:
    """The same by pytorch-grad-cam, with one CAM object a layer."""
    for layer in convolutions(network).values():
        with GradCAM(network, [layer]) as cam:
            for target in range(classes):
                cam(image, [ClassifierOutputTarget(target)])


def race(rounds: int) -> tuple[Rounds, list[float]]:
    """Measure every contestant in turn, round after round.

    Returns:
        The rounds, and every single time of the floor, for the noise.
    """
    network, image = _network_and_image()
    classes = len(network(image)[0])
    batch = torch.randn(BATCH, *image.shape[1:])
    twin = out_of_place(network)

    def pytorch_grad_cam() -> float:
        taken = seconds(lambda: pytorch_grad_cam_pairs(network, image, classes))
        network.zero_grad()  # it leaves the gradients of all weights behind
        return taken

    quick: Contestants = {
        "floor": lambda: seconds(lambda: floor(network, image)),
        "grad-cam": lambda: seconds(lambda: grad_cams(network, image)),
        "full set, saliency": lambda: seconds(lambda: full_set(network, image, of_class=False)),
        "full set, guided backprop": lambda: seconds(lambda: full_set(network, image, of_class=True)),
        "second layer": lambda: second_layer(network, image),
        "floor, a frame of a batch": lambda: seconds(lambda: floor(network, batch)) / BATCH,
        "grad-cam, a frame of a batch": lambda: seconds(lambda: grad_cams(network, batch)) / BATCH,
    }
    slow: Contestants = {
        "captum LayerGradCam": lambda: seconds(lambda: captum_pairs(LayerGradCam, twin, image, classes)),
        "captum GuidedGradCam": lambda: seconds(lambda: captum_pairs(GuidedGradCam, twin, image, classes)),
        "pytorch-grad-cam": pytorch_grad_cam,
    }
    turns = [*quick.items()] * QUICK_RUNS + [*slow.items()]
    # The first of all is the warm-up. The slow ones need none: 128 pairs each hide what only the first one costs.
    plan = [(0, *turn) for turn in quick.items()] + [(n, *turn) for n in range(1, rounds + 1) for turn in turns]
    taken: list[dict[str, list[float]]] = [{} for _ in range(rounds + 1)]
    with click.progressbar(plan, file=sys.stderr, item_show_func=lambda step: step and step[1]) as steps:
        for number, name, run in steps:
            taken[number].setdefault(name, []).append(run())
    measured = taken[1:]
    medians = [{name: statistics.median(times) for name, times in times_of.items()} for times_of in measured]
    return medians, [time for times_of in measured for time in times_of["floor"]]


def memory_of(work: str) -> tuple[float, float]:
    """What fresh processes that do one work hold at their peak, in kB: all of it, and beyond the loaded network."""
    command = [sys.executable, __file__, "--memory", work]
    runs = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(QUICK_RUNS)]
    return statistics.median(peak for peak, _ in runs), statistics.median(peak - loaded for peak, loaded in runs)


def measure_memory(work: str) -> tuple[int, int]:
    """Do one work in this process and say, in kB, what was resident at the peak, and with the network just loaded."""
    network, image = _network_and_image()

    def input_gradient(images: Tensor = image) -> None:
        images = images.clone().requires_grad_()
        torch.autograd.grad(network(images)[0, 0], images)

    input_gradient(image[..., :32, :32])  # what torch takes once, whatever the work
    STATUS.with_name("clear_refs").write_text("5")  # forget the peak of loading
    loaded = _status("VmRSS")
    {
        "input gradient": input_gradient,
        "training step": lambda: network(image)[0, 0].backward(),
        "grad-cam": lambda: grad_cams(network, image),
    }[work]()
    return _status("VmHWM"), loaded


def speed_measures(rounds: Rounds) -> list[Measure]:
    """Compare times; a ratio is the median of the rounds' ratios."""

    def ratio(of: str, to: str) -> float:
        return statistics.median(times[of] / times[to] for times in rounds)

    quicker = [
        ("Grad-CAM, all pairs: than captum's LayerGradCam", "captum LayerGradCam", "grad-cam", 20),
        ("Grad-CAM, all pairs: than pytorch-grad-cam", "pytorch-grad-cam", "grad-cam", 60),
        ("Full set by layers' saliency: than captum's GuidedGradCam", "captum GuidedGradCam", "full set, saliency", 25),
        ("Full set by guided backprop: than the same", "captum GuidedGradCam", "full set, guided backprop", 25),
        (f"Grad-CAM, a frame of a batch of {BATCH}: than a frame alone", "grad-cam", "grad-cam, a frame of a batch", 1),
    ]
    frame = "a frame of a batch"
    return [
        Measure("Grad-CAM, all pairs: the floor's time", ratio("grad-cam", "floor"), "×", 1.15),
        Measure(
            f"The same, batch of {BATCH}: the floor's time", ratio(f"grad-cam, {frame}", f"floor, {frame}"), "×", 1.15
        ),
        *(Measure(f"Faster: {what}", ratio(of, to), "×", target, at_least=True) for what, of, to, target in quicker),
        Measure("Second layer of a class", 1000 * statistics.median(t["second layer"] for t in rounds), " ms", 50),
    ]


def memory_measures() -> list[Measure]:
    """Compare peaks: of the whole process, and what comes on top of the loaded network."""
    if not STATUS.exists():
        return []  # only Linux says
    ours = memory_of("grad-cam")
    return [
        Measure(f"Peak memory, {what}: of a plain {plain}'s", mine / theirs, "×", 1.5)
        for plain in ("input gradient", "training step")
        for what, mine, theirs in zip(("whole process", "beyond the network"), ours, memory_of(plain), strict=True)
    ]


def _network_and_image() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return build("vgg19"), torch.randn(1, 3, 224, 224)


def _status(key: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(key))


def _spread(times: Sequence[float]) -> float:
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / statistics.median(times)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Each takes some minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--memory", hidden=True, help="Of this work in this process.")
def main(rounds: int, as_json: bool, memory: str | None) -> None:
    """Measure all layers and classes of one 224 × 224 frame with VGG-19, random weights, against the others.

    \b
    Example:
      python benchmarks/dissection.py --rounds 1
    """
    warnings.filterwarnings("ignore", module="captum")
    if memory:
        click.echo(json.dumps(measure_memory(memory)))
        return
    memories = memory_measures()
    medians, floors = race(rounds)
    measures = speed_measures(medians) + memories
    times = {name: statistics.median(times[name] for times in medians) for name in medians[0]}
    machine = (
        f"{os.cpu_count()} CPUs ({platform.machine()}), torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    noise = _spread(floors)
    if as_json:
        lines = [{**vars(measure), "met": measure.met} for measure in measures]
        report = {"machine": machine, "rounds": rounds, "noise": noise, "seconds": times, "measures": lines}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    click.echo(f"{machine}; rounds: {rounds}")
    click.echo(f"Noise: the middle half of {len(floors)} times of the floor spreads over {noise:.0%} of their median\n")
    for measure in measures:
        click.echo(measure)
    click.echo("\nMedian seconds: " + ", ".join(f"{name} {taken:.3g}" for name, taken in times.items()))


if __name__ == "__main__":
    main()
