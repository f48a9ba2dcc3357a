"""Reports: the draft of a study, filled from what was seen; its versions; and its signature."""

from __future__ import annotations

import datetime
import io
import re
from dataclasses import asdict
from typing import Annotated, Any

from apiflask import APIBlueprint
from flask import Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import PreconditionRequired

from monai_label_app.web.api.content import described as content
from monai_label_app.web.api.content import unchanging
from monai_label_app.web.api.problems import Refusal, described
from monai_label_app.web.reader import author, may_sign_as
from monai_label_app.web.reporting import IncompleteError
from monai_label_app.web.services import Services
from report.drafts import SignedError, StaleError, Version
from report.examination import Evidence, ExaminationReport, Key, Line, Signature, Uid
from report.language import ENGLISH
from report.record import as_dict

_REPORT = "/studies/<uid>/report"

# The report as a page brings its own style and pictures, and nothing else.
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

_CONFLICTS: dict[Any, Any] = {
    403: described("It is signed in the name of another than who is logged in."),
    409: described("The report is signed. What was sent is kept among the versions."),
    412: described("Another version was saved in the meantime: `current`. What was sent is kept as `set_aside`."),
    428: described("If-Match does not say which version was edited."),
    503: described("It cannot be kept or stored now."),
}
_UNKEPT: dict[Any, Any] = {503: described("The reports cannot be read now.")}

Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\\\x00-\x1f\x7f]+$")]
PersonName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[^\\^=\x00-\x1f\x7f]+(\^[^\\^=\x00-\x1f\x7f]*){0,4}$")
]


class Edited(BaseModel):
    """The ETag of the version that was edited."""

    if_match: Annotated[str, Field(pattern=r'^((W/)?"\d{1,9}(-[a-z]+)?")?$')] = ""


class Begin(BaseModel):
    """How a draft begins."""

    model_config = ConfigDict(extra="forbid")

    language: str = ENGLISH.tag


class Save(BaseModel):
    """A report to be saved."""

    model_config = ConfigDict(extra="forbid")

    report: ExaminationReport
    author: Line = ""


class Attach(BaseModel):
    """A frame, for the finding of a class; with a view on it that was stored, and who adds them."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    image: Uid
    frame: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    label: Annotated[Key, Field(alias="class")]
    capture: Annotated[str, Field(max_length=64, pattern=r"^[0-9.]*$")] = ""
    author: Line = ""
    language: str = ENGLISH.tag


class Sign(BaseModel):
    """Who signs: a DICOM person name, ``Family^Given``, a role in the procedure, and where."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: PersonName
    role: Word
    organization: Word
    incomplete: bool = False


class SignatureSchema(BaseModel):
    """Who signed, and when."""

    name: str
    role: str
    organization: str
    time: datetime.datetime


class VersionSummary(BaseModel):
    """A version: its number, of which it was made, by whom, when; and whether it never counted."""

    number: int
    base: int
    author: str
    saved: datetime.datetime
    set_aside: bool
    signature: SignatureSchema | None
    documents: list[str]


class Versions(BaseModel):
    """All versions, the oldest first."""

    versions: list[VersionSummary]


class VersionSchema(VersionSummary):
    """A version, and what it says; ``missing`` names the required fields that are empty."""

    study: str
    report: ExaminationReport
    missing: list[str]
    predecessor: int | None


class Proposals(BaseModel):
    """The number of the version that counts, how many findings and images would be added, and the report with them."""

    version: int
    findings: int
    images: int
    report: ExaminationReport


class VersionChoice(BaseModel):
    """Which version; the one that counts unless given."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class PictureChoice(BaseModel):
    """How large a picture."""

    width: Annotated[int, Field(ge=16, le=4096)] = 900


def create_blueprint(services: Services) -> APIBlueprint:
    """``/studies/UID/report``."""
    api, reporting = APIBlueprint("reports", __name__, tag="Reports"), services.reporting

    @api.before_request
    def refuse_null() -> None:
        # APIFlask takes it for an object without fields.
        if request.data.strip() == b"null":
            raise ValueError("An object is needed, not null.")

    @api.errorhandler(SignedError)
    def signed(error: SignedError) -> Response:
        return Refusal(409, f"{error}").as_problem()

    @api.errorhandler(StaleError)
    def stale(error: StaleError) -> Response:
        more = {"current": whole(error.current), "set_aside": error.aside.number if error.aside else None}
        return Refusal(412, f"{error}", (("ETag", etag(error.current)),), more).as_problem()

    @api.errorhandler(IncompleteError)
    def incomplete(error: IncompleteError) -> Response:
        return Refusal(422, f"{error}", more={"missing": error.missing}).as_problem()

    @api.errorhandler(OSError)
    def not_stored(error: OSError) -> Response:
        return Refusal(503, f"The documents cannot be stored now: {error.strerror or error}.").as_problem()

    @api.errorhandler(SQLAlchemyError)
    def not_kept(error: SQLAlchemyError) -> Response:
        return Refusal(503, "The database of reports does not answer; nothing was saved.").as_problem()

    def number(edited: Edited) -> int:
        if not edited.if_match:
            raise PreconditionRequired("If-Match must say which version was edited, by its ETag.")
        return int("".join(re.findall(r"\d+", edited.if_match)))

    def chosen(uid: str, which: VersionChoice) -> Version:
        drafts = reporting.drafts
        return drafts.current(uid) if which.version is None else drafts.version(uid, which.version)

    def whole(version: Version) -> dict[str, Any]:
        before = reporting.drafts.predecessor(version)
        return {
            **summary(version),
            "study": version.study,
            "report": as_dict(version.report),
            "missing": reporting.missing(version),
            "predecessor": before.number if before else None,
        }

    def answered(version: Version, status: int = 200) -> Response:
        response = jsonify(whole(version))
        response.status_code = status
        response.headers["ETag"] = etag(version)
        return response

    @api.post(_REPORT)
    @api.input(Begin, location="json")
    @api.doc(summary="The report of a study; a draft is made where there is none", responses=_UNKEPT)
    @api.output(VersionSchema)
    def begin(uid: str, json_data: Begin) -> Response:
        return answered(reporting.open(uid, json_data.language))

    @api.get(_REPORT)
    @api.input(VersionChoice, location="query")
    @api.doc(summary="A version of a report", responses=_UNKEPT)
    @api.output(VersionSchema)
    def report(uid: str, query_data: VersionChoice) -> Response:
        return answered(chosen(uid, query_data))

    @api.get(f"{_REPORT}/proposals")
    @api.doc(summary="What is proposed by now, and was never in the report", responses=_UNKEPT)
    @api.output(Proposals)
    def proposals(uid: str) -> Response:
        version, report = reporting.proposed(uid)
        findings = len(report.observations) - len(version.report.observations)
        images = sum(len(one.evidence) for one in report.observations)
        images -= sum(len(one.evidence) for one in version.report.observations)
        return jsonify(version=version.number, findings=findings, images=images, report=as_dict(report))

    @api.put(_REPORT)
    @api.input(Edited, location="headers")
    @api.input(Save, location="json")
    @api.doc(summary="Save a report: add a version", responses=_CONFLICTS)
    @api.output(VersionSchema)
    def save(uid: str, headers_data: Edited, json_data: Save) -> Response:
        return answered(reporting.save(uid, number(headers_data), json_data.report, author(json_data.author)))

    @api.post(f"{_REPORT}/evidence")
    @api.input(Attach, location="json")
    @api.doc(
        summary="Add a frame to the finding of a class; the finding, and the report, are begun where there is none",
        responses=_CONFLICTS,
    )
    @api.output(VersionSchema)
    def attach(uid: str, json_data: Attach) -> Response:
        image = Evidence(json_data.image, json_data.frame)
        by, language = author(json_data.author), json_data.language
        return answered(reporting.attach(uid, json_data.label, image, json_data.capture, by, language))

    @api.get(f"{_REPORT}/versions")
    @api.doc(summary="All versions of a report, the oldest first", responses=_UNKEPT)
    @api.output(Versions)
    def versions(uid: str) -> Response:
        reporting.drafts.current(uid)
        return jsonify(versions=[summary(one) for one in reporting.drafts.versions(uid)])

    @api.post(f"{_REPORT}/signature")
    @api.input(Edited, location="headers")
    @api.input(Sign, location="json")
    @api.doc(summary="Sign a report and store its documents with the study", responses=_CONFLICTS)
    @api.output(VersionSchema)
    def sign(uid: str, headers_data: Edited, json_data: Sign) -> Response:
        if not may_sign_as(json_data.name):
            return Refusal(403, f"You are logged in as {author('')}, and cannot sign in another's name.").as_problem()
        now = datetime.datetime.now().astimezone().replace(microsecond=0)
        signature = Signature(json_data.name, json_data.role, json_data.organization, now)
        return answered(reporting.sign(uid, number(headers_data), signature, json_data.incomplete))

    @api.post(f"{_REPORT}/addendum")
    @api.doc(summary="Begin an addendum to a signed report", responses=_CONFLICTS)
    @api.output(VersionSchema)
    def addendum(uid: str) -> Response:
        return answered(reporting.addendum(uid, author("")))

    @api.get(f"{_REPORT}.html")
    @api.input(VersionChoice, location="query")
    @api.doc(summary="A version as a page", responses={**content("text/html", "The page."), **_UNKEPT})
    def html(uid: str, query_data: VersionChoice) -> Response:
        response = Response(reporting.html(chosen(uid, query_data)), mimetype="text/html")
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return response

    @api.get(f"{_REPORT}.pdf")
    @api.input(VersionChoice, location="query")
    @api.doc(summary="A version as PDF", responses={**content("application/pdf", "The PDF."), **_UNKEPT})
    def pdf(uid: str, query_data: VersionChoice) -> Response:
        return Response(reporting.pdf(chosen(uid, query_data)), mimetype="application/pdf")

    @api.get(f"{_REPORT}.dcm")
    @api.input(VersionChoice, location="query")
    @api.doc(
        summary="A version as Structured Report", responses={**content("application/dicom", "Enhanced SR."), **_UNKEPT}
    )
    def dcm(uid: str, query_data: VersionChoice) -> Response:
        stream = io.BytesIO()
        reporting.structured_report(chosen(uid, query_data)).save_as(stream, enforce_file_format=True)
        return Response(stream.getvalue(), mimetype="application/dicom")

    @api.get(f"{_REPORT}/pictures/<image>/<int:frame>.jpg")
    @api.input(PictureChoice, location="query")
    @api.doc(
        summary="An image of the study, or a result on one, for its report",
        responses=content("image/jpeg", "The picture."),
    )
    def picture(uid: str, image: str, frame: int, query_data: PictureChoice) -> Response:
        made = reporting.picture(uid, image, frame, query_data.width)
        return unchanging("image/jpeg", lambda: made, uid, image, frame, query_data.width)

    return api


def etag(version: Version) -> str:
    """The version's number, and what became of it since it was saved."""
    state = "-stored" if version.documents else "-signed" if version.signature else ""
    return f'"{version.number}{state}"'


def summary(version: Version) -> dict[str, Any]:
    """A version without what it says."""
    signature = version.signature
    return {
        "number": version.number,
        "base": version.base,
        "author": version.author,
        "saved": version.saved.isoformat(),
        "set_aside": version.set_aside,
        "signature": {**asdict(signature), "time": signature.time.isoformat()} if signature else None,
        "documents": list(version.documents),
    }
