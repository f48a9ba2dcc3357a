"""The command line as a user meets it: what it makes, and how it says no."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, JPEGBaseline8Bit

from monai_label_app.cli import main
from tests.dicom_files import CT, by_pillow, encapsulated, image, write
from tests.validators import dciodvfy

ENDOLENS = str(Path(sys.executable).with_name("endolens"))


def endolens(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sentences(result: Result) -> list[str]:
    """The lines on stderr that say what went wrong, after those that say what is being done."""
    return [line for line in result.stderr.splitlines() if line.startswith(("Error: ", "left out: "))]


def assert_refused(result: Result, *words: object) -> None:
    assert result.exit_code not in (0, None), result.output
    assert isinstance(result.exception, SystemExit), "no other exception may reach the user"
    assert "Traceback" not in result.output
    said = " | ".join(sentences(result))
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    for word in words:
        assert str(word) in said, f"{word!r} is not in {said!r}"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bad(polyp, tmp_path: Path) -> Path:
    """A folder of everything that can be wrong with a file."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "text.dcm").write_text("not DICOM")
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.dcm").write_bytes(b"")
    write(image(polyp, PixelData=None), folder / "pixelless.dcm")
    write(image(polyp, NumberOfFrames=0), folder / "zero_frames.dcm")
    write(image(polyp[..., 0].copy(), sop_class=CT, Modality="CT"), folder / "ct.dcm")
    native = write(image(polyp), folder / "cut.dcm")
    native.write_bytes(native.read_bytes()[:-1000])
    header = write(image(polyp), folder / "cut_header.dcm")
    header.write_bytes(header.read_bytes()[:400])
    stream = by_pillow(polyp, "JPEG")
    write(
        encapsulated(polyp, JPEGBaseline8Bit, [stream[: len(stream) // 2]], PhotometricInterpretation="YBR_FULL_422"),
        folder / "cut_jpeg.dcm",
    )
    whole = write(
        encapsulated(polyp, JPEGBaseline8Bit, [stream], PhotometricInterpretation="YBR_FULL_422", SeriesNumber=5),
        folder / "cut_end.dcm",
    )
    whole.write_bytes(whole.read_bytes()[:-100])
    (folder / "cut.png").write_bytes(by_pillow(polyp, "PNG")[:5000])
    (folder / "cut.jpg").write_bytes(stream[: len(stream) // 2])
    samples = struct.pack("<HHI", 277, 3, 1)  # of which Pillow writes itself that it takes no 768
    before, _, after = by_pillow(polyp, "TIFF").partition(samples + struct.pack("<I", 3))
    (folder / "samples.tiff").write_bytes(before + samples + struct.pack("<I", 768) + after)
    return folder


BAD = [
    ("text.dcm", "is neither DICOM nor a picture"),
    ("text.jpg", "is not a JPEG, PNG, TIFF or BMP picture"),
    ("empty.dcm", "is neither DICOM nor a picture"),
    ("pixelless.dcm", "has no pixels"),
    ("zero_frames.dcm", "has no frames"),
    ("ct.dcm", "is a CT Image Storage"),
    ("cut.dcm", "is truncated"),
    ("cut_header.dcm", "is damaged DICOM"),
    ("cut_jpeg.dcm", "truncated"),
    ("cut_end.dcm", "it is cut off"),
    ("cut.png", "cannot be read"),
    ("cut.jpg", "truncated"),
    ("samples.tiff", "is not a JPEG, PNG, TIFF or BMP picture"),
]


@pytest.mark.parametrize(("name", "reason"), BAD)
def test_a_bad_file_is_named_with_its_reason_and_leaves_no_output(bad, checkpoint, tmp_path, name, reason):
    out = tmp_path / "out"
    result = endolens("analyze", bad / name, "--out", out, "--model", checkpoint)
    assert_refused(result, bad / name, reason)
    assert not out.exists()


def test_the_good_files_among_bad_ones_are_analysed_and_written(bad, polyp, checkpoint, tmp_path):
    write(image(polyp), bad / "good.dcm")
    (bad / "good.png").write_bytes(by_pillow(polyp, "PNG"))
    out = tmp_path / "out"
    result = endolens("analyze", bad, "--out", out, "--model", checkpoint)
    assert_refused(result, f"{len(BAD)} of the inputs could not be used", *(reason for _, reason in BAD))
    assert "frames analysed: 2;" in result.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert {Path(line["source"]).name for line in summary["frames"]} == {"good.dcm", "good.png"}
    assert {Path(problem["origin"]).name for problem in summary["problems"]} == {name for name, _ in BAD}
    assert len(files(out)) == 1 + 2 + 1 + 2  # summary; heatmaps; the picture's still; a report for each study
    assert not list(out.glob(".*"))
    assert all(dciodvfy(path) == [] for path in out.rglob("*.dcm"))


ODD = struct.pack("<HH2sH", 0x0021, 0x1001, b"US", 3) + b"odd"


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(ODD, id="length"),
        pytest.param(struct.pack("<HH2sH", 0x0021, 0x1001, b"T8", 2) + b"ab", id="VR"),
        pytest.param(struct.pack("<HH2sHH", 0x0028, 0x2112, b"US", 2, 7), id="kind"),
        pytest.param(
            struct.pack("<HH2sxxIHHI", 0x0021, 0x1000, b"SQ", 8 + len(ODD), 0xFFFE, 0xE000, len(ODD)) + ODD, id="item"
        ),
    ],
)
def test_an_attribute_that_nobody_can_decode_keeps_no_image_from_being_analysed(damaged, polyp, checkpoint, tmp_path):
    file, out = write(image(polyp), tmp_path / "a.dcm"), tmp_path / "out"
    content = file.read_bytes()
    before, colours, pixels = content.partition(b"\x28\x00\x02\x00US")
    file.write_bytes(before + damaged + colours + pixels)
    result = endolens("analyze", file, "--out", out, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    capture, findings = sorted((dcmread(path) for path in out.rglob("*.dcm")), key=lambda made: made.Modality)
    for made in (capture, findings):
        assert made.PatientName == "Doe^Jane" and made.ReferringPhysicianName == "House^Gregory"
        assert not any(element.tag.group == 0x0021 for element in made)
        assert "LossyImageCompressionRatio" not in made
    assert all(dciodvfy(path) == [] for path in out.rglob("*.dcm"))


@pytest.mark.slow
def test_an_analysis_names_its_outputs_where_they_are(polyp_files, checkpoint, tmp_path):
    out = tmp_path / "deep" / "out"
    result = endolens("analyze", *polyp_files, "--out", out, "--model", checkpoint)
    assert result.exit_code == 0, result.output
    assert "test model, not for clinical use" in result.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert [line["source"] for line in summary["frames"]] == [str(file) for file in polyp_files]
    named = {Path(output) for line in summary["frames"] for output in line["outputs"]}
    assert named == set(out.rglob("*.dcm"))
    assert len(named) == 3 + 3 + 1


@pytest.mark.slow
def test_analysing_again_adds_nothing_and_never_takes_results_for_input(polyp_files, polyp, checkpoint, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "a.jpg").write_bytes(polyp_files[0].read_bytes())
    write(image(polyp), study / "b.dcm")
    first = endolens("analyze", study, "--out", study / "results", "--model", checkpoint)
    assert first.exit_code == 0, first.output
    before = files(study)
    second = endolens("analyze", study, "--out", study / "results", "--model", checkpoint)
    assert second.exit_code == 0, second.output
    assert "frames analysed: 2;" in second.stdout
    assert files(study) == before


def test_results_alone_are_nothing_to_analyse(polyp, checkpoint, tmp_path):
    write(image(polyp), tmp_path / "a.dcm")
    endolens("analyze", tmp_path / "a.dcm", "--out", tmp_path / "results", "--model", checkpoint)
    (heatmap,) = (tmp_path / "results").rglob("heatmaps/*.dcm")
    again = endolens("analyze", tmp_path / "results", "--out", tmp_path / "more", "--model", checkpoint)
    assert_refused(again, "there is no endoscopic image to analyse")
    named = endolens("analyze", heatmap, "--out", tmp_path / "more", "--model", checkpoint)
    assert_refused(named, "is a result of EndoLens")
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("command", ["analyze", "dicomize"])
def test_a_missing_path_and_an_empty_folder_are_named(checkpoint, tmp_path, command):
    model = ["--model", checkpoint] if command == "analyze" else []
    (tmp_path / "empty").mkdir()
    missing = endolens(command, tmp_path / "none", "--out", tmp_path / "out", *model)
    assert_refused(missing, f"{tmp_path / 'none'} does not exist")
    assert_refused(endolens(command, tmp_path / "empty", "--out", tmp_path / "out", *model), "there is no")
    assert not (tmp_path / "out").exists()


def test_a_report_is_no_image(polyp, checkpoint, tmp_path):
    dataset = image(polyp, sop_class=BasicTextSRStorage, Modality="SR", PixelData=None, Rows=None, Columns=None)
    path = write(dataset, tmp_path / "sr.dcm")
    assert_refused(endolens("analyze", path, "--out", tmp_path / "out", "--model", checkpoint), "Basic Text SR")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_study_uid_that_leads_out_of_the_folder_is_refused(polyp, checkpoint, tmp_path):
    dataset = image(polyp)
    dataset.StudyInstanceUID = "../../outside"
    path = write(dataset, tmp_path / "a.dcm")
    out = tmp_path / "deep" / "out"
    assert_refused(endolens("analyze", path, "--out", out, "--model", checkpoint), "is no UID")
    assert files(tmp_path) == {"a.dcm"}


def broken_checkpoints(checkpoint: Path) -> Iterator[tuple[str, bytes]]:
    content = checkpoint.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])

    def with_card(card: Any) -> bytes:
        text = json.dumps({**header, "__metadata__": {"card": card}}).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]

    card = json.loads(header["__metadata__"]["card"])
    yield "empty", b""
    yield "text", b"no checkpoint at all"
    yield "cut", content[: len(content) // 2]
    yield "no card", with_card("")
    yield "card is no JSON", with_card("{")
    yield "card is a list", with_card("[]")
    for key, value in {
        "architecture": "vgg99",
        "target_layer": "block9_conv9",
        "width": 0.5,
        "classes": ["one"],
    }.items():
        yield key, with_card(json.dumps({**card, key: value}))


@pytest.mark.parametrize("number", range(10))
def test_a_broken_checkpoint_is_refused_by_its_name(polyp, checkpoint, tmp_path, number):
    write(image(polyp), tmp_path / "a.dcm")
    _, content = list(broken_checkpoints(checkpoint))[number]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(content)
    result = endolens("analyze", tmp_path / "a.dcm", "--out", tmp_path / "out", "--model", broken)
    assert_refused(result, broken)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "vgg1999"], "vgg1999"),
        (["--model", "none.safetensors"], "none.safetensors"),
        (["--model", "vgg11", "--weights", "none.safetensors"], "none.safetensors"),
    ],
)
def test_an_unknown_network_or_missing_weights_are_named(polyp, tmp_path, options, reason):
    write(image(polyp), tmp_path / "a.dcm")
    result = endolens("analyze", tmp_path / "a.dcm", "--out", tmp_path / "out", *options)
    assert_refused(result, reason)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_pacs_that_is_down_is_named(checkpoint, closed_port, tmp_path):
    url = f"http://127.0.0.1:{closed_port}/dicom-web"
    result = endolens("analyze", "--pacs", url, "--study", "1.2.3", "--out", tmp_path / "out", "--model", checkpoint)
    assert_refused(result, f"no PACS answers at {url}")
    assert not (tmp_path / "out").exists()


def test_a_pacs_address_that_is_none_is_refused(checkpoint, tmp_path):
    for url in ("nonsense", "ftp://localhost/x", "http:"):
        result = endolens(
            "analyze", "--pacs", url, "--study", "1.2.3", "--out", tmp_path / "out", "--model", checkpoint
        )
        assert_refused(result, url)


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze"],
        ["analyze", "a.dcm", "--pacs", "http://localhost", "--study", "1.2"],
        ["analyze", "--pacs", "http://localhost"],
        ["analyze", "a.dcm", "--study", "1.2"],
        ["dicomize"],
        ["dicomize", "a.jpg"],
        ["dicomize", "a.jpg", "--out", "out", "--study-date", "yesterday"],
        ["dicomize", "a.jpg", "--out", "out", "--study-instance-uid", "one.two"],
    ],
)
def test_wrong_options_are_a_usage_error(arguments):
    result = endolens(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert "Error: " in result.stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_named(polyp, checkpoint, tmp_path):
    write(image(polyp), tmp_path / "a.dcm")
    (tmp_path / "file").write_text("in the way")
    result = endolens("analyze", tmp_path / "a.dcm", "--out", tmp_path / "file" / "out", "--model", checkpoint)
    assert_refused(result, tmp_path / "file")


@pytest.mark.slow
def test_dicomize_makes_a_study_of_pictures(polyp_files, polyp, tmp_path):
    (tmp_path / "b.png").write_bytes(by_pillow(polyp, "PNG"))
    out = tmp_path / "out"
    options = ["--patient-id", "4711", "--patient-name", "Müller^Zoë", "--study-date", "20240229"]
    result = endolens("dicomize", *polyp_files, tmp_path / "b.png", "--out", out, *options)
    assert result.exit_code == 0, result.output
    stills = [dcmread(path) for path in out.iterdir()]
    known = {(still.PatientID, str(still.PatientName), still.StudyDate) for still in stills}
    assert known == {("4711", "Müller^Zoë", "20240229")}
    assert len({still.StudyInstanceUID for still in stills}) == len({still.SeriesInstanceUID for still in stills}) == 1
    assert {still.InstanceNumber for still in stills} == {1, 2, 3, 4}
    (last,) = (still for still in stills if still.InstanceNumber == 4)
    assert (last.pixel_array == polyp).all()
    assert all(dciodvfy(path) == [] for path in out.iterdir())
    before = files(out)
    assert endolens("dicomize", *polyp_files, tmp_path / "b.png", "--out", out, *options).exit_code == 0
    assert files(out) == before


def test_dicomize_leaves_the_stills_of_another_patient_alone(polyp_files, tmp_path):
    out = tmp_path / "out"
    for patient, pictures in (("A", polyp_files), ("B", polyp_files[:1])):
        assert endolens("dicomize", *pictures, "--out", out, "--patient-id", patient).exit_code == 0
    patients = sorted(dcmread(path).PatientID for path in out.iterdir())
    assert patients == ["A", "A", "A", "B"]


def test_dicomize_takes_the_good_pictures_and_names_the_bad(polyp_files, bad, tmp_path):
    result = endolens("dicomize", polyp_files[0], bad / "text.jpg", bad / "cut.png", "--out", tmp_path / "out")
    assert_refused(result, bad / "text.jpg", bad / "cut.png", "2 of the pictures could not be used")
    assert len(files(tmp_path / "out")) == 1


def test_what_lies_in_the_output_folder_already_stays(bad, checkpoint, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert_refused(endolens("analyze", bad, "--out", out, "--model", checkpoint))
    assert files(out) == {"mine.txt"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ENDOLENS, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([ENDOLENS, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(
    ending: signal.Signals, out: Path, begun: str, *arguments: object
) -> tuple[subprocess.Popen[str], str, str]:
    """Start the program and end it by a signal once a file like ``begun`` is half delivered to its folder ``out``."""
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while not list(out.glob(f".partial-*/{begun}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.02)
    os.kill(process.pid, ending)
    return process, *process.communicate(timeout=120)


@pytest.mark.slow
def test_the_program_itself_says_one_sentence_about_each_bad_file_and_nothing_else(bad, checkpoint, tmp_path):
    done = run("analyze", bad, "--out", tmp_path / "out", "--model", checkpoint)
    assert done.returncode == 1
    assert done.stdout == ""
    # Progress and the model's notice are no complaints.
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Analysing", "tiny: "))]
    assert all(line.startswith(("left out: ", "Error: ")) for line in lines), done.stderr
    assert len(lines) == len(BAD) + 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_program_itself_analyses(polyp_files, checkpoint, tmp_path):
    done = run("analyze", polyp_files[0], "--out", tmp_path / "out", "--model", checkpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("frames analysed: 1; results in ")
    assert (tmp_path / "out" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ending_it_leaves_nothing_half_done(ending, polyp, checkpoint, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    write(image(np.repeat(polyp[None], 80, axis=0)), folder / "long.dcm")
    out = tmp_path / "out"
    process, stdout, stderr = interrupted(
        ending, out, "*/heatmaps/*.dcm", "analyze", folder, "--out", out, "--model", checkpoint
    )
    assert process.returncode not in (0, None)
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not out.exists()
