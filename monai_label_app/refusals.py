"""MONAI Label's API without what reaches too far, and without what could only fail late: both are refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
from monailabel.config import settings
from monailabel.datastore import local
from monailabel.datastore.utils import convert
from monailabel.endpoints import datastore, infer, model
from monailabel.interfaces.app import MONAILabelApp
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from monai_label_app.access.identity import of
from monai_label_app.asking import answering, temporary_file

# MONAI Label removes its own only after an answer that is no refusal, and some never.
for _module in (local, convert, datastore, infer, model):
    _module.tempfile = SimpleNamespace(NamedTemporaryFile=temporary_file)

_CLOSED = "this route of MONAI Label is closed here"
_NO_UPLOAD = "images are not uploaded to ask about them; they come from the studies folder or the PACS"

_ROUTES = (
    (re.compile(r"/proxy/.*"), _CLOSED),  # reads and writes all that the PACS has, with our login
    (re.compile(r"/logs/.*"), _CLOSED),  # shows the server's paths
    (re.compile(r"/docs"), _CLOSED),  # asks other servers
    (re.compile(r"/session/.*"), _NO_UPLOAD),  # keeps patients' images in a cache
    (re.compile(r"/scoring/.*"), "there is nothing here by which images are scored"),
    (re.compile(r"/infer/wsi(_v2)?/.*"), "there are no whole-slide images here; ask /infer/ about a frame"),
)
_NO_LOG_IN = "there is no log-in here"


class _Refusal(NamedTuple):
    status: int
    reason: str


class Refusals:
    """ASGI app: MONAI Label's, but for the requests that are refused.

    Args:
        api: MONAI Label's ASGI app.
        app: the MONAI Label app behind it, asked for its tasks.
    """

    def __init__(self, api: ASGIApp, app: Callable[[], MONAILabelApp]) -> None:
        self._api, self._app = api, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        request = Request(scope)
        if refusal := self._refusal(request):
            await JSONResponse({"detail": refusal.reason}, refusal.status)(scope, receive, send)
            return
        with answering(of(scope), request.query_params.get("image", "")):
            await self._api(scope, receive, send)

    def _refusal(self, request: Request) -> _Refusal | None:
        path = request.url.path
        for pattern, reason in _ROUTES:
            if pattern.fullmatch(path):
                return _Refusal(404, reason)
        if path.startswith("/auth/") and not settings.MONAI_LABEL_AUTH_ENABLE:
            return _Refusal(404, _NO_LOG_IN)
        if request.method == "POST" and (found := re.fullmatch(r"/(infer|train)/([^/]+)", path)):
            return self._no_answer(found[2], request) if found[1] == "infer" else self._no_trainer(found[2])
        return None

    def _no_answer(self, model: str, request: Request) -> _Refusal | None:
        """No image to look at, or a file that the model does not make."""
        if not request.query_params.get("image"):
            return _Refusal(404, f"name an image by ?image=; {_NO_UPLOAD}")
        task, output = self._app()._infers.get(model), request.query_params.get("output")
        if task is None or output in (None, "json", "all", *task.files):
            return None
        return _Refusal(400, f"{model} makes no {output}; ask for output=json")

    def _no_trainer(self, model: str) -> _Refusal | None:
        """A train task that would fail only after it was announced as submitted."""
        if model in (trainers := self._app()._trainers):
            return None
        known = f"there are {', '.join(trainers)}" if trainers else "serve a folder of versions as --model to have one"
        return _Refusal(404, f"there is no train task {model!r}; {known}")
