"""An issuer that is silent, says nonsense or too much: a sentence for whoever asks, and nothing for the others."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from anyio import to_thread
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from monai_label_app.access import answers
from monai_label_app.access.guard import Guard
from monai_label_app.access.identity import Authentication, Identity, RefusedError, of
from monai_label_app.access.login import Login
from monai_label_app.access.openid import Issuer as Asked
from monai_label_app.access.openid import settings
from monai_label_app.access.roles import Role, Roles
from monai_label_app.cli import main
from monai_label_app.observed.health import routes as health
from monai_label_app.sample import STUDY
from tests.e2e.issuer import DISCOVERY, KID, Issuer, issuing, new_key, pem

TOKEN = "a-token-of-many-letters"
READER = {"realm_access": {"roles": ["monailabel-user"]}}
HOSTS = ("http://endolens.example.org", "https://endolens.example.org")


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with issuing() as found:
        found.who = READER
        monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", found.url)
        yield found


def server(token: str | None = None, host: str = HOSTS[0]) -> TestClient:
    """A guarded page that says who reads it."""

    def page(request: Request) -> Response:
        return PlainTextResponse(of(request.scope).user)

    authentication = Authentication(token, Asked())
    app = Starlette(routes=[Route("/", page), *health({}), *Login(authentication, "/").routes()])
    guarded = Guard(app, authentication, Roles(["/"]), insecure=False)
    return TestClient(guarded, base_url=host, follow_redirects=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_while_an_issuer_is_silent_others_are_answered_and_it_is_asked_once(issuer: Issuer) -> None:
    issuer.speaking.clear()
    foreign = jwt.encode(issuer.claims(), pem(new_key()), "RS256", {"kid": KID})
    with server(TOKEN) as here, ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(here.get, "/", headers=bearer(foreign)) for _ in range(50)]
        passwords = [pool.submit(here.post, "/auth/token", data={"username": "a", "password": "b"}) for _ in range(5)]
        while not issuer.asked:
            time.sleep(0.01)
        assert here.get("/health/live").status_code == 200
        assert here.get("/", headers=bearer(TOKEN)).text == "token"
        assert here.get("/", headers=bearer("x.y.z")).status_code == 401, "no token needs no issuer to be refused"
        assert not any(one.done() for one in (*waiting, *passwords))
        issuer.speaking.set()
        assert {one.result().status_code for one in waiting} == {401}
        assert {one.result().status_code for one in passwords} == {401}
        assert issuer.asked.count(DISCOVERY) == 1 and issuer.asked.count("/keys") == 1


def test_an_issuer_that_did_not_answer_is_left_alone_for_some_seconds(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_TIMEOUT", 1)
    issuer.speaking.clear()
    with server() as here:
        for _ in range(3):
            answer = here.get("/", headers=bearer(issuer.token()))
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert issuer.asked == [DISCOVERY]


@pytest.mark.parametrize(
    "said",
    [b"[]", b"5", b"<html>", b"{}", b"[" * 100_000],
    ids=lambda said: said[:8],
)
def test_nonsense_of_an_issuer_is_a_sentence_and_forgotten_when_it_is_well(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(answers, "RETRY_SECONDS", 0)
    reader = bearer(issuer.token(**READER))
    with server() as here:
        issuer.instead = {DISCOVERY: said}
        assert here.get("/", headers=reader).status_code == 503
        page = here.get("/endolens/login")
        assert page.status_code == 503 and "does not answer" in page.text and "Retry-After" in page.headers
        assert here.post("/endolens/logout").status_code == 200
        assert here.post("/auth/token", data={"username": "a"}).status_code == 503
        issuer.instead = {"/keys": said}
        assert here.get("/", headers=reader).status_code == 503
        issuer.instead = {"/token": said}
        back = begin(here)
        assert here.get(back).status_code == 401
        issuer.instead = {}
        assert here.get("/", headers=reader).text == "jdoe"
        assert here.get("/endolens/login").status_code == 302


def test_an_answer_that_is_too_long_is_not_read(issuer: Issuer) -> None:
    issuer.instead = {DISCOVERY: httpx.get(issuer.url + DISCOVERY).content + b" " * answers.LARGEST_BYTES}
    with server() as here:
        assert here.get("/", headers=bearer(issuer.token(**READER))).status_code == 503


def test_a_server_says_that_it_lives_while_its_threads_are_taken() -> None:
    taken, free = threading.Event(), threading.Event()

    def stall(request: Request) -> Response:
        taken.set()
        return PlainTextResponse("freed" if free.wait(10) else "tired of waiting")

    with TestClient(Starlette(routes=[Route("/", stall), *health({})])) as here, ThreadPoolExecutor() as pool:
        assert here.portal
        here.portal.call(lambda: setattr(to_thread.current_default_thread_limiter(), "total_tokens", 1))
        stalled = pool.submit(here.get, "/")
        taken.wait()
        assert here.get("/health/live").status_code == 200
        free.set()
        assert stalled.result().text == "freed"


def test_a_signed_token_with_strange_claims_is_refused(issuer: Issuer) -> None:
    strange: list[dict[str, Any]] = [{"aud": aud, "azp": None} for aud in (5, {}, [{}], None)]
    strange += [{"exp": float("inf")}, {"exp": []}, {"iss": "http://evil.example"}]
    nested = jwt.utils.base64url_encode(b"[" * 20_000).decode()
    with server() as here:
        for claims in strange:
            token = jwt.encode({**issuer.claims(), **claims}, pem(issuer.key), "RS256", {"kid": KID})
            assert here.get("/", headers=bearer(token)).status_code == 401, claims
        assert here.get("/", headers=bearer(f"{nested}.{nested}.x")).status_code == 401


def begin(here: TestClient, target: str = "/") -> str:
    """Where the issuer leads back to who began to log in."""
    found = here.get("/endolens/login", params={"next": target})
    back = httpx.get(found.headers["Location"]).headers["Location"]
    return "?".join(urlsplit(back)[2:4])


@pytest.mark.parametrize("host", HOSTS)
def test_tabs_that_log_in_at_once_all_get_to_their_pages(issuer: Issuer, host: str) -> None:
    with server(host=host) as here:
        backs = {target: begin(here, target) for target in ("/?tab=1", "/?tab=2", "/?tab=3")}
        for target in ("/?tab=2", "/?tab=1"):
            entered = here.get(backs[target])
            assert entered.status_code == 200 and f'content="0;url={target}"' in entered.text
        assert here.get("/").text == "jdoe"
        kept = dict(here.cookies)
        here.cookies.clear()
        assert here.get(backs["/?tab=3"]).status_code == 401, "another browser"
        here.cookies.update(kept)
        for _ in range(7):
            begun = here.get("/endolens/login")
        assert ("Secure" in begun.headers["Set-Cookie"]) == (host == HOSTS[1])
        assert len([name for name in here.cookies if name.startswith("endolens-login-")]) == 5
        assert here.get(backs["/?tab=1"]).status_code == 401, "used"


def test_what_a_reader_s_browser_keeps_is_not_made_of_the_token(issuer: Issuer) -> None:
    here, there = (Authentication(TOKEN, Asked()) for _ in range(2))
    with pytest.raises(RefusedError):
        there.session(here.begin(Identity("jdoe", "", Role.READING)))
    alone = [Authentication(TOKEN) for _ in range(2)]
    assert alone[1].session(alone[0].begin(Identity("token", "", Role.READING))).user == "token"


@pytest.mark.parametrize("realm", ["http://[::bad", "", "nonsense", "ftp://a/b", "https://a:99999"])
def test_a_realm_that_is_no_address_is_refused_at_the_start(realm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_REALM_URI", realm)
    result = CliRunner().invoke(main, ["watch", str(min(STUDY.iterdir())), "--port", "1"])
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: MONAI_LABEL_AUTH_REALM_URI is '.*', no address of an issuer.*\n", result.output)
