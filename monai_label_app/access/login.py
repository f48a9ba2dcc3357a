"""How a browser gets in and out: by the link that the server prints, by the token, or by the issuer's own page."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
from authlib.common.errors import AuthlibBaseError
from jinja2 import Environment, PackageLoader
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from monai_label_app.access.identity import Authentication, Identity, RefusedError, UnreachableError, Verifier, put

LOGIN, LOGOUT, CALLBACK = "/endolens/login", "/endolens/logout", "/endolens/login/callback"

_FAILURES = (httpx.HTTPError, AuthlibBaseError, JoseError, ValueError)
_FORM_BYTES = 8192
_MINUTES = 10
_PAGE = Environment(loader=PackageLoader("monai_label_app.access", "."), autoescape=True).get_template("login.html")


def login_address(target: str) -> str:
    """Of the page to log in, which leads on to a path of this server."""
    return f"{LOGIN}?{urlencode({'next': target})}"


def cookie_name(host: str) -> str:
    """Of the session. Cookies do not tell servers of one machine apart; their ports do."""
    port = host.rpartition(":")[2]
    return f"endolens-{port}" if port.isdigit() else "endolens"


def _client(issuer: Verifier) -> Any:
    """Authlib's client of an issuer: the authorisation code flow with PKCE, for a program that keeps no secret."""
    import authlib.deprecate  # noqa: F401  (lets all of its own warnings through)

    # It goes with httpx as well as with its successor, and says so at every start.
    warnings.filterwarnings("ignore", message="The httpx module is deprecated")
    from authlib.integrations.starlette_client import OAuth

    options = {"scope": "openid profile", "code_challenge_method": "S256", "token_endpoint_auth_method": "none"}
    return OAuth().register(
        "issuer", client_id=issuer.client, server_metadata_url=issuer.discovery, client_kwargs=options
    )


class Login:
    """The routes to log in and out.

    Args:
        authentication: tells who comes.
        home: where one gets to who said nothing else.
    """

    def __init__(self, authentication: Authentication, home: str) -> None:
        self._authentication, self._home = authentication, home
        self._issuer = _client(authentication.issuer) if authentication.issuer else None

    def routes(self) -> list[Route]:
        """``/endolens/login``, its ``callback``, and ``/endolens/logout``."""
        # Between here and the issuer's page the browser keeps what was asked for; Lax, for it comes back from there.
        session = Middleware(
            SessionMiddleware,
            secret_key=self._authentication.secret,
            session_cookie="endolens-login",
            path=LOGIN,
            max_age=_MINUTES * 60,
            same_site="lax",
        )
        return [
            Route(LOGIN, self._ask, methods=["GET"], middleware=[session]),
            Route(LOGIN, self._take, methods=["POST"]),
            Route(CALLBACK, self._return, methods=["GET"], middleware=[session]),
            Route(LOGOUT, self._leave, methods=["POST"]),
        ]

    async def _ask(self, request: Request) -> Response:
        target = self._target(request.query_params.get("next", ""))
        if code := request.query_params.get("once"):
            return await self._entered(request, target, lambda: self._authentication.redeem(code))
        if self._issuer and (request.query_params.get("by") == "issuer" or not self._authentication.by_token):
            request.session["next"] = target
            try:
                found: Response = await self._issuer.authorize_redirect(request, request.url_for("_return"))
            except _FAILURES:
                return self._page(503, target, problem="The issuer of log-ins does not answer; try again soon.")
            return found
        return self._page(200, target)

    async def _take(self, request: Request) -> Response:
        form = b""
        async for part in request.stream():
            form += part
            if len(form) > _FORM_BYTES:
                return self._page(413, self._home, problem="This is no token.")
        sent = parse_qs(form.decode("utf-8", errors="replace"))
        token, target = (sent.get(name, [""])[0] for name in ("token", "next"))
        return await self._entered(request, self._target(target), lambda: self._authentication.bearer(token.strip()))

    async def _return(self, request: Request) -> Response:
        target = self._target(request.session.pop("next", ""))
        issuer = self._authentication.issuer
        if self._issuer is None or issuer is None:
            return self._page(404, target, problem="There is no issuer of log-ins here.")
        try:
            granted = await self._issuer.authorize_access_token(request)
        except _FAILURES:
            return self._page(401, target, problem="The log-in came to nothing; try again.")
        token = str(granted.get("access_token", ""))
        return await self._entered(request, target, lambda: issuer.verify(token))

    async def _leave(self, request: Request) -> Response:
        issuer, elsewhere = self._authentication.issuer, ""
        if issuer:
            with suppress(UnreachableError):
                elsewhere = (await run_in_threadpool(lambda: issuer.description)).get("end_session_endpoint", "")
        response = HTMLResponse(_PAGE.render(left=True, elsewhere=elsewhere))
        response.delete_cookie(cookie_name(request.headers.get("host", "")))
        return response

    async def _entered(self, request: Request, target: str, who: Callable[[], Identity]) -> Response:
        try:
            identity = await run_in_threadpool(who)
        except UnreachableError as error:
            return self._page(503, target, problem=f"{error}.")
        except RefusedError as error:
            return self._page(401, target, problem=f"{error}.")
        put(request.scope, identity)
        response = HTMLResponse(_PAGE.render(done=True, target=target))
        response.set_cookie(
            cookie_name(request.headers.get("host", "")),
            self._authentication.begin(identity),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _page(self, status: int, target: str, problem: str = "") -> Response:
        content = _PAGE.render(
            problem=problem[:1].upper() + problem[1:],
            target=target,
            token=self._authentication.by_token,
            issuer=self._issuer is not None,
        )
        return HTMLResponse(content, status)

    def _target(self, wished: str) -> str:
        """A path of this server, or its home."""
        local = wished.startswith("/") and not wished.startswith(("//", "/\\")) and wished.isprintable()
        return wished if local else self._home
