"""Every method against captum, pytorch-grad-cam, plain hooks and closed forms, on random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from explainers import Dissection, dissect
from explainers.cams import grad_cam, hires_cam
from explainers.layers import convolutions

# Captum says so on every call of its guided backpropagation.
pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward|backward)", "ignore:Input Tensor")

TARGETS = [3, 1]
NETWORKS = ["vgg11", "resnet18", "mobilenet_v3_small"]
SLOW_NETWORKS = ["densenet121", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        yield


def build(name: str) -> nn.Module:
    if name != "vgg11":
        return torchvision.models.get_model(name, weights=None, num_classes=4).eval()
    # Its own head has 120 million weights.
    with torch.device("meta"):
        network = VGG(nn.Sequential(), num_classes=4)
    network.features = make_layers(cfgs["A"])
    network.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 32), nn.ReLU(inplace=True), nn.Linear(32, 4))
    return network.eval()


class PlainDenseNet(nn.Module):
    """DenseNet with its last ReLU, a function, as a module: other implementations see modules only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network.features
        self.rest = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classifier)

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.features(images))


def not_in_place(network: nn.Module) -> nn.Module:
    """A copy that other implementations can work on."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):  # which captum guides only so
                setattr(module, name, nn.Sequential(nn.ReLU(), nn.Hardtanh(-1, 6)))
    return PlainDenseNet(network) if isinstance(network, torchvision.models.DenseNet) else network


@dataclass
class Case:
    network: nn.Module
    images: Tensor
    dissection: Dissection
    plain: nn.Module

    def some_layers(self) -> list[tuple[str, nn.Module]]:
        """The first, the last, and two between."""
        ours, theirs = list(convolutions(self.network)), list(convolutions(self.plain).values())
        return [(ours[index], theirs[index]) for index in np.linspace(0, len(ours) - 1, 4).astype(int)]


@pytest.fixture(
    scope="module", params=[*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NETWORKS)]
)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = build(request.param)
        images = torch.randn(2, 3, 64, 64)
    yield Case(network, images, dissect(network, images), not_in_place(network))


def assert_same(got: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Same to float tolerance; without a tolerance of its own, one on the scale of what is expected."""
    expected = expected.detach().float()
    assert got.dtype == torch.float32
    tolerance = 2e-5 * float(expected.abs().max()) if tolerance is None else tolerance
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=tolerance)


def rounding(activation: Tensor, gradient: Tensor) -> float:
    """What is lost where the terms of a map cancel, as in front of a LayerNorm, whose HiRes-CAM is zero."""
    return 5e-7 * float((activation.abs() * gradient.abs()).sum(dim=1).max().detach())


def test_scores_are_bit_for_bit_those_of_the_plain_forward_pass(case):
    with torch.no_grad():
        plain = case.network(case.images)
    assert torch.equal(case.dissection.scores, plain)
    torch.testing.assert_close(case.dissection.probabilities, plain.exp() / plain.exp().sum(dim=1, keepdim=True))
    assert not case.dissection.scores.requires_grad


@pytest.mark.slow
def test_grad_cam_and_hires_cam_equal_plain_hooks_at_every_convolution(case):
    kept: dict[str, Tensor] = {}
    network = copy.deepcopy(case.plain)
    for name, module in zip(convolutions(case.network), convolutions(network).values(), strict=True):
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.update({name: output}))
    gradients = torch.autograd.grad(network(case.images)[range(2), TARGETS].sum(), list(kept.values()))
    assert case.dissection.layers == tuple(kept)
    visible = 0
    for (name, activation), gradient in zip(kept.items(), gradients, strict=True):
        tolerance = rounding(activation, gradient)
        weighted = torch.einsum("nchw,nc->nhw", activation, gradient.mean(dim=(2, 3))).relu()
        assert_same(case.dissection.cam(name, TARGETS, grad_cam), weighted, tolerance)
        pointwise = torch.einsum("nchw,nchw->nhw", activation, gradient).relu()
        assert_same(case.dissection.cam(name, TARGETS, hires_cam), pointwise, tolerance)
        visible += int(weighted.max() > 100 * tolerance) + int(pointwise.max() > 100 * tolerance)
    assert visible > len(kept)  # more than half of the maps stand far above the tolerance


def test_grad_cam_equals_captum(case):
    shown = 0.0
    for name, module in case.some_layers():
        (theirs,) = LayerGradCam(case.plain, module).attribute(case.images, TARGETS, relu_attributions=True).split(1, 1)
        assert_same(case.dissection.grad_cam(name, TARGETS), theirs[:, 0])
        shown = max(shown, float(theirs.detach().max()))
    assert shown > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "implementation"), [(grad_cam, GradCAM), (hires_cam, HiResCAM)], ids=["grad-cam", "hires-cam"]
)
def test_class_activation_maps_equal_pytorch_grad_cam(case, method, implementation):
    network, shown = copy.deepcopy(case.plain), 0.0
    modules = list(convolutions(network).values())
    targets = [ClassifierOutputTarget(target) for target in TARGETS]
    for name, _ in case.some_layers():
        layer = modules[list(convolutions(case.network)).index(name)]
        with implementation(model=network, target_layers=[layer]) as theirs:
            scores = theirs.activations_and_grads(case.images)
            sum(target(row) for target, row in zip(targets, scores, strict=True)).backward()
            kept = theirs.activations_and_grads
            activation, gradient = kept.activations[0], kept.gradients[0]
            raw = theirs.get_cam_image(case.images, layer, targets, activation.numpy(), gradient.numpy(), False)
        expected, tolerance = torch.from_numpy(np.maximum(raw, 0)), rounding(activation, gradient)
        assert_same(case.dissection.cam(name, TARGETS, method), expected, tolerance)
        shown = max(shown, float(expected.max()) / tolerance)
    assert shown > 100


@pytest.mark.parametrize(("method", "implementation"), [(grad_cam, GradCAM), (hires_cam, HiResCAM)])
def test_a_map_at_the_size_of_the_image_equals_the_picture_that_pytorch_grad_cam_returns(method, implementation):
    network, images = build("vgg11"), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.classifier[-1].weight.mul_(1e9)  # they add 1e-7 to a map's maximum before they divide by it
    plain = not_in_place(network)
    with implementation(model=plain, target_layers=[plain.features[0]]) as theirs:
        expected = theirs(input_tensor=images, targets=[ClassifierOutputTarget(target) for target in TARGETS])
    cam = dissect(network, images).cam("block1_conv1", TARGETS, method)
    cam -= cam.amin(dim=(1, 2), keepdim=True)
    peaks = cam.amax(dim=(1, 2), keepdim=True)
    assert (peaks > 0).all()
    np.testing.assert_allclose((cam / peaks).numpy(), expected, atol=1e-4)


def test_guided_backpropagation_of_a_class_equals_captum(case):
    expected = GuidedBackprop(case.plain).attribute(case.images.clone(), target=TARGETS)
    assert expected.abs().max() > 0
    assert_same(case.dissection.guided_backprop(TARGETS), expected)


class LayerStrength(nn.Module):
    """A network whose score is the sum over space of a layer's channel maximum, so that captum can attribute it."""

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.outputs: list[Tensor] = []
        layer.register_forward_hook(lambda module, inputs, output: self.outputs.append(output))

    def forward(self, images: Tensor) -> Tensor:
        self.network(images)
        return self.outputs.pop().max(dim=1).values.sum(dim=(1, 2))


def test_saliency_of_a_layer_equals_captums_guided_backpropagation_of_its_channel_maximum(case):
    network = copy.deepcopy(case.plain)
    modules = list(convolutions(network).values())
    for name, _ in case.some_layers():
        of_layer = LayerStrength(network, modules[list(convolutions(case.network)).index(name)])
        expected = GuidedBackprop(of_layer).attribute(case.images.clone())
        assert expected.abs().max() > 0
        assert_same(case.dissection.saliency(name), expected)


@pytest.mark.slow
def test_guided_grad_cam_of_a_class_equals_captum(case):
    shown = 0.0
    for name, module in case.some_layers()[1:]:
        theirs = GuidedGradCam(case.plain, module)
        expected = theirs.attribute(case.images.clone(), target=TARGETS, interpolate_mode="bilinear")
        assert_same(case.dissection.guided_grad_cam(name, TARGETS, of_class=True), expected)
        shown = max(shown, float(expected.detach().abs().max()))
    assert shown > 0


def test_guided_grad_cam_is_the_product_of_the_resized_map_and_the_layers_saliency(case):
    name = case.some_layers()[2][0]
    cam = case.dissection.grad_cam(name, TARGETS)
    resized = torch.stack(
        [torchvision.transforms.functional.resize(one[None], [64, 64], antialias=False) for one in cam]
    )
    expected = case.dissection.saliency(name) * resized
    assert_same(case.dissection.guided_grad_cam(name, TARGETS), expected)


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_guided_backpropagation_equals_pytorch_grad_cam(name):
    network, images = build(name), torch.randn(1, 3, 64, 64)
    theirs = GuidedBackpropReLUModel(not_in_place(network))(images.clone(), target_category=2)
    assert np.abs(theirs).max() > 0
    assert_same(dissect(network, images).guided_backprop(2)[0], torch.from_numpy(theirs).permute(2, 0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_without_a_relu_guided_backpropagation_is_the_plain_gradient(name):
    network, images = build(name), torch.randn(1, 3, 64, 64)
    dissection = dissect(network, images)
    assert not dissection.has_rectifiers
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(leaf)[0, 2], leaf)
    assert expected.abs().max() > 0
    assert_same(dissection.guided_backprop(2), expected)


# Closed forms.


def pooled(channels: int, classes: int) -> nn.Sequential:
    """A convolution, global average pooling, a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    ).eval()


def test_both_maps_equal_the_closed_form_of_global_average_pooling():
    network, images = pooled(5, 3), torch.randn(4, 3, 9, 7)
    # With dy/dA_k = w_k / (h w) everywhere, the map is the class activation map of Zhou et al.: no autograd needed.
    with torch.no_grad():
        activation = network[0](images)
    expected = torch.einsum("nkhw,k->nhw", activation, network[3].weight[2].detach()).relu() / (9 * 7)
    assert expected.max() > 0
    dissection = dissect(network, images)
    assert_same(dissection.cam("0", 2, grad_cam), expected)
    assert_same(dissection.cam("0", 2, hires_cam), expected)


def test_the_two_maps_differ_as_their_formulas_do_where_the_gradient_changes_over_space():
    # score = sum over pixels of v * a, the convolution the identity: dy/dA = v.
    image = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    weight = torch.tensor([[1.0, 0.0], [-2.0, 3.0]])
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[2].weight.copy_(weight.view(1, 4))
    dissection = dissect(network, image[None])
    assert_same(dissection.cam("0", 0, grad_cam)[0], torch.tensor([[0.5, 1.0], [1.5, 0.0]]))
    assert_same(dissection.cam("0", 0, hires_cam)[0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_guided_backpropagation_drops_what_is_negative_going_either_way():
    # Two convolutions of one pixel with a ReLU between: every path can be written down.
    first = torch.tensor([1.0, 1.0, -1.0, -1.0])
    second = torch.tensor([2.0, -3.0, 5.0, -7.0])
    network = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False), nn.Flatten(), nn.Linear(2, 1, False)
    )
    with torch.no_grad():
        network[0].weight.copy_(first.view(4, 1, 1, 1))
        network[2].weight.copy_(second.view(1, 4, 1, 1))
        network[4].weight.fill_(1)
    # Channels 0 and 1 are open over the bright pixel, 2 and 3 over the dark one; one of each two has a negative weight.
    dissection = dissect(network, torch.tensor([[[1.0, -1.0]]]))
    assert dissection.has_rectifiers
    assert_same(dissection.guided_backprop(0), torch.tensor([[[[2.0, -5.0]]]]))
    assert_same(dissection.saliency("2"), torch.tensor([[[[2.0, -5.0]]]]))
    assert_same(dissection.saliency("0"), torch.tensor([[[[1.0, -1.0]]]]))


def test_nothing_that_speaks_for_a_class_leaves_the_map_all_zero():
    network = pooled(5, 3)
    with torch.no_grad():
        network[0].weight.abs_()
        network[0].bias.abs_()
        network[3].weight[1] = -1  # all evidence speaks against class 1
        network[3].weight[0] = 0  # and none at all for or against class 0
    dissection = dissect(network, torch.rand(2, 3, 8, 8))
    assert torch.equal(dissection.grad_cam("0", 1), torch.zeros(2, 8, 8))
    assert torch.equal(dissection.grad_cam("0", 0), torch.zeros(2, 8, 8))
