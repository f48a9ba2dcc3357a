"""How a server is: `endolens doctor`, what is ready, what is counted, and what is logged."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from monai_label_app.cli import main
from monai_label_app.observed.checks import Check
from monai_label_app.observed.health import Ready
from monai_label_app.observed.logs import JsonLines, Requests
from monai_label_app.observed.metrics import count_waiting, counted, metrics
from monai_label_app.pacs import PacsError


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
