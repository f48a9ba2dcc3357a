"""What OHIF asks for: our extension, and a study's objects: the manifest, the files, and the PDF inside of one."""

from __future__ import annotations

import io

from flask import Blueprint, Response, jsonify, request, send_file, send_from_directory
from pydicom.uid import EncapsulatedPDFStorage

from monai_label_app.viewers.ohif import EXTENSION, manifest
from monai_label_app.web.services import Services


def add_to(pages: Blueprint, services: Services) -> None:
    """``/ohif/…``, ``/dicomjson/UID``, ``/instances/UID.dcm`` and ``/instances/UID.pdf``."""
    library = services.library

    @pages.get("/ohif/<path:file>")
    def extension(file: str) -> Response:
        return send_from_directory(EXTENSION, file)

    @pages.get("/dicomjson/<uid>")
    def dicomjson(uid: str) -> Response:
        return jsonify(manifest(library.study(uid), request.host_url.rstrip("/")))

    @pages.get("/instances/<uid>.dcm")
    def instance(uid: str) -> Response:
        found = library.instance(uid)
        if found.path:  # as it is: one with a damaged attribute could not be written anew
            return send_file(found.path.absolute(), mimetype="application/dicom", download_name=f"{uid}.dcm")
        content = io.BytesIO()
        found.read().save_as(content, enforce_file_format=True)
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
