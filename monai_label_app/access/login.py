"""How a browser gets in and out: by the link that the server prints, by the token, or by the issuer's own page."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode

import jwt
from authlib.common.errors import AuthlibBaseError
from jinja2 import Environment, PackageLoader
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from monai_label_app.access.answers import FAILURES, ask, client_options
from monai_label_app.access.identity import (
    RETRY_SECONDS,
    Authentication,
    Identity,
    RefusedError,
    UnreachableError,
    Verifier,
    put,
)

LOGIN, LOGOUT, CALLBACK = "/endolens/login", "/endolens/logout", "/endolens/login/callback"
TOKEN = "/auth/token"

_FAILURES = (*FAILURES, AuthlibBaseError, JoseError)
_FORM_BYTES = 8192
_LONGEST_TARGET = 1024
_MINUTES = 10
_PAGE = Environment(loader=PackageLoader("monai_label_app.access", "."), autoescape=True).get_template("login.html")

_BEGUN = "endolens-login-"
"""Cookies, one for each log-in that was begun: a browser may begin one in several tabs at once."""

_MOST_BEGUN = 5

_LATER = {"Retry-After": f"{RETRY_SECONDS}"}


def login_address(target: str) -> str:
    """Of the page to log in, which leads on to a path of this server."""
    return f"{LOGIN}?{urlencode({'next': target})}"


def cookie_name(host: str) -> str:
    """Of the session. Cookies do not tell servers of one machine apart; their ports do."""
    port = host.rpartition(":")[2]
    return f"endolens-{port}" if port.isdigit() else "endolens"


def _client(issuer: Verifier, description: Mapping[str, str]) -> Any:
    """Authlib's client of an issuer: the authorisation code flow with PKCE, for a program that keeps no secret."""
    import authlib.deprecate  # noqa: F401  (lets all of its own warnings through)

    # It goes with httpx as well as with its successor, and says so at every start.
    warnings.filterwarnings("ignore", message="The httpx module is deprecated")
    from authlib.integrations.starlette_client import OAuth

    options = {"scope": "openid profile", "code_challenge_method": "S256", "token_endpoint_auth_method": "none"}
    return OAuth().register(
        "issuer",
        client_id=issuer.client,
        client_kwargs={**options, **client_options(issuer.seconds)},
        id_token_signing_alg_values_supported=issuer.algorithms,
        **description,
    )


class Login:
    """The routes to log in and out.

    Args:
        authentication: tells who comes.
        home: where one gets to who said nothing else.
    """

    def __init__(self, authentication: Authentication, home: str) -> None:
        self._authentication, self._home = authentication, home
        self._issuer = authentication.issuer

    def routes(self) -> list[Route]:
        """``/endolens/login``, its ``callback``, ``/endolens/logout``, and MONAI Label's ``/auth/token``."""
        issuers = [
            Route(CALLBACK, self._return, methods=["GET"]),
            Route(TOKEN, self._grant, methods=["POST"]),
        ]
        return [
            Route(LOGIN, self._ask, methods=["GET"]),
            Route(LOGIN, self._take, methods=["POST"]),
            Route(LOGOUT, self._leave, methods=["POST"]),
            *(issuers if self._issuer else []),
        ]

    async def _ask(self, request: Request) -> Response:
        target = self._target(request.query_params.get("next", ""))
        if code := request.query_params.get("once"):
            return await self._entered(request, target, self._authentication.redeem(code))
        if self._issuer and (request.query_params.get("by") == "issuer" or not self._authentication.by_token):
            return await self._begin(request, self._issuer, target)
        return self._page(200, target)

    async def _begin(self, request: Request, issuer: Verifier, target: str) -> Response:
        """On to the issuer's page. The browser keeps what was asked for until it comes back."""
        request.scope["session"], back = {}, str(request.url_for("_return"))
        try:
            client = _client(issuer, await issuer.description())
            begun = await client.create_authorization_url(back)
        except (UnreachableError, *_FAILURES):
            return self._page(503, target, problem="The issuer of log-ins does not answer; try again soon.")
        response, name = RedirectResponse(begun.pop("url"), 302), _BEGUN + begun["state"]
        await client.save_authorize_data(request, redirect_uri=back, **begun)
        claims = {"session": request.session, "next": target, "aud": _BEGUN, "exp": int(time.time()) + _MINUTES * 60}
        response.set_cookie(
            name,
            jwt.encode(claims, self._authentication.secret, "HS256"),
            max_age=_MINUTES * 60,
            path=LOGIN,
            httponly=True,
            samesite="lax",  # for it comes back from another site
            secure=request.url.scheme == "https",
        )
        # A browser names the oldest first.
        for old in [one for one in request.cookies if one.startswith(_BEGUN)][: 1 - _MOST_BEGUN]:
            response.delete_cookie(old, path=LOGIN)
        return response

    async def _take(self, request: Request) -> Response:
        sent = await _form(request)
        if sent is None:
            return self._page(413, self._home, problem="This is no token.")
        target = self._target(sent.get("next", ""))
        return await self._entered(request, target, self._authentication.bearer(sent.get("token", "").strip()))

    async def _return(self, request: Request) -> Response:
        assert self._issuer
        name = _BEGUN + request.query_params.get("state", "")
        try:
            begun = jwt.decode(
                request.cookies.get(name, ""), self._authentication.secret, ["HS256"], audience=_BEGUN
            )  # fmt: skip
        except jwt.PyJWTError:
            return self._page(401, self._home, problem="The log-in came to nothing; try again.")
        request.scope["session"] = begun["session"]
        response = await self._finish(request, self._issuer, begun["next"])
        response.delete_cookie(name, path=LOGIN)
        return response

    async def _finish(self, request: Request, issuer: Verifier, target: str) -> Response:
        try:
            client = _client(issuer, await issuer.description())
            granted = await asyncio.wait_for(client.authorize_access_token(request), issuer.seconds)
        except UnreachableError as error:
            return self._page(503, target, problem=f"{error}.")
        except _FAILURES:
            return self._page(401, target, problem="The log-in came to nothing; try again.")
        return await self._entered(request, target, issuer.verify(str(granted.get("access_token", ""))))

    async def _grant(self, request: Request) -> Response:
        """A token for a name and a password. MONAI Label's own route keeps everybody waiting while it asks."""
        assert self._issuer
        sent = await _form(request) or {}
        form = {"client_id": self._issuer.client, "grant_type": "password"}
        form |= {name: sent.get(name, "") for name in ("username", "password")}
        try:
            address = (await self._issuer.description())["token_endpoint"]
            answer = await ask(address, self._issuer.seconds, form)
            if 400 <= answer.status_code < 500:
                return JSONResponse({"detail": "the issuer of log-ins refuses this name and password"}, 401)
            granted = answer.raise_for_status().json()
            return JSONResponse({name: str(granted[name]) for name in ("access_token", "token_type")})
        except (UnreachableError, *FAILURES):
            return JSONResponse({"detail": "the issuer of log-ins does not answer"}, 503, _LATER)

    async def _leave(self, request: Request) -> Response:
        elsewhere = ""
        if self._issuer:
            with suppress(UnreachableError):
                elsewhere = (await self._issuer.description()).get("end_session_endpoint", "")
        response = HTMLResponse(_PAGE.render(left=True, elsewhere=elsewhere))
        response.delete_cookie(cookie_name(request.headers.get("host", "")))
        return response

    async def _entered(self, request: Request, target: str, who: Awaitable[Identity]) -> Response:
        try:
            identity = await who
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
        return HTMLResponse(content, status, _LATER if status == 503 else None)

    def _target(self, wished: str) -> str:
        """A path of this server, or its home."""
        local = wished.startswith("/") and not wished.startswith(("//", "/\\")) and wished.isprintable()
        return wished if local and len(wished) <= _LONGEST_TARGET else self._home


async def _form(request: Request) -> Mapping[str, str] | None:
    """What a form says; None if it is too long for one of these."""
    form = b""
    async for part in request.stream():
        form += part
        if len(form) > _FORM_BYTES:
            return None
    return {name: values[0] for name, values in parse_qs(form.decode("utf-8", errors="replace")).items()}
