"""A trained network knows its classes, looks where it is told to, and is the same whether or not it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.models import resnet18

from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.classifier.data import Example
from monai_label_app.classifier.guidance import astray
from monai_label_app.classifier.head import Reading, adopt, bake, start
from monai_label_app.classifier.learner import Loss
from monai_label_app.classifier.metrics import temperature
from monai_label_app.classifier.network import HEAD, build, in_views, split
from monai_label_app.classifier.probe import Probe
from monai_label_app.classifier.teacher import TRUNK, ask, disagreement, mix, open_teacher
from monai_label_app.classifier.training import Recipe, Training
from monai_label_app.console import silent
from monai_label_app.reading import read_frame

CLASSES = ("green", "red")
SMALL = Recipe("vgg11", 1 / 16, size=64, preprocess="none", epochs=4, rate=1e-3, guidance=0)


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> list[Example]:
    """Forty grey pictures with a spot of one of two colours, which lies anywhere; masks of the spots beside them."""
    folder, random = tmp_path_factory.mktemp("spots"), np.random.default_rng(0)
    (folder / "masks").mkdir()
    made = []
    for number in range(40):
        label = CLASSES[number % 2]
        frame = random.integers(90, 130, (80, 80, 3)).astype(np.uint8)
        y, x = random.integers(4, 52, 2)
        frame[y : y + 24, x : x + 24] = (40, 200, 60) if label == "green" else (210, 50, 40)
        mask = np.zeros((80, 80), np.uint8)
        mask[y : y + 24, x : x + 24] = 255
        Image.fromarray(frame).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        made.append(Example(folder / f"{number}.png", label, str(number)))
    return made


def training(examples, recipe, folder: Path, progress=silent, aside: int = 8) -> Training:
    folder.mkdir(exist_ok=True)
    return Training(recipe, CLASSES, examples[aside:], examples[:aside], {}, folder, progress)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])


@pytest.mark.slow
def test_a_network_learns_its_classes(examples, tmp_path):
    run = training(examples, replace(SMALL, epochs=12), tmp_path / "run")
    card = run.run()
    classifier = Classifier(run.network, card, "", torch.device("cpu"))
    frames = [read_frame(example.path) for example in examples[:8]]
    said = [CLASSES[index] for index in classifier.scores(frames).argmax(1)]
    assert said == [example.label for example in examples[:8]]
    assert card.metrics == {"validation_macro_f1": 1.0, "validation_images": 8}
    assert not run.network.training
    assert (tmp_path / "run" / "curves.png").is_file()
    assert list((tmp_path / "run").glob("events.out.tfevents.*")), "TensorBoard can show it"


class KilledError(Exception):
    pass


def killed_after(batches: int):
    def progress(items: Iterable, length: int | None, label: str) -> Iterable:
        for done, item in enumerate(items):
            if label == "Training" and done == batches:
                raise KilledError
            yield item

    return progress


def pretrained(path: Path, factor: float = 1) -> str:
    """The file of convolutions that :data:`SMALL` can start from."""
    trunk = build("vgg11", CLASSES, 1 / 16).features.state_dict()
    save_file({f"features.{name}": factor * tensor for name, tensor in trunk.items()}, path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("train_from", ["", "block4_conv1"])
@pytest.mark.parametrize("batches", [2, 3])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(examples, tmp_path, train_from, batches):
    recipe = replace(SMALL, train_from=train_from, views=2, guidance=0.3)
    if train_from:
        recipe = replace(recipe, teacher=TRUNK, weights=pretrained(tmp_path / "trunk.safetensors"))
    whole = training(examples, recipe, tmp_path / "whole")
    whole.run()
    with pytest.raises(KilledError):
        training(examples, recipe, tmp_path / "killed", killed_after(batches)).run()
    resumed = training(examples, recipe, tmp_path / "killed")
    resumed.run()
    assert torch.equal(weights(resumed.network), weights(whole.network))
    assert resumed.history == whole.history


@pytest.mark.slow
def test_the_folder_of_another_run_is_refused(examples, tmp_path):
    training(examples, replace(SMALL, epochs=1), tmp_path / "run").run()
    with pytest.raises(ValueError, match="holds a run with other options or pictures"):
        training(examples, replace(SMALL, rate=1e-2), tmp_path / "run")


@pytest.mark.slow
def test_training_stops_where_nothing_improves_and_all_classes_weigh_the_same_in_that(examples, tmp_path):
    aside = [*examples[:12:2], *examples[1:5:2]]
    ordered = [*aside, *(example for example in examples if example not in aside)]
    run = training(ordered, replace(SMALL, epochs=30, patience=2, rate=1e-9), tmp_path / "run")
    card = run.run()
    best = int(np.argmin(run.history.validation_loss))
    assert len(run.history.loss) == best + 3 < 30
    scores = Classifier(run.network, card, "", torch.device("cpu")).scores([read_frame(one.path) for one in aside])
    said = torch.as_tensor(scores * card.temperature).softmax(1).numpy()
    known = log_loss([0] * 6 + [1] * 2, said, sample_weight=[1 / 6] * 6 + [1 / 2] * 2)
    assert run.history.validation_loss[best] == pytest.approx(known, rel=0.1), "but for half the bits"
    assert log_loss([0] * 6 + [1] * 2, said) != pytest.approx(known, rel=0.2)


@pytest.mark.slow
def test_temperature_and_metrics_are_of_the_network_as_it_will_be_asked(examples, tmp_path):
    labels = np.arange(20) % 2
    labels[:4] = 1  # two are wrong, so that there is a best temperature
    aside = [replace(one, label=CLASSES[label]) for one, label in zip(examples, labels, strict=False)]
    run = training([*aside, *examples[20:]], replace(SMALL, test_views=3), tmp_path / "run", aside=20)
    card = run.run()
    frames = [read_frame(one.path) for one in aside]
    scores = {
        views: Classifier(in_views(run.network, views), card, "", torch.device("cpu")).scores(frames).double().numpy()
        for views in (1, 3)
    }
    best = {views: temperature(labels, card.temperature * said) for views, said in scores.items()}
    assert best[3] == pytest.approx(card.temperature, rel=0.01)
    assert best[1] != pytest.approx(card.temperature, rel=0.02)
    said = f1_score(labels, scores[3].argmax(1), average="macro")
    assert card.metrics == {"validation_macro_f1": pytest.approx(said, abs=1e-4), "validation_images": 20}


@pytest.mark.slow
def test_frozen_layers_stay_as_they_were(examples, tmp_path):
    run = training(examples, replace(SMALL, train_from="block3_conv1", views=1, epochs=1), tmp_path / "run")
    before = [tensor.clone() for tensor in run.network.features.state_dict().values()]
    run.run()
    after = run.network.features.state_dict().values()
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True] * 4 + [False] * 12


@pytest.mark.parametrize(("network", "first"), [(build("vgg11", CLASSES, 1 / 16), "block3_conv2"),
                                                (build("vgg11", CLASSES, 1 / 16), HEAD),
                                                (resnet18(num_classes=2).eval(), HEAD)])  # fmt: skip
def test_the_two_parts_of_a_network_are_the_network(network, first):
    before, rest = split(network, first)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rest(before(image).clone()), network(image))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "first", "said"),
    [
        ("vgg11", "block9_conv1", "there is no layer"),
        ("vgg11", "block1_conv1", "nothing lies before"),
        ("resnet18", "layer4", "before its head alone"),
    ],
)
def test_a_network_is_divided_only_where_it_can_be(architecture, first, said):
    with pytest.raises(ValueError, match=said):
        split(build(architecture, CLASSES), first)


@pytest.mark.parametrize(("width", "classes"), [(1 / 16, 2), (1 / 16, 5), ((1, 1, 1, 1, 1 / 8, 1 / 128), 3)])
def test_the_head_starts_as_a_linear_classifier_alike_at_every_position_and_is_baked_as_it_is(width, classes):
    generator = torch.Generator().manual_seed(0)
    network = build("vgg11", [str(number) for number in range(classes)], width)
    channels = network.classifier[0].in_features // 49
    targets = torch.arange(60) % 3 % classes  # of five classes, two have no picture
    shown = torch.rand(60, channels, 49, generator=generator)
    shown[torch.arange(60), targets] += 3
    pooled = shown.flatten(1)
    start(network, pooled, targets)
    made = network.classifier(pooled)
    assert (made.argmax(1) == targets).all()
    shuffled = shown[..., torch.randperm(49, generator=generator)].flatten(1)
    assert torch.allclose(network.classifier(shuffled), made, atol=1e-4)
    bake(network)
    assert torch.allclose(network.classifier(pooled), made, atol=1e-4)
    again = build("vgg11", [str(number) for number in range(classes)], width)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.classifier(pooled), network.classifier(pooled))


def test_a_head_adopts_curves_of_its_channels_and_is_baked_as_it_is():
    generator = torch.Generator().manual_seed(0)
    network = build("vgg11", ["a", "b", "c"], 1 / 16)
    shown = torch.rand(200, 32, 49, generator=generator) * torch.rand(200, 32, 1, generator=generator) ** 2
    weights, average = torch.randn(3, 32, generator=generator), torch.tensor([1.0, 0.0, -2.0])
    adopt(network, shown[:150].flatten(1), Reading(weights, lambda means: (means + 0.1).log(), average))
    said = network.classifier(shown.flatten(1))
    expected = (shown.mean(2) + 0.1).log() @ weights.T
    expected += average - expected[:150].mean(0)
    assert (said - expected).std() < 0.05 * expected.std()
    torch.testing.assert_close(said[:150].mean(0), average, atol=1e-4, rtol=0)
    bake(network)
    torch.testing.assert_close(network.classifier(shown.flatten(1)), said, atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="a head of 26 units cannot read 32 channels; take a wider head"):
        adopt(build("vgg11", ["a", "b", "c"], (1 / 16,) * 5 + (1 / 160,)), shown.flatten(1),
              Reading(weights, torch.log, average))  # fmt: skip


def test_a_mixture_is_of_two_pictures_and_a_teacher_scores_it(tmp_path):
    network, path = build("vgg11", CLASSES, 1 / 16), tmp_path / "t.safetensors"
    save(path, network, Card("t", "1", "vgg11", 1 / 16, CLASSES, 64, target_layer="block5_conv2"))
    images = torch.rand(6, 3, 64, 64)
    mixed = mix(images)
    scores = ask(open_teacher(path, CLASSES, 64, "none", torch.device("cpu")), mixed)
    with torch.no_grad():
        torch.testing.assert_close(scores, network(mixed), rtol=0.05, atol=0.01)
    for mixture, one, other in zip(mixed, images, images.roll(1, dims=0), strict=True):
        share = (mixture - one).flatten() @ (other - one).flatten() / (other - one).square().sum()
        assert 0 <= share <= 1
        torch.testing.assert_close(mixture, torch.lerp(one, other, share))


def test_a_teacher_that_was_told_the_labels_is_heard_on_them_and_every_class_weighs_the_same():
    generator = torch.Generator().manual_seed(0)
    scores, taught = torch.rand(5, 2, generator=generator), torch.rand(5, 2, generator=generator)
    targets, allowed = torch.tensor([0, 0, 1]), torch.ones(3, 1, 1, 1)
    loss = Loss(torch.tensor([0.75, 1.5]), 0.0)
    labels = loss((scores[:3], None), (targets, allowed, None)).item()
    smooth = torch.tensor([[0.975, 0.025], [0.975, 0.025], [0.025, 0.975]])
    surprise = -(smooth * scores[:3].log_softmax(1)).sum(1)
    assert labels == pytest.approx(((surprise[0] + surprise[1] + 2 * surprise[2]) / 4).item())
    apart = disagreement(scores, taught)
    mixed = loss((scores, None), (targets, allowed, taught[3:])).item()
    assert mixed == pytest.approx(labels + apart[3:].mean().item())
    told = ((apart[0] + apart[1] + 2 * apart[2]) / 4 + apart[3:].mean()).item()
    assert loss((scores, None), (targets, allowed, taught)).item() == pytest.approx(0.2 * labels + told)


def tinted() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that was not trained, and thirty images of two colours with their classes."""
    torch.manual_seed(0)
    network = build("vgg11", CLASSES, 1 / 16).eval()
    images, targets = torch.rand(30, 3, 64, 64), torch.arange(30) % 2
    images[targets == 1, 0] *= 0.5
    return network, images, targets


def test_a_probe_is_scikit_learns_regression_where_the_spread_within_classes_is_the_same_in_all_directions():
    network, images, targets = tinted()
    probe = Probe(network, 2)
    probe.fit(probe.means(images), targets)
    taught = probe(images)
    with torch.no_grad():
        before, last = (network.features[:end](images).mean((2, 3)) for end in (16, 21))
        for parameter in network.parameters():
            parameter.zero_()
    values = StandardScaler().fit_transform(torch.cat([before, (last + 0.1).log()], dim=1).double().numpy())
    within = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.5).fit(values, targets.numpy()).covariance_
    values = values @ np.linalg.inv(np.linalg.cholesky(within)).T
    known = LogisticRegression(C=0.05, class_weight="balanced", tol=1e-6).fit(values, targets.numpy())
    expected = known.predict_proba(values)
    assert expected[:, 1].std() > 0.02
    np.testing.assert_allclose(taught.softmax(1).numpy(), expected, atol=0.01)
    torch.testing.assert_close(probe(images), taught, msg="the network learns, its teacher does not")


def test_a_channel_that_was_silent_while_a_probe_was_fitted_says_nothing_later():
    network, images, targets = tinted()
    probe = Probe(network, 2)
    means = probe.means(images)
    means[:, [3, -5]] = 0  # of the block's input and its output
    probe.fit(means, targets)
    probe.means = lambda _: later
    later = means.clone()
    before = probe(images)
    later[:, [3, -5]] = means.mean()
    torch.testing.assert_close(probe(images), before, atol=0.01, rtol=0)


@pytest.mark.parametrize("first", ["", "block4_conv1", "block5_conv1"])
def test_a_trunk_hands_down_what_it_says_to_a_network_that_was_not_trained_yet(first):
    torch.manual_seed(0)
    network = build("vgg11", CLASSES, (1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4)).eval()
    with torch.no_grad():  # as a pretrained one: every layer as lively as the one before
        for layer in network.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    before, learning = split(network, first) if first else (nn.Identity(), network)
    tints = torch.rand(90, 3, 1, 1)
    with torch.no_grad():
        images = before(torch.rand(90, 3, 96, 96) * tints)
    targets = (tints[:, 0, 0, 0] > tints[:, 1, 0, 0]).long()
    probe = Probe(learning, 2)
    means = probe.means(images[:60])
    probe.fit(means, targets[:60])
    reading = probe.hand_down(learning, means)
    pooled: list[torch.Tensor] = []
    hook = network.classifier.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    with torch.no_grad():
        learning(images[:60])
        hook.remove()
        adopt(network, pooled[0], reading)
        said, taught = (values.diff(dim=1)[60:, 0] for values in (learning(images), probe(images)))
    assert ((taught > 0) == (targets[60:] > 0)).float().mean() > 0.8
    assert (said - taught).std() < 0.2 * taught.std()
    assert (said - taught).mean().abs() < 0.1 * taught.std()


@pytest.mark.slow
def test_a_trunk_teaches_its_network_or_is_refused(examples, tmp_path):
    weights = pretrained(tmp_path / "w.safetensors")
    recipe = replace(SMALL, weights=weights, teacher=TRUNK, train_from="block5_conv1", views=2, epochs=2)
    run = training(examples, recipe, tmp_path / "run", aside=0)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    run.run()
    assert len(run.history.loss) == 2
    after = {name: tensor for name, tensor in run.network.state_dict().items() if name in before}  # as it was not baked
    learned = {name for name, tensor in after.items() if not torch.allclose(tensor, before[name])}
    assert learned == {"features.18.weight", "features.18.bias"}, "the layer whose maps are shown, and no other"
    broken = pretrained(tmp_path / "broken.safetensors", torch.nan)
    only = "only the convolutions of a VGG network without batch normalisation"
    for wrong, words in (
        (replace(recipe, train_from=HEAD), only),
        (replace(SMALL, architecture="resnet18", width=1, teacher=TRUNK), only),
        (replace(SMALL, architecture="vgg11_bn", teacher=TRUNK), only),
        (replace(recipe, weights=""), "features.0.weight is not pretrained; give --weights that have it"),
        (replace(recipe, width=1 / 64), "layers of 8 channels have none to spare for 2 classes"),
        (replace(recipe, width=(1 / 16,) * 5 + (1 / 160,)), "a head of 26 units cannot read 32 channels"),
        (replace(recipe, weights=broken), "the weights are broken"),
    ):
        with pytest.raises(ValueError, match=words):
            training(examples, wrong, tmp_path / "other")
    shutil.rmtree(tmp_path / "other")


def test_disagreement_is_the_divergence_of_the_softened_scores():
    said, taught = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0]])
    p, q = ((values / 2).softmax(1) for values in (taught, said))
    assert disagreement(said, taught).item() == pytest.approx(4 * (p * (p / q).log()).sum().item(), rel=1e-5)
    assert disagreement(said, said).item() == pytest.approx(0, abs=1e-6)


def test_a_teacher_of_another_input_is_refused(examples, tmp_path):
    save(tmp_path / "t.safetensors", build("vgg11", CLASSES, 1 / 16),
         Card("t", "1", "vgg11", 1 / 16, CLASSES, 96, target_layer="block5_conv2"))  # fmt: skip
    with pytest.raises(ValueError, match="cannot teach: its classes, input size and pre-processing are"):
        training(examples, replace(SMALL, teacher=str(tmp_path / "t.safetensors")), tmp_path / "run")


@pytest.mark.slow
def test_a_teacher_shares_the_frozen_layers_with_its_pupil_or_is_refused(examples, tmp_path):
    wide = (1 / 16, 1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 16)
    known = str(tmp_path / "t.safetensors")
    save(Path(known), build("vgg11", CLASSES, wide),
         Card("t", "1", "vgg11", wide, CLASSES, 64, target_layer="block5_conv2"))  # fmt: skip
    recipe = replace(SMALL, teacher=known, train_from="block4_conv1", views=2, epochs=1)
    run = training(examples, replace(recipe, weights=known), tmp_path / "run")
    before = run.network.features[0].weight.clone()
    run.run()
    assert torch.equal(run.network.features[0].weight, before)
    with pytest.raises(ValueError, match=r"what lies before block4_conv1 is not .*t.safetensors's own"):
        training(examples, recipe, tmp_path / "other")


def test_a_map_goes_astray_by_minus_log_of_its_share_inside():
    # One channel, whose mean gradient is 1: the map is the activation itself.
    activation = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]], requires_grad=True)
    scores = torch.stack([activation.sum((1, 2, 3)), torch.zeros(1)], dim=1)
    allowed = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    spread = torch.tensor([3.0, 1, 0, 0]).std()
    shares = (2 * torch.tensor([3.0, 1, 0, 0]) / spread).softmax(0)
    lost = astray(scores, activation, torch.tensor([0]), allowed)
    assert lost.item() == pytest.approx(-torch.log(shares[0] + shares[3]).item(), rel=1e-5)
    assert astray(scores, activation, torch.tensor([0]), torch.ones(1, 1, 2, 2)).item() == 0


def test_a_map_of_one_place_is_beside_nothing_and_spoils_no_weight():
    activation = torch.ones(2, 3, 1, 1, requires_grad=True)
    scores = activation.flatten(1) * torch.tensor([1.0, 2.0, 3.0])
    lost = astray(scores, activation, torch.tensor([0, 1]), torch.tensor([0.0, 1.0])[:, None, None, None])
    assert lost.tolist() == [0, 0]
    (lost.mean() + scores.mean()).backward()
    assert activation.grad.isfinite().all()


@pytest.mark.slow
def test_guidance_moves_the_maps_onto_the_masks(examples, tmp_path):
    masks = {path.stem: path for path in (examples[0].path.parent / "masks").iterdir()}

    def share_inside(guidance: float) -> float:
        folder = tmp_path / str(guidance)
        folder.mkdir()
        recipe = replace(SMALL, epochs=50, guidance=guidance)
        run = Training(recipe, CLASSES, examples[8:], examples[:8], masks, folder)
        classifier = Classifier(run.network, run.run(), "", torch.device("cpu"))
        inside = []
        for example in examples[:8]:
            seen, (geometry,) = classifier.dissect([read_frame(example.path)])
            found = geometry.to_source(seen.grad_cam(classifier.card.target_layer, CLASSES.index(example.label))[0])
            mask = np.asarray(Image.open(masks[example.path.stem])) > 0
            inside.append(found[mask].sum() / max(found.sum(), 1e-9))
        return float(np.mean(inside))

    assert share_inside(1.0) > 2 * share_inside(0.0)
