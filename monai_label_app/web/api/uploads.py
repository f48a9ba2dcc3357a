"""New images for the library: an upload is opened, gets files one by one, and is stored or abandoned."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Integer, List, Nested, String
from apiflask.validators import Length, OneOf, Regexp
from flask import Response, abort, request

from monai_label_app.intake import PRESENT, REFUSED, STORED
from monai_label_app.uploads import BusyError, NoRoomError, TooLargeError
from monai_label_app.web.api.problems import Refusal, described
from monai_label_app.web.services import Services
from report.endoscopic_image import Examination

_DATE = Regexp("^([0-9]{8})?$", error="Not YYYYMMDD.")

_STATUSES = {LookupError: 404, TooLargeError: 413, BusyError: 503, NoRoomError: 507, OSError: 507}
_HEADERS = {
    413: ("Connection", "close"),  # nobody reads the rest of a file that is refused
    503: ("Retry-After", "2"),
    507: ("Connection", "close"),
}

_BUSY: dict[Any, Any] = {503: described("Too many send at once; try again soon.")}
_LARGE: dict[Any, Any] = {413: described("It is too large.")}
_FULL: dict[Any, Any] = {507: described("The server has no room for it.")}
_NO_LENGTH: dict[Any, Any] = {411: described("It does not say its length.")}


class UploadSchema(Schema):
    """An upload that is open."""

    key = String(required=True)
    limit = Integer(required=True, metadata={"description": "bytes of a file, at most"})


class FileName(Schema):
    """What the sender calls a file. It is shown, and decides nothing."""

    name = String(required=True, validate=Length(1, 1000))


class ReceivedSchema(Schema):
    """A file that is an endoscopic image."""

    number = Integer(required=True)
    name = String(required=True)
    kind = String(required=True, validate=OneOf(["DICOM", "picture", "video"]))


class ExaminationSchema(Schema):
    """Whose pictures they are. DICOM says so itself. What is not known stays empty."""

    patient_id = String(load_default="", validate=Length(max=64))
    patient_name = String(load_default="", validate=Length(max=64), metadata={"description": "Family^Given"})
    patient_birth_date = String(load_default="", validate=_DATE)
    patient_sex = String(load_default="", validate=OneOf(["", "M", "F", "O"]))
    study_date = String(load_default="", validate=_DATE)
    study_time = String(load_default="", validate=Regexp("^([0-9]{6})?$", error="Not HHMMSS."))
    study_description = String(load_default="", validate=Length(max=64))
    accession_number = String(load_default="", validate=Length(max=16))
    referring_physician_name = String(load_default="", validate=Length(max=64))


class OutcomeSchema(Schema):
    """What became of a file."""

    number = Integer(required=True)
    state = String(required=True, validate=OneOf([STORED, PRESENT, REFUSED]))
    study = String(required=True, metadata={"description": "Study Instance UID; empty if it was refused"})
    reason = String(required=True)


class OutcomesSchema(Schema):
    """What became of the files of an upload."""

    files = List(Nested(OutcomeSchema), required=True)


def create_blueprint(services: Services) -> APIBlueprint:
    """``/uploads``."""
    api, uploads = APIBlueprint("uploads", __name__, tag="Uploads"), services.uploads
    for error, status in _STATUSES.items():
        api.register_error_handler(error, partial(_refuse, status=status))

    @api.post("/uploads")
    @api.doc(summary="Open an upload", responses=_BUSY)
    @api.output(UploadSchema, 201)
    def begin() -> dict[str, Any]:
        return {"key": uploads.begin(), "limit": uploads.limit}

    @api.post("/uploads/<key>/files")
    @api.input(FileName, location="query")
    @api.doc(
        summary="Send a DICOM file, a JPEG, PNG, TIFF or BMP picture, or a video of H.264, as it is",
        responses={**_NO_LENGTH, **_LARGE, **_BUSY, **_FULL},
    )
    @api.output(ReceivedSchema, 201)
    def receive(key: str, query_data: dict[str, Any]) -> Any:
        if request.content_length is None:
            abort(411, "A file must say its length.")
        request.max_content_length = request.content_length  # a file has a limit of its own
        return uploads.receive(key, query_data["name"], request.content_length, request.stream)

    @api.post("/uploads/<key>/store")
    @api.input(ExaminationSchema, location="json")
    @api.doc(summary="Add what was sent to the studies", responses={**_LARGE, **_FULL})
    @api.output(OutcomesSchema)
    def store(key: str, json_data: dict[str, str]) -> dict[str, Any]:
        return {"files": [asdict(one) for one in uploads.store(key, Examination(**json_data))]}

    @api.delete("/uploads/<key>")
    @api.doc(summary="Abandon an upload")
    @api.output({}, 204)
    def abandon(key: str) -> tuple[str, int]:
        uploads.abandon(key)
        return "", 204

    return api


def describe(spec: dict[str, Any]) -> dict[str, Any]:
    """Add the body of a file, which has no schema, to an OpenAPI description."""
    for path, operations in spec["paths"].items():
        if path.endswith("/uploads/{key}/files"):
            schema = {"type": "string", "format": "binary"}
            operations["post"]["requestBody"] = {
                "required": True,
                "content": {"application/octet-stream": {"schema": schema}},
            }
    return spec


def _refuse(error: Exception, status: int) -> Response:
    text = str(error)
    if isinstance(error, LookupError):
        text = "There is no such upload; it was stored or abandoned, or nobody went on with it."
    elif isinstance(error, OSError):  # whose text may tell a path of the server
        text = f"The server cannot keep it: {error.strerror or 'its disk fails'}."
    return Refusal(status, text, (_HEADERS[status],) if status in _HEADERS else ()).as_problem()
