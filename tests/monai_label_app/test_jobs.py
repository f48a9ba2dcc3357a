"""Analyses that the server runs: seen as they go on, cancelled cleanly, stored once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pydicom
import pytest
import uvicorn
from a2wsgi import WSGIMiddleware
from flask.testing import FlaskClient
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from monai_label_app import jobs as jobs_module
from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.access.guard import Patience
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.job_queue import ENDED
from monai_label_app.jobs import Jobs
from monai_label_app.library import FolderLibrary
from monai_label_app.observed.checks import check_database
from monai_label_app.sample import STUDY
from monai_label_app.study import Study
from monai_label_app.viewers.ohif import Viewer
from monai_label_app.web.events import job_events

STILLS = sorted(STUDY.iterdir())[:3]
UID = str(pydicom.dcmread(STILLS[0], stop_before_pixels=True).StudyInstanceUID)
ANALYSIS = f"/api/v1/studies/{UID}/analysis"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "studies").mkdir()
    for still in STILLS:
        shutil.copy(still, tmp_path / "studies")
    return tmp_path / "studies"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an analysis works."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.fixture
def library(studies: Path, monkeypatch: pytest.MonkeyPatch) -> FolderLibrary:
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    return FolderLibrary(studies)


class Gate:
    """A classifier that is given out only once the gate is open."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier, self.open, self.asked = classifier, threading.Event(), threading.Event()

    def __call__(self) -> Classifier:
        self.asked.set()
        assert self.open.wait(60)
        return self._classifier


@pytest.fixture
def gate(classifier: Classifier) -> Gate:
    return Gate(classifier)


@pytest.fixture
def jobs(library: FolderLibrary, gate: Gate, scratch: Path) -> Iterator[Jobs]:
    jobs = Jobs(library, gate)
    yield jobs
    gate.open.set()
    jobs.close()


@pytest.fixture
def client(library: FolderLibrary, classifier: Classifier, jobs: Jobs) -> FlaskClient:
    return web.create_app(library, lambda: classifier, Viewer(), False, jobs=jobs).test_client()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(client: FlaskClient, job: dict) -> dict:
    wait_for(lambda: client.get(f"/api/v1/jobs/{job['key']}").get_json()["state"] in ENDED)
    return client.get(f"/api/v1/jobs/{job['key']}").get_json()


def files(folder: Path) -> set[str]:
    """Objects, and parts of some that should not be there; not what the server keeps for itself."""
    # Path.rglob fails where a folder goes in the meantime.
    found = [(Path(place) / name).relative_to(folder) for place, _, names in os.walk(folder) for name in names]
    return {str(one) for one in found if one.parts[0] not in (".endolens", ".lock", "datastore_v2.json")}


@pytest.mark.slow
def test_an_analysis_is_stored_once_and_its_study_is_analysed(client, gate, studies, scratch) -> None:
    before = files(studies)
    assert client.get(f"/api/v1/studies/{UID}").get_json()["state"] == "new"
    answer = client.post(ANALYSIS)
    assert answer.status_code == 202
    gate.open.set()
    job = ended(client, answer.get_json())
    assert (job["state"], job["done"], job["frames"], job["stored"], job["problems"]) == ("done", 3, 3, 4, [])
    new = [pydicom.dcmread(studies / one) for one in files(studies) - before]
    kinds = sorted(one.SOPClassUID.name for one in new)
    assert kinds == ["Comprehensive SR Storage", *["Secondary Capture Image Storage"] * 3]
    assert {one.StudyInstanceUID for one in new} == {UID}
    assert client.get(f"/api/v1/studies/{UID}").get_json()["state"] == "analysed"
    after = files(studies)
    again = ended(client, client.post(ANALYSIS).get_json())
    assert again["key"] != job["key"]
    assert (again["state"], again["stored"]) == ("done", 0)
    assert files(studies) == after
    assert files(scratch) == set()


def test_a_study_that_waits_or_runs_is_one_job_and_too_many_wait_their_turn(client, gate, studies, monkeypatch) -> None:
    other = pydicom.dcmread(STILLS[0])
    others = []
    for number in range(3):
        other.StudyInstanceUID, other.SeriesInstanceUID = f"1.2.{number}", f"1.2.{number}.1"
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}.1.1"
        other.save_as(studies / f"{number}.dcm")
        others.append(f"/api/v1/studies/1.2.{number}/analysis")
    first = client.post(ANALYSIS).get_json()
    assert gate.asked.wait(60)
    monkeypatch.setattr(jobs_module, "WAITING", 2)
    waiting = [client.post(one).get_json() for one in others[:2]]
    assert [one["state"] for one in waiting] == ["queued", "queued"]
    assert client.post(ANALYSIS).get_json()["key"] == first["key"]
    assert client.post(others[1]).get_json()["key"] == waiting[1]["key"]
    full = client.post(others[2])
    assert (full.status_code, full.mimetype) == (503, "application/problem+json")
    assert int(full.headers["Retry-After"]) > 0
    gate.open.set()
    assert [ended(client, one)["state"] for one in (first, *waiting)] == ["done"] * 3


def test_a_cancelled_analysis_leaves_nothing_and_can_be_started_again(
    client, jobs, gate, library, studies, scratch, monkeypatch
) -> None:
    before, study = files(studies), library.study
    in_work, go_on = threading.Event(), threading.Event()

    def paused(uid: str) -> Study:
        *others, last = study(uid).instances

        def read() -> pydicom.Dataset:
            in_work.set()
            assert go_on.wait(60)
            return last.read()

        return Study(uid, (*others, replace(last, read=read)))

    monkeypatch.setattr(library, "study", paused)
    gate.open.set()
    running = client.post(ANALYSIS).get_json()
    assert in_work.wait(60)
    wait_for(lambda: client.get(f"/api/v1/jobs/{running['key']}").get_json()["done"] == 2)
    assert files(scratch)
    assert client.delete(f"/api/v1/jobs/{running['key']}").get_json()["state"] == "cancelled"
    again = client.post(ANALYSIS).get_json()
    assert (again["state"], again["key"] != running["key"]) == ("queued", True)
    assert client.delete(f"/api/v1/jobs/{again['key']}").get_json()["state"] == "cancelled"
    go_on.set()
    wait_for(lambda: not files(scratch))
    assert files(studies) == before
    assert client.delete(f"/api/v1/jobs/{running['key']}").get_json()["state"] == "cancelled"
    assert ended(client, client.post(ANALYSIS).get_json())["state"] == "done"


def test_results_that_are_being_stored_can_no_longer_be_cancelled(client, gate, library, monkeypatch) -> None:
    store, storing, go_on = library.store, threading.Event(), threading.Event()

    def slow(datasets: object) -> list[str]:
        storing.set()
        assert go_on.wait(60)
        return store(datasets)  # type: ignore[arg-type]

    monkeypatch.setattr(library, "store", slow)
    gate.open.set()
    job = client.post(ANALYSIS).get_json()
    assert storing.wait(60)
    late = client.delete(f"/api/v1/jobs/{job['key']}")
    assert (late.status_code, "are being stored" in late.get_json()["detail"]) == (409, True)
    go_on.set()
    assert ended(client, job)["state"] == "done"


def test_what_is_damaged_is_named_and_the_next_study_is_analysed(client, gate, studies) -> None:
    gate.open.set()
    content = (studies / STILLS[0].name).read_bytes()
    (studies / STILLS[0].name).write_bytes(content[:-3000])
    job = ended(client, client.post(ANALYSIS).get_json())
    assert (job["state"], job["done"], job["frames"]) == ("done", 3, 3)
    (problem,) = job["problems"]
    assert problem == f"{STILLS[0].name} is damaged DICOM: it is cut off"
    for still in STILLS:
        (studies / still.name).write_bytes(still.read_bytes()[:-3000])
    failed = ended(client, client.post(ANALYSIS).get_json())
    assert failed["state"] == "failed"
    assert all(still.name in failed["problems"][0] for still in STILLS)
    (studies / STILLS[0].name).write_bytes(content)
    assert ended(client, client.post(ANALYSIS).get_json())["state"] == "done"


def test_what_is_not_there_is_a_problem_in_a_sentence(client) -> None:
    for method, address in (
        ("POST", "/api/v1/studies/1.2.3/analysis"),
        ("GET", "/api/v1/jobs/x"),
        ("DELETE", "/api/v1/jobs/x"),
        ("GET", "/api/v1/jobs/x/events"),
    ):
        answer = client.open(address, method=method)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
        assert "no such study or analysis" in answer.get_json()["detail"]


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(client: FlaskClient, jobs: Jobs) -> Iterator[str]:
    """The page as a server mounts it; who stalls for a second is taken for gone."""
    events = Route("/endolens/api/v1/jobs/{key}/events", partial(job_events, jobs))
    pages = Mount("/endolens", Patience(WSGIMiddleware(client.application), seconds=1))  # type: ignore[arg-type]
    with serving(Starlette(routes=[events, pages])) as url:
        yield f"{url}/endolens"


def test_events_tell_the_progress_to_many_at_once_who_keep_nobody_waiting(address, gate) -> None:
    job = httpx.post(f"{address}{ANALYSIS}").json()
    stream = partial(httpx.Client(limits=httpx.Limits(max_connections=None), timeout=60).stream, "GET")
    listeners = [stream(f"{address}/api/v1/jobs/{job['key']}/events") for _ in range(40)]
    streams = [listener.__enter__() for listener in listeners]
    assert streams[0].headers["content-type"].startswith("text/event-stream")
    lines = [one.iter_lines() for one in streams]
    assert all(next(one).startswith("data: ") for one in lines)
    assert httpx.get(f"{address}/api/v1/studies", timeout=30).status_code == 200
    for listener in listeners[1:]:
        listener.__exit__(None, None, None)
    gate.open.set()
    told = [json.loads(line.removeprefix("data: ")) for line in lines[0] if line]
    assert [one["done"] for one in told] == sorted(one["done"] for one in told)
    assert (told[-1]["state"], told[-1]["done"]) == ("done", 3)
    listeners[0].__exit__(None, None, None)
    assert httpx.get(f"{address}/api/v1/jobs/nothing/events").status_code == 404


@pytest.mark.slow
def test_who_stalls_in_the_midst_of_a_file_is_taken_for_gone(address, scratch) -> None:
    key = httpx.post(f"{address}/api/v1/uploads").json()["key"]
    host, port = address.removeprefix("http://").split("/")[0].split(":")
    stalled = [socket.create_connection((host, int(port))) for _ in range(6)]
    for one in stalled:
        head = f"POST /endolens/api/v1/uploads/{key}/files?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
        one.sendall(head.encode() + b"\x89PNG")
    wait_for(lambda: len(files(scratch)) == 6)
    assert httpx.get(f"{address}/api/v1/studies", timeout=30).status_code == 200
    wait_for(lambda: not files(scratch))
    still = STILLS[0].read_bytes()
    assert httpx.post(f"{address}/api/v1/uploads/{key}/files?name=a", content=still).status_code == 201
    for one in stalled:
        one.close()


def test_a_database_that_does_not_answer_is_said_and_what_was_begun_goes_on_when_it_does(
    library, classifier, tmp_path
) -> None:
    file = tmp_path / "shared.sqlite"
    jobs = Jobs(library, lambda: classifier, f"sqlite:///{file}")
    client = web.create_app(library, lambda: classifier, Viewer(), False, jobs=jobs).test_client()
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE analyses RENAME TO away")
    jobs.open()
    for method, address in (("POST", ANALYSIS), ("GET", "/api/v1/jobs/x"), ("DELETE", "/api/v1/jobs/x"), ("GET", "/")):
        answer = client.open(address, method=method)
        assert (answer.status_code, "The database does not answer." in answer.text) == (503, True), address
    assert not check_database(jobs.unended).ok
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE away RENAME TO analyses")
    assert ended(client, client.post(ANALYSIS).get_json())["state"] == "done"
    assert check_database(jobs.unended).ok
    jobs.close()
