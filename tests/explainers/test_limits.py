"""What a dissection remembers is bounded, what has changed under it is noticed, and what is asked is taken as meant."""

from __future__ import annotations

import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from explainers import dissect
from explainers.cams import grad_cam
from explainers.dissection import KEPT, METHODS
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


def test_a_network_that_is_moved_between_two_looks_is_noticed(network):
    dissection = dissect(network, IMAGES)
    dissection.grad_cam("0", 0)
    network.double()
    with pytest.raises(ValueError, match="have changed since the network was run; dissect it anew"):
        dissection.grad_cam("0", 1)


@pytest.mark.parametrize(
    "method",
    [
        lambda activation, gradient: activation.mul_(gradient).sum(1),
        lambda activation, gradient: gradient.mul_(activation).sum(1),
        lambda activation, gradient: (gradient.relu_() * activation).sum(1),
    ],
)
def test_a_method_that_works_in_place_is_refused(network, method):
    dissection = dissect(network, IMAGES)
    with pytest.raises(ValueError, match="must not change the layer's output or gradient"):
        dissection.cam("0", 1, method)


def test_a_method_that_returns_a_part_of_the_gradient_does_not_keep_the_rest(network):
    gradients = []

    def method(activation, gradient):
        gradients.append(weakref.ref(gradient))
        return gradient[:, 0]

    made = dissect(network, IMAGES).cam("0", 1, method)
    assert made._base is None
    assert len(gradients) == 2
    assert not [gradient for gradient in gradients if gradient() is not None]


@pytest.mark.parametrize(
    ("returned", "said"), [(None, "NoneType"), (np.zeros((2, 6, 6)), "ndarray"), (torch.zeros(2, 5, 5), "(2, 5, 5)")]
)
def test_a_method_that_returns_no_map_is_refused(network, returned, said):
    with pytest.raises(ValueError, match=f"a map must be a tensor of .*, not {re.escape(said)}"):
        dissect(network, IMAGES).cam("0", 1, lambda activation, gradient: returned)


@pytest.mark.parametrize(
    ("change", "settle"),
    [
        (lambda layer: prune.l1_unstructured(layer, "weight", 0.3), lambda layer: prune.remove(layer, "weight")),
        (nn.utils.weight_norm, nn.utils.remove_weight_norm),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
        (nn.utils.parametrizations.weight_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_layers_whose_weights_are_made_at_each_pass_are_seen(network, change, settle):
    network.eval()
    for layer in (network[0], network[2]):
        change(layer)

    def look(name):
        return dissect(network, IMAGES).cam(name, 1, lambda activation, gradient: (activation * gradient).sum(1))

    found = {name: look(name) for name in ("0", "2")}
    for layer in (network[0], network[2]):
        settle(layer)
    for name, made in found.items():
        assert made.any()
        torch.testing.assert_close(made, look(name))


@pytest.mark.parametrize("given", [torch.tensor([2, 0]), np.array([2, 0]), (2, 0), [np.int64(2), torch.tensor(0)]])
def test_classes_may_be_a_sequence_a_tensor_or_an_array(network, given):
    dissection = dissect(network, IMAGES)
    made = dissection.grad_cam("2", given)
    for number, target in enumerate((2, 0)):
        assert torch.equal(made[number], dissection.grad_cam("2", target)[number])
    assert torch.equal(dissection.grad_cam("2", torch.tensor(1)), dissection.grad_cam("2", 1))


def test_a_class_that_is_no_index_is_refused_in_words(network):
    for given in ("polyps", b"polyps", True, [True, False], torch.tensor([True, False]), 1.0, torch.tensor([0.0, 1])):
        with pytest.raises(TypeError, match="by its index, an integer, and not by"):
            dissect(network, IMAGES).grad_cam("0", given)


def test_one_layer_may_be_given_by_its_name(network):
    assert dissect(network, IMAGES, "2").layers == ("2",)
    with pytest.raises(ValueError, match="there is no layer 'conv'"):
        dissect(network, IMAGES, "conv")


def test_layers_may_come_one_by_one(network):
    assert dissect(network, IMAGES, (name for name in ("0", "2"))).layers == ("0", "2")


def test_maps_of_what_does_not_exist_are_refused_whatever_the_method(network):
    dissection = dissect(network, IMAGES)
    assert [target for _, target, _ in dissection.maps(layers="0", targets=1)] == [1]
    for method in METHODS:
        with pytest.raises(ValueError, match="no layer 'nope'"):
            next(dissection.maps(method, layers=["0", "nope"]))
        with pytest.raises(ValueError, match="no class 9"):
            next(dissection.maps(method, targets=[0, 9]))


def test_what_is_not_finite_is_an_error_and_no_blank_map(network):
    with pytest.raises(ValueError, match=r"the map has values that are not finite"):
        dissect(network, IMAGES).cam("0", 1, lambda activation, gradient: activation[:, 0] / 0)
    with torch.no_grad():
        network[2].bias[0] = -torch.inf  # which the ReLU hides from the scores
    assert network(IMAGES).isfinite().all()
    for look in (lambda seen: seen.grad_cam("0", 1), lambda seen: seen.guided_backprop(1)):
        with pytest.raises(ValueError, match="2 puts out values that are not finite numbers"):
            look(dissect(network, IMAGES))


def test_a_network_without_weights_yet_is_refused_in_words():
    with pytest.raises(ValueError, match="without weights yet"):
        dissect(nn.Sequential(nn.LazyConv2d(4, 3)), IMAGES)


def test_images_without_values_and_networks_without_gradients_are_refused_in_words(network):
    for images in (IMAGES.to_sparse(), IMAGES.to("meta")):
        with pytest.raises(TypeError, match="neither sparse nor on the meta device"):
            dissect(network, images)
    with torch.inference_mode():
        made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match=r"made under torch\.inference_mode"):
        dissect(made, IMAGES)


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
