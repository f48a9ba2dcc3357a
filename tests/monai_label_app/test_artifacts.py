"""The navigation box and the border of real frames are found where they are, and nowhere else."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import binary_dilation
from skimage.draw import disk

from monai_label_app.classifier.artifacts import VARIANTS, Artifacts, Box, clean, find_artifacts, masks
from tests.dicom_files import image, write
from tests.monai_label_app.test_cli import assert_refused, endolens, files


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    x0, y0, x1, y1 = (pick(pair) for pick, pair in zip((max, max, min, min), zip(one, other, strict=True), strict=True))
    shared = max(0, x1 - x0) * max(0, y1 - y0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def frame(path: Path, scale: float = 1.0):
    with Image.open(path) as picture:
        picture = picture.convert("RGB")
        return np.array(picture.resize([round(side * scale) for side in picture.size]))


@pytest.fixture(scope="module")
def boxes(real_images) -> dict[Path, Box]:
    """The real frames with a navigation box, and where it is."""
    folder = real_images / "kvasir-seg"
    said = json.loads((folder / "navigation_boxes.json").read_text())
    return {folder / "images" / name: tuple(box) for name, box in said.items()}


def test_every_navigation_box_of_either_style_is_found_at_any_size_of_the_frame(boxes):
    assert boxes
    for path, box in boxes.items():
        for scale in (0.5, 0.8, 1, 1.5):
            found = find_artifacts(frame(path, scale))
            assert found.navigation_box, (path, scale)
            assert overlap(found.navigation_box, tuple(side * scale for side in box)) >= 0.9
            assert found.blacked_out is None


@pytest.mark.slow
def test_no_frame_without_a_box_has_one(real_images, boxes):
    others = [path for path in (real_images / "kvasir-seg" / "images").iterdir() if path not in boxes]
    others += (real_images / "lesion-video").glob("*.png")
    assert len(others) > 600
    assert [path for path in others if find_artifacts(frame(path)).navigation_box] == []


@pytest.mark.slow
def test_boxes_and_cut_outs_are_found_in_the_classes_that_carry_them(real_images):
    folder = real_images / "kvasir-8"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["nav"]]
    found = {row["file"]: find_artifacts(frame(folder / row["file"])) for row in rows}
    assert [
        row["file"] for row in rows if (row["nav"] == "yes") != (found[row["file"]].navigation_box is not None)
    ] == []
    cuts = [row["file"] for row in rows if row["cut"] == "yes"]
    assert len(cuts) == 7
    assert [name for name in cuts if not found[name].blacked_out] == []


def test_a_box_that_was_blacked_out_is_found_as_such(boxes):
    for path in boxes:
        source = frame(path)
        found = find_artifacts(source)
        again = find_artifacts(clean(source, found, "box")[0])
        assert again.navigation_box is None
        assert again.content == found.content
        # What lies on the border is black without it; the bright style's black frame belongs to what is cut out.
        x0, y0, x1, y1 = found.navigation_box
        seen = (max(x0, found.content[0]), y0, x1, min(y1, found.content[3]))
        assert overlap(again.blacked_out, seen) >= 0.8


@pytest.mark.slow
def test_green_tissue_is_no_box(polyp_files):
    for path in polyp_files:
        for light in ([0.1, 1, 0.75], [0.1, 3, 2.4], [0, 2, 1.6]):
            tinted = np.clip(frame(path) * np.array(light), 0, 255).astype(np.uint8)
            assert find_artifacts(tinted).navigation_box is None


def test_the_content_is_the_rectangle_around_the_endoscopes_circle(polyp):
    wide = np.tile(polyp, (4, 4, 1))[:480, :640]
    wide = np.maximum(wide, 40)
    seen = np.zeros_like(wide)
    inside = disk((240, 350), 200, shape=wide.shape[:2])
    seen[inside] = wide[inside]
    seen[20:30, 10:60] = 255  # a burned-in name
    found = find_artifacts(seen)
    np.testing.assert_allclose(found.content, (150, 40, 550, 440), atol=4)
    assert found.blacked_out is None


def test_cleaning_blacks_the_box_and_crops_the_border_and_leaves_the_frame_alone(boxes):
    path = next(iter(boxes))
    source = frame(path)
    before = source.copy()
    found = find_artifacts(source)
    x0, y0, x1, y1 = found.navigation_box
    for variant in VARIANTS:
        cleaned, (left, top, right, bottom) = clean(source, found, variant)
        assert cleaned.shape == (bottom - top, right - left, 3)
        cropped = variant in ("box+border", "inpaint")
        assert (left, top, right, bottom) == (found.content if cropped else (0, 0, 720, 576))
        if variant == "inpaint":
            continue
        # Two pixels more: compression blurs the box over its edges.
        box = cleaned[max(0, y0 - top - 2) : y1 - top + 2, max(0, x0 - left - 2) : x1 - left + 2]
        assert box.any() == (variant == "none")
        changed = (cleaned != source[top:bottom, left:right]).any(axis=2)
        assert changed.sum() <= (variant != "none") * (x1 - x0 + 4) * (y1 - y0 + 4)
    assert (source == before).all()


@pytest.mark.slow
def test_inpainting_leaves_tissue_as_it_is_and_nothing_black_or_green_in_its_place(boxes):
    for name, box in boxes.items():
        source = frame(name)
        found = find_artifacts(source)
        filled, (left, top, right, bottom) = clean(source, found, "inpaint")
        kept = source[top:bottom, left:right]
        hidden = np.any(list(masks(source, found).values()), axis=0)[top:bottom, left:right]
        assert hidden.any()
        far = ~binary_dilation(hidden, iterations=4)
        assert np.array_equal(filled[far], kept[far])
        x0, y0, x1, y1 = (max(0, side - start) for side, start in zip(box, (left, top) * 2, strict=True))
        patch, tissue = filled[y0:y1, x0:x1].reshape(-1, 3), kept[far]
        # Of the colours that are there.
        for colour in range(3):
            assert (
                tissue[:, colour].min() <= patch[:, colour].min() <= patch[:, colour].max() <= tissue[:, colour].max()
            )
        assert find_artifacts(filled).navigation_box is None
        assert find_artifacts(filled).blacked_out is None


def test_an_unknown_variant_is_refused(polyp):
    with pytest.raises(ValueError, match=r"no variant 'boxes'.*box"):
        clean(polyp, find_artifacts(polyp), "boxes")


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)),
        elements=st.sampled_from([0, 5, 140, 255]),
    )
)
def test_any_frame_has_content_within_it(pixels):
    height, width = pixels.shape[:2]
    found = find_artifacts(pixels)
    for x0, y0, x1, y1 in (box for box in (found.content, found.navigation_box, found.blacked_out) if box):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
    for variant in VARIANTS:
        assert clean(pixels, found, variant)[0].size


def test_a_frame_without_border_is_all_content():
    white = np.full((60, 90, 3), 255, np.uint8)
    assert find_artifacts(white) == Artifacts(None, None, (0, 0, 90, 60))
    assert find_artifacts(np.zeros_like(white)) == Artifacts(None, None, (0, 0, 90, 60))


def test_the_command_says_what_was_found_a_line_an_image_and_writes_them_cleaned(boxes, polyp, tmp_path):
    boxed = next(iter(boxes))
    Image.fromarray(polyp).save(tmp_path / "plain.png")
    write(image(polyp), tmp_path / "still.dcm")
    given = [boxed, tmp_path / "plain.png", tmp_path / "still.dcm"]
    result = endolens("artifacts", *given, "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = [json.loads(line) for line in result.stdout.splitlines()]
    found = find_artifacts(frame(boxed))
    whole = [0, 0, polyp.shape[1], polyp.shape[0]]
    assert said == [
        {
            "file": str(boxed),
            "navigation_box": list(found.navigation_box),
            "blacked_out": None,
            "content": list(found.content),
        },
        *({"file": str(path), "navigation_box": None, "blacked_out": None, "content": whole} for path in given[1:]),
    ]
    assert files(tmp_path / "out") == {f"{boxed.name}.png", "plain.png", "still.dcm.png"}
    assert (frame(tmp_path / "out" / f"{boxed.name}.png") == clean(frame(boxed), found, "box+border")[0]).all()
    assert (frame(tmp_path / "out" / "plain.png") == polyp).all()

    table = endolens("artifacts", boxed).stdout.splitlines()
    assert len(table) == 2
    assert table[1].split() == [*map(str, found.navigation_box), "-", *map(str, found.content), str(boxed)]


def test_folders_are_kept_and_no_source_is_overwritten(polyp, tmp_path):
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(polyp).save(tmp_path / name)
    out = tmp_path / "out"
    assert endolens("artifacts", tmp_path, "--out", out, "--variant", "box").exit_code == 0
    assert files(out) == {"a/x.png", "b/x.png"}
    before = (tmp_path / "a" / "x.png").read_bytes()
    assert_refused(endolens("artifacts", tmp_path / "a", "--out", tmp_path / "a"), "x.png was not cleaned")
    assert (tmp_path / "a" / "x.png").read_bytes() == before
    twins = endolens("artifacts", tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", "--out", tmp_path / "both")
    assert_refused(twins, "b/x.png was not cleaned")
    assert files(tmp_path / "both") == {"x.png"}


def test_what_is_no_image_is_named_and_the_rest_is_examined(polyp, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(polyp).save(tmp_path / "plain.png")
    result = endolens("artifacts", tmp_path, "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(tmp_path / "plain.png")]
    assert "text.jpg is not a JPEG, PNG, TIFF or BMP picture" in result.stderr
    assert_refused(endolens("artifacts", tmp_path / "none"), "does not exist")
    (tmp_path / "empty").mkdir()
    assert_refused(endolens("artifacts", tmp_path / "empty"), "there is no image")
