"""How a server is: `endolens doctor`, what is ready, what is counted, and what is logged."""

from __future__ import annotations

import json
import logging
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from monailabel.config import settings
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from monai_label_app.access.trail import TRAIL
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.cli import main
from monai_label_app.corrections import Correction
from monai_label_app.datastore import INDEX, REPORTS, StudyDatastore, open_datastore
from monai_label_app.library import open_library
from monai_label_app.observed.checks import Check, check_issuer, check_reports
from monai_label_app.observed.health import Ready
from monai_label_app.observed.logs import JsonLines, Requests
from monai_label_app.observed.metrics import count_waiting, counted, metrics
from monai_label_app.pacs import PacsError
from monai_label_app.sample import STUDY
from report.drafts import Drafts


def doctor(*options: str) -> tuple[int, dict[str, dict[str, object]]]:
    result = CliRunner().invoke(main, ["doctor", "--json", *options])
    return result.exit_code, {one["name"]: one for one in json.loads(result.stdout)}


def test_doctor_finds_all_that_is_wrong_and_says_what_to_do(tmp_path: Path, checkpoint: Path) -> None:
    code, found = doctor("--studies", str(tmp_path), "--model", str(checkpoint))
    wrong = [one for one in found.values() if not one["ok"]]
    assert (code, wrong) == (0, [])
    code, found = doctor("--studies", "http://127.0.0.1:1/dicom-web", "--model", str(tmp_path / "no.safetensors"),
                         "--ohif", str(tmp_path))  # fmt: skip
    assert code == 1
    assert {name for name, one in found.items() if not one["ok"]} == {"model", "studies", "viewer"}
    assert all(bool(one["todo"]) is not one["ok"] for one in found.values())


def test_doctor_finds_what_is_kept_damaged_and_the_server_does_not_start(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / TRAIL).mkdir(parents=True)
    (tmp_path / REPORTS).write_text("garbage")
    (tmp_path / INDEX).write_text('{"name": "cut o')
    code, found = doctor("--studies", str(tmp_path), "--model", str(checkpoint))
    assert code == 1
    assert {name for name, one in found.items() if not one["ok"]} == {"labels", "reports", "audit trail"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    result = CliRunner().invoke(main, ["serve", "--studies", str(tmp_path), "--port", port])
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
    assert INDEX in result.output and "is damaged" in result.output


def test_a_list_of_labels_that_is_moved_away_is_made_anew(tmp_path: Path, classifier: Classifier) -> None:
    shutil.copytree(STUDY, tmp_path / "study")
    library = open_library(str(tmp_path))
    image = str(library.studies()[0].instances[0].header.SOPInstanceUID)

    def datastore() -> StudyDatastore:
        return open_datastore(library, str(tmp_path), lambda: classifier.card.classes)

    datastore().keep(Correction(image, classifier.card.classes[0], "Doctor"))
    (tmp_path / INDEX).unlink()
    assert datastore().get_labeled_images() == [image]


def test_reports_that_cannot_be_read_are_found_and_none_are_made(tmp_path: Path) -> None:
    assert check_reports(None, str(tmp_path)).ok and not list(tmp_path.iterdir())
    (tmp_path / REPORTS).parent.mkdir()
    Drafts(f"sqlite:///{tmp_path / REPORTS}")
    assert check_reports(None, str(tmp_path)).ok


def test_doctor_asks_the_issuer_of_log_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, object] = {}

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(self.path)).encode())

        def log_message(self, *_: object) -> None:
            pass

    assert check_issuer().ok, "none is set"
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
        monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", f"{address}/realm/")
        assert not check_issuer().ok, "it says null"
        answers["/realm/.well-known/openid-configuration"] = {"jwks_uri": f"{address}/keys"}
        answers["/keys"] = {"keys": []}
        assert not check_issuer().ok, "it has no keys"
        answers["/keys"] = {"keys": [{"kid": "1"}]}
        assert check_issuer().ok
        server.shutdown()
    found = check_issuer()
    assert not found.ok and "MONAI_LABEL_AUTH_REALM_URI" in found.todo


def test_no_password_in_an_address_is_shown(tmp_path: Path, checkpoint: Path) -> None:
    for command in (
        ["doctor", "--model", str(checkpoint), "--studies", "http://pacs:S3cretPW@127.0.0.1:9/dicom-web"],
        ["accesses", "list", "--studies", "http://pacs:S3cretPW@127.0.0.1:9/dicom-web"],
        ["watch", "--model", str(checkpoint), "rtsp://cam:S3cretPW@127.0.0.1:9/x?password=S3cretPW"],
    ):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
        assert "S3cretPW" not in result.output
    assert "rtsp://127.0.0.1:9/x cannot be watched: Connection refused" in result.output


def test_what_is_not_ready_is_named_and_its_reason_is_not(tmp_path: Path) -> None:
    wrong = {"todo": ""}
    ready = Ready({"disk": lambda: Check("disk", str(tmp_path), wrong["todo"]), "model": lambda: Check("model", "m")})
    client = TestClient(Starlette(routes=[Route("/health/ready", ready.answer)]))
    assert client.get("/health/ready").status_code == 200
    wrong["todo"] = "make room"
    ready._looked = float("-inf")
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "disk": "failing", "model": "ok"})


def test_studies_failures_and_requests_are_counted() -> None:
    def page(request: Request) -> Response:
        return JSONResponse({})

    count_waiting(lambda: 3)
    app = Requests(Starlette(routes=[Route("/", page), Route("/metrics", metrics)]))
    client = TestClient(app)

    def values() -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    before = values()
    with counted():
        pass
    for error in (PacsError("down"), OSError("full"), ValueError("no image")):
        with pytest.raises(type(error)), counted():
            raise error
    client.get("/")
    client.get("/nothing")
    after = values()

    def more(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert more("endolens_study_seconds_count") == 1
    assert [more("endolens_study_failures_total", kind) for kind in ("network or PACS", "disk or file", "input")] == [
        1, 1, 1
    ]  # fmt: skip
    assert more("endolens_requests_total", "GET", "404") == 1
    assert after["endolens_jobs_waiting",] == 3


def test_a_line_of_the_log_says_which_request_and_study_it_is_of(caplog: pytest.LogCaptureFixture) -> None:
    def page(request: Request) -> Response:
        logging.getLogger("anything").warning("seen")
        return JSONResponse({})

    client = TestClient(Requests(Starlette(routes=[Route("/endolens/api/v1/studies/{uid}", page)])))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(JsonLines().format(record))  # type: ignore[method-assign]
    logging.getLogger("anything").addHandler(handler)
    path = "/endolens/api/v1/studies/1.2.3.4?PatientName=Roe"
    named = client.get(path, headers={"X-Request-ID": "abc-1"})
    unnamed = client.get(path, headers={"X-Request-ID": "two\twords"})
    logging.getLogger("anything").removeHandler(handler)
    told = [json.loads(line) for line in lines]
    assert named.headers["X-Request-ID"] == "abc-1"
    assert re.fullmatch("[0-9a-f]{16}", unnamed.headers["X-Request-ID"])
    assert [one["request"] for one in told] == ["abc-1", unnamed.headers["X-Request-ID"]]
    assert {(one["study"], one["message"]) for one in told} == {("1.2.3.4", "seen")}
    assert "Roe" not in "".join(lines)
