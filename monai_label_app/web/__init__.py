"""The EndoLens page: a study's frames, what the network says of each, and where it looked."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, render_template, request, send_file
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage
from werkzeug.exceptions import HTTPException

from explainers import heatmap
from monai_label_app.analysis import Seen, see
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import Frame, UnreadableError
from monai_label_app.library import Library
from monai_label_app.pacs import PacsError
from monai_label_app.study import Study
from monai_label_app.viewers.ohif import Viewer, manifest

REMEMBERED = 64
"""Frames whose picture and map are kept in memory."""


def create_app(library: Library, classifier: Callable[[], Classifier], viewer: Viewer, pacs: bool) -> Flask:
    """Make the Flask app, to be mounted at ``/endolens``.

    Args:
        library: the studies to show.
        classifier: loads the classifier when it is first needed.
        viewer: OHIF, for the links to it.
        pacs: the library is a PACS, so OHIF reads from there.
    """
    app = Flask(__name__)

    @lru_cache(maxsize=REMEMBERED)
    def remembered(uid: str, number: int) -> tuple[Frame, Seen]:
        return next(see(library.instance(uid).read(), uid, classifier(), only=number))

    one_at_a_time = threading.Lock()

    def look(uid: str, number: int) -> tuple[Frame, Seen]:
        # Asked of the library first: what is gone from there must not be shown from memory.
        instance = library.instance(uid)
        if instance.refusal is not None:
            raise UnreadableError(f"{uid} {instance.refusal}")
        # A page asks for picture, heatmap and prediction at once, and one look gives all three.
        with one_at_a_time:
            return remembered(uid, number)

    @app.get("/")
    def studies() -> str:
        shown = [_described(study, viewer, pacs) for study in library.studies() if study.images.instances]
        return render_template("studies.html", studies=shown, notice=classifier().card.notice)

    @app.get("/studies/<uid>")
    def study(uid: str) -> str:
        found, model = library.study(uid), classifier()
        frames = [
            (str(one.header.SOPInstanceUID), number)
            for one in found.images.instances
            for number in range(1, one.frame_count + 1)
        ]
        described = _described(found, viewer, pacs)
        return render_template("study.html", study=described, frames=frames, card=model.card, version=model.version)

    @app.get("/images/<uid>/<int:number>/prediction")
    def prediction(uid: str, number: int) -> Response:
        _, seen = look(uid, number)
        return jsonify(predicted=seen.predicted, probabilities=seen.probabilities, regions=len(seen.regions))

    @app.get("/images/<uid>/<int:number>/picture.jpg")
    def picture(uid: str, number: int) -> Response:
        frame, _ = look(uid, number)
        return _jpeg(frame.pixels)

    @app.get("/images/<uid>/<int:number>/heatmap.jpg")
    def heatmap_picture(uid: str, number: int) -> Response:
        frame, seen = look(uid, number)
        return _jpeg(heatmap.overlay(frame.pixels, seen.saliency))

    @app.get("/dicomjson/<uid>")
    def dicomjson(uid: str) -> Response:
        return jsonify(manifest(library.study(uid), request.host_url.rstrip("/")))

    @app.get("/instances/<uid>.dcm")
    def instance(uid: str) -> Response:
        content = io.BytesIO()
        library.instance(uid).read().save_as(content, enforce_file_format=True)
        content.seek(0)
        return send_file(content, mimetype="application/dicom", download_name=f"{uid}.dcm")

    @app.get("/instances/<uid>.pdf")
    def document(uid: str) -> Response:
        found = library.instance(uid)
        if found.header.SOPClassUID != EncapsulatedPDFStorage:
            raise LookupError(uid)
        dataset = found.read()
        content = dataset.EncapsulatedDocument[: dataset.get("EncapsulatedDocumentLength")]
        return send_file(io.BytesIO(content), mimetype="application/pdf", download_name=f"{uid}.pdf")

    @app.errorhandler(LookupError)
    def missing(error: LookupError) -> tuple[str, int]:
        return _sentence("There is no such study or image here.", 404)

    @app.errorhandler(UnreadableError)
    def unreadable(error: UnreadableError) -> tuple[str, int]:
        return _sentence(str(error), 422)

    @app.errorhandler(PacsError)
    def no_pacs(error: PacsError) -> tuple[str, int]:
        return _sentence(str(error), 404 if isinstance(error, LookupError) else 502)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[str, int]:
        return _sentence(error.description or error.name, error.code or 500)

    return app


def _sentence(text: str, status: int) -> tuple[str, int]:
    return render_template("error.html", text=text, status=status), status


def _described(study: Study, viewer: Viewer, pacs: bool) -> dict[str, Any]:
    header = study.instances[0].header
    return {
        "uid": study.uid,
        "patient": str(header.get("PatientName", "")).replace("^", " ").strip() or "unnamed patient",
        "patient_id": str(header.get("PatientID", "")),
        "date": str(header.get("StudyDate", "")),
        "description": str(header.get("StudyDescription", "")),
        "frames": sum(instance.frame_count for instance in study.images.instances),
        "ohif": viewer.address(study.uid, pacs),
    }


def _jpeg(pixels: NDArray[np.uint8]) -> Response:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=90)
    return Response(content.getvalue(), mimetype="image/jpeg", headers={"Cache-Control": "private, max-age=300"})
