"""One process for all: MONAI Label's API, OHIF, a way to the PACS, and the EndoLens page.

Runs under ``endolens serve`` and under MONAI Label's own server::

    monailabel start_server --app monai_label_app --studies DIR|URL --uvicorn_app monai_label_app.asgi:app
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
import monailabel.app
from a2wsgi import WSGIMiddleware
from fastapi.exceptions import RequestValidationError
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, get_current_user
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from monai_label_app import web
from monai_label_app.access.guard import Guard, Patience
from monai_label_app.access.headers import SafeHeaders
from monai_label_app.access.identity import Authentication, of, open_authentication
from monai_label_app.access.login import Login
from monai_label_app.access.openid import ROLES
from monai_label_app.access.roles import Roles
from monai_label_app.access.trail import TRAIL, Trail
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.dicomweb import forward
from monai_label_app.frames import UnreadableError
from monai_label_app.jobs import Jobs
from monai_label_app.library import PacsLibrary, beside, open_library
from monai_label_app.observed.checks import (
    Check,
    check_database,
    check_disk,
    check_kept,
    check_model,
    check_reports,
    check_studies,
)
from monai_label_app.observed.health import routes as observing
from monai_label_app.observed.logs import Requests, write_as_told
from monai_label_app.observed.metrics import count_waiting
from monai_label_app.pacs import PacsError
from monai_label_app.refusals import Refusals
from monai_label_app.server import INSECURE_VARIABLE, OHIF_VARIABLE, REPORTS_VARIABLE
from monai_label_app.uploads import Uploads
from monai_label_app.video.player import Player
from monai_label_app.viewers.ohif import Viewer, mended, version
from monai_label_app.web.events import job_events
from monai_label_app.web.playing import rendered, thumbnail

_THREADS = 64
"""Requests of the page that are answered at a time: while many wait for the network, a picture need not."""

_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".wasm": "application/wasm"}


def create_app(studies: str, model: str | None, ohif: Path | None, authentication: Authentication) -> Starlette:
    """Put the parts together.

    Args:
        studies: a folder or a DICOMweb address.
        model: as ``endolens analyze --model``.
        ohif: a built OHIF, or None for the one that comes with MONAI Label.
        authentication: tells who asks.
    """
    write_as_told()
    library = open_library(studies)
    viewer = Viewer(ohif)
    pacs = isinstance(library, PacsLibrary)
    classifier = partial(open_classifier, model)
    datastore, reports = (lambda: app_instance().datastore()), os.environ.get(REPORTS_VARIABLE)
    uploads, jobs, player = Uploads(library), Jobs(library, classifier, reports), Player(library)
    page = web.create_app(library, classifier, viewer, pacs, uploads, jobs, datastore, reports, player)

    async def configuration(request: Request) -> Response:
        return Response(viewer.configuration(pacs), media_type="text/javascript")

    async def ohif_file(request: Request) -> Response:
        path = viewer.file(request.url.path.removeprefix(viewer.base))
        text, kind = mended(path), _MEDIA_TYPES.get(path.suffix)
        etag, response = f'"{version(path)}"', Response(status_code=304)
        if request.headers.get("if-none-match") != etag:
            response = FileResponse(path, media_type=kind) if text is None else Response(text, media_type=kind)
        response.headers["Content-Security-Policy"] = viewer.policy(path)
        # A browser asks whether its copy still holds: what is mended in a file does not change its name.
        response.headers["ETag"], response.headers["Cache-Control"] = etag, "no-cache"
        return response

    async def video(request: Request) -> Response:
        return await rendered(player, request.path_params["uid"], request)

    async def frame_of_video(request: Request) -> Response:
        return await thumbnail(player, request.path_params["uid"], request)

    api = monailabel.app.app
    for error, status in (
        (ImageNotFoundException, 404),
        (LabelNotFoundException, 404),
        (MONAILabelException, 400),
        (UnreadableError, 422),
        (PacsError, 502),
        (json.JSONDecodeError, 400),
        (TypeError, 400),
        (ValueError, 400),
    ):
        api.add_exception_handler(error, partial(_explain, status=status))
    api.add_exception_handler(RequestValidationError, _unfit)
    for error in (RecursionError, UnicodeEncodeError):
        api.add_exception_handler(error, _strange)
    trail = Trail(beside(studies) / TRAIL)
    # MONAI Label asks once more, by its own roles; what it would find out itself was found out by then.
    api.dependency_overrides[get_current_user] = _user
    routes: list[Route | Mount] = [Route(f"{viewer.base}app-config.js", configuration)]
    if authentication.required:
        routes += Login(authentication, "/endolens/").routes()
    checks: dict[str, Callable[[], Check]] = {
        "model": partial(check_model, model),
        "studies": partial(check_studies, studies),
        "kept": partial(check_kept, studies),
        "reports": partial(check_reports, reports, studies),
        "disk": partial(check_disk, studies),
        "audit_trail": trail.check,
    }
    if reports:
        checks["database"] = partial(check_database, jobs.unended)
    count_waiting(lambda: jobs.waiting)
    routes += observing(checks)
    if viewer.base != "/":
        routes.append(Route("/", _home))
    if pacs:
        routes.append(
            Route("/endolens/dicomweb/{path:path}", partial(forward, studies, library, player), methods=["GET"])
        )
    routes.append(Route("/endolens/instances/{uid}.mp4", video))
    routes.append(Route("/endolens/instances/{uid}.jpg", frame_of_video))
    routes.append(Route(f"/endolens{web.api.PREFIX}/jobs/{{key}}/events", partial(job_events, jobs)))
    pages = Patience(WSGIMiddleware(page, workers=_THREADS))  # type: ignore[arg-type]  # a2wsgi has types of its own
    routes.append(Mount("/endolens", pages))
    routes += [Route(path, ohif_file) for path in viewer.paths()]
    insecure = bool(os.environ.get(INSECURE_VARIABLE))
    origins = frozenset(str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS)
    # A hospital's own OHIF asks from another origin; the ETag says which version of a report it has.
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=["ETag"],
    )
    guard = Middleware(
        Guard,
        authentication=authentication,
        roles=Roles(viewer.paths()),
        insecure=insecure,
        origins=origins,
        trail=trail,
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        jobs.open()
        async with monailabel.app.lifespan(app):
            yield
        # Here, for a server that is told to end by SIGTERM runs nothing after it.
        await run_in_threadpool(jobs.close)
        await run_in_threadpool(player.close)
        uploads.close()

    all_routes = [*routes, Mount("/", Refusals(api, app_instance))]
    app = Starlette(
        routes=all_routes, middleware=[Middleware(Requests), Middleware(SafeHeaders), cors, guard], lifespan=lifespan
    )
    app.state.authentication, app.state.checks = authentication, checks
    return app


async def _home(request: Request) -> Response:
    return RedirectResponse("/endolens/")


async def _user(request: Request) -> User:
    """Who asks, as MONAI Label sees them."""
    identity = of(request.scope)
    roles = [name for name, role in ROLES.items() if role <= identity.role]
    return User(username=identity.user, name=identity.name, roles=roles)


async def _explain(request: Request, error: Exception, status: int) -> Response:
    text = getattr(error, "msg", None) or str(error)
    return JSONResponse({"detail": text}, status_code=status)


async def _unfit(request: Request, error: Exception) -> Response:
    """A request that is not as MONAI Label's description says."""
    assert isinstance(error, RequestValidationError)
    said = []
    for one in error.errors():
        wrong = "it is sent as text, not as a file with a name" if "UploadFile" in one["msg"] else one["msg"]
        said.append(f"{'.'.join(map(str, one['loc']))}: {wrong}")
    return JSONResponse({"detail": "; ".join(said)}, 422)


async def _strange(request: Request, error: Exception) -> Response:
    """JSON that can be read, or nearly, and not be answered."""
    wrong = "is nested too deeply" if isinstance(error, RecursionError) else "has characters that stand for nothing"
    return JSONResponse({"detail": f"what was sent {wrong}"}, 400)


app = create_app(
    settings.MONAI_LABEL_STUDIES,
    settings.MONAI_LABEL_APP_CONF.get("model"),
    Path(os.environ[OHIF_VARIABLE]) if OHIF_VARIABLE in os.environ else None,
    open_authentication(),
)
