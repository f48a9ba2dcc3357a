"""The networks that EndoLens serves: VGG-19 by default, any torchvision classification network by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from explainers import dissect
from explainers.layers import convolutions, unknown
from explainers.views import AS_IT_IS, ManyViews, View

KVASIR_CLASSES = (
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "esophagitis",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "polyps",
    "ulcerative-colitis",
)
"""The classes of Kvasir v2, in the alphabetical order in which its folders are read."""

_VGG_CONFIGURATIONS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


Width = float | tuple[float, ...]
"""Factor on the channels of every layer; or one for each block of convolutions, and one for the linear layers."""


def build(architecture: str = "vgg19", classes: Sequence[str] = KVASIR_CLASSES, width: Width = 1.0) -> nn.Module:
    """Build a network with random weights, in evaluation mode.

    Args:
        architecture: name of a torchvision classification network, e.g. ``vgg19``, ``vgg19_bn``, ``resnet50``.
        classes: one output a class, in this order.
        width: VGG only. Below 1 it makes a smaller network of the same depth.

    Raises:
        ValueError: no such network, no class, or a width that this network does not have.
    """
    if not classes:
        raise ValueError("a classifier needs at least one class")
    if architecture not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"there is no torchvision classification network {architecture!r}; try vgg19 or resnet50")
    if width == 1:
        # Two networks warn, at length, unless told how to start.
        options = {"init_weights": True} if architecture in ("googlenet", "inception_v3") else {}
        network = torchvision.models.get_model(architecture, weights=None, num_classes=len(classes), **options)
    else:
        network = _narrow_vgg(architecture, len(classes), width)
    return network.eval()


def _narrow_vgg(architecture: str, outputs: int, width: Width) -> VGG:
    plain = architecture.removesuffix("_bn")
    if plain not in _VGG_CONFIGURATIONS:
        raise ValueError(f"width {width} is for VGG networks; {architecture} has width 1")
    layers = cfgs[_VGG_CONFIGURATIONS[plain]]
    parts = layers.count("M") + 1
    widths = width if isinstance(width, tuple) else (width,) * parts
    if len(widths) != parts or not all(factor > 0 for factor in widths):
        raise ValueError(f"width {width} is neither a factor above 0 nor {parts}: of {parts - 1} blocks and the head")

    def scaled(channels: int, factor: float) -> int:
        return max(1, round(channels * factor))

    configuration: list[str | int] = []
    block = 0
    for size in layers:
        configuration.append(size if isinstance(size, str) else scaled(size, widths[block]))
        block += size == "M"
    features = make_layers(configuration, batch_norm=architecture.endswith("_bn"))
    # The full-size classifier, 100 million weights that are replaced at once, need not exist.
    with torch.device("meta"):
        network = VGG(features, num_classes=outputs)
    hidden = scaled(4096, widths[-1])
    # A narrow head has little to spare.
    left_out = 0.5 * min(1.0, widths[-1])
    network.classifier = nn.Sequential(
        nn.Linear(scaled(512, widths[-2]) * 7 * 7, hidden),
        nn.ReLU(True),
        nn.Dropout(left_out),
        nn.Linear(hidden, hidden),
        nn.ReLU(True),
        nn.Dropout(left_out),
        nn.Linear(hidden, outputs),
    )
    return network


def load_pretrained(network: nn.Module, architecture: str, weights: str | Path) -> list[str]:
    """Copy pretrained weights into a network wherever name and shape agree; into narrower layers the strongest part.

    Args:
        network: changed in place.
        architecture: the torchvision name that the network was built from.
        weights: ``imagenet`` (torchvision's own download) or a safetensors file in torchvision's names.

    Returns:
        The names of the parameters that the weights do not cover and that stay as they were (the head, usually).

    Raises:
        ValueError: the weights cannot be had, or share nothing with this network.
    """
    state: dict[str, Tensor]
    if str(weights) == "imagenet":
        try:
            state = torchvision.models.get_model_weights(architecture).DEFAULT.get_state_dict(check_hash=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"the ImageNet weights of {architecture} cannot be downloaded: {error}") from error
    else:
        try:
            state = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{weights} is not a readable safetensors file: {error}") from error
    own = network.state_dict()
    state = _narrowed(state, network)
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"{weights} has no weights that fit {architecture}")
    network.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def _narrowed(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights of a VGG network with, where another's convolutions are narrower, their channels of the largest weights.

    Source: for the measure, Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """
    made = dict(state)
    if not isinstance(network, VGG):
        return made
    kept = torch.arange(3)
    for name, layer in network.named_modules():
        weight, bias = (made.get(f"{name}.{part}") for part in ("weight", "bias"))
        if not isinstance(layer, nn.Conv2d) or weight is None or bias is None or weight.shape[1] <= int(kept.max()):
            continue
        weight = weight[:, kept]
        strongest = weight.flatten(1).norm(dim=1).topk(min(layer.out_channels, len(weight))).indices
        kept = strongest.sort().values
        made[f"{name}.weight"], made[f"{name}.bias"] = weight[kept], bias[kept]
    return made


TEST_VIEWS: tuple[View, ...] = (
    AS_IT_IS,
    ((0.0, 1 / 1.15), (1 / 1.15, 0.0)),
    ((-1 / 1.1, 0.0), (0.0, -1 / 1.1)),
    ((1 / 1.15, 0.0), (0.0, -1 / 1.15)),
)
"""What a classifier may be asked: a frame as it is, mirrored at its diagonal, turned by half, and mirrored top to
bottom, the last three a little enlarged."""


def in_views(network: nn.Module, count: int) -> nn.Module:
    """A network that answers with the mean over the first of :data:`TEST_VIEWS`; for one view the network itself."""
    return network if count == 1 else ManyViews(network, TEST_VIEWS[:count])


def calibrate(network: nn.Module, temperature: float) -> None:
    """Divide a network's class scores by a temperature, in its weights, so that their softmax is calibrated.

    Which class is the most probable does not change, and a Grad-CAM only by the same factor.

    Args:
        network: changed in place. Its last module with weights must be the linear layer that puts out the scores, as in
            torchvision's networks but SqueezeNet.
        temperature: above 0; see :func:`monai_label_app.classifier.metrics.temperature`.

    Raises:
        ValueError: the temperature is not above 0, or the network ends in another kind of layer.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"a temperature must be above 0, not {temperature:g}")
    last = last_layer(network)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)


def last_layer(network: nn.Module) -> nn.Linear:
    """The layer that puts out the class scores.

    Raises:
        ValueError: it is no linear one.
    """
    last = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None][-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"only a network that ends in a linear layer can be calibrated, not in {type(last).__name__}")
    return last


HEAD = "head"
"""What :func:`split` calls the last part of any network."""


def target_layer(network: nn.Module) -> str:
    """The last convolution that runs: googlenet's and inception's last modules take part in training alone."""
    return dissect(network, torch.zeros(1, 3, 299, 299)).layers[-1]


def split(network: nn.Module, first: str) -> tuple[nn.Module, nn.Module]:
    """Divide a network before a layer, into what comes before and the rest; both share its weights.

    Args:
        network: of torchvision.
        first: a convolution of a VGG network, or :data:`HEAD` for the last module of any network.

    Raises:
        ValueError: no such layer, or nothing lies before it.
    """
    if first == HEAD:
        *_, name = network._modules
        before = copy.copy(network)
        before._modules = {**network._modules, name: nn.Identity()}
        return before, network.get_submodule(name)
    if not isinstance(network, VGG):
        raise ValueError(f"{type(network).__name__} can be divided before its head alone, not before {first}")
    layers = convolutions(network)
    if first not in layers:
        raise unknown("layer", first, layers)
    modules = list(network.features)
    place = modules.index(layers[first])
    if not place:
        raise ValueError(f"{first} is the first layer; nothing lies before it")
    rest = nn.Sequential(*modules[place:], network.avgpool, nn.Flatten(), network.classifier)
    return nn.Sequential(*modules[:place]), rest
