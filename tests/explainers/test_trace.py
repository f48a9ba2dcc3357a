"""Whatever a network is made of and whatever state it is in: it is seen as it is, and left as it was."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torchvision
from captum.attr import GuidedBackprop
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from explainers import Dissection, dissect
from explainers.layers import convolutions

pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward|backward)", "ignore:Input Tensor")

TARGETS = [2, 0]


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        yield


class Net(nn.Module):
    """Three convolutions, an activation after each of the first two, a linear layer."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.c = nn.Conv2d(8, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        deep = self.activation(self.b(self.activation(self.a(images))))
        return self.head(self.c(deep).mean(dim=(2, 3)))


def seeded(make: Callable[[], nn.Module], seed: int = 5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(8))


def look(dissection: Dissection) -> dict[str, Tensor]:
    """All there is to see, a layer and a class at a time."""
    seen = {"scores": dissection.scores, "guided-backprop": dissection.guided_backprop(TARGETS)}
    for layer in dissection.layers:
        seen[f"grad-cam {layer}"] = dissection.grad_cam(layer, TARGETS)
        seen[f"saliency {layer}"] = dissection.saliency(layer)
        seen[f"guided-grad-cam {layer}"] = dissection.guided_grad_cam(layer, TARGETS)
    return seen


def assert_same_look(got: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-4) -> None:
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert value.abs().max() > 0, key
        got_value = got[key].to(value.dtype)
        torch.testing.assert_close(got_value, value, rtol=rtol, atol=0.1 * rtol * float(value.abs().max()), msg=key)


# ReLUs, however they are written.


def discarded(inplace: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def activation(tensor: Tensor) -> Tensor:
        inplace(tensor)
        return tensor

    return activation


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace=True)": nn.ReLU(inplace=True),
    "F.relu": functional.relu,
    "F.relu, by keyword": lambda x: functional.relu(input=x),
    "F.relu(inplace=True)": lambda x: functional.relu(x, inplace=True),
    "F.relu(inplace=True), by position": lambda x: functional.relu(x, True),
    "F.relu(inplace=True), result ignored": discarded(lambda x: functional.relu(x, inplace=True)),
    "F.relu_": functional.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "torch.relu_, result ignored": discarded(torch.relu_),
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "Tensor.relu_, result ignored": discarded(lambda x: x.relu_()),
    "nn.ReLU(inplace=True), result ignored": discarded(nn.ReLU(inplace=True)),
    "on a view": lambda x: functional.relu(x.flatten(2), inplace=True).view_as(x),
    "on a view, result ignored": discarded(lambda x: x.flatten(2).relu_()),
    "Tensor.clamp_, result ignored": discarded(lambda x: x.clamp_(min=0)),
    "Tensor.clamp_min_ on a view, result ignored": discarded(lambda x: x[:, :].clamp_min_(0)),
    "F.hardtanh(inplace=True), result ignored": discarded(lambda x: functional.hardtanh(x, 0, 1e9, inplace=True)),
    "F.hardtanh_, result ignored": discarded(lambda x: functional.hardtanh_(x, 0, 1e9)),
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_every_way_to_write_a_relu_is_seen_through_and_guided(images, relu):
    network = seeded(lambda: Net(relu))
    dissection = dissect(network, images)
    assert dissection.has_rectifiers
    plain = seeded(lambda: Net(nn.ReLU()))  # same weights, written so that captum can guide it
    guided = GuidedBackprop(plain).attribute(images.clone(), target=TARGETS)
    torch.testing.assert_close(dissection.guided_backprop(TARGETS), guided)
    with torch.no_grad():
        assert torch.equal(dissection.scores, network(images))
    assert_same_look(look(dissection), look(dissect(plain, images)))


def test_guided_backpropagation_is_not_the_plain_gradient(images):
    network = seeded(lambda: Net(nn.ReLU()))
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[range(2), TARGETS].sum(), leaf)
    assert not torch.allclose(dissect(network, images).guided_backprop(TARGETS), gradient)


def test_a_relu_of_one_half_of_the_channels_in_place_is_only_that(images):
    def half(tensor: Tensor) -> Tensor:
        tensor[:, ::2].relu_()
        return tensor

    def other(tensor: Tensor) -> Tensor:
        return torch.stack([tensor[:, ::2].relu(), tensor[:, 1::2]], dim=2).flatten(1, 2)

    assert_same_look(
        look(dissect(seeded(lambda: Net(half)), images)), look(dissect(seeded(lambda: Net(other)), images))
    )


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish])
def test_other_activations_in_place_leave_the_convolution_its_own_output_and_are_not_guided(images, activation):
    dissection = dissect(seeded(lambda: Net(activation(inplace=True))), images)
    apart = seeded(lambda: Net(activation()))
    assert not dissection.has_rectifiers
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(apart(leaf)[range(2), TARGETS].sum(), leaf)
    torch.testing.assert_close(dissection.guided_backprop(TARGETS), gradient)
    assert_same_look(look(dissection), look(dissect(apart, images)))


# The network is left as it was.


def state(network: nn.Module) -> dict[str, object]:
    """All that a look could change, tensors as bytes."""
    modules = list(network.named_modules())
    return {
        "modules": [(name, id(module), type(module)) for name, module in modules],
        "training": [module.training for _, module in modules],
        "inplace": [getattr(module, "inplace", None) for _, module in modules],
        "attributes": [sorted(vars(module)) for _, module in modules],
        "methods": [vars(module).get("forward") for _, module in modules],
        "hooks": [
            sum(len(value) for key, value in vars(module).items() if "hooks" in key and value is not None)
            for _, module in modules
        ],
        "weights": {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()},
        "parameters": [
            (id(tensor), tensor.requires_grad, tensor.grad, tensor._version, len(tensor._backward_hooks or ()))
            for tensor in [*network.parameters(), *network.buffers()]
        ],
    }


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "efficientnet_b0", "convnext_tiny")),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_network_is_left_as_it_was_to_the_last_flag(name, training):
    network = seeded(lambda: torchvision.models.get_model(name, num_classes=4)).train(training)
    given = torch.randn(2, 3, 64, 64)
    modules = list(network.modules())
    modules[len(modules) // 2].train(not training)  # as where part of a network is frozen
    next(network.parameters()).requires_grad_(False)
    before, bytes_before = state(network), given.clone()
    dissection = dissect(network, given)
    last = dissection.layers[-1]
    dissection.guided_grad_cam(last, 1, of_class=True)
    dissection.saliency(dissection.layers[0])
    assert state(network) == before
    assert torch.equal(given, bytes_before)
    assert not given.requires_grad
    assert given.grad is None


def test_gradients_that_a_trainer_has_gathered_stay(images):
    network = seeded(lambda: Net(nn.ReLU()))
    network(images).sum().backward()
    before = [parameter.grad.clone() for parameter in network.parameters()]
    look(dissect(network, images))
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(network.parameters(), before, strict=True))


def test_images_that_need_a_gradient_get_none_and_may(images):
    given = images.clone().requires_grad_()
    network = seeded(lambda: Net(nn.ReLU()))
    assert_same_look(look(dissect(network, given)), look(dissect(network, images)))
    assert given.grad is None
    assert given.is_leaf


def test_a_network_in_training_mode_is_run_in_evaluation_mode_and_put_back():
    network = seeded(lambda: Net(nn.Sequential(nn.ReLU(), nn.Dropout(0.9))))
    network.b = nn.Sequential(network.b, nn.BatchNorm2d(8))
    given = torch.rand(2, 3, 8, 8)
    expected = look(dissect(network, given))
    network.train()
    network.b[1].eval()
    flags = [module.training for module in network.modules()]
    assert_same_look(look(dissect(network, given)), expected)
    assert [module.training for module in network.modules()] == flags
    assert network.b[1].num_batches_tracked == 0


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.a, self.error = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout()), error

    def forward(self, images: Tensor) -> Tensor:
        self.a(images)
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyError("broken"), KeyboardInterrupt("broken")])
def test_a_forward_pass_that_fails_leaves_no_mode_behind(images, error):
    network = Failing(error)
    network.a[0].eval()
    dissection = dissect(network, images)
    expected = ValueError if isinstance(error, RuntimeError) else type(error)
    for _ in range(2):
        with torch.no_grad(), pytest.raises(expected, match="broken"):
            _ = dissection.scores
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert torch.is_grad_enabled()
    # A ReLU is torch's own again, and another thread is not locked out.
    assert functional.relu(torch.ones(1, requires_grad=True)).grad_fn.name() == "ReluBackward0"
    other = dissect(seeded(lambda: Net(nn.ReLU())), images)
    thread = threading.Thread(target=lambda: other.scores, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_a_network_that_fails_once_may_be_asked_again(images):
    network = seeded(lambda: Net(nn.ReLU()))
    expected = look(dissect(network, images))
    whole, network.head = network.head, nn.Linear(7, 3)
    dissection = dissect(network, images)
    with pytest.raises(ValueError, match="cannot take images"):
        _ = dissection.scores
    network.head = whole
    assert_same_look(look(dissection), expected)


# Whatever the surroundings.


def test_a_frozen_network_is_seen_all_the_same(images):
    network = seeded(lambda: Net(nn.ReLU(inplace=True)))
    expected = look(dissect(network, images))
    assert_same_look(look(dissect(network.requires_grad_(False), images)), expected)


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode])
def test_a_look_without_gradients_around_it_is_the_same(images, surroundings):
    network = seeded(lambda: Net(nn.ReLU(inplace=True)))
    expected = look(dissect(network, images))
    with surroundings():
        inside = dissect(network, images)
        assert_same_look({key: value.clone() for key, value in look(inside).items()}, expected)
    assert_same_look(look(inside), expected)  # and what was remembered is good outside
    outside = dissect(network, images)
    assert outside.layers
    with surroundings():
        assert_same_look(look(outside), expected)


def test_images_made_in_inference_mode_are_images(images):
    network = seeded(lambda: Net(nn.ReLU(inplace=True)))
    with torch.inference_mode():
        given = images.clone()
    assert given.is_inference()
    assert_same_look(look(dissect(network, given)), look(dissect(network, images)))


def test_maps_may_be_worked_on_with_gradients_on(images):
    network = seeded(lambda: Net(nn.ReLU()))
    for name, value in look(dissect(network, images)).items():
        assert not value.requires_grad, name
        value.add_(1)


def test_a_network_in_double_precision_is_seen_and_gives_float32_maps(images):
    expected = look(dissect(seeded(lambda: Net(nn.ReLU())), images))
    double = look(dissect(seeded(lambda: Net(nn.ReLU())).double(), images))  # images are converted to its precision
    assert double.pop("scores").dtype == torch.float64
    expected.pop("scores")
    assert all(value.dtype == torch.float32 for value in double.values())
    assert_same_look(double, expected, rtol=1e-3)


def test_a_network_in_bfloat16_is_seen_and_gives_float32_maps(images):
    expected = dissect(seeded(lambda: Net(nn.ReLU(inplace=True))), images)
    coarse = dissect(seeded(lambda: Net(nn.ReLU(inplace=True))).bfloat16(), images)
    assert coarse.scores.dtype == torch.bfloat16
    for got, wanted in (
        (coarse.grad_cam("c", TARGETS), expected.grad_cam("c", TARGETS)),
        (coarse.guided_backprop(TARGETS), expected.guided_backprop(TARGETS)),
    ):
        assert got.dtype == torch.float32
        assert float(torch.corrcoef(torch.stack([got.flatten(), wanted.flatten()]))[0, 1]) > 0.99


def test_autocast_gives_nearly_the_same_maps(images):
    network = seeded(lambda: Net(nn.ReLU(inplace=True)))
    expected = dissect(network, images).grad_cam("c", TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        cam = dissect(network, images).grad_cam("c", TARGETS)
    assert cam.dtype == torch.float32
    assert float(torch.corrcoef(torch.stack([cam.flatten(), expected.flatten()]))[0, 1]) > 0.99


def test_channels_last_changes_nothing():
    network = seeded(lambda: torchvision.models.resnet18(num_classes=4))
    given = torch.randn(2, 3, 64, 64)
    expected = dissect(network, given)
    last = dissect(network.to(memory_format=torch.channels_last), given.contiguous(memory_format=torch.channels_last))
    with torch.no_grad():
        assert torch.equal(last.scores, network(given.contiguous(memory_format=torch.channels_last)))
    for layer in ("conv1", "layer2.0.downsample.0", "layer4.1.conv2"):
        got, wanted = last.grad_cam(layer, 1), expected.grad_cam(layer, 1)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.max()))
        got, wanted = last.saliency(layer), expected.saliency(layer)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_takes_images_from_anywhere_and_gives_maps_there(images):
    expected = dissect(seeded(lambda: Net(nn.ReLU())), images).grad_cam("b", TARGETS)
    cam = dissect(seeded(lambda: Net(nn.ReLU())).cuda(), images).grad_cam("b", TARGETS)
    assert cam.is_cuda
    torch.testing.assert_close(cam.cpu(), expected, rtol=1e-2, atol=1e-3 * float(expected.max()))


# Odd networks.


def test_layers_behind_which_no_gradient_goes_are_not_listed_and_the_others_can_be_seen(images):
    class Frozen(Net):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                trunk = self.a(images).relu_()
            return self.head(self.c(self.b(trunk).relu()).mean(dim=(2, 3)))

    dissection = dissect(seeded(lambda: Frozen(nn.ReLU())), images)
    whole = dissect(seeded(lambda: Net(nn.ReLU())), images)
    assert dissection.layers == ("b", "c")
    for layer in dissection.layers:
        assert torch.equal(dissection.grad_cam(layer, TARGETS), whole.grad_cam(layer, TARGETS))
    with pytest.raises(ValueError, match="no layer 'a'"):
        dissection.grad_cam("a", 0)


def test_an_image_that_no_gradient_reaches_has_a_saliency_of_zero_or_a_clear_error(images):
    class Cut(Net):
        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                trunk = self.a(images)
            return self.head(self.c(self.b(trunk)).mean(dim=(2, 3)))

    dissection = dissect(seeded(lambda: Cut(nn.ReLU())), images)
    for look_at in (lambda: dissection.saliency("b"), lambda: dissection.guided_backprop(0)):
        try:
            assert not look_at().any()
        except ValueError as error:
            assert "gradient" in str(error)


def test_a_network_that_prepares_its_images_in_place_is_seen(images):
    class Prepares(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.sub_(0.5).relu_())

    class Apart(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward((images - 0.5).relu())

    prepares, apart = seeded(lambda: Prepares(nn.ReLU())), seeded(lambda: Apart(nn.ReLU()))
    given = images.clone()
    assert_same_look(look(dissect(prepares, given)), look(dissect(apart, images)))
    assert torch.equal(given, images)


@pytest.mark.parametrize(
    "normed", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.parametrizations.spectral_norm]
)
def test_convolutions_with_normed_weights_are_seen(images, normed):
    network = seeded(lambda: Net(nn.ReLU()))
    expected = seeded(lambda: Net(nn.ReLU()))
    for name in ("a", "b", "c"):
        layer = normed(network.get_submodule(name)).eval()
        with torch.no_grad():
            expected.get_submodule(name).weight.copy_(layer.weight)
    assert_same_look(look(dissect(network, images)), look(dissect(expected, images)))


def test_the_power_iteration_of_spectral_norm_is_not_moved_on(images):
    network = seeded(lambda: Net(nn.ReLU()))
    network.a = torch.nn.utils.parametrizations.spectral_norm(network.a)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _ = dissect(network, images).scores
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_checkpointed_activations_are_seen(images):
    class Checkpointed(Net):
        def forward(self, images: Tensor) -> Tensor:
            deep = checkpoint(
                lambda x: self.activation(self.b(self.activation(self.a(x)))), images, use_reentrant=False
            )
            return self.head(self.c(deep).mean(dim=(2, 3)))

    checkpointed, plain = seeded(lambda: Checkpointed(nn.ReLU(inplace=True))), seeded(lambda: Net(nn.ReLU()))
    assert_same_look(look(dissect(checkpointed, images)), look(dissect(plain, images)))


def test_norms_in_checkpointed_activations_are_not_moved_on_by_a_network_in_training_mode(images):
    class Checkpointed(Net):
        def __init__(self) -> None:
            super().__init__(nn.ReLU())
            self.norm = nn.BatchNorm2d(6)

        def forward(self, images: Tensor) -> Tensor:
            deep = checkpoint(lambda x: self.activation(self.norm(self.a(x))), images, use_reentrant=False)
            return self.head(self.c(self.activation(self.b(deep))).mean(dim=(2, 3)))

    network = seeded(Checkpointed)
    expected = look(dissect(network, images))
    network.train()
    assert_same_look(look(dissect(network, images)), expected, rtol=1e-6)
    assert network.norm.num_batches_tracked == 0
    assert network.norm.training


def test_a_layer_that_is_used_twice_is_seen_at_its_last_use(images):
    class Twice(Net):
        def __init__(self, activation: Callable[[Tensor], Tensor], again: nn.Module) -> None:
            super().__init__(activation)
            self.m = nn.Conv2d(6, 6, 3, padding=1)
            self.again = again

        def forward(self, images: Tensor) -> Tensor:
            middle = self.activation(self.m(self.activation(self.a(images))))
            return self.head(self.c(self.b(self.activation((self.again or self.m)(middle)))).mean(dim=(2, 3)))

    twice = seeded(lambda: Twice(nn.ReLU(inplace=True), None))
    apart = seeded(lambda: Twice(nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)))
    apart.load_state_dict(twice.state_dict(), strict=False)
    apart.again.load_state_dict(twice.m.state_dict())
    seen, expected = dissect(twice, images), dissect(apart, images)
    assert torch.equal(seen.scores, expected.scores)
    assert seen.grad_cam("m", TARGETS).max() > 0
    torch.testing.assert_close(seen.grad_cam("m", TARGETS), expected.grad_cam("again", TARGETS))
    torch.testing.assert_close(seen.grad_cam("a", TARGETS), expected.grad_cam("a", TARGETS))


def test_auxiliary_heads_are_not_listed_and_asking_for_one_is_an_error():
    network = seeded(lambda: torchvision.models.googlenet(num_classes=4, init_weights=False)).train()
    assert "aux1.conv.conv" in convolutions(network)
    dissection = dissect(network, torch.randn(1, 3, 64, 64))
    assert set(convolutions(network)) - set(dissection.layers) == {"aux1.conv.conv", "aux2.conv.conv"}
    with pytest.raises(ValueError, match=r"no layer 'aux1.conv.conv'; did you mean"):
        dissection.grad_cam("aux1.conv.conv", 0)
    with pytest.raises(ValueError, match="none of the layers takes part"):
        _ = dissect(network, torch.randn(1, 3, 64, 64), ["aux1.conv.conv"]).scores


class Returns(Net):
    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__(nn.ReLU())
        self.change = change

    def forward(self, images: Tensor) -> object:
        return self.change(super().forward(images))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scores: OrderedDict(out=scores), "OrderedDict"),
        (lambda scores: (scores, scores), "tuple"),
        (lambda scores: [scores], "list"),
        (lambda scores: None, "NoneType"),
        (lambda scores: scores[0], r"\(3,\)"),
        (lambda scores: scores.sum(), r"\(\)"),
        (lambda scores: scores.T, r"\(3, 2\)"),
        (lambda scores: scores[..., None, None], r"\(2, 3, 1, 1\)"),
    ],
)
def test_a_network_that_returns_no_class_scores_is_refused(images, change, words):
    with pytest.raises(TypeError, match=rf"class scores \(N, classes\), not {words}"):
        _ = dissect(seeded(lambda: Returns(change)), images).scores


@pytest.mark.parametrize("change", [lambda scores: scores.detach(), lambda scores: scores.argmax(1, keepdim=True)])
def test_scores_that_no_layer_leads_to_are_refused(images, change):
    with pytest.raises(ValueError, match="none of the layers takes part in the scores"):
        _ = dissect(seeded(lambda: Returns(change)), images).layers


@pytest.mark.parametrize(
    "compiled", [torch.jit.script, lambda network: torch.jit.trace(network, torch.rand(1, 3, 8, 8))]
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_network_is_refused(images, compiled):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="Module has no convolution"):
        dissect(compiled(network), images)


@pytest.mark.parametrize("where", ["a.weight", "b.bias", "head.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_weight_anywhere_is_refused(images, where, value):
    network = seeded(lambda: Net(nn.ReLU()))
    with torch.no_grad():
        network.get_parameter(where).view(-1)[0] = value
    with pytest.raises(ValueError, match="not finite numbers; its weights are broken"):
        dissect(network, images).grad_cam("b", 0)


def test_images_that_the_network_cannot_take_are_refused_with_their_shape():
    network = seeded(lambda: Net(nn.ReLU()))
    with pytest.raises(ValueError, match=r"cannot take images of \(2, 4, 8, 8\).*3 channels, but got 4"):
        _ = dissect(network, torch.rand(2, 4, 8, 8)).scores
    pooled = seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.MaxPool2d(8), nn.Flatten()))
    with pytest.raises(ValueError, match=r"cannot take images of \(1, 3, 4, 4\)"):
        _ = dissect(pooled, torch.rand(3, 4, 4)).scores


# Threads.


@pytest.mark.parametrize("training", [False, True])
def test_threads_on_one_network_do_not_disturb_each_other(training):
    network = seeded(lambda: Net(nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5)))).train(training)
    network.b.training = not training
    flags = [module.training for module in network.modules()]
    batches = torch.randn(8, 2, 3, 24, 20, generator=torch.Generator().manual_seed(1))
    alone = [look(dissect(network, batch)) for batch in batches]
    start = threading.Barrier(4)

    def explain(number: int) -> list[dict[str, Tensor]]:
        start.wait(30)
        return [look(dissect(network, batches[(number + i) % 8])) for i in range(8)]

    with ThreadPoolExecutor(4) as pool:
        for number, looks in enumerate(pool.map(explain, range(4))):
            for i, got in enumerate(looks):
                assert_same_look(got, alone[(number + i) % 8])
    assert [module.training for module in network.modules()] == flags


def test_the_graph_of_another_thread_is_not_guided_while_one_is(images):
    """Plain gradients of the network itself, taken by a trainer's thread, are what they always are."""
    network = seeded(lambda: Net(nn.ReLU(inplace=True)))
    leaf = images.clone().requires_grad_()

    def plain(_: int) -> Tensor:
        return torch.autograd.grad(network(leaf)[range(2), TARGETS].sum(), leaf)[0]

    expected = plain(0)
    with ThreadPoolExecutor(2) as pool:
        guided = pool.map(lambda _: dissect(network, images).guided_backprop(TARGETS), range(20))
        assert all(torch.allclose(gradient, expected) for gradient in pool.map(plain, range(20)))
        assert not any(torch.allclose(gradient, expected) for gradient in guided)
