"""What a browser is given holds every frame of the video, at its time, and it is known which one is shown when."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest

from monai_label_app.video.decode import VideoFile
from monai_label_app.video.playable import make_playable
from tests.video_files import encode, number_of, numbered

FRAMES = [numbered(number) for number in range(60)]
LEANING = {"g": "25", "bf": "3"}
"""A key frame a second, and frames that lean on later ones."""

VIDEOS: dict[str, tuple[bool, dict[str, Any]]] = {
    "sound.mp4": (True, {"options": LEANING, "sound": True}),
    "stream.ts": (True, {"options": LEANING}),
    "matroska.mkv": (True, {"options": LEANING}),
    "uneven.mp4": (True, {"options": LEANING, "milliseconds": [40 * n + 10 * (n % 3) for n in range(60)]}),
    "bare.h264": (False, {"options": LEANING}),
    "program.mpg": (False, {"codec": "mpeg2video"}),
    "hevc.mp4": (False, {"codec": "libx265"}),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_browser_gets_every_frame_at_its_time_and_no_sound(name, tmp_path):
    copied, options = VIDEOS[name]
    movie = VideoFile(encode(tmp_path / name, FRAMES, **options), name)
    told: list[float] = []
    made = make_playable(movie, tmp_path / "made.mp4", told.append)
    assert made.copied is copied
    assert len(told) == len(FRAMES)
    with av.open(str(made.path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert not container.streams.audio, "what is said in the room stays there"
        # FFmpeg alone, by the file's own clock: a browser's begins at 0 too.
        shown = [(number_of(one.to_ndarray(format="rgb24")), one.time) for one in container.decode(video=0)]
    assert [number for number, _ in shown] == list(range(60))
    assert np.allclose([time for _, time in shown], made.times, atol=1e-3)


def test_what_is_shown_at_a_moment_is_the_last_frame_that_has_begun(tmp_path):
    times = [0, 40, 90, 200, 240]
    movie = VideoFile(encode(tmp_path / "a.mp4", FRAMES[:5], milliseconds=times), "a.mp4")
    made = make_playable(movie, tmp_path / "made.mp4")
    moments = {0.0: 1, 0.039: 1, 0.04: 2, 0.1: 3, 0.199: 3, 0.2: 4, 0.25: 5}
    assert {moment: made.shown_at(moment) for moment in moments} == moments
    for nowhere in (-1.0, made.end, 1e9, float("nan")):
        with pytest.raises(ValueError, match="shown from 0 to 0"):
            made.shown_at(nowhere)
