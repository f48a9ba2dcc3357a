"""Keep others out: pages of other web sites, which must not reach the studies through the browser, and who stalls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_label_app.endpoint import is_loopback

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

STALLED_SECONDS = 30
"""Time without a byte after which whoever sends a request is taken for gone."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: refuses other machines, foreign host names, and changes that another origin asks for.

    Args:
        app: what is guarded.
        insecure: others may come, from other machines and by any name, though nothing asks them who they are.
        origins: other origins that may ask for changes, e.g. a hospital's own OHIF.
    """

    def __init__(self, app: ASGIApp, insecure: bool, origins: frozenset[str]) -> None:
        self._app, self._insecure, self._origins = app, insecure, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "http" and (reason := self._refusal(scope, Headers(scope=scope))):
            await JSONResponse({"detail": reason}, status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._insecure:
            # MONAI Label's own server listens on every address unless told otherwise.
            if not _came_from_here(scope):
                return "this server is for its own machine alone, for nothing asks who comes"
            # On loopback, a foreign name means that another site's name was pointed at this machine.
            if urlsplit(f"//{host}").hostname not in LOOPBACK_NAMES:
                return "this server does not go by that name"
        own = origin is None or urlsplit(origin).netloc == host or origin in self._origins
        return None if own or scope["method"] in _READING else "a page of another site may not change anything here"


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
