"""Datasets on disk: the layouts that are known, what is left out, and folds that share no picture."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_label_app.classifier.data import Dataset, Example, divide, find_dataset, folds, read_dataset, write_list
from monai_label_app.classifier.duplicates import NEAR, fingerprint, near_duplicates
from tests.dicom_files import image
from tests.dicom_files import write as write_dicom


def noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def placed(dataset: Dataset, root: Path) -> dict[str, str]:
    return {str(example.path.relative_to(root)): example.label for example in dataset.examples}


def table(path: Path, *rows: tuple[str, ...], head: tuple[str, ...] = ("path", "label", "group")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


# Layouts


def test_a_folder_a_class_as_in_kvasir(tmp_path):
    for number, name in enumerate(("polyps/b.png", "polyps/a.jpg", "normal-cecum/a.tif")):
        noise(tmp_path / name, number)
    (tmp_path / "manifest.csv").write_text("no picture, and not in a class")
    (tmp_path / "polyps" / ".hidden").write_text("")
    found = read_dataset(tmp_path)
    assert found.classes == ("normal-cecum", "polyps")
    assert placed(found, tmp_path) == {
        "normal-cecum/a.tif": "normal-cecum",
        "polyps/a.jpg": "polyps",
        "polyps/b.png": "polyps",
    }
    assert len({example.group for example in found.examples}) == 3
    assert found.problems == ()


def test_the_folders_of_hyperkvasir(tmp_path):
    labeled = tmp_path / "labeled-images"
    names = (
        "lower-gi-tract/pathological-findings/polyps/1.jpg",
        "lower-gi-tract/anatomical-landmarks/cecum/2.jpg",
        "upper-gi-tract/pathological-findings/esophagitis-a/3.jpg",
    )
    for number, name in enumerate(names):
        noise(labeled / name, number)
    (labeled / "image-labels.csv").write_text("Video file,Organ,Finding,Classification\n")
    noise(tmp_path / "segmented-images" / "masks" / "1.jpg", 9)
    for root in (tmp_path, labeled):
        assert placed(find_dataset(root), labeled) == {
            names[1]: "cecum",
            names[2]: "esophagitis-a",
            names[0]: "polyps",
        }


def test_a_csv_whose_paths_are_relative_to_it_with_and_without_groups(tmp_path, polyp):
    for number in range(4):
        noise(tmp_path / "stills" / f"{number}.png", number)
    write_dicom(image(polyp), tmp_path / "stills" / "4.dcm")
    rows = [(f"stills/{n}.png", "ab"[n % 2], "patient 1" if n < 2 else "") for n in range(4)]
    found = read_dataset(table(tmp_path / "list.csv", *rows, ("stills/4.dcm", "b", "")))
    assert placed(found, tmp_path / "stills") == {"0.png": "a", "1.png": "b", "2.png": "a", "3.png": "b", "4.dcm": "b"}
    assert [example.group for example in found.examples[:2]] == ["patient 1", "patient 1"]
    assert len({example.group for example in found.examples}) == 4
    assert placed(
        find_dataset(table(tmp_path / "bare.csv", *(row[:2] for row in rows), head=("path", "label"))), tmp_path
    ) == {row[0]: row[1] for row in rows}


def test_a_list_as_excel_saves_it_is_read(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,a\nb.png,b\n", encoding="utf-8-sig")
    assert find_dataset(tmp_path / "list.csv").classes == ("a", "b")


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [
        (["Original/1.tif", "Original/2.tif"], ["Ground Truth/1.tif", "Ground Truth/2.tif"]),
        (["images/1.png"], ["masks/1.png"]),
        (["1.tiff", "2.tiff"], []),
        (["1.bmp", "12.bmp", "p3.bmp", "pc1.bmp"], ["p1.bmp", "s1.bmp", "c1.bmp", "p12.bmp"]),
    ],
)
def test_every_picture_of_cvc_is_a_polyp_and_no_mask_is(tmp_path, pictures, masks):
    for number, name in enumerate(("polyps/a.png", "normal-cecum/b.png")):
        noise(tmp_path / "kvasir" / name, number)
    for number, name in enumerate((*pictures, *masks), start=10):
        noise(tmp_path / "CVC" / name, number)
    found = read_dataset(tmp_path / "kvasir", tmp_path / "CVC")
    assert [(str(e.path.relative_to(tmp_path / "CVC")), e.label) for e in found.extra] == [
        (name, "polyps") for name in pictures
    ]
    assert len(found.examples) == 2


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    for number, name in enumerate(("a/1.png", "a/2.png", "b/1.png")):
        noise(tmp_path / name, number)
    cut = tmp_path / "a" / "2.png"
    cut.write_bytes(cut.read_bytes()[:500])
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found = read_dataset(tmp_path)
    assert set(placed(found, tmp_path)) == {"a/1.png", "b/1.png"}
    assert [(problem.origin, problem.reason.startswith(problem.origin)) for problem in found.problems] == [
        (str(cut), True),
        (str(tmp_path / "b" / "notes.txt"), True),
    ]


def refusal(path: Path, extra: Path | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        read_dataset(path, extra)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_dataset_is_refused_in_one_sentence(tmp_path):
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'} does not exist"
    assert "has no folder a class" in refusal(tmp_path)
    noise(tmp_path / "one" / "polyps" / "a.png", 0)
    assert "has one class, polyps" in refusal(tmp_path / "one")
    (tmp_path / "one" / "esophagitis").mkdir()
    assert "esophagitis is empty" in refusal(tmp_path / "one")
    noise(tmp_path / "one" / "esophagitis" / "a.png", 0).write_text("no picture")
    assert "has no picture of esophagitis that can be read" in refusal(tmp_path / "one")
    for name in ("train/polyps", "train/z", "test/polyps"):
        noise(tmp_path / "split" / name / "a.png", 0)
    assert "are both of class polyps" in refusal(tmp_path / "split")
    noise(tmp_path / "split" / "a.png", 0)
    assert "a.png lies beside folders" in refusal(tmp_path / "split")


def test_a_name_that_is_no_text_is_listed_and_found_again(tmp_path):
    for label in ("a", "b"):
        noise(tmp_path / "data" / label / os.fsdecode(b"\xff1.png"), len(label))
    examples = find_dataset(tmp_path / "data").examples
    write_list(examples, tmp_path / "list.csv")
    again = find_dataset(tmp_path / "list.csv").examples
    assert [(one.path, one.read().shape) for one in again] == [(one.path, one.read().shape) for one in examples]


def test_pictures_and_their_masks_are_not_two_classes(tmp_path):
    for folder in ("images", "masks"):
        noise(tmp_path / folder / "1.png", 1)
    assert "masks is called as masks are" in refusal(tmp_path)


def test_groups_that_are_too_few_for_every_fold_can_still_keep_one_aside():
    sizes = {"a": (9, 1, 1, 1, 1), "b": (1, 1, 1, 1, 9)}
    examples = tuple(
        Example(Path(f"{label}{group}{number}"), label, f"{label}{group}")
        for label, groups in sizes.items()
        for group, size in enumerate(groups)
        for number in range(size)
    )
    dataset = Dataset(("a", "b"), examples)
    for seed in range(20):
        learned, aside = divide(dataset, 0.2, seed)
        assert sorted([*learned, *aside], key=str) == sorted(examples, key=str)
        assert {one.label for one in learned} == {one.label for one in aside} == {"a", "b"}
        assert not {one.group for one in learned} & {one.group for one in aside}


def test_a_csv_that_is_none_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"")
    assert "has no column path and no column label" in refusal(path)
    path.write_bytes(b"\xff\xfe\x00path")
    assert "cannot be read as a CSV file" in refusal(path)
    table(path, ("", "a", ""))
    assert "has no path and label in row 1" in refusal(path)
    for head, words in (("Path,label", "no column path"), ("path;label", "no column path and no column label")):
        other = tmp_path / "other.csv"
        other.write_text(f"{head}\na.png,a\n")
        assert words in refusal(other)
    table(path, ("a.png", "a", ""), ("b.png", "", ""))
    assert "has no path and label in row 2" in refusal(path)
    table(path, ("a.png", "a", ""), ("a.png", "b", ""))
    assert "twice" in refusal(path)
    table(path)
    assert "has no class" in refusal(path)


def test_extra_polyps_need_a_class_of_their_name_and_a_picture(tmp_path):
    for number, name in enumerate(("a/1.png", "b/1.png")):
        noise(tmp_path / "data" / name, number)
    noise(tmp_path / "CVC" / "masks" / "1.png", 5)
    assert "has no class polyps" in refusal(tmp_path / "data", tmp_path / "CVC")
    noise(tmp_path / "data" / "polyps" / "1.png", 3)
    assert f"{tmp_path / 'CVC'} has no picture" in refusal(tmp_path / "data", tmp_path / "CVC")
    assert "is not a folder" in refusal(tmp_path / "data", tmp_path / "none")


# Near-duplicates


def test_a_smaller_and_more_compressed_copy_is_a_near_duplicate_and_no_other_scene_is(real_images, tmp_path):
    files = sorted((real_images / "kvasir-8").rglob("*.*g"))[::3]
    prints, copies = [], []
    for file in files:
        with Image.open(file) as picture:
            picture = picture.convert("RGB")
        prints.append(fingerprint(np.array(picture)))
        picture.resize((picture.width // 2, picture.height // 2)).save(tmp_path / "copy.jpg", quality=40)
        with Image.open(tmp_path / "copy.jpg") as copy:
            copies.append(fingerprint(np.array(copy)))
    distances = (np.array(prints)[:, None] != np.array(copies)).sum(axis=2)
    assert len(files) > 50
    assert distances.diagonal().max() <= NEAR
    assert distances[~np.eye(len(files), dtype=bool)].min() > NEAR


@pytest.mark.slow
def test_the_polyps_that_two_real_sets_share_are_found_and_no_others(real_images):
    found = read_dataset(real_images / "kvasir-8", real_images / "kvasir-seg" / "images")
    shared = {path.name for path in (real_images / "kvasir-8" / "polyps").iterdir()}
    assert {Path(problem.origin).name for problem in found.problems} == shared
    assert len(found.extra) == 600 - len(shared) == 576
    assert len({example.group for example in found.examples}) == len(found.examples) == 163


def test_near_duplicates_share_a_group_whatever_their_class_and_so_do_their_groups(polyp, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.fromarray(polyp).save(tmp_path / "a" / "1.png")
    Image.fromarray(polyp).resize((400, 300)).save(tmp_path / "b" / "1.jpg", quality=60)
    noise(tmp_path / "a" / "2.png", 1)
    noise(tmp_path / "b" / "2.png", 2)
    noise(tmp_path / "b" / "3.png", 3)
    rows = [
        ("a/1.png", "a", ""),
        ("a/2.png", "a", "p"),
        ("b/1.jpg", "b", "p"),
        ("b/2.png", "b", ""),
        ("b/3.png", "b", "p"),
    ]
    found = read_dataset(table(tmp_path / "list.csv", *rows))
    groups = [example.group for example in found.examples]
    assert groups[0] == groups[1] == groups[2] == groups[4] != groups[3]
    count, pair = found.remarks
    assert count.startswith("4 pictures are nearly the same as others")
    copy, original = tmp_path / "b" / "1.jpg", tmp_path / "a" / "1.png"
    assert pair == f"{original} and {copy} are nearly the same picture, of the classes a and b", "and not a/2, of p too"


def test_polyps_of_the_dataset_itself_are_no_others(tmp_path):
    for number in range(4):
        label = ("normal", "polyps")[number % 2]
        (tmp_path / label).mkdir(exist_ok=True)
        noise(tmp_path / label / f"{number}.png", number)
    found = read_dataset(tmp_path, tmp_path / "polyps")
    assert (len(found.examples), len(found.extra), len(found.problems)) == (4, 0, 2)
    assert not found.remarks


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_groups_are_the_connected_pictures(seed, count, scenes):
    random = np.random.default_rng(seed)
    prints = (random.random((scenes, 256)) < 0.5)[random.integers(0, scenes, count)]
    prints ^= random.random((count, 256)) < 0.06
    names = [str(name) for name in random.integers(0, 2 * count, count)]
    joined = near_duplicates(prints, names)
    # Union by hand, a pair at a time, until nothing changes.
    expected = list(range(count))
    for _ in range(count):
        for one in range(count):
            for other in range(count):
                if names[one] == names[other] or (prints[one] ^ prints[other]).sum() <= NEAR:
                    expected[one] = expected[other] = min(expected[one], expected[other])
    assert [[a == b for b in joined] for a in joined] == [[a == b for b in expected] for a in expected]


# Folds


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=12, max_size=80),
    st.integers(2, 4),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_group_straddles_folds_and_every_example_is_tested_once(members, count, seed):
    examples = tuple(Example(Path(f"{n}.png"), label, f"group {g}") for n, (label, g) in enumerate(members))
    dataset = Dataset(tuple(sorted({example.label for example in examples})), examples)
    try:
        divided = folds(dataset, count, seed)
    except ValueError as error:
        # What cannot be divided says which class it is about.
        assert any(f" {label} " in str(error) for label in dataset.classes)
        assume(False)
    assert len(divided) == count
    assert Counter(example for _, test in divided for example in test) == Counter(examples)
    for train, test in divided:
        assert Counter(train) + Counter(test) == Counter(examples)
        assert not {example.group for example in train} & {example.group for example in test}
        assert {e.label for e in train} == {e.label for e in test} == set(dataset.classes)
    assert folds(dataset, count, seed) == divided


def test_folds_have_their_share_of_every_class_and_another_seed_has_others(real_images):
    dataset = find_dataset(real_images / "kvasir-8")
    divided = folds(dataset, 5, seed=1)
    sizes = Counter(example.label for example in dataset.examples)
    for _, test in divided:
        for label, count in Counter(example.label for example in test).items():
            assert abs(count - sizes[label] / 5) < 2
    assert folds(dataset, 5, seed=2) != divided


def test_folds_that_cannot_be_are_refused_by_class_and_fold():
    examples = tuple(Example(Path(f"{n}.png"), "ab"[n % 2], str(n)) for n in range(8))
    dataset = Dataset(("a", "b"), examples)
    with pytest.raises(ValueError, match="2 folds at least"):
        folds(dataset, 1, 0)
    with pytest.raises(ValueError, match="class a has too few pictures for 5 folds: 4"):
        folds(dataset, 5, 0)
    one_patient = tuple(Example(e.path, e.label, "p" if e.label == "b" else e.group) for e in examples)
    with pytest.raises(ValueError, match="class b has too few pictures for 2 folds: 4, of which 1 may be divided"):
        folds(Dataset(("a", "b"), one_patient), 2, 0)
    tied = [
        Example(Path(f"{n}.png"), label, group) for n, (label, group) in enumerate(zip("abaabb", "252454", strict=True))
    ]
    with pytest.raises(ValueError, match="fold 1 of 2 has no picture of b to train on"):
        folds(Dataset(("a", "b"), tuple(tied)), 2, 0)
