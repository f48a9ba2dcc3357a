"""The doctor's pages at ``/endolens/``, and the REST interface that they and the viewers use."""

from __future__ import annotations

import functools
from collections.abc import Callable

from apiflask import APIFlask, HTTPError
from flask import Response, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from monai_label_app.access.headers import POLICY
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.datastore import StudyDatastore, open_datastore
from monai_label_app.jobs import Jobs
from monai_label_app.library import Library
from monai_label_app.pacs import PacsError
from monai_label_app.results import algorithm_of
from monai_label_app.uploads import Uploads
from monai_label_app.video.player import Player, PreparingError
from monai_label_app.viewers.ohif import Viewer
from monai_label_app.web import api, pages
from monai_label_app.web.api.problems import document, refusal
from monai_label_app.web.api.uploads import describe
from monai_label_app.web.explorer import Explorer
from monai_label_app.web.reader import author, reader
from monai_label_app.web.reporting import Reporting
from monai_label_app.web.services import Services
from report.drafts import Drafts

MOST_JSON = 1024 * 1024
"""Size of what a page sends, in bytes, at most; files have a limit of their own."""


def create_app(
    library: Library,
    classifier: Callable[[], Classifier],
    viewer: Viewer,
    pacs: bool,
    uploads: Uploads | None = None,
    jobs: Jobs | None = None,
    datastore: Callable[[], StudyDatastore] | None = None,
    reports: str | None = None,
    player: Player | None = None,
) -> APIFlask:
    """Make the Flask app, to be mounted at ``/endolens``.

    Args:
        library: the studies to show.
        classifier: loads the classifier when it is first needed.
        viewer: OHIF, for the links to it.
        pacs: the library is a PACS, so OHIF reads from there.
        uploads, jobs, player: whoever gives them closes them; the app has its own otherwise.
        datastore: MONAI Label's; without MONAI Label's server the app opens the library's by itself.
        reports: address of the database of reports; a file beside the datastore unless given.
    """
    player = player or Player(library)
    explorer = Explorer(library, player, classifier)
    kept = datastore or functools.cache(lambda: open_datastore(library, "", lambda: classifier().card.classes))
    services = Services(
        library,
        player,
        explorer,
        viewer,
        pacs,
        uploads or Uploads(library),
        jobs or Jobs(library, classifier),
        kept,
        Reporting(
            library,
            lambda: Drafts(reports or f"sqlite:///{kept().reports}"),
            lambda uid, number: explorer.open(uid, number).glance.probabilities,
            lambda: algorithm_of(explorer.classifier),
        ),
    )
    # No docs page: it would ask another server for its scripts.
    app = APIFlask(__name__, "EndoLens", "1", spec_path=f"{api.PREFIX}/openapi.json", docs_path=None, json_errors=False)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # classes in the network's order
    app.config.update(AUTO_404_RESPONSE=False, AUTO_VALIDATION_ERROR_RESPONSE=False, MAX_CONTENT_LENGTH=MOST_JSON)
    app.spec_processor(lambda spec: describe(document(spec)))  # type: ignore[arg-type]  # a str only where YAML is chosen
    app.register_blueprint(api.create_blueprint(services))
    app.register_blueprint(pages.create_blueprint(services))
    app.error_processor(_refused)
    for error in (LookupError, ValueError, RecursionError, PacsError, PreparingError, SQLAlchemyError, HTTPException):
        app.register_error_handler(error, _refused)
    app.after_request(_protected)
    app.jinja_env.globals["has_page"] = app.view_functions.__contains__
    app.jinja_env.globals["reader"] = reader
    app.jinja_env.globals["reader_name"] = lambda: author("")
    app.jinja_env.filters["day"] = _day
    app.jinja_env.globals["notice"] = lambda: classifier().card.notice
    return app


def _day(date: str) -> str:
    """A DICOM date for people to read; what is none stays as it is."""
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 else date


def _refused(error: HTTPError | Exception) -> Response:
    found = refusal(error)
    if request.path.startswith(f"{api.PREFIX}/"):
        return found.as_problem()
    content = render_template("error.html", text=found.detail, status=found.status)
    return Response(content, found.status, found.headers)


def _protected(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
