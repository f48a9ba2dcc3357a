"""A network in several views answers with their mean, and its maps lie where the network in it saw what they show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from torch import Tensor, nn
from torchvision.models import resnet18

from explainers import METHODS, dissect
from explainers.faithfulness import randomisation
from explainers.layers import convolutions
from explainers.views import AS_IT_IS, ManyViews, View
from monai_label_app.classifier.network import TEST_VIEWS, build

QUARTER: View = ((0.0, -1.0), (1.0, 0.0))
ENLARGED: View = ((0.0, 1 / 1.25), (1 / 1.25, 0.0))


@pytest.fixture(params=["vgg11", "resnet18"])
def network(request) -> Iterator[nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        yield build("vgg11", "abc", 1 / 8) if request.param == "vgg11" else resnet18(num_classes=3).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_scores_layers_and_every_map_are_the_mean_of_those_of_the_views_turned_back(network, images):
    seen = dissect(ManyViews(network, [AS_IT_IS, QUARTER]), images)
    plain, turned = dissect(network, images), dissect(network, images.rot90(dims=(2, 3)))
    assert seen.layers == plain.layers
    same(seen.scores, (plain.scores + turned.scores) / 2)
    same(seen.probabilities.log(), ((plain.scores + turned.scores) / 2).log_softmax(1))
    back = {"dims": (-2, -1), "k": -1}
    for layer in seen.layers[::5]:
        same(seen.activation(layer), (plain.activation(layer) + turned.activation(layer).rot90(**back)) / 2)
        same(seen.saliency(layer), (plain.saliency(layer) + turned.saliency(layer).rot90(**back)) / 2)
        for method in METHODS:
            if method.endswith("cam") and not method.startswith("guided"):
                maps = [next(one.maps(method, layer, 1))[2] for one in (seen, plain, turned)]
                same(maps[0], (maps[1] + maps[2].rot90(**back)) / 2)
    same(
        seen.guided_backprop([0, 2]), (plain.guided_backprop([0, 2]) + turned.guided_backprop([0, 2]).rot90(**back)) / 2
    )


def test_layers_and_what_is_drawn_anew_have_the_names_of_the_network(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    many = ManyViews(network, [AS_IT_IS, QUARTER]).eval()
    assert list(convolutions(many)) == ["0"]
    maps = [
        [one.layer for one in randomisation(asked, lambda of: dissect(of, images).grad_cam("0", 0).numpy())]
        for asked in (network, many)
    ]
    assert maps[0] == maps[1] == ["4", "0"]


def test_one_view_as_it_is_changes_no_bit(network, images):
    seen, plain = dissect(ManyViews(network, [AS_IT_IS]), images), dissect(network, images)
    layer = plain.layers[-1]
    assert torch.equal(seen.scores, plain.scores)
    assert torch.equal(seen.grad_cam(layer, 1), plain.grad_cam(layer, 1))
    assert torch.equal(seen.saliency(layer), plain.saliency(layer))


def in_pixels(view: View, size: int) -> dict[str, np.ndarray]:
    """A view as scipy writes it: of rows and columns, from a pixel's centre."""
    matrix = np.flip(np.array(view))
    middle = np.full(2, (size - 1) / 2)
    return {"matrix": matrix, "offset": middle - matrix @ middle}


@pytest.mark.parametrize("view", [*TEST_VIEWS, ENLARGED])
def test_a_view_shows_what_it_says_and_a_map_goes_back_to_where_it_was(view):
    class Remember(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images
            return images.mean((2, 3))

    network, image = Remember(), torch.rand(1, 3, 33, 33)
    many = ManyViews(network, [view])
    many(image)
    for channel, shown in zip(image[0], network.seen[0], strict=True):
        theirs = affine_transform(channel.numpy(), **in_pixels(view, 33), order=1, mode="grid-constant")
        np.testing.assert_allclose(shown, theirs, atol=1e-4)
    inverse = np.linalg.inv(np.array(view))
    theirs = affine_transform(image[0, 0].numpy(), **in_pixels(inverse, 33), order=1, mode="grid-constant")
    np.testing.assert_allclose(many.lay_back(image[:, 0])[0], theirs, atol=1e-4)


def test_a_spot_that_all_views_show_is_found_where_it_is():
    """Grad-CAM of a network whose score is how much there is of a colour: the map is the picture, softened."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2, 3)[:, :, None, None])
    image = torch.zeros(1, 3, 40, 40)
    image[0, 1, 10, 27] = 1
    cam = dissect(ManyViews(network, TEST_VIEWS), image).grad_cam("0", 1)[0]
    assert divmod(int(cam.argmax()), 40) == (10, 27)
    rows, columns = cam.nonzero(as_tuple=True)
    assert (rows - 10).abs().max() <= 2
    assert (columns - 27).abs().max() <= 2


def test_in_half_the_bits_views_are_where_they_are_in_all(network, images):
    many = ManyViews(network, TEST_VIEWS).eval()
    with torch.inference_mode():
        whole = many(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = many(images).float()
    assert float((half - whole).abs().max()) < 0.02 * float(whole.abs().max())


def test_without_a_view_or_with_one_that_shows_nothing_it_is_refused(network):
    for views in ([], [AS_IT_IS, ((1.0, 1.0), (1.0, 1.0))], [(1.0, 2.0, 3.0)], [((1.0, np.nan), (0.0, 1.0))], 7):
        with pytest.raises(ValueError, match="views must be one or more invertible"):
            ManyViews(network, views)


def test_inside_another_network_it_is_refused_and_other_answers_than_scores_are_an_error(network, images):
    many = ManyViews(network, [AS_IT_IS, QUARTER])
    for outer in (nn.Sequential(many), nn.DataParallel(many), ManyViews(many, [QUARTER])):
        with pytest.raises(ValueError, match="cannot be looked at inside another"):
            dissect(outer, images)

    class Two(nn.Conv2d):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return (super().forward(images).mean((2, 3)),) * 2

    with pytest.raises(TypeError, match="must return class scores"):
        _ = dissect(ManyViews(Two(3, 2, 1), [QUARTER]), images).scores


def test_with_and_without_gradients_and_in_other_numbers_the_answer_is_the_same(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    many = ManyViews(network, TEST_VIEWS)
    expected = many(images).detach()
    with torch.no_grad():
        same(many(images), expected)
        same(many.double()(images.double()).float(), expected)
        assert float((many.bfloat16()(images.bfloat16()).float() - expected).abs().max()) < 0.05
