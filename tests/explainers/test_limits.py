"""What a dissection remembers is bounded, what has changed under it is noticed, and what is asked is taken as meant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from explainers import dissect
from explainers.cams import grad_cam
from explainers.dissection import KEPT
from explainers.layers import convolutions


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_many_looks_do_not_fill_the_memory_and_the_latest_are_remembered(network):
    dissection, calls = dissect(network, IMAGES), []

    def method(number):
        def look(activation, gradient):
            calls.append(number)
            return grad_cam(activation, gradient)

        return look

    methods = [method(number) for number in range(KEPT + 10)]
    for one in methods:
        dissection.cam("0", 1, one)
    assert len(dissection._maps) == KEPT
    made = len(calls)
    assert torch.equal(dissection.cam("0", 1, methods[-1]), dissection.grad_cam("0", 1))
    dissection.cam("0", 1, methods[15])
    assert len(calls) == made, "remembered"
    dissection.cam("0", 1, methods[0])
    assert len(calls) == made + 2, "made anew, for both layers"


def test_weights_that_change_between_two_looks_are_noticed(network):
    for look in (lambda seen: seen.grad_cam("0", 1), lambda seen: seen.guided_backprop(1)):
        dissection = dissect(network, IMAGES)
        dissection.grad_cam("0", 0)
        with torch.no_grad():
            network[5].weight.mul_(2)
        with pytest.raises(ValueError, match="have changed since the network was run; dissect it anew"):
            look(dissection)
        look(dissect(network, IMAGES))


def test_a_method_that_works_in_place_is_refused(network):
    dissection = dissect(network, IMAGES)
    with pytest.raises(ValueError, match="must not change the layer's output"):
        dissection.cam("0", 1, lambda activation, gradient: activation.mul_(gradient).sum(1))


@pytest.mark.parametrize("given", [torch.tensor([2, 0]), np.array([2, 0]), (2, 0), [np.int64(2), torch.tensor(0)]])
def test_classes_may_be_a_sequence_a_tensor_or_an_array(network, given):
    dissection = dissect(network, IMAGES)
    made = dissection.grad_cam("2", given)
    for number, target in enumerate((2, 0)):
        assert torch.equal(made[number], dissection.grad_cam("2", target)[number])
    assert torch.equal(dissection.grad_cam("2", torch.tensor(1)), dissection.grad_cam("2", 1))


def test_a_class_by_name_is_refused_in_words(network):
    with pytest.raises(TypeError, match="by its index, not by a name such as 'polyps'"):
        dissect(network, IMAGES).grad_cam("0", "polyps")


def test_one_layer_may_be_given_by_its_name(network):
    assert dissect(network, IMAGES, "2").layers == ("2",)
    with pytest.raises(ValueError, match="there is no layer 'conv'"):
        dissect(network, IMAGES, "conv")


def test_convolutions_of_one_weight_are_one_layer(network):
    network[2] = nn.Conv2d(4, 4, 3)
    tied = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    tied[2].weight = tied[0].weight
    assert list(convolutions(tied)) == ["0"]


@pytest.mark.parametrize(
    "rectify",
    [nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(0, 6), lambda x: x.clamp(min=0, max=6), lambda x: x.clamp(0, 6),
     lambda x: torch.clamp(x, 0, 6), lambda x: torch.nn.functional.relu6(x), lambda x: x.clip(0, 6)],
)  # fmt: skip
def test_what_cuts_off_below_zero_is_guided(rectify):
    # One pixel through four units: closed form. Two are above 0, one below, one above 6.
    weights, out = torch.tensor([1.0, 2.0, -1.0, 9.0]), torch.tensor([1.0, -1.0, 1.0, 1.0])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(1, 4, 1, bias=False), nn.Linear(4, 1, bias=False)

        def forward(self, images):
            return self.last(rectify(self.conv(images)).mean((2, 3)))

    network = Net()
    with torch.no_grad():
        network.conv.weight.copy_(weights.view(4, 1, 1, 1))
        network.last.weight.copy_(out.view(1, 4))
    dissection = dissect(network, torch.ones(1, 1, 2, 2))
    assert dissection.has_rectifiers
    # Only the first unit passes: the second has a negative gradient, the third and fourth are cut off.
    assert torch.allclose(dissection.guided_backprop(0), torch.full((1, 1, 2, 2), 0.25))
    assert torch.equal(dissection.scores, network(torch.ones(1, 1, 2, 2)).detach())


def test_a_clamp_elsewhere_is_left_alone(network):
    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, images):
            return self.last(self.conv(images).clamp(min=-1, max=1).mean((2, 3)))

    assert not dissect(Clamped(), IMAGES).has_rectifiers
