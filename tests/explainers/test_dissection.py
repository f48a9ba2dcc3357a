"""Grad-CAM against a closed form and against an independent implementation with hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from torch import Tensor, nn

from explainers import dissect
from explainers.layers import convolutions


def gap_network(classes: int = 3) -> nn.Sequential:
    """A convolution, global average pooling, a linear layer: its Grad-CAM is known in closed form."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, classes)
    ).eval()


def hooked_grad_cams(network: nn.Module, images: Tensor, targets: list[int]) -> dict[str, Tensor]:
    """Grad-CAM of every layer as others write it: hooks, on a copy of the network without in-place activations."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    kept: dict[str, Tensor] = {}
    for name, module in convolutions(network).items():
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.update({name: output}))
    score = network(images)[range(len(images)), targets].sum()
    gradients = torch.autograd.grad(score, list(kept.values()))
    return {
        name: torch.einsum("nchw,nc->nhw", activation, gradient.mean(dim=(2, 3))).relu().detach()
        for (name, activation), gradient in zip(kept.items(), gradients, strict=True)
    }


# The deeper two take their time.
_NETWORKS = [
    "vgg11",
    "resnet18",
    "mobilenet_v3_small",
    pytest.param("densenet121", marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=_NETWORKS)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = torchvision.models.get_model(request.param, weights=None, num_classes=4).eval()
        yield network, torch.randn(2, 3, 48, 48)


def assert_same_map(got: Tensor, expected: Tensor) -> None:
    # An absolute tolerance on the map's own scale: cancellation in the weighted sum leaves nothing finer.
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_grad_cam_equals_the_closed_form_of_global_average_pooling():
    network, images = gap_network(), torch.randn(4, 3, 9, 7)
    cam = dissect(network, images).grad_cam("0", 2)
    activation = network[0](images)
    expected = torch.einsum("nkhw,k->nhw", activation, network[3].weight[2]).relu() / (9 * 7)
    assert expected.max() > 0
    torch.testing.assert_close(cam, expected.detach())


def test_scores_and_probabilities_are_those_of_the_plain_forward_pass(case):
    network, images = case
    dissection = dissect(network, images)
    with torch.no_grad():
        plain = network(images)
    assert torch.equal(dissection.scores, plain)
    torch.testing.assert_close(dissection.probabilities, plain.exp() / plain.exp().sum(dim=1, keepdim=True))
    assert not dissection.scores.requires_grad


def test_grad_cam_equals_hooks_at_every_convolution(case):
    network, images = case
    dissection = dissect(network, images)
    for targets in ([0, 0], [3, 1]):
        expected = hooked_grad_cams(network, images, targets)
        assert set(dissection.layers) == set(expected)
        assert sum(float(cam.max()) > 0 for cam in expected.values()) >= 5
        for layer, cam in expected.items():
            assert_same_map(dissection.grad_cam(layer, targets), cam)


def test_a_convolution_followed_by_an_activation_in_place_keeps_its_own_output():
    for activation in (nn.ReLU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.LeakyReLU, nn.ELU):
        network = gap_network()
        network.insert(1, activation(inplace=True))
        images = torch.randn(2, 3, 8, 8)
        cam = dissect(network, images).grad_cam("0", 1)
        assert_same_map(cam, hooked_grad_cams(network, images, [1, 1])["0"])


def test_a_batch_gives_what_single_images_give(case):
    network, images = case
    layers = convolutions(network)
    last = list(layers)[-1]
    together = dissect(network, images)
    for index, image in enumerate(images):
        alone = dissect(network, image)
        torch.testing.assert_close(together.scores[index], alone.scores[0], rtol=1e-4, atol=1e-5)
        assert_same_map(together.grad_cam(last, 2)[index], alone.grad_cam(last, 2)[0])


def test_the_network_is_left_as_it_was(case):
    network, images = case
    parameters = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    in_place = [getattr(module, "inplace", None) for module in network.modules()]
    images_before = images.clone()
    layers = convolutions(network)
    dissect(network, images).grad_cam(next(iter(layers)), 0)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in parameters.items())
    assert [getattr(module, "inplace", None) for module in network.modules()] == in_place
    assert not any(module.training for module in network.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(images, images_before)
    assert not images.requires_grad


def test_a_frozen_network_under_no_grad_is_explained_all_the_same():
    network, images = gap_network(), torch.randn(1, 3, 8, 8)
    expected = hooked_grad_cams(network, images, [0])["0"]
    network.requires_grad_(False)
    with torch.no_grad():
        cam = dissect(network, images).grad_cam("0", 0)
    assert_same_map(cam, expected)


def test_nothing_that_speaks_for_a_class_leaves_the_map_all_zero():
    network = gap_network()
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias.abs_()
        network[3].weight[1] = -1  # all evidence speaks against class 1
        network[3].weight[0] = 0  # and none at all for or against class 0
    dissection = dissect(network, torch.rand(2, 3, 8, 8))
    assert torch.equal(dissection.grad_cam("0", 1), torch.zeros(2, 8, 8))
    assert torch.equal(dissection.grad_cam("0", 0), torch.zeros(2, 8, 8))


def test_layers_are_listed_in_the_order_of_the_forward_pass():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    backwards = reversed(convolutions(network))
    assert dissect(network, torch.rand(1, 3, 4, 4), list(backwards)).layers == ("0", "1")


@pytest.mark.parametrize("target", [-1, 3, [0, 3], [0], [0, 1, 2]])
def test_a_class_that_does_not_exist_is_refused(target):
    network = gap_network(classes=3)
    dissection = dissect(network, torch.rand(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"class|targets"):
        dissection.grad_cam("0", target)


def test_a_layer_that_does_not_exist_is_refused():
    network = gap_network()
    dissection = dissect(network, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="no layer 'block9'; there are 0"):
        dissection.grad_cam("block9", 0)


def test_a_network_in_training_mode_is_run_in_evaluation_mode_and_put_back():
    network = gap_network()
    network.insert(1, nn.BatchNorm2d(5))
    network.insert(2, nn.Dropout(0.9))
    images = torch.rand(2, 3, 8, 8)
    expected = dissect(network.eval(), images).grad_cam("0", 0)
    network.train()
    network[1].eval()
    assert torch.equal(dissect(network, images).grad_cam("0", 0), expected)
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert network.training
    assert network[1].num_batches_tracked == 0


def test_two_threads_on_one_network_do_not_disturb_each_other():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = torchvision.models.vgg11(num_classes=4).eval()
        batches = torch.randn(6, 1, 3, 48, 48)
    layers = convolutions(network)
    last = list(layers)[-1]

    def explain(number: int) -> Tensor:
        return dissect(network, batches[number], layers).grad_cam(last, number % 4)

    alone = [explain(number) for number in range(6)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(explain, [*range(6), *range(6)]))
    assert max(float(cam.max()) for cam in alone) > 0
    for number, cam in enumerate(together):
        assert_same_map(cam, alone[number % 6])


def test_two_threads_may_ask_one_dissection():
    network = gap_network(classes=8)
    images = torch.randn(1, 3, 16, 16)
    dissection = dissect(network, images)
    with ThreadPoolExecutor(2) as pool:
        cams = list(pool.map(lambda target: dissection.grad_cam("0", target), [*range(8), *range(8)]))
    for number, cam in enumerate(cams):
        assert_same_map(cam, hooked_grad_cams(network, images, [number % 8])["0"])


def test_broken_weights_are_refused() -> None:
    network = gap_network(classes=3)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        dissect(network, torch.rand(1, 3, 8, 8)).grad_cam("0", 0)
