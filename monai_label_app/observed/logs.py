"""What a server writes down: lines of text or of JSON, each with the request and the study that it belongs to."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime, timezone

import click
from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_label_app.access.identity import known
from monai_label_app.observed.metrics import REQUEST_SECONDS, REQUESTS

LOG_VARIABLE = "ENDOLENS_LOG"
"""Environment variable: ``json`` for a JSON object a line, and a line a request."""

HEADER = "X-Request-ID"

request_id: ContextVar[str] = ContextVar("request_id", default="")
study_uid: ContextVar[str] = ContextVar("study_uid", default="")

_GIVEN = re.compile(r"[A-Za-z0-9-]{1,64}")
_STUDY = re.compile(r"/(?:studies|dicomjson)/([0-9.]{3,64})(?:/|$|\?)")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

_log = logging.getLogger("endolens.requests")
NODE_LOG = logging.getLogger("endolens.node")
"""Of a DICOM node: a sentence on each thing that it does, bare on standard output unless all is written as JSON."""


class JsonLines(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        told = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        told |= {"request": request_id.get(), "study": study_uid.get(), **getattr(record, "told", {})}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in told.items() if value != ""}, ensure_ascii=False)


class _Sentences(logging.Handler):
    """Prints what a record says, and no more, for a person at a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        with suppress(OSError):  # who reads may be gone, and the disk of a log be full
            click.echo(record.getMessage())


NODE_LOG.setLevel(logging.INFO)
NODE_LOG.addHandler(_Sentences())
NODE_LOG.propagate = False


class _Handed(logging.Logger):
    """Hands all to the root, whoever would have it written otherwise too: nothing is to be written twice."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802
        """Leave it out."""


def write_as_told() -> None:
    """If :data:`LOG_VARIABLE` says so, write all that is logged as JSON, and a line for every request."""
    if os.environ.get(LOG_VARIABLE) != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # it writes paths, and a second line a request
    for name in list(root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.setLoggerClass(_Handed)
    logging.captureWarnings(True)


class Requests:
    """ASGI middleware: names every request, counts it, and logs it by method, status, time and user.

    What was asked for is not logged but for the study, for paths and queries may name a patient.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the answer says what it is named, as the request does if it has a name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        name = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        request_id.set(name)
        found = _STUDY.search(scope["path"])
        study_uid.set(found[1] if found else "")
        began = time.monotonic()
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
                seconds, status = time.monotonic() - began, message["status"]
                REQUESTS.labels(method, str(status)).inc()
                REQUEST_SECONDS.labels(method).observe(seconds)
                told = {"method": method, "status": status, "seconds": round(seconds, 4), "user": known(scope)}
                _log.info("%s %s", method, status, extra={"told": told})
            # Of a request that turned out to be no HTTP while it came; whoever sent it was told so, and is gone.
            with suppress(LocalProtocolError):
                await send(message)

        await self._app(scope, receive, answer)
