"""Studies that a PACS has, hands out in part or not at all, and that were dropped while they were fetched."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from monai_label_app.listening.poller import LONGEST, TRIES, Poller
from monai_label_app.listening.receiving import Receiver
from monai_label_app.listening.store import ANALYSIS, Store
from monai_label_app.pacs import Pacs, PacsError
from tests.dicom_files import image
from tests.receiving import received


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


@dataclass
class Archive:
    """What a PACS holds, and how it answers who asks for an image: with it, or with a log-in page."""

    images: list[Dataset] = field(default_factory=list)
    others: int = 0
    fetched: int = 0
    withheld: set[str] = field(default_factory=set)
    damaged: bool = False
    happens: Callable[[], object] = lambda: None
    """With every second answer."""

    def answer(self, path: str) -> tuple[str, bytes]:
        """By DICOMweb: its study, their metadata, or one of the images."""
        if "/instances/" in path:
            self.fetched += 1
            if self.fetched % 2 == 0:
                self.happens()
            if any(uid in path for uid in self.withheld):
                return "text/html; charset=utf-8", b"<html>Who are you?</html>"
            stream = io.BytesIO()
            next(one for one in self.images if one.SOPInstanceUID in path).save_as(stream, enforce_file_format=True)
            return "application/dicom", stream.getvalue()
        if path.endswith("/metadata"):
            told = [
                one.to_json_dict(bulk_data_threshold=0, bulk_data_element_handler=lambda _: "x") for one in self.images
            ]
            if self.damaged:
                del told[0]["00080018"]
        else:
            study = Dataset()
            study.StudyInstanceUID = self.images[0].StudyInstanceUID
            study.NumberOfStudyRelatedInstances = len(self.images) + self.others
            told = [study.to_json_dict()] if "offset" not in path else []
        return "application/dicom+json", json.dumps(told).encode()


@pytest.fixture
def archive() -> Iterator[tuple[Archive, Pacs]]:
    """An archive of one study, and how it is asked."""
    holds = Archive([image(np.full((64, 64, 3), 90, np.uint8), StudyInstanceUID="1.2.3") for _ in range(2)])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = holds.answer(self.path)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield holds, Pacs(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_what_a_pacs_did_not_hand_out_is_fetched_the_next_time(store: Store, archive: tuple[Archive, Pacs]) -> None:
    holds, source = archive
    said: list[str] = []
    poller = Poller(source, "", 1, Receiver(store, 0, 0), store, said.append)
    holds.withheld = {one.SOPInstanceUID for one in holds.images}
    for _ in range(2):
        with pytest.raises(PacsError, match="it sends text/html where DICOM was asked for"):
            poller.poll(threading.Event())
    holds.withheld, holds.damaged = set(), True
    poller.poll(threading.Event())
    assert store.jobs() == [] and store.polled(source.url) == {}
    assert "1.2.3 cannot be fetched" in said.pop()
    holds.damaged, holds.fetched = False, 0
    for _ in range(2):
        poller.poll(threading.Event())
    assert (store.counts(), holds.fetched) == ({"1.2.3": {ANALYSIS: 2}}, 2)
    assert list(store.received.glob(".*")) == [] and said == []
    holds.damaged, holds.others = True, 1
    for _ in range(TRIES + 2):
        poller.poll(threading.Event())
    assert len(said) == TRIES, "what is damaged for good is not fetched for ever"


def test_a_study_that_a_pacs_hands_out_in_part_waits_for_the_rest(store: Store, archive: tuple[Archive, Pacs]) -> None:
    holds, source = archive
    poller = Poller(source, "", 1, Receiver(store, 0, 0), store, print)
    uid = str(holds.images[0].SOPInstanceUID)
    holds.withheld = {uid}
    with pytest.raises(PacsError, match=f"{uid} of study 1.2.3 cannot be fetched: .* where DICOM was asked for"):
        poller.poll(threading.Event())
    assert store.counts() == {"1.2.3": {ANALYSIS: 1}}, "the others need not wait for one that is not handed out"
    received(store, StudyInstanceUID="1.2.3", PatientID=holds.images[0].PatientID)  # by C-STORE
    assert store.begin(ANALYSIS, 60) is None, "a part of a study is analysed"
    assert store.jobs()[0].due < time.time() + LONGEST + 1, "it would wait for ever"
    holds.withheld = set()
    poller.poll(threading.Event())
    assert store.begin(ANALYSIS, 60) and store.counts() == {"1.2.3": {ANALYSIS: 3}}


def test_a_study_dropped_while_it_is_fetched_stays_away(store: Store, archive: tuple[Archive, Pacs]) -> None:
    holds, source = archive
    poller = Poller(source, "", 1, Receiver(store, 0, 0), store, print)
    holds.happens = lambda: store.drop("1.2.3")
    for _ in range(2):
        poller.poll(threading.Event())
        assert (store.jobs(), store.counts(), list(store.received.iterdir())) == ([], {}, [])
    assert holds.fetched == 2


def test_a_study_dropped_while_it_waits_for_its_rest_stays_away(store: Store, archive: tuple[Archive, Pacs]) -> None:
    holds, source = archive
    poller = Poller(source, "", 1, Receiver(store, 0, 0), store, print)
    holds.withheld = {str(holds.images[0].SOPInstanceUID)}
    with pytest.raises(PacsError):
        poller.poll(threading.Event())
    assert store.drop("1.2.3")
    for _ in range(2):
        poller.poll(threading.Event())
        assert (store.jobs(), store.counts()) == ([], {})


def test_a_dropped_study_is_fetched_again_when_an_image_is_new_and_not_for_our_results(
    store: Store, archive: tuple[Archive, Pacs]
) -> None:
    holds, source = archive
    poller = Poller(source, "", 1, Receiver(store, 0, 0), store, print)
    own = image(np.zeros((64, 64, 3), np.uint8), StudyInstanceUID="1.2.3", Manufacturer="EndoLens")
    for expected in (2, 3):
        poller.poll(threading.Event())
        assert store.counts() == {"1.2.3": {ANALYSIS: expected}}
        assert store.drop("1.2.3") and not store.drop("1.2.3")
        holds.images.append(own)
        for holds.others in (0, 1):
            poller.poll(threading.Event())
        assert store.jobs() == [], "our results, and what is not told, are no reason to begin anew"
        holds.images[-1] = image(np.full((64, 64, 3), 91, np.uint8), StudyInstanceUID="1.2.3")
        holds.others += 1
