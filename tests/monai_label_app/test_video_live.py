"""A running examination: the picture goes on as it is, the network follows as it can, and what it finds is kept."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import UnreadableError
from monai_label_app.video.live import FINDINGS, Live
from monai_label_app.video.live_page import live_page
from tests.video_files import encode, number_of, numbered, pan


def finished(live: Live) -> Live:
    while not live.ended:
        time.sleep(0.02)
    live.close()
    return live


@pytest.mark.slow
def test_the_picture_is_shown_at_its_own_speed_and_what_is_seen_is_recorded_once(spotlight, polyp_files, tmp_path):
    source = encode(tmp_path / "a.mp4", pan(polyp_files[0], 40, (320, 240), 1))
    start = time.monotonic()
    live = finished(Live(str(source), spotlight, tmp_path / "found"))
    assert time.monotonic() - start > 1.4, "40 frames at 25 a second"
    assert live.newest is not None and live.newest.number == 40
    assert live.seen is not None and live.seen.label in spotlight.card.classes
    assert live.seen.overlay.shape == live.newest.pixels.shape
    (line,) = [json.loads(line) for line in (tmp_path / "found" / FINDINGS).read_text().splitlines()]
    assert line["class"] == live.seen.label
    assert (tmp_path / "found" / line["frame"]).exists() and (tmp_path / "found" / line["map"]).exists()


@pytest.mark.slow
def test_when_the_analysis_fails_the_picture_goes_on_unchanged(spotlight, tmp_path):
    class Broken(Classifier):
        def dissect(self, *arguments: object) -> object:
            raise RuntimeError("no network today")

    broken = Broken(spotlight.network, replace(spotlight.card, name="broken"), spotlight.fingerprint, spotlight.device)
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60, (96, 128, 1), dtype=np.uint8)
    frames = [np.clip(numbered(n).astype(int) + texture * [1, 0, 0], 0, 255).astype(np.uint8) for n in range(20)]
    source = encode(tmp_path / "a.mp4", frames, options={"crf": "5"})
    live = finished(Live(str(source), broken))
    assert live.newest is not None and number_of(live.newest.pixels) == 19
    assert live.seen is not None and live.seen.problem == "the analysis failed: no network today"
    client = TestClient(live_page(live, broken.card, str(source)), base_url="http://127.0.0.1")
    addresses = ("/", "/frame.jpg", "/state", "http://evil.example/frame.jpg")
    page, frame, answer, foreign = (client.get(address) for address in addresses)
    assert "not verified by a person" in page.text
    assert number_of(np.asarray(Image.open(io.BytesIO(frame.content)))) == 19
    state = answer.json()
    assert (state["frame"], state["ended"], state["problem"]) == (20, True, "the analysis failed: no network today")
    assert foreign.status_code == 403


def test_a_damaged_frame_ends_no_examination(spotlight, tmp_path):
    source = encode(tmp_path / "a.mkv", map(numbered, range(20)), "mjpeg", pixels="yuvj420p")
    content = source.read_bytes()
    starts = [found.start() for found in re.finditer(b"\xff\xd8\xff", content)]
    assert len(starts) == 20
    source.write_bytes(content[: starts[9]] + bytes(starts[10] - starts[9] - 40) + content[starts[10] - 40 :])
    live = finished(Live(str(source), spotlight))
    assert live.newest is not None
    assert (live.newest.number, number_of(live.newest.pixels), live.problem) == (19, 19, "")


@pytest.mark.slow
def test_a_slow_network_delays_no_picture_and_frames_are_dropped(spotlight, polyp_files, tmp_path):
    looked_at = []

    class Slow(Classifier):
        def dissect(self, *arguments: Any) -> Any:
            looked_at.append(1)
            time.sleep(0.4)
            return super().dissect(*arguments)

    slow = Slow(spotlight.network, spotlight.card, spotlight.fingerprint, spotlight.device)
    source = encode(tmp_path / "a.mp4", pan(polyp_files[0], 40, (320, 240), 1))
    live = finished(Live(str(source), slow))
    assert live.newest is not None and live.newest.number > len(looked_at)
    assert live.seen is not None and live.seen.of.number == live.newest.number, "the newest, not the next"


@pytest.mark.slow
def test_an_address_that_is_lost_is_tried_again(spotlight, polyp_files, tmp_path):
    sent = encode(tmp_path / "a.ts", pan(polyp_files[0], 20, (320, 240), 1), container="mpegts").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(sent)

        first = threading.Thread(target=serve)
        first.start()
        live = Live(f"tcp://127.0.0.1:{server.getsockname()[1]}", spotlight)
        first.join()
        while not live.problem:
            time.sleep(0.02)
        assert live.problem.startswith("the source was lost")
        state = TestClient(live_page(live, spotlight.card, ""), base_url="http://127.0.0.1").get("/state").json()
        assert (state["ended"], state["problem"]) == (False, live.problem)
        assert live.newest is not None
        before = live.newest.number
        serve()
        while live.newest.number <= before:
            time.sleep(0.02)
        live.close()


def test_a_source_that_is_none_is_refused_in_a_sentence(spotlight, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    for source in (str(tmp_path / "text.mp4"), str(tmp_path / "nothing"), "rtsp://127.0.0.1:1/live"):
        with pytest.raises(UnreadableError, match="cannot be watched"):
            Live(source, spotlight)
