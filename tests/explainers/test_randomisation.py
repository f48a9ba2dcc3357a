"""What becomes of a map when the weights are drawn anew, against ranks and moments written out again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch import nn
from torch.nn.utils import prune

from explainers import dissect
from explainers.faithfulness import randomisation
from explainers.heatmap import strength
from explainers.layers import convolutions
from monai_label_app.classifier.classifier import open_classifier


def state_of(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed_modules(before, after):
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_layers_are_drawn_anew_one_after_the_other_from_the_last_to_the_first(classifier):
    states = []

    def look(network):
        states.append(state_of(network))
        return np.arange(4.0).reshape(1, 2, 2)

    steps = list(randomisation(classifier.network, look))
    weighted = [
        name for name, module in classifier.network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    named = [*convolutions(classifier.network), "classifier.0", "classifier.3", "classifier.6"]
    assert [step.layer for step in steps] == named[::-1]
    original, *redrawn = states
    for number, state in enumerate(redrawn, start=1):
        assert changed_modules(original, state) == set(weighted[::-1][:number])


def test_weights_become_noise_of_mean_zero_and_as_large_as_they_were_and_norms_stay():
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Flatten(), nn.Linear(1000, 20))
    with torch.no_grad():
        for module, mean, scale in ((network[0], -0.3, 0.1), (network[3], 0.02, 7)):
            module.weight.normal_(mean, scale, generator=torch.Generator().manual_seed(1))
        for parameter in network[1].parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(2))
    states = [state_of(network)]

    def look(given):
        states.append(state_of(given))
        return np.arange(4.0).reshape(1, 2, 2)

    assert [step.layer for step in randomisation(network, look)] == ["3", "0"]
    before, after = states[0], states[-1]
    assert changed_modules(before, after) == {"0", "3"}
    for name in ("0", "3"):
        assert not after[f"{name}.bias"].any()
        was, now = before[f"{name}.weight"].double(), after[f"{name}.weight"].double()
        size = was.square().mean().sqrt()
        assert abs(now.mean()) < 4 * size / now.numel() ** 0.5  # four standard errors, here and below
        assert abs(now.square().mean().sqrt() / size - 1) < 4 / (2 * now.numel()) ** 0.5
        assert abs(np.corrcoef(was.flatten(), now.flatten())[0, 1]) < 4 / now.numel() ** 0.5


def test_the_network_itself_stays_bit_for_bit_as_it_was(classifier):
    network = classifier.network
    before = state_of(network)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    seen = []

    def look(given):
        seen.append(given)
        return dissect(given, images).grad_cam("block3_conv1", 0)

    list(randomisation(network, look))
    assert not changed_modules(before, network.state_dict())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    assert seen[0] is network
    assert all(other is not network for other in seen[1:])


def test_the_edges_of_the_picture_stay_as_they_were_and_so_do_not_show_the_network(classifier, polyp):
    edges = sobel(rgb2gray(polyp))[None]
    steps = list(randomisation(classifier.network, lambda network: edges))
    assert [step.similarity for step in steps] == pytest.approx([1] * len(steps))
    assert not any(step.blank for step in steps)


def test_the_saliency_of_a_layer_changes_only_with_the_layers_up_to_it(classifier, polyp):
    images = classifier.dissect([polyp])[0].images
    layer = "block2_conv2"

    def look(network):
        return strength(dissect(network, images, [layer]).saliency(layer))

    steps = list(randomisation(classifier.network, look))
    before = [step.similarity for step in steps[:-4]]  # the first four of VGG-19's convolutions lead to this layer
    assert before == pytest.approx([1] * len(before))
    assert all(step.similarity < 0.999 for step in steps[-4:])


def ranks(values):
    """Ranks from 1; equal values share the mean of theirs."""
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (2, 2, 3), elements=st.integers(-2, 2)))
def test_similarity_is_the_correlation_of_ranks_as_the_mean_of_the_images(weights):
    network = nn.Sequential(nn.Conv1d(2, 2, 3, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(weights))
    looks = []

    def look(given):
        looks.append(given[0].weight.detach().clone())
        return looks[-1]

    (step,) = randomisation(network, look)
    expected = []
    for before, after in zip(*looks, strict=True):
        one, other = ranks(before.flatten().tolist()), ranks(after.flatten().tolist())
        if len(set(one)) > 1 and len(set(other)) > 1:
            expected.append(np.corrcoef(one, other)[0, 1])
    assert step.blank == 2 - len(expected)
    assert step.similarity == (pytest.approx(np.mean(expected), abs=1e-9) if expected else None)


def test_a_blank_map_counts_as_blank_and_not_as_unlike():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    grey, ramp = np.full((3, 3), 7.0), np.arange(9.0).reshape(3, 3)
    looks = iter([[ramp, ramp, grey], [ramp, grey, ramp], [grey, grey, grey]])
    one, all_of_them = randomisation(network, lambda network: next(looks))
    assert (one.similarity, one.blank) == (pytest.approx(1), 2)
    assert (all_of_them.similarity, all_of_them.blank) == (None, 3)


def test_maps_of_another_shape_and_those_that_are_not_finite_are_refused(classifier):
    with pytest.raises(ValueError, match="3 dimensions"):
        next(randomisation(classifier.network, lambda network: np.ones((3, 3))))
    growing = iter([np.ones((1, 2, 2)), np.ones((1, 3, 3))])
    with pytest.raises(ValueError, match=r"of \(1, 2, 2\) and are now of \(1, 3, 3\)"):
        next(randomisation(classifier.network, lambda network: next(growing)))
    broken = np.array([[[0, np.nan]]])
    with pytest.raises(ValueError, match="the map has values that are not finite"):
        next(randomisation(classifier.network, lambda network: broken))
    looks = iter([np.array([[[0, 1]]]), broken])
    with pytest.raises(ValueError, match="the map has values that are not finite"):
        next(randomisation(classifier.network, lambda network: next(looks)))


def test_a_network_that_cannot_be_copied_is_refused_in_words():
    network = nn.Sequential(nn.Conv2d(1, 1, 3))
    prune.random_unstructured(network[0], "weight", 0.5)
    with pytest.raises(ValueError, match="make its pruning or weight_norm permanent"):
        next(randomisation(network, lambda network: np.ones((1, 2, 2))))


def test_drawing_is_the_same_each_time(classifier):
    def look(network):
        return network.features[0].weight.detach().flatten(2).clone()

    first, second = (list(randomisation(classifier.network, look)) for _ in range(2))
    assert first == second
    assert first[-1].similarity < 1


@pytest.mark.slow
def test_grad_cam_of_a_trained_network_depends_on_its_weights(real_images):
    trained = open_classifier()
    layer = trained.card.target_layer
    frames = []
    for file in sorted((real_images / "kvasir-seg" / "images").glob("*.jpg"))[:3]:
        with Image.open(file) as picture:
            frames.append(np.array(picture.convert("RGB")))
    seen = trained.dissect(frames)[0]
    images, targets = seen.images, seen.scores.argmax(dim=1).tolist()
    steps = list(
        randomisation(trained.network, lambda network: dissect(network, images, [layer]).grad_cam(layer, targets))
    )
    assert all(step.blank == 0 for step in steps)
    similarities = np.abs([step.similarity for step in steps])
    assert similarities.max() < 0.9
    # What is left is where the frame is lit at all.
    assert similarities[-5:].mean() < 0.7
