"""A clip holds the frames that it says, all of them and no other, copied where that is possible."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_fragments
from pydicom.uid import MPEG4HP41

from monai_label_app.video.clips import LONGEST, MARGIN, Clip, cut
from monai_label_app.video.decode import TICK, VideoFile
from report.endoscopic_image import Examination
from report.endoscopic_video import Coding, Stream, video_clip, video_header
from tests.validators import dciodvfy
from tests.video_files import encode, number_of, numbered

FRAMES = [numbered(number) for number in range(300)]


@pytest.fixture(scope="module")
def short_groups(tmp_path_factory) -> VideoFile:
    """With a key frame a second, and frames that lean on later ones."""
    path = tmp_path_factory.mktemp("video") / "short.mp4"
    return VideoFile(encode(path, FRAMES, options={"g": "25", "bf": "3"}, sound=True), "short.mp4")


@pytest.fixture(scope="module")
def long_groups(tmp_path_factory) -> VideoFile:
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    return VideoFile(encode(path, FRAMES, options={"g": "300", "sc_threshold": "0"}), "long.mp4")


def numbers(path: Path) -> list[int]:
    return [number_of(shot.picture.pixels()) for shot in VideoFile(path, "clip").shots()]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def assert_exact(clip: Clip, start: float, end: float) -> None:
    first, last = round(25 * clip.start), round(25 * clip.end) - 1
    assert numbers(clip.path) == list(range(first, last + 1))
    assert clip.frames == last - first + 1
    assert max(0.0, start - 2 * MARGIN) - TICK <= clip.start <= max(0.0, start - MARGIN / 2) + TICK
    assert min(12.0, end + MARGIN / 2) - TICK <= clip.end <= end + 2 * MARGIN + 0.05
    assert clip.path.stat().st_size % 2 == 0
    with av.open(str(clip.path)) as container:
        assert not container.streams.audio, "what is said in the room stays there"


@pytest.mark.parametrize(("start", "end"), [(4.5, 6.0), (0.2, 0.9), (7.33, 7.73), (10.5, 12.0)])
def test_a_clip_is_exact_to_the_frame_copied_or_not(short_groups, long_groups, tmp_path, start, end):
    copied = cut(short_groups, start, end, start, tmp_path / "copied.mp4")
    assert copied.copied
    assert_exact(copied, start, end)
    with av.open(str(short_groups._source)) as container:
        original = {bytes(packet) for packet in container.demux(video=0) if packet.size}
    assert set(packets(copied.path)) <= original, "bit by bit"
    coded = cut(long_groups, start, end, start, tmp_path / "coded.mp4")
    assert coded.copied is (start < MARGIN)
    assert_exact(coded, start, end)


def test_another_codec_is_coded_anew(tmp_path):
    movie = VideoFile(encode(tmp_path / "a.mpg", FRAMES[:100], codec="mpeg2video"), "a.mpg")
    clip = cut(movie, 2.0, 2.5, 2.2, tmp_path / "clip.mp4")
    assert not clip.copied
    assert numbers(clip.path) == list(range(25, 88))


def test_of_a_long_segment_a_minute_around_the_still_is_cut(tmp_path):
    slow = [numbered(number) for number in range(100)]
    movie = VideoFile(encode(tmp_path / "a.mp4", slow, rate=1, options={"g": "1"}), "a.mp4")
    clip = cut(movie, 2.0, 98.0, 70.0, tmp_path / "clip.mp4")
    assert clip.end - clip.start <= LONGEST + 2 * MARGIN
    assert clip.start < 70 < clip.end


def test_a_clip_in_dicom_holds_the_same_stream_and_is_valid(short_groups, tmp_path):
    clip = cut(short_groups, 4.5, 6.0, 5.0, tmp_path / "clip.mp4")
    content = clip.path.read_bytes()
    stream = Stream(content, clip.frames, float(clip.rate), clip.width, clip.height, clip.level)
    header = video_header(Examination(patient_id="4711", study_instance_uid="1.2.3"), "fingerprint")
    made = video_clip(header, stream, clip.start, clip.end, Coding("h264", 50.0), "polyps", 1, copied=True)
    made.save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    assert dciodvfy(tmp_path / "clip.dcm") == []
    read = dcmread(tmp_path / "clip.dcm")
    assert read.file_meta.TransferSyntaxUID == MPEG4HP41
    assert b"".join(generate_fragments(read.PixelData[8:])) == content
    assert (read.NumberOfFrames, float(read.FrameTime), read.PatientID) == (clip.frames, 40.0, "4711")
    assert "copied as it was coded" in read.DerivationDescription
    assert (read.LossyImageCompressionRatio, read.LossyImageCompressionMethod) == (50.0, "ISO_14496_10")


@pytest.mark.parametrize(
    ("said", "codec", "ratios", "methods"),
    [
        ({}, "mpeg2video", [50.0], ["ISO_13818_2"]),
        ({"LossyImageCompression": "01"}, "mpeg2video", [50.0], ["ISO_13818_2"]),
        (
            {
                "LossyImageCompression": "01",
                "LossyImageCompressionRatio": ["10", "20"],
                "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_13818_2"],
            },
            *("mpeg2video", [10.0, 20.0], ["ISO_10918_1", "ISO_13818_2"]),
        ),
        ({}, "vp9", [], []),  # a method that DICOM has no term for
    ],
)
def test_a_clip_that_is_coded_anew_tells_the_losses_before_its_own(
    short_groups, tmp_path, said, codec, ratios, methods
):
    clip = cut(short_groups, 4.5, 6.0, 5.0, tmp_path / "clip.mp4")
    stream = Stream(clip.path.read_bytes(), clip.frames, float(clip.rate), clip.width, clip.height, clip.level)
    header = video_header(Examination(patient_id="4711", study_instance_uid="1.2.3"), "fingerprint")
    for keyword, value in said.items():
        setattr(header, keyword, value)
    made = video_clip(header, stream, clip.start, clip.end, Coding(codec, 50.0), "polyps", 1)
    made.save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    assert dciodvfy(tmp_path / "clip.dcm") == []
    read = dcmread(tmp_path / "clip.dcm")
    own = 3 * clip.width * clip.height * clip.frames / len(stream.content)
    assert np.atleast_1d(read.LossyImageCompressionRatio).tolist() == pytest.approx([*ratios, own], abs=0.01)
    assert np.atleast_1d(read.LossyImageCompressionMethod).tolist() == [*methods, "ISO_14496_10"]
    assert f"coded anew from {codec} of ratio 50.00" in read.DerivationDescription
