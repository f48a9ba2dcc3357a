"""The EndoLens page: a study's frames, what the network says of each, and where it looked; and its REST interface."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import Blueprint, Response, jsonify, render_template, request, send_file
from pydicom.uid import EncapsulatedPDFStorage
from werkzeug.exceptions import HTTPException

from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import Library
from monai_label_app.pacs import PacsError
from monai_label_app.study import Study
from monai_label_app.viewers.ohif import Viewer, manifest
from monai_label_app.web import api
from monai_label_app.web.explorer import Explorer


def create_app(library: Library, classifier: Callable[[], Classifier], viewer: Viewer, pacs: bool) -> APIFlask:
    """Make the Flask app, to be mounted at ``/endolens``.

    Args:
        library: the studies to show.
        classifier: loads the classifier when it is first needed.
        viewer: OHIF, for the links to it.
        pacs: the library is a PACS, so OHIF reads from there.
    """
    # No docs page: it would ask another server for its scripts.
    app = APIFlask(__name__, "EndoLens", "1", spec_path=f"{api.PREFIX}/openapi.json", docs_path=None, json_errors=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # classes in the network's order
    app.config["AUTO_404_RESPONSE"] = False
    app.config["VALIDATION_ERROR_SCHEMA"] = api.Problem
    app.register_blueprint(api.create_blueprint(library, Explorer(library, classifier)))
    app.register_blueprint(_pages(library, classifier, viewer, pacs))

    @app.error_processor
    def invalid(error: HTTPError) -> Response:
        fields = (error.detail or {}).get("query", {}) if isinstance(error.detail, dict) else {}
        said = [f"{name}: {' '.join(map(str, texts))}" for name, texts in fields.items()]
        title = error.message or "Refused"
        return api.problem(error.status_code, title, " ".join(said) or title)

    @app.errorhandler(LookupError)
    def missing(error: LookupError) -> Response:
        return _sentence("There is no such study or image here.", 404)

    @app.errorhandler(ValueError)
    def unreadable(error: ValueError) -> Response:
        return _sentence(str(error), 422)

    @app.errorhandler(PacsError)
    def no_pacs(error: PacsError) -> Response:
        return _sentence(str(error), 404 if isinstance(error, LookupError) else 502)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        return _sentence(error.description or error.name, error.code or 500)

    return app


def _pages(library: Library, classifier: Callable[[], Classifier], viewer: Viewer, pacs: bool) -> Blueprint:
    pages = Blueprint("pages", __name__)

    def described(study: Study) -> dict[str, Any]:
        return {**api.described(study), "ohif": viewer.address(study.uid, pacs)}

    @pages.get("/")
    def studies() -> str:
        shown = [described(study) for study in library.studies() if study.images.instances]
        return render_template("studies.html", studies=shown, notice=classifier().card.notice)

    @pages.get("/studies/<uid>")
    def study(uid: str) -> str:
        found, model = described(library.study(uid)), classifier()
        frames = [
            (one["sop_instance_uid"], number) for one in found["images"] for number in range(1, one["frames"] + 1)
        ]
        return render_template("study.html", study=found, frames=frames, card=model.card, version=model.version)

    @pages.get("/dicomjson/<uid>")
    def dicomjson(uid: str) -> Response:
        return jsonify(manifest(library.study(uid), request.host_url.rstrip("/")))

    @pages.get("/instances/<uid>.dcm")
    def instance(uid: str) -> Response:
        content = io.BytesIO()
        library.instance(uid).read().save_as(content, enforce_file_format=True)
        content.seek(0)
        return send_file(content, mimetype="application/dicom", download_name=f"{uid}.dcm")

    @pages.get("/instances/<uid>.pdf")
    def document(uid: str) -> Response:
        found = library.instance(uid)
        if found.header.SOPClassUID != EncapsulatedPDFStorage:
            raise LookupError(uid)
        dataset = found.read()
        content = dataset.EncapsulatedDocument[: dataset.get("EncapsulatedDocumentLength")]
        return send_file(io.BytesIO(content), mimetype="application/pdf", download_name=f"{uid}.pdf")

    return pages


def _sentence(text: str, status: int) -> Response:
    if request.path.startswith(f"{api.PREFIX}/"):
        titles = {404: "Not found", 422: "Cannot be used", 502: "The PACS does not answer"}
        return api.problem(status, titles.get(status, "Refused"), text)
    return Response(render_template("error.html", text=text, status=status), status)
