"""Keep others out: who may not do what they ask for, pages of other web sites, and who stalls."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import unquote_plus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_label_app.access.endpoint import is_loopback
from monai_label_app.access.identity import (
    HERE,
    NOBODY,
    RETRY_SECONDS,
    Authentication,
    Identity,
    RefusedError,
    UnreachableError,
    of,
    put,
)
from monai_label_app.access.login import cookie_name, login_address
from monai_label_app.access.roles import REFUSED, Need, Role, Roles
from monai_label_app.access.trail import Trail
from monai_label_app.observed.logs import request_id

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

STALLED_SECONDS = 30
"""Time without a byte after which whoever sends a request is taken for gone."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d+)?")

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: lets in who may do what they ask for, and says to the app behind it who that is.

    Args:
        app: what is guarded.
        authentication: tells who asks.
        roles: which role a request needs.
        insecure: others may come, from other machines and by any name, though nothing asks them who they are.
        origins: other origins that may ask for changes, e.g. a hospital's own OHIF.
        trail: is told who did what; None for none.
    """

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        roles: Roles,
        insecure: bool,
        origins: frozenset[str] = frozenset(),
        trail: Trail | None = None,
    ) -> None:
        self._app, self._authentication, self._roles = app, authentication, roles
        self._insecure, self._origins, self._trail = insecure, origins, trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401, 403, or, where a browser shows the answer, the page to log in."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            need = self._roles.of(scope["method"], scope["path"])
            answer = await self._refusal(Request(scope), need.role)
            await (answer or self._app)(scope, receive, self._telling(need, scope, send))
        else:
            await send({"type": "websocket.close", "code": 1008})  # there is none here

    def _telling(self, need: Need, scope: Scope, send: Send) -> Send:
        """Send an answer, and tell the trail before it begins who gets it."""
        trail = self._trail
        if trail is None:
            return send

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                who, status = of(scope), message["status"]
                action = REFUSED if status == 403 else need.action
                if who is not NOBODY and action and status not in (401, 404):
                    place = f"{scope['path']}?{unquote_plus(scope['query_string'].decode('latin-1'))}"
                    await run_in_threadpool(trail.tell, who, action, place, status, request_id.get())
            await send(message)

        return tell

    async def _refusal(self, request: Request, needed: Role) -> Response | None:
        """Why a request is not passed on; None if it is."""
        put(request.scope, NOBODY)
        if reason := self._foreign(request):
            return _problem(403, reason)
        try:
            asking = await self._who(request)
        except UnreachableError as error:
            return _problem(503, f"{error}")
        except RefusedError as error:
            # Whoever comes with something that has ended may still log in.
            asking, reason = None, f"{error}"
        if asking is None:
            return _log_in(request, reason or "log in first") if needed > Role.NOBODY else None
        put(request.scope, asking)
        if asking.role < needed:
            return _problem(403, f"your role does not allow this; it needs the one for {needed.name.lower()}")
        return None

    async def _who(self, request: Request) -> Identity | None:
        """Who asks; None where they do not say.

        Raises:
            RefusedError: what they bring does not hold.
            UnreachableError: whoever knows does not answer.
        """
        if not self._authentication.required:
            return HERE
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer":
                raise RefusedError("this server takes bearer tokens alone")
            return await self._authentication.bearer(token.strip())
        kept = request.cookies.get(cookie_name(request.headers.get("host", "")))
        return self._authentication.session(kept) if kept else None

    def _foreign(self, request: Request) -> str | None:
        """Why a request is one of another machine or site; None if it is not, or may be."""
        if not (self._insecure or self._authentication.required):
            # MONAI Label's own server listens on every address unless told otherwise.
            if not _came_from_here(request.scope):
                return "this server is for its own machine alone, for nothing asks who comes"
            # On loopback, a foreign name means that another site's name was pointed at this machine.
            if not _called_local(request):
                return "this server does not go by that name"
        if request.method in _READING or self._same_site(request):
            return None
        return "a page of another site may not change anything here"

    def _same_site(self, request: Request) -> bool:
        """Whether a change is asked for by a page of ours, or by no page."""
        headers = request.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.partition("://")[2] == headers.get("host"):
            return site in (None, "same-origin")
        if origin is not None:
            return origin in self._origins
        # A browser says where it comes from. A cookie without that may have been sent by another page.
        return site in ("same-origin", "none") or (site is None and "cookie" not in headers)


def _problem(status: int, reason: str) -> JSONResponse:
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": reason}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": f"{RETRY_SECONDS}"}}.get(status)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _log_in(request: Request, reason: str) -> Response:
    shown = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if not shown:
        return _problem(401, reason)
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(login_address(target), 303)


def _called_local(request: Request) -> bool:
    found = _HOST.fullmatch(request.headers.get("host", ""))
    return found is not None and found[1].strip("[]") in LOOPBACK_NAMES


def _came_from_here(scope: Scope) -> bool:
    host, port = scope.get("server") or ("", 0)
    return port is None or is_loopback(host)  # a Unix socket has no port


class Patience:
    """ASGI middleware for an app that holds a thread while it reads a request: one that stalls ends as if cut off."""

    def __init__(self, app: ASGIApp, seconds: float = STALLED_SECONDS) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def soon() -> Message:
            with suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(receive(), self._seconds)
            return {"type": "http.disconnect"}

        await self._app(scope, soon, send)
