"""The layers of a network that can be looked at, and their names."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from torch import nn
from torchvision.models.vgg import VGG

from explainers.views import shown


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """Name every convolution of a network, in the order of its modules.

    VGG networks get the names of the literature, ``block1_conv1`` … ``block5_conv4``; any other network the module's
    path, e.g. ``layer4.2.conv3``. Convolutions that share one weight are one layer, under the first name. A network in
    several views has the names of the network.
    """
    network = shown(network)
    names: dict[str, nn.Conv2d] = {}
    if isinstance(network, VGG):
        block, number = 1, 0
        for module in network.features:
            if isinstance(module, nn.MaxPool2d):
                block, number = block + 1, 0
            elif isinstance(module, nn.Conv2d):
                number += 1
                names[f"block{block}_conv{number}"] = module
    else:
        names = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    first: dict[nn.Module | nn.Parameter, str] = {}
    for name, layer in names.items():
        first.setdefault(dict(layer.named_parameters(recurse=False)).get("weight", layer), name)
    return {name: names[name] for name in first.values()}


def unknown(kind: str, name: str, known: Collection[str]) -> ValueError:
    """The error for a name that does not exist; it says which ones are near, or else which there are."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) if isinstance(name, str) else []
    if near:
        return ValueError(f"there is no {kind} {name!r}; did you mean {' or '.join(near)}?")
    names = list(known)
    some = ", ".join(names) if len(names) <= 16 else f"{', '.join(names[:3])}, … {', '.join(names[-3:])}"
    return ValueError(f"there is no {kind} {name!r}; there are {some}")
