"""`endolens listen` between real senders and a real PACS."""

import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import MPEG4HP41, BasicTextSRStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from monai_label_app.listening.node import ASSOCIATIONS
from monai_label_app.sample import STUDY
from tests.dicom_files import CT, image
from tests.e2e.conftest import REPOSITORY, Orthanc, certificate_of_here, free_port, running_orthanc
from tests.e2e.listening import (
    Node,
    association,
    command,
    listening,
    send,
    send_bytes,
    stills,
    stored,
    undisturbed,
    until,
)
from tests.validators import missing
from tests.video_files import encode, numbered, wrapped

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DCMTK = "/usr/bin"
"""Where dcmtk is; pynetdicom has programs of the same names."""

LARGE = 64 * 2**20
"""Bytes of a long video."""


def jobs(node: Node, *options: str) -> list[dict[str, object]]:
    return list(json.loads(command("jobs", "list", "--state", node.state, "--json", *options).stdout))


def encoded(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, Dataset({e.tag: e for e in dataset if e.tag.group != 2}))
    return stream.getvalue()


def assert_refuses_what_is_no_image(node: Node) -> None:
    good = image(np.full((64, 64, 3), 90, np.uint8))
    whole = encoded(good)
    anonymous = Dataset({element.tag: element for element in good if element.keyword != "SOPInstanceUID"})
    for bad in (whole[: len(whole) // 2], whole[:300], b"\0" * 500, encoded(anonymous)):
        assert send_bytes(node.port, good, bad) == 0xC000
    document = image(np.zeros((64, 64, 3), np.uint8), BasicTextSRStorage)
    scan = image(np.zeros((64, 64), np.uint16), CT)
    for answer in send(node.port, [document, scan]):
        assert answer.Status == 0xC000
        assert "not an endoscopic image" in answer.ErrorComment
    assert jobs(node) == []
    assert not [file for file in (node.state / "received").rglob("*") if file.is_file()]


def test_what_is_sent_is_analysed_and_the_results_are_in_the_pacs_once(
    orthanc: Orthanc, checkpoint: Path, tmp_path: Path
) -> None:
    images = stills(1, 3)
    first = undisturbed(images[:2], checkpoint, tmp_path / "two")["1.2.3.1"]
    every = undisturbed(images, checkpoint, tmp_path / "three")["1.2.3.1"]
    assert len(first) == 3 and len(set(first) & set(every)) == 2  # the maps; the report is about other images
    to = ["--send", orthanc.dicomweb, "--send", f"ORTHANC@127.0.0.1:{orthanc.dimse_port}"]
    options = [*to, "--quiet", "1", "--model", checkpoint, "--peer", "SCOPE", "--reserve", "1"]
    with listening(tmp_path / "state", *options) as node:
        for _ in range(ASSOCIATIONS + 2):  # as a monitor does, to see whether the port is open
            socket.create_connection(("127.0.0.1", node.port)).close()
        called = association(node.port, [])
        assert called.is_established and called.send_c_echo().Status == 0
        called.release()
        assert association(node.port, [], called="OTHER").is_rejected
        assert association(node.port, [], calling="STRANGER").is_rejected
        second = command("listen", "--state", node.state, *to, "--port", free_port())
        assert second.exit_code == 1
        assert second.stderr.count("\n") == 1 and "another process works already" in second.stderr

        assert_refuses_what_is_no_image(node)
        assert [one.Status for one in send(node.port, images[:2])] == [0, 0]
        (stranger,) = stills(1, 1)
        stranger.StudyInstanceUID = "1.2.3.9"
        (answer,) = send(node.port, [stranger])
        assert answer.ErrorComment == "has the UID of an image of another study or patient; it came..."
        assert "another study or patient; it came as one of study 1.2.3.9\n" in node.said()
        kept = pydicom.dcmread(node.state / "received" / "1.2.3.1" / f"{images[0].SOPInstanceUID}.dcm")
        assert kept.PixelData == images[0].PixelData
        until(lambda: all(one["state"] == "done" for one in jobs(node)) and len(jobs(node)) == 3, node.said)
        assert stored(orthanc) == {"1.2.3.1": first}

        # The PACS sends all that it has, our results too: nothing begins anew.
        back = [pydicom.dcmread(file) for file in orthanc.download(tmp_path)]
        assert {one.Status for one in send(node.port, [*back, *images[:2]])} == {0}
        assert jobs(node)[0]["objects"] == 2 and {one["state"] for one in jobs(node)} == {"done"}

        # One more image: the maps that are there are not made twice.
        assert [one.Status for one in send(node.port, images[2:])] == [0]
        until(lambda: len(stored(orthanc)["1.2.3.1"]) == 5, node.said)
        assert stored(orthanc) == {"1.2.3.1": sorted({*first, *every})}
        assert node.said().count("is analysed") == 2
        assert "Traceback" not in node.said()


def test_a_pacs_is_polled_for_new_studies_and_each_is_fetched_once(
    orthanc: Orthanc, checkpoint: Path, tmp_path: Path
) -> None:
    old, new = stills(1, 1), stills(2, 2)
    for one in old:
        one.StudyDate = "20200101"
    orthanc.store_by_dimse([*old, *new[:1]])
    address = orthanc.dicomweb
    options = ["--poll", address, "--every", "0.5", "--since", "20210101", "--send", address]
    options += ["--quiet", "1.5", "--model", str(checkpoint), "--reserve", "1"]
    sources = ["1.2.3.2.1.1", "1.2.3.2.1.2"]
    with listening(tmp_path / "state", *options) as node:
        until(lambda: len(stored(orthanc)["1.2.3.2"]) == 3, node.said)
        # What Orthanc got from us is no news to us.
        orthanc.store_by_dimse(new[1:])
        until(lambda: node.said().count("is analysed") == 2 and node.said().count("results are at") == 2, node.said)
    results = [one for one in stored(orthanc)["1.2.3.2"] if one not in sources]
    assert set(undisturbed(new, checkpoint, tmp_path / "calm")["1.2.3.2"]) < set(results)
    assert len(results) == 4  # two maps, and a report of one image and of both
    assert stored(orthanc)["1.2.3.1"] == ["1.2.3.1.1.1"]
    with listening(tmp_path / "state", *options) as node:  # it remembers
        assert [one["state"] for one in jobs(node)] == ["done", "done"]
    assert node.said().count("is analysed") == 2


def test_orthanc_as_the_documentation_sets_it_up_sends_what_is_stable(checkpoint: Path, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "pacs.md").read_text(encoding="utf-8")
    printed = {kind: re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1] for kind in ("json", "lua")}
    port, dimse_port = free_port(), free_port()
    options = ["--send", f"http://127.0.0.1:{port}/dicom-web", "--quiet", "1", "--model", checkpoint, "--reserve", "1"]
    with listening(tmp_path / "state", *options) as node:
        settings = json.loads(printed["json"].replace("11112", str(node.port)))
        settings |= {"HttpPort": port, "DicomPort": dimse_port, "StableAge": 1}
        store = tmp_path / "orthanc"
        store.mkdir()
        (store / "endolens.lua").write_text(printed["lua"])
        with running_orthanc(store, port, dimse_port, **settings) as orthanc:
            images = stills(1, 2)
            orthanc.store_by_dimse(images)
            results = undisturbed(images, checkpoint, tmp_path / "calm")["1.2.3.1"]
            until(lambda: len(stored(orthanc)["1.2.3.1"]) == 2 + len(results), node.said)
            # Our results made the study stable anew: it is sent again, without them, and nothing comes of it.
            until(lambda: len(httpx.get(f"{orthanc.http}/jobs").json()) > 1, node.said)
            until(
                lambda: {one["State"] for one in httpx.get(f"{orthanc.http}/jobs?expand").json()} == {"Success"},
                node.said,
            )
            assert stored(orthanc)["1.2.3.1"] == sorted([*results, *(one.SOPInstanceUID for one in images)])
        assert not (node.state / "results" / "1.2.3.1").exists()
        assert node.said().count("is analysed") == 1


@contextmanager
def dcmtk(folder: Path, port: int, certificate: Path, key: Path) -> Iterator[None]:
    """dcmtk's receiver, which asks for certificates."""
    if shutil.which("storescp", path=DCMTK) is None:
        missing("dcmtk")
    command = [
        f"{DCMTK}/storescp",
        "+tls",
        key,
        certificate,
        "+cf",
        certificate,
        "-rc",
        "+xa",
        "-od",
        folder,
        str(port),
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def memory(node: Node) -> int:
    """Bytes that a node held at most."""
    assert node.process
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{node.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def numbers(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").raise_for_status().text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_a_node_that_speaks_tls_takes_and_sends_by_it_alone_and_tells_how_it_is(
    checkpoint: Path, tmp_path: Path
) -> None:
    certificate, key = certificate_of_here(tmp_path)
    to, port = free_port(), free_port()
    options: list[str | Path] = ["--tls-certificate", certificate, "--tls-key", key, "--tls-ca", certificate]
    options += ["--send", f"dicom-tls://SINK@127.0.0.1:{to}", "--quiet", "1", "--model", checkpoint]
    options += ["--metrics", str(port), "--reserve", "1"]
    sink, url = tmp_path / "sink", f"http://127.0.0.1:{port}"
    sink.mkdir()
    tls = ["+tls", key, certificate, "+cf", certificate, "-aec", "ENDOLENS", "127.0.0.1"]
    with dcmtk(sink, to, certificate, key), listening(tmp_path / "state", *options) as node:
        # Who connects and says nothing keeps nobody else waiting.
        silent = socket.create_connection(("127.0.0.1", node.port))
        assert not association(node.port, []).is_established, "without TLS"
        stranger = ssl.create_default_context(cafile=str(certificate))
        entity = AE("SCOPE")
        entity.add_requested_context(Verification)
        nameless = entity.associate("127.0.0.1", node.port, ae_title="ENDOLENS", tls_args=(stranger, "127.0.0.1"))
        assert not nameless.is_established, "without a certificate"
        sent = STUDY / "still_0001.dcm"
        subprocess.run([f"{DCMTK}/storescu", "-xy", *tls, str(node.port), sent], check=True)
        until(lambda: len(list(sink.iterdir())) == 2, node.said)
        silent.close()

        # A long video goes to the disk as it comes.
        video = wrapped(encode(tmp_path / "short.mp4", map(numbered, range(3))), MPEG4HP41, 3, 25)
        video.PixelData = encapsulate([next(generate_fragments(video.PixelData[8:])), bytes(LARGE)], has_bot=False)
        before = memory(node)
        video.save_as(tmp_path / "long.dcm", enforce_file_format=True)
        subprocess.run([f"{DCMTK}/storescu", "-R", "-xn", *tls, str(node.port), tmp_path / "long.dcm"], check=True)
        assert memory(node) < before + LARGE // 2
        kept = node.state / "received" / video.StudyInstanceUID / f"{video.SOPInstanceUID}.dcm"
        assert pydicom.dcmread(kept).PixelData == video.PixelData

        assert httpx.get(f"{url}/health/live").status_code == 200
        ready = httpx.get(f"{url}/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "node": "ok"})
        counted = numbers(url)
        assert counted['endolens_received_total{outcome="stored"}'] == 2
        assert counted["endolens_study_seconds_count"] >= 1
        assert counted['endolens_node_jobs{state="dead",task="sending"}'] == 0
        assert video.PatientID not in httpx.get(f"{url}/metrics").text
