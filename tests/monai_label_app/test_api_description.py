"""The REST interface is what its OpenAPI description says, whatever is asked."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from pydicom.uid import MPEG4HP41, generate_uid
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from monai_label_app import web
from monai_label_app.access.roles import Role, Roles
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.sample import STUDY
from monai_label_app.viewers.ohif import Viewer
from tests.dicom_files import write
from tests.video_files import encode, numbered, wrapped

STILLS = sorted(STUDY.iterdir())[:2]
STILL = pydicom.dcmread(STILLS[0], stop_before_pixels=True)
VIDEO = generate_uid()
REAL: dict[str, dict[str, Any]] = {
    "/images/{uid}/video": {"uid": VIDEO},
    "/images/{uid}/frames/{number}/still": {"uid": VIDEO, "number": 1},
    "/studies/{uid}/report/pictures": {"uid": STILL.StudyInstanceUID, "image": STILL.SOPInstanceUID, "frame": 1},
    "/images/{uid}": {"uid": STILL.SOPInstanceUID, "number": 1},
    "/studies/{uid}": {"uid": STILL.StudyInstanceUID},
}
"""Start of a path → what it takes to get beyond "there is no such thing"."""


@pytest.fixture
def schema(tmp_path: Path, classifier: Classifier) -> schemathesis.BaseSchema:
    for still in STILLS:
        shutil.copy(still, tmp_path)
    with tempfile.TemporaryDirectory() as folder:
        video = wrapped(encode(Path(folder) / "a.mp4", map(numbered, range(5))), MPEG4HP41, 5, 25)
    video.SOPInstanceUID = video.file_meta.MediaStorageSOPInstanceUID = VIDEO
    write(video, tmp_path / "video.dcm")
    app = web.create_app(FolderLibrary(tmp_path), lambda: classifier, Viewer(), pacs=False)
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)


def test_every_route_under_the_api_is_described(schema: schemathesis.BaseSchema) -> None:
    routes = {str(rule) for rule in schema.app.url_map.iter_rules() if str(rule).startswith("/api/v1/")}
    described = {path.replace("{", "<").replace("}", ">") for path in schema.raw_schema["paths"]}
    assert {route.replace("<int:", "<") for route in routes} == {*described, "/api/v1/openapi.json"}
    for path, operations in schema.raw_schema["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, status)


def test_every_route_of_the_app_is_open_to_another_role_than_administrators(schema: schemathesis.BaseSchema) -> None:
    roles = Roles()
    for rule in schema.app.url_map.iter_rules():
        for method in rule.methods or ():
            path = re.sub("<[^>]+>", "1", f"/endolens{rule}")
            assert roles.of(method, path).role < Role.ADMINISTERING or method == "OPTIONS", (method, path)


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True], ids=["anything", "a study"])
@pytest.mark.parametrize("mode", GenerationMode)
def test_any_request_gets_an_answer_that_is_described(
    schema: schemathesis.BaseSchema, mode: GenerationMode, real: bool
) -> None:
    for found in schema.get_all_operations():
        operation = found.ok()
        place = next((of for start, of in REAL.items() if real and operation.path.startswith(f"/api/v1{start}")), None)
        cases = operation.as_strategy(mode, path_parameters=place)

        @given(cases)
        @settings(max_examples=20, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            # Which layers and classes there are depends on the model, so that no description can say.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        with suppress(Unsatisfiable):  # nothing can be wrong with a request that has no parameters
            ask()
