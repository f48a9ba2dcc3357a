"""Every convolution has a name, and a wrong name leads to the right one."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from explainers.layers import convolutions, unknown


def build(name: str) -> nn.Module:
    """A network of torchvision without memory for its weights."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


@pytest.mark.parametrize(
    ("architecture", "counts"),
    [
        ("vgg11", [1, 1, 2, 2, 2]),
        ("vgg16_bn", [2, 2, 3, 3, 3]),
        ("vgg19", [2, 2, 4, 4, 4]),
        ("vgg19_bn", [2, 2, 4, 4, 4]),
    ],
)
def test_vgg_layers_have_the_names_of_the_literature(architecture, counts):
    network = build(architecture)
    layers = convolutions(network)
    assert list(layers) == [
        f"block{block}_conv{n}" for block, count in enumerate(counts, 1) for n in range(1, count + 1)
    ]
    assert [layers[f"block{block}_conv1"].out_channels for block in range(1, 6)] == [64, 128, 256, 512, 512]
    assert list(layers.values()) == [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("architecture", "count", "one"),
    [
        ("resnet18", 20, "layer4.1.conv2"),
        ("densenet121", 120, "features.denseblock4.denselayer16.conv2"),
        ("mobilenet_v2", 52, "features.18.0"),
        ("mobilenet_v3_small", 52, "features.12.0"),
        ("efficientnet_b0", 81, "features.8.0"),
        ("convnext_tiny", 22, "features.7.2.block.0"),
        ("googlenet", 59, "inception5b.branch4.1.conv"),
    ],
)
def test_other_networks_have_layers_by_module_path_in_the_order_of_their_modules(architecture, count, one):
    network = build(architecture)
    layers = convolutions(network)
    assert len(layers) == count
    assert one in layers
    for name, layer in layers.items():
        assert network.get_submodule(name) is layer
    assert list(layers.values()) == [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_a_vgg_inside_another_network_has_module_paths():
    assert next(iter(convolutions(nn.Sequential(build("vgg11"))))) == "0.features.0"


def test_a_single_convolution_is_a_network_too():
    convolution = nn.Conv2d(1, 1, 1)
    assert list(convolutions(nn.Sequential(convolution)).values()) == [convolution]


def test_what_is_no_convolution_of_pictures_is_not_listed():
    assert convolutions(nn.Sequential(nn.Conv1d(1, 1, 1), nn.Conv3d(1, 1, 1), nn.Linear(1, 1), nn.ReLU())) == {}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("block5_conv5", "block5_conv4"),
        ("block5conv4", "block5_conv4"),
        ("blok1_conv1", "block1_conv1"),
        ("conv5_4", "block5_conv4"),
    ],
)
def test_a_mistyped_layer_leads_to_the_one_that_was_meant(wrong, right):
    assert f"did you mean {right}" in str(unknown("layer", wrong, convolutions(build("vgg19"))))


def test_what_is_like_nothing_gets_a_list_that_is_no_longer_than_a_line_or_two():
    few, many = [f"conv{number}" for number in range(16)], [f"conv{number}" for number in range(17)]
    assert str(unknown("layer", "?", few)) == f"there is no layer '?'; there are {', '.join(few)}"
    assert str(unknown("layer", "?", many)) == (
        "there is no layer '?'; there are conv0, conv1, conv2, … conv14, conv15, conv16"
    )


@given(
    st.text(max_size=30), st.lists(st.text("abc.019_", min_size=1, max_size=12), min_size=1, max_size=30, unique=True)
)
def test_the_error_repeats_what_was_asked_and_names_something_that_there_is(name, known):
    error = unknown("layer", name, known)
    assert isinstance(error, ValueError)
    asked, there_is = str(error).removeprefix(f"there is no layer {name!r}; "), str(error)
    assert asked != there_is
    assert any(one in asked for one in known)
