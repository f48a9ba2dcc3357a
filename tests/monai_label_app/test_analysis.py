"""From a study to result objects, with a network whose maps are known beforehand."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from torch import Tensor, nn

from monai_label_app import analysis
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.reading import read_studies
from monai_label_app.results import FrameResult, StudyResult, algorithm_of, summary
from monai_label_app.sample.frames import render
from monai_label_app.seeing import see
from report import read_findings
from report.structured_report import findings_report
from tests.dicom_files import CAPTURE, by_pillow, encapsulated, image, write
from tests.validators import dciodvfy, tid1500reader

SIZE = (240, 320)
LEFT, RIGHT = (40, 60, 120, 140), (200, 100, 260, 180)
"""Boxes of planted light, (x0, y0, x1, y1)."""


def lit(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A dim frame with lights."""
    frame = np.full((*SIZE, 3), 60, np.uint8)
    for x0, y0, x1, y1 in boxes:
        frame[y0:y1, x0:x1] = 240
    return frame


@dataclass(frozen=True)
class Run:
    """What one analysis left behind."""

    folder: Path
    result: StudyResult
    sources: dict[str, Dataset]

    @property
    def captures(self) -> list[Dataset]:
        return [dcmread(path) for path in self.result.objects if path.parent.name == "heatmaps"]

    @property
    def report_path(self) -> Path:
        (path,) = (path for path in self.result.objects if path.parent.name == "findings")
        return path

    def line(self, source: str, frame: int = 1) -> FrameResult:
        uid = self.sources[source].SOPInstanceUID
        (line,) = (one for one in self.result.frames if (one.sop_instance_uid, one.frame) == (uid, frame))
        return line


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lights in a JPEG endoscopic image; a multi-frame capture with a dark frame; a damaged file between them."""
    folder = tmp_path_factory.mktemp("study")
    common: dict[str, Any] = {"StudyInstanceUID": generate_uid(), "PatientName": "Müller^Zoë"}
    two = lit(LEFT, RIGHT)
    write(
        encapsulated(
            two,
            JPEGBaseline8Bit,
            [by_pillow(two, "JPEG", quality=95, subsampling=0)],
            PhotometricInterpretation="YBR_FULL_422",
            LossyImageCompression="01",
            LossyImageCompressionRatio="12.5",
            LossyImageCompressionMethod="ISO_10918_1",
            BurnedInAnnotation="YES",
            **common,
        ),
        folder / "two.dcm",
    )
    write(image(np.stack([lit(LEFT), lit(), lit(RIGHT)]), SeriesNumber=2, **common), folder / "frames.dcm")
    write(image(lit(RIGHT), sop_class=CAPTURE, SeriesNumber=3, **common), folder / "capture.dcm")
    damaged = write(image(lit(), InstanceNumber=7, **common), folder / "damaged.dcm")
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    return folder


def run(study: Path, classifier: Classifier, folder: Path) -> Run:
    (found,), _ = read_studies([study])
    result = analysis.analyze(found, classifier, folder)
    return Run(folder, result, {path.stem: dcmread(path, stop_before_pixels=True) for path in study.glob("*.dcm")})


@pytest.fixture(scope="module")
def done(study: Path, spotlight: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(study, spotlight, tmp_path_factory.mktemp("results"))


def without_dates(dataset: Dataset) -> Dataset:
    """A copy without the time at which it was made, at any depth."""
    copy = Dataset.from_json(dataset.to_json())

    def drop(inner: Dataset, element: Any) -> None:
        if element.VR in ("DA", "TM", "DT"):
            del inner[element.tag]

    copy.walk(drop)
    return copy


def test_every_frame_is_predicted_and_its_lights_are_outlined_in_source_pixels(done):
    assert len(done.result.frames) == 5
    boxes = {
        ("two", 1): [LEFT, RIGHT],
        ("frames", 1): [LEFT],
        ("frames", 2): [],
        ("frames", 3): [RIGHT],
        ("capture", 1): [RIGHT],
    }
    for (source, frame), planted in boxes.items():
        line = done.line(source, frame)
        assert len(line.regions) == len(planted)
        found = sorted(region["box"] for region in line.regions)
        for box, light in zip(found, sorted(planted), strict=True):
            assert box == pytest.approx(light, abs=3)  # one pixel of the network is five of the frame
        assert line.predicted == "polyps"
        assert sum(line.probabilities.values()) == pytest.approx(1)
    dark = done.line("frames", 2)
    mean = 60 / 255 - 0.5
    assert dark.probabilities["polyps"] == pytest.approx(1 / (1 + np.exp(-(1 + 2 * mean))), abs=1e-5)


def test_a_damaged_instance_is_named_and_leaves_nothing(done):
    (problem,) = done.result.problems
    assert problem.origin.endswith("damaged.dcm")
    assert problem.origin in problem.reason
    damaged = done.sources["damaged"].SOPInstanceUID
    assert damaged not in {line.sop_instance_uid for line in done.result.frames}
    assert set(done.folder.rglob("*.dcm")) == set(done.result.objects)
    assert len(done.captures) == 5


def test_an_instance_of_which_a_later_frame_is_damaged_leaves_nothing(spotlight, tmp_path):
    stream = by_pillow(lit(LEFT), "JPEG")
    count = 40  # the first are written before the damage comes to light
    streams = [stream] * (count - 1) + [stream[:20] + b"\xff\xd9"]
    stack = np.stack([lit(LEFT)] * count)
    (tmp_path / "study").mkdir()
    write(
        encapsulated(stack, JPEGBaseline8Bit, streams, PhotometricInterpretation="YBR_FULL_422"),
        tmp_path / "study" / "a.dcm",
    )
    (tmp_path / "out").mkdir()
    damaged = run(tmp_path / "study", spotlight, tmp_path / "out")
    assert len(damaged.result.problems) == 1
    assert damaged.result.frames == []
    assert not list((tmp_path / "out").rglob("*.dcm"))


class Blinded(nn.Module):
    """A network whose scores are no numbers where anything in a picture is bright."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        bright = images.amax((1, 2, 3)) > 0.9
        scores: Tensor = self.network(images)
        return scores * torch.where(bright, torch.inf, 1.0)[:, None]


def test_a_still_with_which_the_network_fails_takes_no_other_with_it(spotlight, tmp_path):
    blinded = replace(spotlight, network=Blinded(spotlight.network))
    blinded = replace(blinded, card=replace(spotlight.card, target_layer="network.0"))
    for name, light in (("a", 200), ("b", 240), ("c", 190)):
        still = image(np.minimum(lit(LEFT), np.uint8(light)), StudyInstanceUID="1.2.3")
        write(still, tmp_path / f"{name}.dcm")
    uids = {path.stem: dcmread(path).SOPInstanceUID for path in tmp_path.glob("*.dcm")}
    (tmp_path / "out").mkdir()
    (study,), _ = read_studies([tmp_path])
    result = analysis.analyze(study, blinded, tmp_path / "out")
    (problem,) = result.problems
    assert problem.origin.endswith("b.dcm")
    assert {line.sop_instance_uid for line in result.frames} == {uids["a"], uids["c"]}
    assert len(list((tmp_path / "out" / "heatmaps").iterdir())) == 2


def test_the_capture_references_its_frame_and_inherits_patient_study_and_history(done):
    references = []
    for capture in done.captures:
        (reference,) = capture.SourceImageSequence
        (source,) = (one for one in done.sources.values() if one.SOPInstanceUID == reference.ReferencedSOPInstanceUID)
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        references.append((reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")))
        for keyword in (
            *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
            *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
        ):
            assert capture[keyword].value == source[keyword].value, keyword
        assert capture.get("BurnedInAnnotation") == source.get("BurnedInAnnotation")
        assert capture.LossyImageCompression == source.LossyImageCompression
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            assert capture.get(keyword) == source.get(keyword)
        assert capture.SOPClassUID == CAPTURE
        assert capture.SeriesInstanceUID != source.SeriesInstanceUID
        assert capture.Columns == SIZE[1]
        assert capture.Rows > SIZE[0], "the strip lies under the picture"
        assert "Grad-CAM" in capture.DerivationDescription
        assert "test model, not for clinical use" in capture.DerivationDescription
        (equipment,) = (
            item for item in capture.ContributingEquipmentSequence if item.get("ManufacturerModelName") == "spotlight"
        )
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
        assert equipment.SoftwareVersions == "2.0+5a5a5a5a"
    frames_uid = done.sources["frames"].SOPInstanceUID
    assert set(references) == {
        (done.sources["two"].SOPInstanceUID, None),
        (done.sources["capture"].SOPInstanceUID, None),
        *((frames_uid, number) for number in (1, 2, 3)),
    }
    assert len({capture.SOPInstanceUID for capture in done.captures}) == 5
    assert len({capture.SeriesInstanceUID for capture in done.captures}) == 1
    assert sorted(capture.InstanceNumber for capture in done.captures) == [1, 2, 3, 4, 5]


def test_the_capture_is_warm_on_the_light_and_unchanged_where_the_map_is_zero(done):
    for capture in done.captures:
        (reference,) = capture.SourceImageSequence
        pixels = capture.pixel_array[: SIZE[0]].astype(int)  # the caption lies under it
        if reference.get("ReferencedFrameNumber") == 2:
            assert (pixels == lit()).all()
        elif reference.get("ReferencedFrameNumber") == 1:
            x0, y0, x1, y1 = LEFT
            inside, outside = pixels[y0 + 10 : y1 - 10, x0 + 10 : x1 - 10], pixels[200:, 200:]
            assert (inside[..., 0] > inside[..., 2] + 40).all()
            assert (outside == 60).all()


def test_the_report_is_unverified_and_preliminary_and_names_model_and_notice(done):
    report = hd.sr.srread(done.report_path)
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "VerifyingObserverSequence" not in report
    assert report.StudyInstanceUID == done.sources["two"].StudyInstanceUID
    assert report.PatientName == "Müller^Zoë"
    text = str(report)
    assert "test model, not for clinical use" in text
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    sources = {done.sources[name].SOPInstanceUID for name in ("two", "frames", "capture")}
    assert referenced == sources | {capture.SOPInstanceUID for capture in done.captures}


def test_the_report_has_a_region_for_every_region_of_the_summary(done):
    report = hd.sr.srread(done.report_path)
    groups = report.content.get_planar_roi_measurement_groups()
    seen = []
    for group in groups:
        region = group.roi
        item = region.ContentSequence[0].ReferencedSOPSequence[0]
        frame = int(item.get("ReferencedFrameNumber", 1))
        seen.append((item.ReferencedSOPInstanceUID, frame))
        (line,) = (
            one
            for one in done.result.frames
            if (one.sop_instance_uid, one.frame) == (item.ReferencedSOPInstanceUID, frame)
        )
        assert region.graphic_type == hd.sr.GraphicTypeValues.POLYLINE
        contour = region.value
        assert (contour[0] == contour[-1]).all()
        if line.regions:
            assert any(
                len(one["contour"]) == len(contour) and np.allclose(one["contour"], contour, atol=0.006)
                for one in line.regions
            )
        else:
            assert contour.min(axis=0).tolist() == [0, 0]
            assert contour.max(axis=0).tolist() == [SIZE[1], SIZE[0]]
            assert "whole image, no region stands out" in group.tracking_identifier
        assert group.finding_type == hd.sr.CodedConcept("68496003", "SCT", "Polyp of colon")
        (measurement,) = group.get_measurements(name=hd.sr.CodedConcept("122157", "DCM", "Probability"))
        assert measurement.value == pytest.approx(100 * line.probabilities["polyps"], abs=0.006)
        assert measurement.unit == hd.sr.CodedConcept("%", "UCUM", "Percent")
        values = {
            child.ConceptNameCodeSequence[0].CodeMeaning: child.TextValue
            for child in group[0].ContentSequence
            if child.ValueType == "TEXT"
        }
        assert values["Algorithm Name"] == "spotlight"
        assert values["Algorithm Version"] == "2.0+5a5a5a5a"
    expected = [
        (line.sop_instance_uid, line.frame)
        for line in done.result.frames
        for _ in (line.regions or ["the whole image"])
    ]
    assert sorted(seen) == sorted(expected)
    assert len({group.tracking_uid for group in groups}) == len(groups) == 6


def test_what_is_read_back_from_the_report_is_what_was_found(study, spotlight, tmp_path):
    source = dcmread(study / "two.dcm")
    frame, seen = see(source, "two", spotlight, 1)
    captures = analysis.captures_of(source, frame, seen, spotlight)
    found = analysis.findings_of(source, frame, seen, captures)
    assert len(found) == 2
    made = findings_report(found, [source], algorithm_of(spotlight), captures)
    assert read_findings(dcmread(write(made, tmp_path / "report.dcm"))) == found


def test_a_frame_is_seen_the_same_alone_and_in_its_study_on_any_number_of_cores(tmp_path):
    """To the last bit: what is made again has the UID of what was made before, so it must be that."""
    stack = np.stack([render(label, 1, 240, 320)[0] for label in ("polyps", "esophagitis", "normal-cecum")])
    (tmp_path / "study").mkdir()
    write(image(stack), tmp_path / "study" / "a.dcm")
    model, cores, made = open_classifier(), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            (tmp_path / str(number)).mkdir()
            done = run(tmp_path / "study", model, tmp_path / str(number))
            captures = [dcmread(path).PixelData for path in sorted((tmp_path / str(number)).glob("heatmaps/*"))]
            made.append(([line.probabilities for line in done.result.frames], captures))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(cores)
    assert made[0] == made[1] == made[2]
    source = dcmread(tmp_path / "study" / "a.dcm")
    assert [see(source, "a", model, number)[1].probabilities for number in (1, 2, 3)] == made[0][0]


def test_dcmqi_reads_the_report(done, tmp_path):
    content = tid1500reader(done.report_path, tmp_path)
    assert len(content["Measurements"]) == 6
    for group in content["Measurements"]:
        assert group["Finding"]["CodeValue"] == "68496003"
        (item,) = group["measurementItems"]
        assert item["quantity"]["CodeValue"] == "122157"
        assert 0 <= float(item["value"]) <= 100


def test_dciodvfy_finds_no_error_in_any_result(done):
    for path in done.result.objects:
        assert dciodvfy(path) == []


@pytest.mark.slow
def test_analysing_again_makes_the_same_objects(done, study, spotlight, tmp_path):
    again = run(study, spotlight, tmp_path)
    first, second = ({path.name: path for path in one.result.objects} for one in (done, again))
    assert set(first) == set(second)
    for name, path in first.items():
        one, other = dcmread(path), dcmread(second[name])
        assert path.stem == one.SOPInstanceUID
        assert without_dates(one) == without_dates(other)
        assert (one.StudyDate, one.StudyTime) == (other.StudyDate, other.StudyTime) == ("20240102", "101112")


def test_another_model_makes_other_objects_in_other_series(done, study, spotlight, tmp_path):
    other = run(study, replace(spotlight, fingerprint="77" * 32), tmp_path)
    for attribute in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = [{dcmread(path)[attribute].value for path in one.result.objects} for one in (done, other)]
        assert not uids[0] & uids[1]


def test_the_summary_says_what_the_objects_say(done, spotlight):
    told = json.loads(summary(spotlight, [done.result], []))
    assert told["model"]["name"] == "spotlight"
    assert told["model"]["version"] == "2.0+5a5a5a5a"
    assert told["model"]["notice"] == "test model, not for clinical use"
    assert [problem["origin"] for problem in told["problems"]] == [done.result.problems[0].origin]
    for line in told["frames"]:
        outputs = [Path(output) for output in line["outputs"]]
        assert [output.parent.name for output in outputs] == ["heatmaps", "findings"]
        assert all(output.is_file() for output in outputs)
        (reference,) = dcmread(outputs[0]).SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == line["sop_instance_uid"]
        assert reference.get("ReferencedFrameNumber", 1) == line["frame"]


@pytest.mark.slow
def test_pictures_bring_their_stills_along(polyp_files, classifier, tmp_path):
    (found,), _ = read_studies(polyp_files)
    result = analysis.analyze(found, classifier, tmp_path)
    assert len(result.frames) == len(polyp_files)
    stills = [path for path in result.objects if path.parent.name == "stills"]
    assert len(stills) == len(polyp_files)
    for path in result.objects:
        assert dciodvfy(path) == []
    for line in result.frames:
        assert [Path(output).parent.name for output in line.outputs] == ["stills", "heatmaps", "findings"]
        assert dcmread(line.outputs[0]).SOPInstanceUID == line.sop_instance_uid


def test_own_results_are_no_input(done):
    studies, problems = read_studies([done.folder])
    assert (studies, problems) == ([], [])
    studies, problems = read_studies(done.result.objects)
    assert studies == []
    assert len(problems) == len(done.result.objects)


def test_images_of_two_patients_never_share_a_report(polyp, classifier, tmp_path):
    for number, patient in enumerate(["P1", "P2", "P1"], start=1):
        still = image(polyp)
        still.PatientID, still.StudyInstanceUID, still.SeriesInstanceUID = patient, "1.2.3", "1.2.3.4"
        still.InstanceNumber = number
        still.SOPInstanceUID = still.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        write(still, tmp_path / f"{number}.dcm")
    (study,), _ = read_studies([tmp_path])
    (tmp_path / "out").mkdir()
    result = analysis.analyze(study, classifier, tmp_path / "out")
    assert [line.sop_instance_uid for line in result.frames] == ["1.2.3.4.1", "1.2.3.4.3"]
    (problem,) = result.problems
    assert "another Patient ID" in problem.reason


@pytest.mark.slow
def test_picture_added_beside_earlier_results_doubles_nothing(polyp_files, classifier, tmp_path):
    for file in polyp_files[:2]:
        shutil.copy(file, tmp_path)
    (study,), _ = read_studies([tmp_path])
    (tmp_path / "results").mkdir()
    analysis.analyze(study, classifier, tmp_path / "results")
    shutil.copy(polyp_files[2], tmp_path)
    (study,), problems = read_studies([tmp_path])
    assert not problems
    assert len(study.instances) == 3


def test_number_of_frames_that_is_not_there_costs_nothing(polyp, classifier, tmp_path):
    still = image(polyp)
    still.NumberOfFrames = 150_000
    write(still, tmp_path / "a.dcm")
    (study,), _ = read_studies([tmp_path])
    (tmp_path / "out").mkdir()
    (problem,) = analysis.analyze(study, classifier, tmp_path / "out").problems
    assert "announces 150000 frames and holds 1" in problem.reason
    still.NumberOfFrames = 2_000_000_000
    write(still, tmp_path / "a.dcm")
    studies, (problem,) = read_studies([tmp_path / "a.dcm"])
    assert not studies and "more than can be read" in problem.reason
