"""A video on the command line: what was planted in it is found, shown and cut out, once, also after an interruption."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG4HP41
from torch import nn

from monai_label_app import web
from monai_label_app.classifier.checkpoint import Card, save
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.duplicates import NEAR, fingerprint
from monai_label_app.classifier.network import build, calibrate
from monai_label_app.cli import main
from monai_label_app.frames import UnreadableError, frames
from monai_label_app.intake import look, store
from monai_label_app.job_queue import ENDED
from monai_label_app.jobs import Jobs
from monai_label_app.library import FolderLibrary
from monai_label_app.pictures import read_picture
from monai_label_app.reading import read_studies
from monai_label_app.video.decode import VideoFile
from monai_label_app.video.footage import analyze
from monai_label_app.video.sampling import BATCH, HELD, sample
from monai_label_app.video.segments import spans
from monai_label_app.viewers.ohif import Viewer
from report.endoscopic_image import Examination
from report.structured_report import read_findings
from tests.dicom_files import write
from tests.validators import dciodvfy
from tests.video_files import blurred, encode, faded, number_of, numbered, only_sound, pan, wrapped

SIZE = (320, 240)
RATE = 25


def endolens(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def objects(folder: Path) -> dict[str, Dataset]:
    return {path.name: dcmread(path) for path in folder.rglob("*.dcm")}


@pytest.fixture(scope="module")
def known_frames(real_images) -> dict[str, list[Path]]:
    """Class → real pictures that the demonstration model is right about: the network is not what is tested here."""
    classifier = open_classifier()
    known: dict[str, list[Path]] = {}
    for label in ("polyps", "normal-pylorus", "ulcerative-colitis", "esophagitis"):
        for file in sorted((real_images / "kvasir-8" / label).glob("*.*g")):
            pixels = read_picture(file).pixels
            if min(pixels.shape[:2]) < 240 or len(known.get(label, [])) == 2:
                continue
            ends = pan(file, 2, SIZE, seed=len(label))
            chances = classifier.scores([pixels, *ends], half=True).softmax(1)[:, classifier.card.classes.index(label)]
            if chances.min() > 0.9:
                known.setdefault(label, []).append(file)
    return known


@pytest.fixture(scope="module")
def planted(known_frames, tmp_path_factory) -> tuple[Path, list[tuple[str, float, float]]]:
    """A video, and what is seen in it from when to when."""
    (polyp, other), (pylorus, *_), (colitis, *_) = (
        known_frames[label] for label in ("polyps", "normal-pylorus", "ulcerative-colitis")
    )
    scenes: list[tuple[str, list[np.ndarray]]] = [
        ("normal-pylorus", pan(pylorus, 60, SIZE, len("normal-pylorus"))),
        ("polyps", pan(polyp, 10, SIZE, len("polyps"))),
        ("ulcerative-colitis", pan(colitis, 60, SIZE, len("ulcerative-colitis"))),
        ("", [np.zeros((240, 320, 3), np.uint8)] * 30),
        ("polyps", pan(other, 50, SIZE, len("polyps"))),
        ("", blurred(pan(other, 30, SIZE, 0))),
        ("polyps", pan(polyp, 40, SIZE, len("polyps"))),
    ]
    scenes[2] = scenes[2][0], faded(scenes[1][1], scenes[2][1], 8)
    shown: list[np.ndarray] = []
    truth = []
    for label, images in scenes:
        if label:
            truth.append((label, len(shown) / RATE, (len(shown) + len(images)) / RATE))
        shown += images
    path = tmp_path_factory.mktemp("recording") / "colonoscopy.mp4"
    return encode(path, shown, rate=RATE, options={"g": "25"}, sound=True), truth


@pytest.fixture(scope="module")
def results(planted, tmp_path_factory) -> Path:
    """What the command makes of it."""
    out = tmp_path_factory.mktemp("results") / "out"
    result = endolens("analyze", planted[0], "--out", out, "--report")
    assert result.exit_code == 0, result.output
    assert "segments seen in videos: " in result.stdout
    (page,) = out.rglob("timeline.html")
    assert f"what was seen when: {page};" in result.stdout
    assert not list(out.rglob(".*")), "a journal, or its lock, is left"
    return out


@pytest.mark.slow
def test_what_was_planted_is_found_and_nothing_else(planted, results):
    found = [(one["class"], one["start"], one["end"]) for one in told(results)["segments"]]
    truth = planted[1]
    assert [label for label, *_ in found] == [label for label, *_ in truth]
    for (_, start, end), (_, begun, ended) in zip(found, truth, strict=True):
        assert abs(start - begun) <= 0.5
        assert abs(end - ended) <= 0.5
    (video,) = told(results)["videos"]
    assert video["left_out"]["dark"] == pytest.approx(30 / 280, abs=0.02)
    assert video["left_out"]["blurred"] == pytest.approx(30 / 280, abs=0.02)
    assert video["landmarks"] == {"cecum": False, "z-line": False, "pylorus": True}


@pytest.mark.slow
def test_each_still_is_a_frame_of_its_segment_and_no_two_are_alike(planted, results):
    movie = VideoFile(planted[0], "video")
    prints = []
    for one in told(results)["segments"]:
        if one["still"] is None:
            continue
        still = dcmread(one["still"])
        assert one["start"] <= one["still_time"] <= one["end"]
        assert f"{one['still_time']:.3f} s" in still.DerivationDescription
        pixels = next(frames(still, "still")).pixels
        assert np.array_equal(pixels, next(movie.shots(one["still_time"])).picture.pixels())
        prints.append(fingerprint(pixels))
    assert len(prints) >= 4
    for index, one in enumerate(prints):
        assert all(np.count_nonzero(one != other) > NEAR for other in prints[:index])


@pytest.mark.slow
def test_the_study_holds_stills_maps_findings_report_and_clips_and_all_are_valid(results):
    made = objects(results)
    segments = told(results)["segments"]
    stills = [one for one in segments if one["still"]]
    kinds = [Path(name).parent.name for name in map(str, results.rglob("*.dcm"))]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {
        "stills": len(stills),
        "heatmaps": len(stills),
        "findings": 1,
        "clips": len(segments),
        "report": 2,
    }
    assert all(dciodvfy(path) == [] for path in results.rglob("*.dcm") if path.parent.name != "report")
    assert len({one.StudyInstanceUID for one in made.values()}) == 1
    (findings,) = (one for one in made.values() if one.SOPClassUID.name == "Comprehensive SR Storage")
    assert {one.sop_instance_uid for one in read_findings(findings)} == {Path(one["still"]).stem for one in stills}
    for one in segments:
        clip, movie = made[Path(one["clip_dicom"]).name], VideoFile(Path(one["clip"]), "clip")
        assert clip.NumberOfFrames == sum(1 for _ in movie.shots())
        assert one["clip_start"] <= one["start"] and one["end"] - 0.1 <= one["clip_end"]
        assert one["clip_coding"] == "copied"
    for one in stills:
        (source,) = made[Path(one["still"]).name].SourceImageSequence
        clip = VideoFile(Path(one["clip"]), "clip")
        shot = list(clip.shots())[source.ReferencedFrameNumber - 1]
        pixels = next(frames(made[Path(one["still"]).name], "still")).pixels
        assert np.abs(shot.picture.pixels().astype(int) - pixels).mean() < 1, "the clip's frame is the still"
    (fhir,) = results.glob("*.fhir.json")
    text = fhir.read_text()
    assert "of a video, with a probability of up to" in text
    assert "Landmarks seen in videos: Pylorus; not seen: Gastroesophageal junction, Cecum" in text or "Pylorus" in text
    page = next(results.rglob("timeline.html")).read_text()
    assert page.count("<video") == len(segments)


@pytest.fixture(scope="module")
def decided(tmp_path_factory) -> Path:
    """A tiny network with random weights that is sure of whatever it says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build("vgg19", width=1 / 32)
    calibrate(network, 1e-4)
    path = tmp_path_factory.mktemp("model") / "decided.safetensors"
    save(path, network, Card(name="decided", version="1", width=1 / 32, input_size=64, notice="test model"))
    return path


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on_and_the_results_are_the_same_once(planted, decided, tmp_path):
    arguments = ["analyze", str(planted[0]), "--rate", "all", "--model", str(decided)]
    assert endolens(*arguments, "--out", tmp_path / "whole").exit_code == 0
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from monai_label_app.cli import main; main()", *arguments, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (journals := [one for one in out.glob(".2.25.*.jsonl") if one.stat().st_size]):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    lines = journals[0].read_text().splitlines()
    assert 0 < len(lines) < math.ceil(280 / BATCH), "it was in the midst of it"
    assert not (out / "summary.json").exists()
    journals[0].write_text("\n".join(lines)[:-20])  # and as if it had been killed while it wrote
    assert endolens(*arguments, "--out", out).exit_code == 0
    assert not list(out.glob(".2.25.*.jsonl"))
    assert told(out)["segments"]
    assert objects(out).keys() == objects(tmp_path / "whole").keys()
    places = ("still", "clip", "clip_dicom")
    once, again = (
        [{**one, **dict.fromkeys(places)} for one in told(folder)["segments"]] for folder in (tmp_path / "whole", out)
    )
    assert once == again
    before = objects(out).keys()
    assert endolens(*arguments, "--out", out).exit_code == 0
    assert objects(out).keys() == before
    (study,), problems = read_studies([out])
    assert not study.recordings and not problems, "results are no recordings"


@pytest.fixture(scope="module")
def red_or_not(tmp_path_factory) -> Classifier:
    """A network that sees polyps in what is red, and normal cecum in what is not."""
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])[..., None, None])
        network[0].bias.zero_()
        network[4].weight.copy_(20 * torch.eye(2))
        network[4].bias.zero_()
    card = open_classifier().card
    return Classifier(
        network,
        replace(card, name="red", classes=("polyps", "normal-cecum"), mean=(0, 0, 0), std=(1, 1, 1), target_layer="0"),
        "0" * 64,
        torch.device("cpu"),
    )


def textured(colour: tuple[int, int, int], count: int, seed: int) -> list[np.ndarray]:
    """Moving, sharp, of one hue."""
    random = np.random.default_rng(seed)
    pattern = random.random((240, 320, 1)) * 0.5 + 0.5
    return [np.rint(np.roll(pattern, 3 * step, axis=1) * colour).astype(np.uint8) for step in range(count)]


RED, GREEN = (230, 120, 90), (150, 200, 90)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "name", "syntax"), [("libx264", "a.mp4", MPEG4HP41), ("mpeg2video", "a.m2v", MPEG2MPML)]
)
def test_a_video_of_a_scope_stays_in_its_patient_s_study(red_or_not, tmp_path, codec, name, syntax):
    shown = [*textured(GREEN, 40, 1), *textured(RED, 10, 2), *textured(GREEN, 40, 1)]
    container = "mpeg2video" if codec == "mpeg2video" else None
    file = encode(tmp_path / name, shown, codec=codec, container=container, options={"g": "10"})
    source = wrapped(file, syntax, len(shown), RATE)
    (tmp_path / "in").mkdir()
    write(source, tmp_path / "in" / "video.dcm")
    (study,), problems = read_studies([tmp_path / "in"])
    assert not problems
    (tmp_path / "out").mkdir()
    result = analyze(study, red_or_not, tmp_path / "out", tmp_path)
    assert not result.problems
    assert [one["class"] for one in result.segments] == ["normal-cecum", "polyps", "normal-cecum"]
    assert result.segments[1]["start"] == pytest.approx(1.6, abs=0.11)
    assert result.segments[1]["end"] == pytest.approx(2.0, abs=0.11)
    for path in result.objects:
        made = dcmread(path)
        assert (made.StudyInstanceUID, made.PatientID, made.PatientName) == (
            source.StudyInstanceUID,
            "4711",
            "Doe^Jane",
        )
    still = dcmread(result.segments[1]["still"])
    reference = still.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedFrameNumber == round(result.segments[1]["still_time"] * RATE) + 1
    coding = {"libx264": "copied", "mpeg2video": "coded anew"}[codec]
    assert {one["clip_coding"] for one in result.segments} == {coding}
    app = server(tmp_path, red_or_not)
    said = app.get(f"/api/v1/images/{source.SOPInstanceUID}/video").get_json()["segments"]
    names = ("class", "start", "end", "peak", "mean", "still_time")
    assert [[one[name] for name in names] for one in said] == [[one[name] for name in names] for one in result.segments]
    assert [one["still"] for one in said] == [one["still"] and Path(one["still"]).stem for one in result.segments]
    stills = [(one["still_time"], one["still_frame"]) for one in said if one["still"]]
    assert [frame for _, frame in stills] == [round(time * RATE) + 1 for time, _ in stills]

    # The page proposes what the command does: for the lesion, its still, and when it was seen.
    report = app.post(f"/api/v1/studies/{source.StudyInstanceUID}/report", json={}).get_json()["report"]
    (polyp,) = [one for one in report["observations"] if one["label"] == "polyps"]
    assert polyp["evidence"][0]["sop_instance_uid"] == said[1]["still"]
    assert f"{said[1]['start']:.1f} s to {said[1]['end']:.1f} s" in polyp["evidence"][0]["reason"]


def server(folder: Path, classifier: Classifier) -> FlaskClient:
    """One that knows nothing but the folder, as after any restart."""
    return web.create_app(FolderLibrary(folder), lambda: classifier, Viewer(), pacs=False).test_client()


@pytest.mark.slow
def test_what_a_still_shows_already_is_not_shown_again(red_or_not, polyp, tmp_path):
    red = np.asarray(Image.fromarray(polyp).resize(SIZE))
    encode(tmp_path / "a.mp4", [*[red] * 20, *[red[:, ::-1, [1, 0, 2]]] * 20, *[red] * 20])
    (study,), _ = read_studies([tmp_path / "a.mp4"])
    (tmp_path / "out").mkdir()
    first, second, third = analyze(study, red_or_not, tmp_path / "out", tmp_path).segments
    assert first["still"] and second["still"] and third["still"] is None
    assert third["class"] == first["class"]
    # The video is no DICOM, so each clip says in its own seconds what it shows.
    for one in (first, second, third):
        clip = Path(one["clip_dicom"]).stem
        (seen,) = server(tmp_path, red_or_not).get(f"/api/v1/images/{clip}/video").get_json()["segments"]
        assert (seen["class"], seen["peak"]) == (one["class"], one["peak"])
        assert seen["start"] == pytest.approx(one["start"] - one["clip_start"], abs=2e-3)
        assert seen["end"] == pytest.approx(min(one["end"], one["clip_end"]) - one["clip_start"], abs=2e-3)
        assert (seen["still"] is None) == (one["still"] is None)


@pytest.mark.slow
def test_a_video_sent_to_the_page_becomes_a_study_with_stills_and_clips(red_or_not, tmp_path):
    file = encode(tmp_path / "sent", [*textured(GREEN, 100, 1), *textured(RED, 10, 2)], container="mp4", sound=True)
    library = FolderLibrary(tmp_path / "studies")
    sent = [look(file, "a.mp4"), replace(look(file, "b.mp4"), number=2)]
    stored, again = store(sent, Examination(patient_id="4711"), library)
    assert (stored.state, again.state) == ("stored", "present")
    (video,) = library.study(stored.study).instances
    assert (video.streamed, video.header.PatientID, video.header.NumberOfFrames) == (True, "4711", 110)
    (path,) = (tmp_path / "studies").rglob("*.dcm")
    assert dciodvfy(path) == []
    jobs = Jobs(library, lambda: red_or_not)
    for _ in range(2):  # analysed again, nothing is there twice
        job = jobs.start(stored.study)
        while jobs.get(job.key).state not in ENDED:
            time.sleep(0.05)
        ended = jobs.get(job.key)
        assert (ended.state, ended.problems, ended.done) == ("done", (), ended.frames)
        names = [
            str(one.header.get("SeriesDescription")).split(",")[0] for one in library.study(stored.study).instances
        ]
        assert sorted(names) == [
            *("Clip", "Clip", "EndoLens Grad-CAM", "EndoLens Grad-CAM", "EndoLens findings"),
            *("Stills of videos", "Stills of videos", "Video"),
        ]
    jobs.close()


@pytest.mark.parametrize(
    ("codec", "container", "syntax"),
    [("mpeg2video", "mpeg", MPEG2MPML), ("mpeg2video", "matroska", MPEG2MPML), ("libx265", "mp4", HEVCMP51)],
)
def test_a_video_is_stored_as_it_was_coded(codec, container, syntax, tmp_path):
    sent = [numbered(number) for number in range(40)]
    file = encode(tmp_path / "sent", sent, codec, container=container, sound=container == "matroska")
    library = FolderLibrary(tmp_path / "studies")
    (stored,) = store([look(file, "a.mpg")], Examination(patient_id="4711"), library)
    (path,) = (tmp_path / "studies").rglob("*.dcm")
    # dciodvfy does not know HEVC.
    assert syntax == HEVCMP51 or dciodvfy(path) == []
    video = dcmread(path)
    assert (stored.state, video.file_meta.TransferSyntaxUID, video.NumberOfFrames) == ("stored", syntax, 40)
    assert (video.FrameTime, video.PatientID) == (40, "4711")
    (content,) = generate_frames(video.PixelData, number_of_frames=1)
    coded, kept = (_pictures(one) for one in (io.BytesIO(file.read_bytes()), io.BytesIO(content)))
    assert np.array_equal(coded, kept), "not bit by bit the same"
    assert [number_of(picture) for picture in kept] == list(range(40))


def _pictures(content):
    with av.open(content) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_video_that_cannot_be_stored_as_it_is_is_refused(tmp_path):
    file = encode(tmp_path / "sent", textured(RED, 5, 2), codec="mpeg4", container="avi")
    with pytest.raises(UnreadableError, match=r"^a\.avi is coded as mpeg4, and only H\.264, HEVC and MPEG-2"):
        look(file, "a.avi")
    file = encode(tmp_path / "sent", textured(RED, 5, 2), codec="mpeg2video", container="mpeg", pixels="yuv422p")
    with pytest.raises(UnreadableError, match=r"^a\.mpg is coded as mpeg2video, and only H\.264, HEVC and MPEG-2"):
        look(file, "a.mpg")


@pytest.mark.slow
def test_of_a_video_that_is_cut_off_what_is_there_is_analysed_and_that_is_said(red_or_not, tmp_path):
    file = encode(tmp_path / "a.ts", textured(RED, 100, 3), container="mpegts")
    content = file.read_bytes()
    write_to = tmp_path / "cut.mp4"
    with av.open(str(file)) as source, av.open(str(write_to), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    content = write_to.read_bytes()
    write_to.write_bytes(content[: 2 * len(content) // 3])
    (study,), _ = read_studies([write_to])
    (tmp_path / "out").mkdir()
    result = analyze(study, red_or_not, tmp_path / "out", tmp_path)
    (problem,) = result.problems
    assert problem.reason.startswith(f"{write_to} is cut off or damaged: it announces 4.0 s and can be read up to ")
    assert [one["class"] for one in result.segments] == ["polyps"]


@pytest.mark.slow
def test_where_a_video_has_no_frame_at_all_nothing_is_seen(red_or_not, tmp_path):
    moving = textured(RED, 100, 3)
    milliseconds = [40 * place + (20_000 if place >= 50 else 0) for place in range(100)]
    file = encode(tmp_path / "a.mp4", moving, milliseconds=milliseconds)
    samples = sample(VideoFile(file, "a.mp4"), red_or_not, tmp_path / "journal")
    told = ~np.isnan(samples.probabilities).any(axis=1)
    assert not told[(samples.times > 1.96 + HELD) & (samples.times < 22)].any()
    assert told[(samples.times <= 1.96 + HELD) | (samples.times >= 22)].all()
    before, after = spans(samples, red_or_not.card.classes, 0.1)
    assert (before.start, before.end) == pytest.approx((0, 1.96 + HELD), abs=0.1)
    assert (after.start, after.end) == pytest.approx((22, 24), abs=0.3)


def test_what_is_no_video_is_named_on_the_command_line_and_leaves_nothing(checkpoint, tmp_path, polyp):
    only_sound(tmp_path / "sound.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    Image.fromarray(polyp).save(tmp_path / "picture.mov", "PNG")
    for name, reason in (
        ("sound.mp4", "has sound and no picture"),
        ("empty.mp4", "is empty"),
        ("picture.mov", "is a PNG picture, not a video"),
    ):
        result = endolens("analyze", tmp_path / name, "--out", tmp_path / "out", "--model", checkpoint)
        assert result.exit_code == 1
        assert f"left out: {tmp_path / name} {reason}" in result.stderr.splitlines()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "often", "nan"])
def test_a_rate_that_is_none_is_a_usage_error(tmp_path, rate):
    result = endolens("analyze", tmp_path, "--rate", rate)
    assert result.exit_code == 2
    assert "is neither a number from 0.1 to 1000 nor all" in result.output
