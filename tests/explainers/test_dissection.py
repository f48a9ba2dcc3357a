"""A dissection does no more work than it must, remembers, lets go, and says what is wrong with a question."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from explainers import METHODS, Dissection, dissect, heatmap
from explainers.cams import grad_cam, hires_cam
from explainers.layers import convolutions


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(17)
        yield


class Probe(torch.autograd.Function):
    """Does nothing, and counts how often a pass comes through it, either way."""

    @staticmethod
    def forward(ctx, tensor, network, place):
        ctx.network, ctx.place = network, place
        network.passes["forward", place] += 1
        return tensor.clone()

    @staticmethod
    def backward(ctx, gradient):
        network, place = ctx.network, ctx.place
        network.passes["backward", place] += 1
        if network.fails_at == place:
            raise ArithmeticError("a backward pass that fails")
        return gradient.clone(), None, None


class Branching(nn.Module):
    """A stem, two branches that run side by side, a tail; a probe at every place."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.left = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.right = nn.Conv2d(6, 8, 1, stride=2)
        self.tail = nn.Conv2d(8, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, classes)
        self.passes: Counter[tuple[str, str]] = Counter()
        self.fails_at = ""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.relu(self.stem(Probe.apply(images, self, "images")))
        left, right = (Probe.apply(stem, self, place) for place in ("left", "right"))
        joined = self.relu(self.left(left) + self.right(right))
        tail = self.relu(self.tail(Probe.apply(joined, self, "tail")))
        return self.head(Probe.apply(tail.mean(dim=(2, 3)), self, "head"))

    def counts(self) -> tuple[int, int]:
        """How many forward and backward passes there were so far, as seen where all of them come through."""
        return self.passes["forward", "head"], self.passes["backward", "head"]


LAYERS = ("stem", "left", "right", "tail")


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        return Branching().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Only reference counts free memory, as they must where it matters."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Lazy, and remembers.


def test_nothing_runs_until_something_is_asked_and_then_one_forward_pass(network, images):
    dissection = dissect(network, images)
    assert not network.passes
    for look in ("scores", "probabilities", "layers", "has_rectifiers", "scores"):
        getattr(dissection, look)
    assert network.counts() == (1, 0)
    dissection.grad_cam("tail", 0)
    dissection.saliency("tail")
    assert network.passes["forward", "images"] == 1


def test_a_class_costs_one_backward_pass_whatever_the_number_of_layers(network, images):
    dissection = dissect(network, images)
    dissection.grad_cam("stem", 0)
    assert network.counts() == (1, 1)
    for layer, _ in itertools.product(LAYERS, range(2)):
        dissection.grad_cam(layer, 0)
        dissection.grad_cam(layer, [0, 0])  # the same question
        dissection.grad_cam(layer, np.int64(0))
    assert network.counts() == (1, 1)
    dissection.grad_cam("tail", 1)
    dissection.grad_cam("left", 1)
    assert network.counts() == (1, 2)
    dissection.grad_cam("left", [0, 1])
    assert network.counts() == (1, 3)


def test_a_backward_pass_for_layers_stops_at_the_first_of_them(network, images):
    dissect(network, images).grad_cam("tail", 0)
    assert network.passes["backward", "images"] == 0  # the stem is the first
    network.passes.clear()
    dissect(network, images, ["tail"]).grad_cam("tail", 0)
    assert {place for (way, place) in network.passes if way == "backward"} == {"head"}


def test_parallel_branches_are_seen_in_one_backward_pass(network, images):
    chosen = dissect(network, images, ["right", "left"])
    whole = dissect(network, images)
    for layer in ("left", "right"):
        cam = chosen.grad_cam(layer, 2)
        assert cam.max() > 0
        assert torch.equal(cam, whole.grad_cam(layer, 2))
    assert network.counts() == (2, 2)
    assert chosen.layers == ("left", "right")


def test_the_branches_of_a_residual_block_are_seen_as_in_the_whole_network():
    resnet = torchvision.models.resnet18(num_classes=4).eval()
    given = torch.randn(4, 3, 64, 64)
    whole = dissect(resnet, given)
    chosen = ["layer2.0.downsample.0", "layer2.0.conv1", "layer4.0.conv2", "layer4.0.downsample.0"]
    some = dissect(resnet, given, chosen)
    assert set(some.layers) == set(chosen)
    for layer in chosen:
        for target in range(4):
            assert torch.equal(some.grad_cam(layer, target), whole.grad_cam(layer, target))
        assert any(some.grad_cam(layer, target).max() > 0 for target in range(4))
        torch.testing.assert_close(some.saliency(layer), whole.saliency(layer))


def test_a_gradient_of_the_images_costs_one_backward_pass_and_is_remembered(network, images):
    dissection = dissect(network, images)
    for _ in range(2):
        dissection.guided_backprop(1)
        dissection.guided_backprop([1, 1])
    assert network.counts() == (1, 1)
    for _ in range(2):
        dissection.saliency("left")
    assert network.counts() == (1, 1)  # the left branch lies before the tail
    assert network.passes["backward", "images"] == 2
    dissection.grad_cam("left", 1)
    before = network.passes.copy()
    for of_class in (False, True):
        dissection.guided_grad_cam("left", 1, of_class=of_class)
    assert network.passes == before


def test_every_layer_of_every_class_costs_one_forward_pass_and_a_backward_pass_a_class(network, images):
    dissection = dissect(network, images)
    maps = {(layer, target): cam for layer, target, cam in dissection.maps()}
    assert list(maps) == [(layer, target) for target in range(3) for layer in LAYERS]
    assert network.counts() == (1, 3)
    for (layer, target), cam in maps.items():
        assert torch.equal(cam, dissection.grad_cam(layer, target))
    assert network.counts() == (1, 3)


def test_maps_come_one_at_a_time(network, images):
    maps = dissect(network, images).maps()
    assert network.counts() == (0, 0)
    next(maps)
    assert network.counts() == (1, 1)


def test_a_method_of_ones_own_is_called_once_a_layer_and_given_output_and_gradient(network, images):
    calls = []

    def largest(activation: Tensor, gradient: Tensor) -> Tensor:
        assert activation.shape == gradient.shape
        calls.append(activation.shape[1:])
        return (activation * gradient).amax(dim=1).relu()

    dissection = dissect(network, images)
    maps = {layer: dissection.cam(layer, 1, largest) for layer in (*LAYERS, *LAYERS)}
    assert sorted(calls) == sorted([(6, 12, 10), (8, 6, 5), (8, 6, 5), (5, 6, 5)])
    assert network.counts() == (1, 1)
    assert maps["stem"].shape == (2, 12, 10)
    assert maps["stem"].max() > 0
    assert not torch.equal(maps["tail"], dissection.cam("tail", 1, hires_cam))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["grad_cam", "hires_cam", "saliency", "guided_backprop", "guided_grad_cam"]),
            st.sampled_from(LAYERS),
            st.lists(st.integers(0, 2), min_size=2, max_size=2),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_answer_does_not_depend_on_what_was_asked_before(questions):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network = Branching().eval()
        images = torch.randn(2, 3, 8, 8)

    def ask(dissection: Dissection, what: str, layer: str, targets: list[int]) -> Tensor:
        if what == "saliency":
            return dissection.saliency(layer)
        if what == "guided_backprop":
            return dissection.guided_backprop(targets)
        if what == "guided_grad_cam":
            return dissection.guided_grad_cam(layer, targets)
        return dissection.cam(layer, targets, {"grad_cam": grad_cam, "hires_cam": hires_cam}[what])

    dissection = dissect(network, images)
    for question in questions:
        assert torch.equal(ask(dissection, *question), ask(dissect(network, images), *question))


def test_what_a_caller_does_to_a_map_changes_no_later_answer(network, images):
    dissection = dissect(network, images)
    looks = {
        "cam": lambda: dissection.grad_cam("left", 1),
        "saliency": lambda: dissection.saliency("left"),
        "guided": lambda: dissection.guided_backprop(1),
        "product": lambda: dissection.guided_grad_cam("left", 1),
        "probabilities": lambda: dissection.probabilities,
    }
    for name, look in looks.items():
        first = look()
        kept = first.clone()
        first.fill_(7)
        assert torch.equal(look(), kept), name


def test_what_a_caller_does_to_the_scores_changes_no_later_answer(network, images):
    dissection = dissect(network, images)
    kept = dissection.scores.clone()
    dissection.scores.zero_()
    assert torch.equal(dissection.scores, kept)


def test_what_becomes_of_the_callers_images_before_the_first_look_changes_nothing(network, images):
    expected = dissect(network, images).scores
    dissection = dissect(network, images)
    images.zero_()
    assert torch.equal(dissection.scores, expected)


# Lets go.


def held() -> dict[int, int]:
    """The memory of all tensors there are: address → bytes."""
    storages = [thing.untyped_storage() for thing in gc.get_objects() if type(thing) is Tensor]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def test_another_class_holds_a_map_a_layer_and_nothing_else(network, images, no_gc):
    dissection = dissect(network, images)
    dissection.grad_cam("tail", 0)
    before = held()
    dissection.grad_cam("tail", 1)
    new = {address: size for address, size in held().items() if address not in before}
    assert sorted(new.values()) == sorted(4 * 2 * pixels for pixels in (12 * 10, 6 * 5, 6 * 5, 6 * 5))


def test_a_saliency_holds_a_gradient_of_the_images_and_nothing_else(network, images, no_gc):
    dissection = dissect(network, images)
    dissection.grad_cam("tail", 0)
    before = held()
    dissection.saliency("stem")
    dissection.guided_backprop(1)
    new = {address: size for address, size in held().items() if address not in before}
    assert list(new.values()) == [4 * images.numel()] * 2


def test_gradients_of_layers_are_gone_when_the_map_is_there(network, images, no_gc):
    gradients = []

    def remember(activation: Tensor, gradient: Tensor) -> Tensor:
        gradients.append(weakref.ref(gradient))
        return hires_cam(activation, gradient)

    dissection = dissect(network, images)
    dissection.cam("stem", 0, remember)
    assert len(gradients) == 4
    assert [gradient() for gradient in gradients] == [None] * 4
    assert dissection.cam("stem", 0, remember).max() > 0


def test_no_more_than_two_layers_gradients_are_held_during_a_pass(images, no_gc):
    network = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(8)), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    gradients, alive = [], []

    def remember(activation: Tensor, gradient: Tensor) -> Tensor:
        gradients.append(weakref.ref(gradient))
        alive.append(sum(one() is not None for one in gradients))
        return hires_cam(activation, gradient)

    dissect(network, images).cam("0", 0, remember)
    assert len(alive) == 8
    assert max(alive) <= 2  # that of the layer itself, and of the one behind it


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["nothing", "maps", "failed"])
def test_a_dissection_that_is_dropped_frees_its_memory_at_once(network, images, no_gc, asked):
    before = held()
    inside = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: inside.extend(map(weakref.ref, (*inputs, output))))
        for module in convolutions(network).values()
    ]
    dissection = dissect(network, images)
    assert dissection.scores.shape == (2, 3)
    if asked == "maps":
        for method in METHODS:
            assert all(cam.max() > 0 for _, _, cam in dissection.maps(method, ["tail", "left"], [1]))
    if asked == "failed":
        with pytest.raises(ValueError, match="no layer"):
            dissection.saliency("nowhere")
        with pytest.raises(ValueError, match="a map must be"):
            dissection.cam("stem", 0, lambda activation, gradient: gradient)
    assert sum(tensor() is not None for tensor in inside) >= 4
    for handle in handles:
        handle.remove()
    del dissection
    assert [tensor for tensor in inside if tensor() is not None] == []
    assert {address: size for address, size in held().items() if address not in before} == {}


# Shapes, batches, targets.


def test_maps_have_the_size_of_their_layer_and_gradients_that_of_the_images(network, images):
    dissection = dissect(network, images)
    sizes = {"stem": (12, 10), "left": (6, 5), "right": (6, 5), "tail": (6, 5)}
    for layer, size in sizes.items():
        for method in (grad_cam, hires_cam):
            cam = dissection.cam(layer, 1, method)
            assert cam.shape == (2, *size)
            assert cam.dtype == torch.float32
            assert cam.min() >= 0
        for gradient in (dissection.saliency(layer), dissection.guided_grad_cam(layer, 1)):
            assert gradient.shape == images.shape
            assert gradient.dtype == torch.float32
            assert gradient.min() < 0 < gradient.max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["branching", "densenet121", "resnet18"])
def test_a_batch_gives_what_single_images_give_each_for_its_own_class(name):
    network = Branching(4) if name == "branching" else torchvision.models.get_model(name, num_classes=4)
    images, targets = torch.randn(3, 3, 64, 64), [3, 0, 2]
    network.eval().double()  # a batch is summed up in another order; in float32 that would show
    layers = list(convolutions(network))
    layer = layers[len(layers) // 2]
    together = dissect(network, images)
    assert together.grad_cam(layer, targets).max() > 0
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        alone = dissect(network, image)  # without the batch's dimension
        assert alone.images.shape == (1, 3, 64, 64)
        for got, expected in (
            (together.scores, alone.scores),
            (together.grad_cam(layer, targets), alone.grad_cam(layer, target)),
            (together.cam(layer, targets, hires_cam), alone.cam(layer, [target], hires_cam)),
            (together.saliency(layer), alone.saliency(layer)),
            (together.guided_backprop(targets), alone.guided_backprop(target)),
            (together.guided_grad_cam(layer, targets), alone.guided_grad_cam(layer, target)),
        ):
            assert got.abs().max() > 0
            torch.testing.assert_close(got[index], expected[0], rtol=1e-5, atol=1e-6 * float(got.abs().max()))


def test_a_layer_without_influence_on_a_class_has_a_map_of_zeros(images):
    class Apart(Branching):
        def forward(self, images: Tensor) -> Tensor:
            scores = super().forward(images)
            return torch.cat([scores[:, :1], self.right(self.stem(images)).mean(dim=(1, 2, 3))[:, None]], dim=1)

    dissection = dissect(Apart().eval(), images)
    assert torch.equal(dissection.grad_cam("tail", 1), torch.zeros(2, 6, 5))
    assert dissection.grad_cam("tail", 0).shape == (2, 6, 5)
    assert dissection.scores.shape == (2, 2)


def test_layers_are_listed_in_the_order_of_the_forward_pass(images):
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Conv2d(4, 2, 1), nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.first(images)).mean(dim=(2, 3))

    network = Backwards().eval()
    assert list(convolutions(network)) == ["last", "first"]
    assert dissect(network, images).layers == ("first", "last")
    assert dissect(network, images, {"last", "first"}).layers == ("first", "last")


# All methods by name.


def test_every_method_gives_maps_of_what_it_depends_on(network, images):
    dissection = dissect(network, images)
    expected = {
        "grad-cam": lambda layer, target: dissection.grad_cam(layer, target),
        "hires-cam": lambda layer, target: dissection.cam(layer, target, hires_cam),
        "saliency": lambda layer, _: dissection.saliency(layer).abs().amax(dim=1),
        "guided-backprop": lambda _, target: dissection.guided_backprop(target).abs().amax(dim=1),
        "guided-grad-cam": lambda layer, target: dissection.guided_grad_cam(layer, target).abs().amax(dim=1),
    }
    assert set(METHODS) == set(expected)
    for name, look in expected.items():
        found = list(dissection.maps(name, ["tail", "left"], [2, 0]))
        layers = ["tail", "left"] if METHODS[name].of_layer else [None]
        targets = [2, 0] if METHODS[name].of_class else [None]
        assert [(layer, target) for layer, target, _ in found] == [(y, x) for x in targets for y in layers]
        for layer, target, cam in found:
            assert torch.equal(cam, look(layer, target))
            assert cam.max() > 0
            assert cam.min() >= 0
            assert 0 < heatmap.peak(cam, METHODS[name].percentile) <= float(cam.max())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "gradcam"}, "no method 'gradcam'; did you mean grad-cam"),
        ({"method": "?"}, "no method '\\?'; there are grad-cam, hires-cam, saliency"),
        ({"layers": ["stem", "tale"]}, "no layer 'tale'; did you mean tail"),
        ({"targets": [0, 3]}, "no class 3; the network has classes 0 to 2"),
    ],
)
def test_maps_of_what_does_not_exist_are_refused(network, images, arguments, words):
    with pytest.raises(ValueError, match=words):
        list(dissect(network, images).maps(**arguments))


# Questions that have no answer.


@pytest.mark.parametrize("look", ["grad_cam", "saliency", "guided_grad_cam"])
def test_a_layer_that_does_not_exist_is_refused_with_the_near_ones(network, images, look):
    dissection = dissect(network, images)
    arguments = () if look == "saliency" else (0,)
    with pytest.raises(ValueError, match="no layer 'stern'; did you mean stem"):
        getattr(dissection, look)("stern", *arguments)
    with pytest.raises(ValueError, match="no layer 'xyz'; there are stem, left, right, tail"):
        getattr(dissection, look)("xyz", *arguments)
    assert network.counts() == (1, 0)


def test_a_layer_that_was_not_chosen_is_refused(network, images):
    with pytest.raises(ValueError, match="no layer 'tail'; there are stem"):
        dissect(network, images, ["stem"]).grad_cam("tail", 0)


@pytest.mark.parametrize("target", [-1, 3, [0, 3], [-1, 0], [0], [0, 1, 2], []])
@pytest.mark.parametrize("look", ["grad_cam", "guided_backprop", "guided_grad_cam"])
def test_a_class_that_does_not_exist_is_refused(network, images, look, target):
    arguments = (target,) if look == "guided_backprop" else ("tail", target)
    with pytest.raises(ValueError, match=r"no class (-1|3); the network has classes 0 to 2|[013] targets for 2 images"):
        getattr(dissect(network, images), look)(*arguments)
    assert network.counts() == (1, 0)


@pytest.mark.parametrize("target", [1.0, None, "1", ["a", "b"], [0.5, 0]])
def test_a_class_that_is_no_number_is_refused(network, images, target):
    with pytest.raises(TypeError, match=r"integer|index"):
        dissect(network, images).grad_cam("tail", target)


@pytest.mark.parametrize(
    "given",
    [
        None,
        np.zeros((1, 3, 8, 8), np.float32),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8, dtype=torch.complex64),
        torch.zeros(8, 8),
        torch.zeros(1, 1, 3, 8, 8),
    ],
)
def test_what_is_no_image_is_refused(network, given):
    with pytest.raises(TypeError, match=r"images must be a floating-point tensor \(N, C, H, W\), not "):
        dissect(network, given)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1), (0, 3, 8, 8), (2, 3, 0, 8), (2, 0, 8, 8)])
def test_an_image_without_pixels_to_compare_is_refused(network, shape):
    with pytest.raises(ValueError, match="nothing to look at"):
        dissect(network, torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_with_a_value_that_is_no_number_is_refused(network, images, value):
    images[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="not finite"):
        dissect(network, images)


def test_a_network_without_convolutions_is_refused(images):
    with pytest.raises(ValueError, match="Sequential has no convolution"):
        dissect(nn.Sequential(nn.Flatten(), nn.Linear(360, 2)), images)


@pytest.mark.parametrize("network", [None, "vgg19", lambda images: images.mean(dim=(2, 3)), nn.Conv2d])
def test_what_is_no_network_is_refused(images, network):
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        dissect(network, images)


def test_a_choice_of_layers_that_does_not_exist_is_refused_before_anything_runs(network, images):
    with pytest.raises(ValueError, match="no layer 'heads'; there are"):
        dissect(network, images, ["stem", "heads"])
    with pytest.raises(ValueError, match="no layer was chosen"):
        dissect(network, images, [])
    assert not network.passes


# Failures on the way.


def badly(shape: tuple[int, ...]):
    return lambda activation, gradient: torch.zeros(shape)


@pytest.mark.parametrize(
    "method", [badly((2, 1, 6, 5)), badly((6, 5)), badly(()), lambda activation, gradient: gradient]
)
def test_a_method_that_returns_another_shape_is_refused_and_does_no_harm(network, images, method):
    dissection = dissect(network, images)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"a map must be a tensor of \(2, 6, 5\), not"):
            dissection.cam("tail", 0, method)
    assert torch.equal(dissection.grad_cam("left", 0), dissect(network, images).grad_cam("left", 0))


def test_an_error_of_a_method_reaches_the_caller_and_does_no_harm(network, images):
    calls = []

    def fails(activation: Tensor, gradient: Tensor) -> Tensor:
        calls.append(len(activation))
        raise ArithmeticError("a method that fails")

    dissection = dissect(network, images)
    with pytest.raises(ArithmeticError, match="a method that fails"):
        dissection.cam("tail", 0, fails)
    assert torch.equal(dissection.grad_cam("stem", 0), dissect(network, images).grad_cam("stem", 0))
    assert calls == [2]  # nothing of it is left on the graph


@pytest.mark.parametrize("place", ["head", "tail", "right", "images"])
def test_after_a_guided_pass_that_fails_plain_maps_are_plain_and_guided_ones_guided(network, images, place):
    dissection = dissect(network, images)
    network.fails_at = place
    with pytest.raises(ArithmeticError):
        dissection.guided_backprop(1)
    network.fails_at = ""
    fresh = dissect(network, images)
    assert torch.equal(dissection.grad_cam("stem", 1), fresh.grad_cam("stem", 1))
    assert torch.equal(dissection.guided_backprop(1), fresh.guided_backprop(1))
    assert torch.equal(dissection.saliency("tail"), fresh.saliency("tail"))


def test_a_guided_look_before_or_after_changes_no_plain_map(network, images):
    first, second = dissect(network, images), dissect(network, images)
    first.guided_backprop(0)
    first.saliency("tail")
    assert torch.equal(first.grad_cam("stem", 0), second.grad_cam("stem", 0))
    assert torch.equal(first.guided_backprop(0), second.guided_backprop(0))


# Threads.


def test_threads_that_ask_one_dissection_share_its_work(network, images):
    dissection = dissect(network, images)
    expected = dissect(network, images)
    plain = {(layer, target): expected.grad_cam(layer, target) for layer in LAYERS for target in range(3)}
    guided = {target: expected.guided_backprop(target) for target in range(3)}
    network.passes.clear()
    start = threading.Barrier(4)

    def ask(number: int) -> None:
        start.wait(30)
        for step in range(12):
            target, layer = (number + step) % 3, LAYERS[(number + step) % 4]
            assert torch.equal(dissection.grad_cam(layer, target), plain[layer, target])
            assert torch.equal(dissection.guided_backprop(target), guided[target])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert network.counts() == (1, 6)  # three classes, plain and guided
