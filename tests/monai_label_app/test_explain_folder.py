"""``endolens explain --out``: what lies in the folder before, and what must not be lost, mixed or mistaken."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.monai_label_app.test_cli import assert_refused, endolens, files, interrupted
from tests.monai_label_app.test_explain import content, manifest


def test_what_lies_in_the_output_folder_stays_whether_it_goes_well_or_not(polyp_files, checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert_refused(endolens("explain", polyp_files[1], "--class", "nil", "--out", out, "--model", checkpoint))
    assert content(out) == {"mine.txt": b"keep"}
    assert endolens("explain", polyp_files[1], "--class", "polyps", "--out", out, "--model", checkpoint).exit_code == 0
    assert (out / "mine.txt").read_text() == "keep"
    assert len(files(out)) == 4


def test_a_folder_that_cannot_be_written_is_named(polyp_files, checkpoint, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        result = endolens("explain", polyp_files[1], "--out", out, "--model", checkpoint)
        assert_refused(result, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ending_it_leaves_nothing_half_done(ending, polyp_files, checkpoint, tmp_path):
    out = tmp_path / "out"
    choice = ["--layer", "all", "--class", "all", "--out", out, "--model", checkpoint]
    process, stdout, stderr = interrupted(ending, out, "*.png", "explain", polyp_files[0], *choice)
    assert process.returncode not in (0, None)
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not out.exists()


def test_maps_of_an_earlier_picture_do_not_stay_beside_those_of_another(polyp_files, checkpoint, tmp_path):
    out = tmp_path / "out"
    for options in (("--class", "all"), ("--class", "polyps")):
        result = endolens("explain", polyp_files[1], "--out", out, "--model", checkpoint, *options)
        assert result.exit_code == 0, result.output
        (out / "mine.png").write_bytes(b"of the user")
    listed = {one[key] for one in manifest(out)["maps"] for key in ("picture", "raw")}
    assert files(out) == {"manifest.json", "mine.png", *listed}
    assert len(listed) == 2


@pytest.mark.parametrize("content", ["no JSON", "[1]", '{"maps": [{"picture": "../other.png", "raw": "mine.txt"}]}'])
def test_a_manifest_of_something_else_is_left_alone(polyp_files, checkpoint, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(content)
    (out / "mine.txt").write_text("")
    (tmp_path / "other.png").write_text("")
    result = endolens("explain", polyp_files[0], "--out", out, "--model", checkpoint)
    assert_refused(result, "manifest.json is not of maps that were written here; name another --out")
    assert (out / "manifest.json").read_text() == content
    assert (out / "mine.txt").exists()
    assert (tmp_path / "other.png").exists()


def test_a_manifest_nested_without_end_is_refused_in_a_sentence(polyp_files, checkpoint, tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    result = endolens("explain", polyp_files[0], "--out", tmp_path, "--model", checkpoint)
    assert_refused(result, "manifest.json is not of maps that were written here")


def test_a_file_of_the_user_is_never_written_over(polyp_files, checkpoint, tmp_path):
    out, choice = tmp_path / "out", ["--layer", "block1_conv1", "--class", "polyps", "--model", checkpoint]
    mine = out / "block1_conv1_polyps_grad-cam.png"
    out.mkdir()
    mine.write_bytes(b"of the user")
    result = endolens("explain", polyp_files[0], "--out", out, *choice)
    assert_refused(result, f"{mine} is there and is not of maps that were written here; name another --out")
    assert files(out) == {mine.name}
    mine.unlink()
    assert endolens("explain", polyp_files[0], "--out", out, *choice).exit_code == 0
    mine.write_bytes(b"of the user, at last")
    result = endolens("explain", polyp_files[0], "--out", out, "--class", "all", "--model", checkpoint)
    assert_refused(result, f"{mine} is no map written here, but lies in the place of one")
    assert mine.read_bytes() == b"of the user, at last"


@pytest.mark.slow
def test_a_map_is_never_taken_for_a_picture_of_a_patient(polyp_files, checkpoint, tmp_path):
    study, out = tmp_path / "stills", tmp_path / "stills" / "maps"
    study.mkdir()
    shutil.copy(polyp_files[0], study)
    assert endolens("explain", polyp_files[0], "--class", "all", "--out", out, "--model", checkpoint).exit_code == 0
    before = content(out)
    one = next(out.glob("*polyps*.png"))
    result = endolens("explain", one, "--out", out, "--model", checkpoint)
    assert_refused(result, f"{one} is a map or plot made by EndoLens, no picture of a patient")
    assert content(out) == before
    result = endolens("dicomize", study, "--out", tmp_path / "dicom")
    assert (result.exit_code, result.stderr.count("left out")) == (0, 0)
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 1


def test_an_empty_name_is_not_the_current_folder(polyp_files, checkpoint):
    result = endolens("explain", polyp_files[1], "--out", "", "--model", checkpoint)
    assert result.exit_code == 2
    assert "the name is empty" in result.stderr


@pytest.mark.slow
def test_ending_it_leaves_the_maps_of_an_earlier_run_as_they_were(polyp_files, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert endolens("explain", polyp_files[1], "--class", "all", "--out", out, "--model", checkpoint).exit_code == 0
    before = content(out)
    choice = ["--layer", "all", "--class", "all", "--out", out, "--model", checkpoint]
    interrupted(signal.SIGINT, out, "*.png", "explain", polyp_files[0], *choice)
    assert content(out) == before
