"""``endolens explain``: what it writes, that it is what the network saw, and how it says no."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from explainers import METHODS, heatmap
from explainers.contact_sheet import thumbnail
from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.network import KVASIR_CLASSES, build
from monai_label_app.explain import Picture, look, write
from tests.dicom_files import by_pillow, image
from tests.dicom_files import write as write_dicom
from tests.monai_label_app.test_cli import assert_refused, endolens, files, start

LAYERS = [f"block{block}_conv{number}" for block in range(1, 6) for number in range(1, 3 if block < 3 else 5)]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def pixels(path: Path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="module")
def source(polyp, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "polyp.png"
    path.write_bytes(by_pillow(polyp, "PNG"))
    return path


@pytest.fixture(scope="module")
def everything(source, checkpoint, tmp_path_factory) -> Path:
    """The folder of all layers for all classes."""
    out = tmp_path_factory.mktemp("explained") / "maps"
    result = endolens("explain", source, "--layer", "all", "--class", "all", "--out", out, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    assert f"maps in {out}: 128\n" in result.stdout
    return out


# All layers for all classes


def test_all_layers_and_classes_are_written_and_the_manifest_names_every_file(everything):
    said = manifest(everything)
    maps = said["maps"]
    assert {(one["layer"], one["class"]) for one in maps} == {(a, b) for a in LAYERS for b in KVASIR_CLASSES}
    assert len(maps) == 128
    named = {one[kind] for one in maps for kind in ("picture", "raw")}
    assert files(everything) == named | {"manifest.json", said["contact_sheet"]}
    assert len(named) == 256
    for one in maps:
        assert one["picture"] == f"{one['layer']}_{one['class']}_grad-cam.png"


def test_the_manifest_says_what_was_explained_by_what(everything, source, classifier, polyp):
    said = manifest(everything)
    scores = classifier.dissect([polyp])[0].scores[0].double().numpy()
    expected = np.exp(scores) / np.exp(scores).sum()
    assert list(said["probabilities"]) == list(KVASIR_CLASSES)
    np.testing.assert_allclose(list(said["probabilities"].values()), expected, rtol=1e-5)
    assert said["predicted"] == KVASIR_CLASSES[expected.argmax()]
    assert (said["source"], said["frame"], said["method"], said["colours"]) == (str(source), 1, "grad-cam", "blue-red")
    assert said["geometry"] == {"height": 151, "width": 203, "content": [0, 0, 203, 151]}
    assert said["model"] == {
        "name": "tiny",
        "version": classifier.version,
        "architecture": "vgg19",
        "test_views": 1,
        "notice": "test model, not for clinical use",
    }


def test_the_raw_maps_are_those_of_the_dissection(everything, classifier, polyp):
    dissection, _ = classifier.dissect([polyp], LAYERS)
    for one in manifest(everything)["maps"]:
        raw = np.load(everything / one["raw"])
        expected = dissection.grad_cam(one["layer"], KVASIR_CLASSES.index(one["class"]))[0].numpy()
        assert raw.dtype == np.float32
        assert list(raw.shape) == one["shape"]
        np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-6 * max(expected.max(), 1e-30))
        assert one["maximum"] == raw.max()


@pytest.mark.slow
def test_the_pictures_are_the_raw_maps_laid_over_the_source_one_scale_a_layer(everything, polyp):
    maps = manifest(everything)["maps"]
    for layer in LAYERS:
        mine = [(one, np.load(everything / one["raw"])) for one in maps if one["layer"] == layer]
        full = max(raw.max() for _, raw in mine)
        assert full > 0
        for one, raw in mine:
            assert one["full_colour"] == full
            enlarged = torch.nn.functional.interpolate(
                torch.from_numpy(raw)[None, None], polyp.shape[:2], mode="bilinear", align_corners=False
            )[0, 0].numpy()
            expected = heatmap.overlay(polyp, enlarged / full).astype(int)
            assert np.abs(pixels(everything / one["picture"]) - expected).max() <= 1  # rounding


def find(sheet, picture, left: int = 0, top: int = 0) -> tuple[int, int]:
    """The first place (x, y) at or after (left, top) where a picture lies on the sheet, column by column."""
    height, width = picture.shape[:2]
    for x in range(left, sheet.shape[1] - width + 1):
        for y in range(top, sheet.shape[0] - height + 1):
            if (sheet[y, x] == picture[0, 0]).all() and (sheet[y : y + height, x : x + width] == picture).all():
                return x, y
    raise AssertionError("the picture is not on the sheet")


@pytest.mark.slow
def test_the_contact_sheet_has_every_picture_in_its_layers_row_and_its_classs_column(everything):
    sheet = pixels(everything / manifest(everything)["contact_sheet"])
    cells = {
        (layer, label): np.asarray(thumbnail(pixels(everything / f"{layer}_{label}_grad-cam.png")))
        for layer in LAYERS
        for label in KVASIR_CLASSES
    }
    height, width = cells[LAYERS[0], KVASIR_CLASSES[0]].shape[:2]
    left, top = find(sheet, cells[LAYERS[0], KVASIR_CLASSES[0]])
    right, _ = find(sheet, cells[LAYERS[0], KVASIR_CLASSES[1]], left + width, top)
    _, below = find(sheet, cells[LAYERS[1], KVASIR_CLASSES[0]], left, top + height)
    for row, layer in enumerate(LAYERS):
        for column, label in enumerate(KVASIR_CLASSES):
            x, y = left + column * (right - left), top + row * (below - top)
            same = (sheet[y : y + height, x : x + width] == cells[layer, label]).all(axis=2)
            if np.load(everything / f"{layer}_{label}_grad-cam.npy").any():
                assert same.all(), (layer, label)
            else:  # "blank" is written into the lower left corner
                assert same[: height // 2].all() and same[:, width // 2 :].all(), (layer, label)
                assert not same[-10:, :10].any(), (layer, label)


def test_a_repeated_run_writes_the_same_files(everything, source, checkpoint, tmp_path):
    choice = ["--layer", "block5_conv4", "--layer", "block2_conv1", "--class", "polyps", "--class", "top"]
    for name in ("one", "two", "one"):
        assert endolens("explain", source, *choice, "--out", tmp_path / name, "--model", checkpoint).exit_code == 0
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert len(one) == 2 * 4 + 2
    assert one == two
    before = content(everything)
    shared = [name for name in one if name.endswith(".npy")]
    assert [before[name] for name in shared] == [one[name] for name in shared]


# What is asked for


def test_by_default_it_is_the_models_own_layer_for_the_predicted_class(source, checkpoint, everything, tmp_path):
    result = endolens("explain", source, "--out", tmp_path / "out", "--model", checkpoint)
    said, predicted = manifest(tmp_path / "out"), manifest(everything)["predicted"]
    assert result.stdout.startswith(f"{predicted} ")
    assert "test model, not for clinical use" in result.stderr
    assert [(one["layer"], one["class"]) for one in said["maps"]] == [("block5_conv4", predicted)]
    assert said["contact_sheet"] is None
    stem = f"block5_conv4_{predicted}_grad-cam"
    assert files(tmp_path / "out") == {f"{stem}.png", f"{stem}.npy", "manifest.json"}


def test_names_given_twice_and_top_beside_its_own_name_make_one_map(source, checkpoint, everything, tmp_path):
    predicted = manifest(everything)["predicted"]
    choice = ["--class", "top", "--class", predicted, "--layer", "block1_conv1", "--layer", "block1_conv1"]
    endolens("explain", source, *choice, "--out", tmp_path / "out", "--model", checkpoint)
    assert [(one["layer"], one["class"]) for one in manifest(tmp_path / "out")["maps"]] == [("block1_conv1", predicted)]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("hires-cam", [("block3_conv1", "polyps"), ("block3_conv1", "esophagitis")]),
        ("saliency", [("block3_conv1", None)]),
        ("guided-backprop", [(None, "polyps"), (None, "esophagitis")]),
        ("guided-grad-cam", [("block3_conv1", "polyps"), ("block3_conv1", "esophagitis")]),
    ],
)
def test_a_method_makes_the_maps_it_knows_and_shows_them_in_full(
    source, classifier, checkpoint, polyp, tmp_path, method, names
):
    choice = ["--layer", "block3_conv1", "--class", "polyps", "--class", "esophagitis", "--method", method]
    out = tmp_path / "out"
    result = endolens("explain", source, *choice, "--out", out, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    said = manifest(out)
    assert [(one["layer"], one["class"]) for one in said["maps"]] == names
    assert said["method"] == method
    assert ("--layer changes nothing" in result.stderr) == (names[0][0] is None)
    assert ("--class changes nothing" in result.stderr) == (names[0][1] is None)
    dissection, _ = classifier.dissect([polyp], ["block3_conv1"])
    raws = []
    for one, (layer, label) in zip(said["maps"], names, strict=True):
        raws.append(np.load(out / one["raw"]))
        target = None if label is None else KVASIR_CLASSES.index(label)
        expected = {
            "hires-cam": lambda layer=layer, target=target: METHODS["hires-cam"].look(dissection, layer, target),
            "saliency": lambda layer=layer: dissection.saliency(layer).abs().max(dim=1).values,
            "guided-backprop": lambda target=target: dissection.guided_backprop(target).abs().max(dim=1).values,
            "guided-grad-cam": lambda layer=layer, target=target: (
                dissection.guided_grad_cam(layer, target).abs().max(dim=1).values
            ),
        }[method]()[0].numpy()
        np.testing.assert_allclose(raws[-1], expected, rtol=1e-5, atol=1e-6 * expected.max())
        assert one["picture"] == "_".join(part for part in (layer, label, method) if part) + ".png"
        assert pixels(out / one["picture"]).shape == polyp.shape
        assert bool(one["regions"]) == (method == "hires-cam" and raws[-1].any())
    percentile = 100 if method == "hires-cam" else 99.5
    full = max(np.percentile(raw[raw > 0], percentile) if raw.any() else 0 for raw in raws)
    assert [one["full_colour"] for one in said["maps"]] == pytest.approx([full] * len(names))


def test_viridis_is_used_where_it_is_asked_for(source, checkpoint, polyp, tmp_path):
    out = tmp_path / "out"
    endolens("explain", source, "--class", "polyps", "--colours", "viridis", "--out", out, "--model", checkpoint)
    (one,) = manifest(out)["maps"]
    raw = np.load(out / one["raw"])
    enlarged = heatmap.resize(raw / raw.max(), polyp.shape[:2])
    expected = heatmap.overlay(polyp, enlarged, colours="viridis").astype(int)
    shown = pixels(out / one["picture"])
    assert np.abs(shown - expected).max() <= 1
    assert np.abs(shown - heatmap.overlay(polyp, enlarged).astype(int)).max() > 20
    assert manifest(out)["colours"] == "viridis"


# Which picture


@pytest.mark.slow
def test_jpeg_png_and_dicom_are_read_and_a_frame_of_several_is_the_one_of_its_number(
    classifier, checkpoint, polyp, tmp_path
):
    (tmp_path / "a.jpg").write_bytes(by_pillow(polyp, "JPEG"))
    with Image.open(tmp_path / "a.jpg") as picture:
        decoded = np.array(picture)
    frames = np.stack([polyp, polyp[::-1], polyp[:, ::-1]])
    write_dicom(image(polyp), tmp_path / "still.dcm")
    write_dicom(image(frames), tmp_path / "several.dcm")
    for name, options, shown in [
        ("a.jpg", [], decoded),
        ("still.dcm", ["--frame", 1], polyp),
        ("several.dcm", [], frames[0]),
        ("several.dcm", ["--frame", 2], frames[1]),
        ("several.dcm", ["--frame", 3], frames[2]),
    ]:
        out = tmp_path / "out"
        choice = ["--class", "polyps", "--layer", "block1_conv1", *options]
        result = endolens("explain", tmp_path / name, *choice, "--out", out, "--model", checkpoint)
        assert result.exit_code == 0, result.output
        said = manifest(out)
        assert (said["source"], said["frame"]) == (str(tmp_path / name), options[1] if options else 1)
        layer, label = "block1_conv1", KVASIR_CLASSES.index("polyps")
        expected = classifier.dissect([np.ascontiguousarray(shown)], [layer])[0].grad_cam(layer, label)[0].numpy()
        np.testing.assert_allclose(
            np.load(out / said["maps"][0]["raw"]), expected, rtol=1e-4, atol=expected.max() / 1e5
        )


@pytest.mark.parametrize("size", [(32, 32), (3000, 40), (33, 700)])
def test_a_picture_of_any_shape_is_explained(checkpoint, tmp_path, size):
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    result = endolens("explain", tmp_path / "a.png", "--class", "all", "--out", tmp_path / "out", "--model", checkpoint)
    assert result.exit_code == 0, result.output
    for one in manifest(tmp_path / "out")["maps"]:
        assert pixels(tmp_path / "out" / one["picture"]).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (31, 700)])
def test_a_picture_that_is_too_small_is_refused(tmp_path, size):
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    result = endolens("explain", tmp_path / "a.png", "--out", tmp_path / "out")
    assert_refused(result, f"a.png has a frame of {size[0]} x {size[1]} pixels; a side needs 32")
    assert not (tmp_path / "out").exists()


# Regions, with a network whose map is known


def explained(frame, spotlight, folder: Path) -> dict:
    picture = Picture("frame.png", 1, frame)
    made = look(picture, spotlight, "grad-cam", ["0"], ["polyps"])
    folder.mkdir(exist_ok=True)
    write(picture, spotlight, "grad-cam", made, "blue-red", folder)
    return manifest(folder)


@pytest.mark.parametrize("box", [(200, 120, 360, 280), (0, 0, 100, 100), (500, 90, 640, 480)])
def test_a_region_lies_on_the_source_pixels_of_what_the_network_saw(spotlight, tmp_path, box):
    left, top, right, bottom = box
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[top:bottom, left:right] = 255
    said = explained(frame, spotlight, tmp_path / "maps")
    (region,) = said["maps"][0]["regions"]
    assert region["box"] == pytest.approx(box, abs=10)  # a pixel of the network's input is 10 x 7.5 of the source's
    xs, ys = zip(*region["contour"], strict=True)
    assert region["contour"][0] == region["contour"][-1]
    assert region["box"] == [min(xs), min(ys), max(xs), max(ys)]
    outlined = Image.new("1", (640, 480))
    ImageDraw.Draw(outlined).polygon([tuple(point) for point in region["contour"]], fill=1)
    one, other = np.asarray(outlined), frame[..., 0] > 0
    assert (one & other).sum() / (one | other).sum() > 0.9


def test_a_larger_region_comes_first_and_a_dark_frame_has_none(spotlight, tmp_path):
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[20:80, 20:80] = frame[200:400, 300:600] = 255
    large, small = explained(frame, spotlight, tmp_path / "two")["maps"][0]["regions"]
    assert large["box"] == pytest.approx([300, 200, 600, 400], abs=10)
    assert small["box"] == pytest.approx([20, 20, 80, 80], abs=10)
    dark = np.full((48, 64, 3), 90, np.uint8)
    (one,) = explained(dark, spotlight, tmp_path / "dark")["maps"]
    assert (one["regions"], one["maximum"], one["full_colour"]) == ([], 0, 0)
    assert (pixels(tmp_path / "dark" / one["picture"]) == dark).all()


# How it says no


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "block5_conv5"], ["no layer 'block5_conv5'", "did you mean block5_conv4"]),
        (["--layer", "mixed7"], ["no layer 'mixed7'", "block1_conv1", "block5_conv4"]),
        (["--layer", "block1_conv1", "--layer", "blok2_conv1"], ["no layer 'blok2_conv1'", "block2_conv1"]),
        (["--class", "polyp"], ["no class 'polyp'", "did you mean polyps"]),
        (["--class", "all", "--class", "zebra"], ["no class 'zebra'", *KVASIR_CLASSES]),
        (["--method", "gradcam"], ["no method 'gradcam'", "grad-cam"]),
        (["--method", "saliency", "--class", "polyp"], ["no class 'polyp'"]),
        (["--colours", "virdis"], ["no colour map 'virdis'", "viridis"]),
        (["--frame", "2"], ["polyp.png has no frame 2"]),
        (["--model", "vgg1999"], ["vgg1999"]),
        (["--model", "none.safetensors"], ["none.safetensors"]),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_near_ones(source, checkpoint, tmp_path, options, words):
    model = [] if "--model" in options else ["--model", checkpoint]
    result = endolens("explain", source, *options, "--out", tmp_path / "out", *model)
    assert result.exit_code == 1
    assert_refused(result, *words)
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def huge_png() -> bytes:
    """A picture of 50 000 x 50 000 pixels, 6 KB long: all that is read of it must be its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 6251 * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_bad_file_gets_one_sentence_and_leaves_no_output(polyp, checkpoint, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "text.dcm").write_text("not DICOM")
    (tmp_path / "folder").mkdir()
    (tmp_path / "huge.png").write_bytes(huge_png())
    (tmp_path / "cut.png").write_bytes(by_pillow(polyp, "PNG")[:5000])
    cut = write_dicom(image(polyp), tmp_path / "cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-1000])
    write_dicom(image(np.stack([polyp] * 2)), tmp_path / "two.dcm")
    for name, options, reason in [
        ("none.jpg", [], "cannot be read: No such file or directory"),
        ("none.dcm", [], "cannot be read: No such file or directory"),
        ("text.jpg", [], "is not a JPEG, PNG, TIFF or BMP picture"),
        ("text.dcm", [], "is neither DICOM nor a picture"),
        ("folder", [], "cannot be read: Is a directory"),
        ("huge.png", [], ""),
        ("cut.png", [], "cannot be read"),
        ("cut.dcm", [], "is truncated"),
        ("two.dcm", ["--frame", 3], "has no frame 3"),
    ]:
        before = files(tmp_path)
        result = endolens("explain", tmp_path / name, *options, "--out", tmp_path / "out", "--model", checkpoint)
        assert_refused(result, f"Error: {tmp_path / name} {reason}")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
        assert files(tmp_path) == before


@pytest.mark.parametrize("options", [["--frame", 0], ["--frame", "two"], ["--what"], []])
def test_wrong_options_are_a_usage_error(source, options, tmp_path):
    result = endolens("explain", *([source] if options else []), *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


@pytest.fixture
def odd_names(tmp_path) -> Path:
    """A network with class names that only differ in what a file's name may not have."""
    classes = ("polyp (small)", "polyp [small]", "息肉")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build("vgg11", classes, width=1 / 32)
    card = Card("odd", "1", "vgg11", 1 / 32, classes, input_size=32, target_layer="block5_conv2")
    save(tmp_path / "odd.safetensors", network, card)
    return tmp_path / "odd.safetensors"


def test_a_class_name_of_any_letters_names_its_files(source, odd_names, tmp_path):
    for label, name in [("polyp (small)", "polyp-small-"), ("息肉", "息肉")]:
        out = tmp_path / name
        result = endolens("explain", source, "--class", label, "--out", out, "--model", odd_names)
        assert result.exit_code == 0, result.output
        assert files(out) == {"manifest.json", *(f"block5_conv2_{name}_grad-cam.{kind}" for kind in ("png", "npy"))}
        assert manifest(out)["maps"][0]["class"] == label


def test_class_names_that_look_alike_in_a_file_name_get_files_of_their_own(source, odd_names, tmp_path):
    out = tmp_path / "out"
    result = endolens("explain", source, "--class", "all", "--out", out, "--model", odd_names)
    assert result.exit_code == 0, result.output
    assert len({one["raw"] for one in manifest(out)["maps"]}) == 3


# The program itself


def test_a_typo_beside_all_layers_is_named(source, checkpoint, tmp_path):
    choice = ["--layer", "all", "--layer", "block5_conv9", "--out", tmp_path / "out", "--model", checkpoint]
    assert_refused(endolens("explain", source, *choice), "no layer 'block5_conv9'")


@pytest.mark.slow
def test_a_pipe_is_refused_and_not_waited_for(checkpoint, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    process = start("explain", tmp_path / "pipe.png", "--out", tmp_path / "out", "--model", checkpoint)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # raised as long as nobody has opened the pipe to read
                os.close(os.open(tmp_path / "pipe.png", os.O_WRONLY | os.O_NONBLOCK))
                pytest.fail("it waits for the pipe")
            time.sleep(0.02)
    finally:
        process.kill()
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert "is not a regular file" in stderr


@pytest.mark.slow
def test_any_network_of_torchvision_is_explained_by_its_own_layer_names(source, tmp_path):
    model = ["--model", "resnet18"]
    wrong = endolens("explain", source, "--layer", "layer4.1.conv3", "--out", tmp_path / "out", *model)
    assert_refused(wrong, "no layer 'layer4.1.conv3'", "layer4.1.conv2")
    result = endolens("explain", source, "--layer", "layer4.1.conv2", "--out", tmp_path / "out", *model)
    assert result.exit_code == 0, result.output
    assert "untrained network, its output means nothing" in result.stderr
    (one,) = manifest(tmp_path / "out")["maps"]
    assert one["shape"] == [7, 7]
