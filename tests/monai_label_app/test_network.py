"""Networks by name, their layers, and weights from elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from explainers.layers import convolutions
from monai_label_app.classifier.classifier import _open
from monai_label_app.classifier.network import KVASIR_CLASSES, TEST_VIEWS, build, calibrate, in_views, load_pretrained


@pytest.mark.slow
def test_vgg19_is_torchvisions_own() -> None:
    torch.manual_seed(0)
    ours = build("vgg19", classes=["a", "b"])
    theirs = torchvision.models.vgg19(weights=None, num_classes=2).eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("architecture", ["vgg19", "vgg19_bn"])
def test_vgg19_layers_have_the_names_of_the_literature(architecture: str) -> None:
    layers = convolutions(build(architecture, width=1 / 32))
    expected = [f"block{block}_conv{n}" for block, count in enumerate([2, 2, 4, 4, 4], 1) for n in range(1, count + 1)]
    assert list(layers) == expected
    assert [layers[f"block{block}_conv1"].out_channels for block in range(1, 6)] == [2, 4, 8, 16, 16]


@pytest.mark.parametrize(
    "architecture", ["resnet18", "densenet121", "mobilenet_v3_small", "googlenet", "convnext_tiny"]
)
def test_other_networks_have_layers_by_module_path_and_one_output_a_class(architecture: str) -> None:
    network = build(architecture)
    for name, layer in convolutions(network).items():
        assert network.get_submodule(name) is layer
    with torch.no_grad():
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, len(KVASIR_CLASSES))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"architecture": "vgg20"}, "'vgg20'"),
        ({"architecture": "resnet18", "width": 0.5}, "resnet18 has width 1"),
        ({"width": -1.0}, "neither a factor above 0"),
        ({"width": (1, 1, 0.5)}, "of 5 blocks and the head"),
        ({"classes": ()}, "at least one class"),
    ],
)
def test_network_that_cannot_be_is_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**arguments)


def test_trunk_from_a_file_leaves_the_head_and_says_so(tmp_path: Path) -> None:
    source = build("vgg19", width=1 / 32)
    trunk = {name: tensor for name, tensor in source.state_dict().items() if name.startswith("features.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    network = build("vgg19", width=1 / 32)
    rest = load_pretrained(network, "vgg19", tmp_path / "trunk.safetensors")
    assert rest and all(name.startswith("classifier.") for name in rest)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in trunk.items())


def test_imagenet_weights_come_by_torchvisions_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file where torchvision keeps its downloads, as on a machine that has fetched it before."""
    file = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    original = torchvision.models.squeezenet1_1(weights=None)
    torch.save(original.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    classifier = _open.__wrapped__("squeezenet1_1", "imagenet")
    trunk = classifier.network.state_dict()["features.0.weight"]
    assert torch.equal(trunk.cpu(), original.state_dict()["features.0.weight"])
    assert classifier.card.notice == "untrained network, its output means nothing"


def test_weights_that_share_nothing_are_refused(tmp_path: Path) -> None:
    save_file({"nothing": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no weights that fit"):
        load_pretrained(build("vgg19", width=1 / 32), "vgg19", tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_pretrained(build("vgg19", width=1 / 32), "vgg19", tmp_path / "text.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_the_target_layer_of_a_network_by_name_takes_part_in_its_scores(name: str) -> None:
    classifier = _open(name)
    seen, _ = classifier.dissect([np.zeros((80, 80, 3), np.uint8)])
    assert classifier.card.target_layer == seen.layers[-1]


def test_network_by_name_is_the_same_twice() -> None:
    first, second = (_open.__wrapped__("squeezenet1_1") for _ in range(2))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("architecture", "width"), [("vgg11", 1 / 16), ("resnet18", 1), ("googlenet", 1), ("mobilenet_v3_small", 1)]
)
def test_a_calibrated_network_gives_the_softmax_of_its_scores_by_the_temperature(architecture, width) -> None:
    torch.manual_seed(0)
    network = build(architecture, width=width)
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        calibrate(network, 2.5)
        torch.testing.assert_close(network(images).softmax(1), (before / 2.5).softmax(1))


def test_what_cannot_be_calibrated_is_refused_and_stays_as_it_is() -> None:
    squeezenet = build("squeezenet1_1")
    before = {name: tensor.clone() for name, tensor in squeezenet.state_dict().items()}
    with pytest.raises(ValueError, match="ends in a linear layer can be calibrated, not in Conv2d"):
        calibrate(squeezenet, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in squeezenet.state_dict().items())
    for temperature in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must be above 0"):
            calibrate(build("vgg11", width=1 / 32), temperature)


def test_a_narrower_network_keeps_the_strongest_channels_and_what_leads_to_them(tmp_path: Path) -> None:
    """A wide network in which only some channels do anything is, narrowed to as many, the same network."""
    torch.manual_seed(0)
    wide = build("vgg11", width=(1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 64))
    for layer in convolutions(wide).values():
        half = layer.out_channels // 2
        silent = torch.randperm(layer.out_channels)[half:]
        with torch.no_grad():
            layer.weight[silent], layer.bias[silent] = 0, 0
    save_file(wide.features.state_dict(prefix="features."), tmp_path / "wide.safetensors")
    narrow = build("vgg11", width=(1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 64))
    new = load_pretrained(narrow, "vgg11", tmp_path / "wide.safetensors")
    assert all(name.startswith("classifier.") for name in new)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        kept, every = narrow.features(images), wide.features(images)
    heard = [channel for channel in range(every.shape[1]) if channel not in silent]
    assert torch.allclose(kept, every[:, heard], atol=1e-6)
    assert kept.any()


def test_views_are_as_it_is_mirrored_at_the_diagonal_turned_by_half_and_mirrored_top_to_bottom() -> None:
    quarters = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    image = quarters.repeat_interleave(16, 0).repeat_interleave(16, 1).expand(1, 3, 32, 32)
    seen = []

    class Remember(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images[0, 0, [8, 8, 24, 24], [8, 24, 8, 24]].view(2, 2))
            return images.mean((2, 3))

    with torch.no_grad():
        in_views(Remember(), len(TEST_VIEWS))(image)
    expected = [quarters, quarters.T, quarters.rot90(2), quarters.flipud()]
    assert all(torch.allclose(*pair) for pair in zip(seen, expected, strict=True))
    network = build("vgg11", width=1 / 32)
    assert in_views(network, 1) is network
