"""Frames of a video: each is there once, with its number and its time, also when decoding starts in the middle."""

from __future__ import annotations

import struct
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import HEVCMP51, MPEG2MPML, MPEG4HP41

from monai_label_app.frames import UnreadableError
from monai_label_app.reading import read_studies
from monai_label_app.video.decode import Movie, VideoFile, shown_at
from tests.dicom_files import image, write
from tests.video_files import copied, encode, number_of, numbered, only_sound, wrapped

COUNT = 120
FRAMES = [numbered(number) for number in range(COUNT)]
CODECS = {
    "h264.mp4": {"codec": "libx264", "options": {"g": "40"}, "sound": True},
    "h264.ts": {"codec": "libx264", "container": "mpegts"},
    "h264.h264": {"codec": "libx264"},
    "hevc.mkv": {"codec": "libx265"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg2.m2v": {"codec": "mpeg2video", "container": "mpeg2video"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, how in CODECS.items():
        encode(folder / name, FRAMES, **how)
    return folder


def assert_every_frame(movie: Movie, times: list[float]) -> None:
    shown = [(shot.number, shot.time, number_of(shot.picture.pixels())) for shot in movie.shots()]
    assert [number for _, _, number in shown] == list(range(COUNT))
    assert [number for number, _, _ in shown] == list(range(1, COUNT + 1))
    assert np.allclose([time for _, time, _ in shown], times, atol=1e-3)
    for place in (0, 1, 39, 40, 77, COUNT - 1):
        shot = next(movie.shots(shown[place][1], place + 1))
        assert (shot.number, shot.time, number_of(shot.picture.pixels())) == (place + 1, shown[place][1], place)


@pytest.mark.parametrize("name", CODECS)
def test_every_frame_is_found_at_its_time_from_any_start(videos, name):
    assert_every_frame(VideoFile(videos / name, name), [number / 25 for number in range(COUNT)])


def test_a_frame_years_after_the_others_ends_a_video(tmp_path):
    times = [0, 40, 80, 80 + 86_400_000, 120 + 86_400_000]
    movie = VideoFile(encode(tmp_path / "a.mkv", FRAMES[:5], milliseconds=times), "a.mkv")
    moments = shown_at((index / 10 for index in count()), movie.shots(), movie.rate)
    assert 0 < len(list(islice(moments, 10_000))) < 10_000, "a day has 864 000"
    assert [number_of(shot.picture.pixels()) for shot in movie.shots()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "syntax", "parts"),
    [("h264.mp4", MPEG4HP41, 1), ("h264.mp4", MPEG4HP41, 3), ("hevc.mkv", HEVCMP51, 1), ("mpeg2.m2v", MPEG2MPML, 2)],
)
def test_a_stream_in_dicom_is_decoded_where_it_lies(videos, tmp_path, name, syntax, parts):
    write(wrapped(videos / name, syntax, COUNT, 25, parts), tmp_path / "video.dcm")
    (study,), problems = read_studies([tmp_path])
    assert not problems and not study.instances
    assert_every_frame(study.recordings[0].movie, [number / 25 for number in range(COUNT)])


def test_a_long_multi_frame_image_is_a_video_and_a_short_one_is_images(tmp_path):
    write(image(np.stack(FRAMES)), tmp_path / "long.dcm")
    write(image(np.stack(FRAMES[:5])), tmp_path / "short.dcm")
    studies, problems = read_studies([tmp_path])
    assert not problems
    (movie,) = (recording.movie for study in studies for recording in study.recordings)
    assert_every_frame(movie, [number / 25 for number in range(COUNT)])
    assert [one.frame_count for study in studies for one in study.instances] == [5]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])  # the latter announces 1000 frames a second
def test_frames_of_any_rate_keep_their_times(name, tmp_path):
    times = np.cumsum(np.random.default_rng(1).integers(8, 150, COUNT)).tolist()
    movie = VideoFile(encode(tmp_path / name, FRAMES, options={"g": "30"}, milliseconds=times), name)
    assert_every_frame(movie, [(time - times[0]) / 1000 for time in times])
    assert movie.rate == pytest.approx(1000 * (COUNT - 1) / (times[-1] - times[0]), rel=0.02)


def test_a_recording_that_begins_between_key_frames_is_as_long_as_what_it_shows(tmp_path):
    content = encode(tmp_path / "a.ts", FRAMES, options={"g": "40"}, container="mpegts").read_bytes()
    (tmp_path / "b.ts").write_bytes(content[len(content) // 188 // 8 * 188 :])
    movie = VideoFile(tmp_path / "b.ts", "b.ts")
    shown = [number_of(shot.picture.pixels()) for shot in movie.shots()]
    assert shown[0] > 0 and shown == list(range(shown[0], COUNT))
    assert movie.duration == pytest.approx(len(shown) / 25, abs=0.1)


def test_a_turned_video_is_shown_upright(tmp_path):
    content = bytearray(encode(tmp_path / "a.mp4", FRAMES[:60]).read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 96 << 16, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)  # to be turned by 90 degrees clockwise (ISO 14496-12, 8.3.2)
    shot = next(VideoFile(tmp_path / "a.mp4", "a.mp4").shots(1.0))
    assert number_of(np.rot90(shot.picture.pixels())) == 25


def test_of_interlaced_frames_both_halves_are_of_one_moment(tmp_path):
    bars = np.tile(np.repeat(np.uint8([30, 220] * 2), 24)[:, None, None], (1, 128, 3))
    halves = [np.roll(bars, step, axis=0) for step in range(0, 60, 2)]
    woven = [
        np.where(np.arange(96)[:, None, None] % 2, *pair[::-1]) for pair in zip(halves[::2], halves[1::2], strict=True)
    ]
    options = {"flags": "+ilme+ildct", "x264-params": "interlaced=1:tff=1", "crf": "5"}
    movie = VideoFile(encode(tmp_path / "a.mp4", woven, options=options), "a.mp4")
    shown = list(movie.shots())
    assert len(shown) == len(woven)

    def combs(pixels: np.ndarray) -> float:
        """Share of rows that differ from both neighbours to the same side."""
        rows = pixels[..., 1].astype(int).mean(axis=1)
        above, below = rows[1:-1] - rows[:-2], rows[1:-1] - rows[2:]
        return float(((above * below > 0) & (np.minimum(abs(above), abs(below)) > 50)).mean())

    assert min(combs(frame) for frame in woven) > 0
    assert max(combs(shot.picture.pixels()) for shot in shown[1:-1]) == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "is empty"),
        ("text.mp4", "is no video that can be read"),
        ("picture.mp4", "is a PNG picture, not a video"),
        ("sound.mp4", "has sound and no picture"),
        ("no_index.mp4", "is cut off before its index"),
        ("unknown.mp4", "is coded in a way that cannot be decoded here"),
        ("encrypted.mp4", "is encrypted"),
        ("noise.mp4", "has no frame that can be decoded"),
        ("list.mp4", "is no video that can be read"),
    ],
)
def test_what_is_no_video_is_refused_in_a_sentence(videos, tmp_path, name, reason):
    whole = (videos / "h264.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    Image.fromarray(FRAMES[9]).save(tmp_path / "picture.mp4", "PNG")
    only_sound(tmp_path / "sound.mp4")
    (tmp_path / "no_index.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "unknown.mp4").write_bytes(whole.replace(b"avc1", b"zzz9"))
    locks = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    copied(videos / "h264.mp4", tmp_path / "encrypted.mp4", locks)
    data = whole.index(b"mdat") + 4
    end = whole.index(b"moov") - 4
    noise = np.random.default_rng(3).bytes(end - data)
    (tmp_path / "noise.mp4").write_bytes(whole[:data] + noise + whole[end:])
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{videos}/h264.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(UnreadableError, match=reason) as raised:
        VideoFile(tmp_path / name, name)
    assert str(raised.value).startswith(name)
    assert "\n" not in str(raised.value)
