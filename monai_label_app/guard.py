"""Keep other web sites out: a page that a doctor has open elsewhere must not reach the studies through the browser."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: refuses foreign host names, and changes that another origin asks for.

    Args:
        app: what is guarded.
        hosts: names by which the server may be called, or None for any. On loopback, a foreign name means that
            another site's name was pointed at this machine.
        origins: other origins that may ask for changes, e.g. a hospital's own OHIF.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, origins: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "http" and (reason := self._refusal(scope["method"], Headers(scope=scope))):
            await JSONResponse({"detail": reason}, status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return "this server does not go by that name"
        own = origin is None or urlsplit(origin).netloc == host or origin in self._origins
        return None if own or method in _READING else "a page of another site may not change anything here"
