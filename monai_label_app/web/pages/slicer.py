"""The module for 3D Slicer, handed out by the server that it asks: the two fit each other."""

from __future__ import annotations

from flask import Blueprint, Response

from monai_label_app.viewers.slicer import archive
from monai_label_app.web.services import Services


def add_to(pages: Blueprint, services: Services) -> None:
    """``/slicer.zip``."""

    @pages.get("/slicer.zip")
    def slicer() -> Response:
        return Response(archive(), mimetype="application/zip")
