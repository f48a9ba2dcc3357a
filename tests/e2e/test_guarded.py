"""Who may do what: every route of a running server, asked without a token, with false ones and with the wrong role."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pydicom
import pytest
from playwright.sync_api import Browser, expect

from monai_label_app.sample import STUDY
from tests.e2e.conftest import REPOSITORY, certificate_of_here, free_port, running
from tests.e2e.issuer import KID, Issuer, issuing, new_key, pem, public_pem

pytestmark = pytest.mark.e2e

STILL = pydicom.dcmread(min(STUDY.iterdir()), stop_before_pixels=True)
PATIENT, UID, IMAGE = str(STILL.PatientName), str(STILL.StudyInstanceUID), str(STILL.SOPInstanceUID)

PASSWORD = "pacs-password-4711"

READER, ANNOTATOR, REVIEWER, ADMIN = (f"monailabel-{name}" for name in ("user", "annotator", "reviewer", "admin"))

PUBLIC = re.compile("/endolens/(login|login/callback|logout|static/.+|ohif/.+)|/auth/(token)?|/health/(live|ready)")
"""What must be open, for nobody could log in otherwise; it is of no patient."""

READ_BY_POST = re.compile("/(infer|activelearning|infer/wsi|infer/wsi_v2)/.+")
SIGNED = re.compile(".*/signature")


@dataclass(frozen=True)
class Server:
    url: str
    issuer: Issuer
    routes: list[tuple[str, str]]
    token: str
    folder: Path

    @property
    def printed(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def told(self) -> list[dict[str, Any]]:
        """The audit trail."""
        trail = self.folder / "studies" / ".endolens" / "accesses.jsonl"
        return [json.loads(line) for line in trail.read_text().splitlines()]

    @property
    def temporary(self) -> set[Path]:
        """Files on the temporary disk."""
        # Unlike Path.rglob it does not fail where a folder goes while it is looked at.
        return {Path(place, name) for place, _, names in os.walk(self.folder / "tmp") for name in names}

    def ask(self, method: str, path: str, token: str | None = None, **more: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(STUDY, folder / "studies")
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    certificate, key = certificate_of_here(folder)
    with issuing() as issuer, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        settings = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": issuer.url}
        settings |= {"MONAI_LABEL_DICOMWEB_USERNAME": "pacs", "MONAI_LABEL_DICOMWEB_PASSWORD": PASSWORD}
        (folder / "tmp").mkdir()
        settings["TMPDIR"] = str(folder / "tmp")
        environment = {**os.environ, **settings, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "tests.e2e.walked", str(folder / "routes.json"), "serve", "--studies"]
        command += [str(folder / "studies"), "--port", str(port), "--token-file", str(folder / "token")]
        command += ["--tls-certificate", str(certificate), "--tls-key", str(key)]
        with running(command, f"{url}/endolens/login", folder / "log", env=environment, cwd=REPOSITORY):
            routes = [(method, _filled(path)) for method, path in json.loads((folder / "routes.json").read_text())]
            token = (folder / "token").read_text().strip()
            yield Server(url, issuer, routes, token, folder)


def _filled(path: str) -> str:
    """A path for a pattern: what is asked for is there, so that it would be seen if it were not guarded."""
    names = {"image": IMAGE, "number": "1", "frame": "1", "version": "1"}
    uid = IMAGE if "/images/" in path or "/instances/" in path else UID
    return re.sub(r"[<{](?:\w+:)?(\w+)(?::\w+)?[>}]", lambda found: names.get(found[1], uid), path)


def test_without_a_token_of_the_issuer_every_route_is_closed(server: Server) -> None:
    issuer, other = server.issuer, new_key()
    claims = issuer.claims(ADMIN)
    endless = {name: value for name, value in claims.items() if name != "exp"}
    head, body, signature = issuer.token(ADMIN).split(".")
    by_public_key = jwt.api_jws.base64url_encode(json.dumps({"alg": "HS256", "kid": KID}).encode()).decode()
    secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    forged = jwt.api_jws.base64url_encode(secret.sign(f"{by_public_key}.{body}".encode(), public_pem(issuer.key)))
    tokens = {
        "none at all": None,
        "no token": "x.y.z",
        "expired": issuer.token(ADMIN, exp=int(time.time()) - 60),
        "of another key": jwt.encode(claims, pem(other), "RS256", {"kid": KID}),
        "of a key that is not there": jwt.encode(claims, pem(other), "RS256", {"kid": "key-2"}),
        "of another issuer": issuer.token(ADMIN, iss="http://evil.example"),
        "for another program": issuer.token(ADMIN, azp="another", aud=["account", "another"]),
        "of algorithm none": jwt.encode(claims, None, "none", {"kid": KID}),
        "signed by the public key": f"{by_public_key}.{body}.{forged.decode()}",
        "changed": f"{head}.{body[:-4]}AAAA.{signature}",
        "without an end": jwt.encode(endless, pem(issuer.key), "RS256", {"kid": KID}),
    }  # fmt: skip
    assert {
        ("POST", f"/infer/{UID}"),
        ("GET", "/endolens/"),
        ("DELETE", "/datastore/"),
        ("GET", f"/static/{UID}"),
    } <= set(server.routes), "the walk forgets some"
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for name, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
            for method, path in server.routes:
                answer = client.request(method, path, headers=headers)
                if PUBLIC.fullmatch(path):
                    assert answer.status_code != 500 and PATIENT not in answer.text and IMAGE not in answer.text
                else:
                    assert answer.status_code == 401, f"{name}: {method} {path}"
                    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("offline_access", lambda method, path: False),
        (READER, lambda method, path: method in ("GET", "HEAD", "OPTIONS") or READ_BY_POST.fullmatch(path)),
        (ANNOTATOR, lambda method, path: not SIGNED.fullmatch(path) and not _administered(method, path)),
        (REVIEWER, lambda method, path: not _administered(method, path)),
    ],
)
def test_a_role_opens_its_own_routes_and_no_other(server: Server, role: str, may: Callable[[str, str], object]) -> None:
    token = server.issuer.token(role)
    with httpx.Client(base_url=server.url, timeout=60, headers={"Authorization": f"Bearer {token}"}) as client:
        for method, path in server.routes:
            if not (PUBLIC.fullmatch(path) or may(method, path)):
                assert client.request(method, path).status_code == 403, f"{role}: {method} {path}"
            elif role == READER and method == "GET" and path.startswith("/endolens"):
                assert client.get(path).status_code != 403, f"{path} is on no table"


def _administered(method: str, path: str) -> bool:
    removes = method == "DELETE" and path.startswith("/datastore")
    others = re.fullmatch("/(train|batch/infer|model|reload)/?.*", path) and method not in ("GET", "HEAD", "OPTIONS")
    return bool(removes or others or re.match("/(logs|proxy|session)/", path))


def test_a_path_that_is_on_no_table_is_for_administrators(server: Server) -> None:
    reader = server.issuer.token(READER)
    for path in ("/nothing", "/endolens/nothing", "/endolens/static/..%2fapi/v1/studies", "/endolens//api/v1/studies"):
        assert server.ask("GET", path).status_code == 401
        assert server.ask("GET", path, reader).status_code == 403
    assert server.ask("GET", "/nothing", server.issuer.token(ADMIN)).status_code == 404


def test_what_a_role_allows_is_answered_by_monai_label_too(server: Server) -> None:
    allowed = {
        READER: [
            "/info/",
            "/endolens/api/v1/studies",
            f"/datastore/image?image={IMAGE}",
            "/auth/token/valid",
            "/ohif/",
        ],
        ANNOTATOR: ["/info/", "/endolens/slicer.zip", "/ohif/"],
        ADMIN: ["/info/", "/openapi.json"],
    }
    for role, paths in allowed.items():
        for path in paths:
            assert server.ask("GET", path, server.issuer.token(role)).status_code == 200, f"{role} {path}"
    answer = server.ask("POST", f"/infer/classify?image={IMAGE}&output=json", server.issuer.token(READER))
    assert answer.json()["image"] == IMAGE
    assert server.ask("GET", "/info/", server.token).status_code == 200


def test_nobody_signs_in_the_name_of_another(server: Server) -> None:
    report, reviewer = f"/endolens/api/v1/studies/{UID}/report", server.issuer.token(REVIEWER)
    opened = server.ask("POST", report, reviewer, json={})
    headers = {"Authorization": f"Bearer {reviewer}", "If-Match": opened.headers["ETag"], "X-Request-ID": "sign-1"}
    signature = {"name": "Someone^Else", "role": "Endoscopist", "organization": "Test", "incomplete": True}

    def sign(**changes: str) -> httpx.Response:
        return httpx.post(f"{server.url}{report}/signature", json={**signature, **changes}, headers=headers, timeout=60)

    refused = sign()
    assert refused.status_code == 403
    assert refused.json()["detail"] == "You are logged in as Jane Doe, and cannot sign in another's name."
    assert sign(name="Doe^Jane").json()["signature"]["name"] == "Doe^Jane"
    added = server.ask("POST", f"{report}/addendum", reviewer).json()
    assert added["author"] == "Jane Doe"
    told = server.told
    (signed,) = [one for one in told if one["action"] == "signed"]
    assert (signed["user"], signed["role"], signed["status"], signed["objects"]) == ("jdoe", "signing", 200, [UID])
    assert signed["request"] == "sign-1"
    assert ("jdoe", "was refused") in {(one["user"], one["action"]) for one in told}
    assert PATIENT not in str(told)


def test_a_label_is_of_who_logged_in_and_no_inference_displaces_it(server: Server) -> None:
    annotator, admin = server.issuer.token(ANNOTATOR), server.issuer.token(ADMIN)
    labels = server.folder / "studies" / "labels"

    def put(tag: str, name: str, content: bytes, **params: str) -> httpx.Response:
        where = f"/datastore/label?image={IMAGE}&tag={tag}"
        return server.ask(
            "PUT", where, annotator, files={"label": (name, content)}, data={"params": json.dumps(params)}
        )

    def infer(**params: object) -> httpx.Response:
        asked, reader = f"/infer/grad_cam?image={IMAGE}&output=json", server.issuer.token(READER)
        return server.ask("POST", asked, reader, data={"params": json.dumps(params)})

    for tag in ("original", "final"):
        assert infer(save_label=True, label_tag=tag).json()["image"] == IMAGE
    assert not [one for one in labels.rglob("*") if one.is_file()], "a reader writes no label"
    assert put("original", "a.json", b'{"said": "by a person"}', by="Evil Other").status_code == 200
    assert put("final", "a.json", b'{"class": "polyps", "by": "Evil Other"}', model="any").status_code == 200
    info = f"/datastore/label/info?label={IMAGE}&tag=final"
    assert server.ask("PUT", info, annotator, data={"info": '{"by": "Evil Other"}'}).status_code == 400
    batch = {"device": "cpu", "images": [IMAGE]}
    for tag in ("original", "final"):
        done = server.ask("POST", "/batch/infer/grad_cam?run_sync=true", admin, json={**batch, "label_tag": tag})
        assert done.json()[IMAGE]["params"]["image"] == IMAGE
    kept = {
        tag: server.ask("GET", f"/datastore/label?label={IMAGE}&tag={tag}", annotator) for tag in ("original", "final")
    }
    assert kept["original"].json() == {"said": "by a person"}
    assert [(one["label"], one["by"]) for one in kept["final"].json()["corrections"]] == [("polyps", "Jane Doe")]
    for tag in kept:
        known = server.ask("GET", f"/datastore/label/info?label={IMAGE}&tag={tag}", annotator)
        assert known.json()["by"] == "Jane Doe"


def test_of_a_refused_request_to_monai_label_nothing_is_left(server: Server) -> None:
    reader, annotator = server.issuer.token(READER), server.issuer.token(ANNOTATOR)
    asked, label, before = f"/infer/classify?image={IMAGE}", f"/datastore/label?image={IMAGE}", server.temporary
    for method, path, field, name, status in (
        ("PUT", "/datastore/image?image=5", "file", "a.dcm", 404),
        ("POST", asked, "file", "b.dcm", 404),
        ("POST", asked, "label", "c.bin", 400),
        ("PUT", f"{label}&tag=final", "label", "d.json", 400),
        ("PUT", f"{label}&tag=../../x", "label", "e.json", 404),
        ("POST", f"{asked}x&output=json", "label", "f.nii.gz", 404),
    ):
        token = reader if method == "POST" else annotator
        answer = server.ask(method, path, token, files={field: (name, f"{PATIENT}".encode())})
        assert answer.status_code == status, f"{method} {path}: {answer.text}"
    replaced = server.ask(
        "POST", "/infer/classify?image=nothing", reader, data={"params": json.dumps({"image": IMAGE})}
    )
    assert replaced.status_code == 404, "the image that the audit trail names is the one that is looked at"
    server.ask("POST", f"/infer/grad_cam?image={IMAGE}&output=image", reader).raise_for_status()
    server.ask("PUT", f"{label}&tag=original", annotator, files={"label": ("a.dcm", b"any")}).raise_for_status()
    server.ask("GET", "/datastore/dataset", annotator).raise_for_status()
    deadline = time.monotonic() + 10
    while server.temporary != before and time.monotonic() < deadline:
        time.sleep(0.05)  # it goes when the answer was sent
    assert server.temporary == before


def test_a_cookie_changes_nothing_for_a_page_of_another_site(server: Server) -> None:
    (link,) = re.findall(r"^Log in: +(\S+)$", server.printed, re.MULTILINE)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        entered = client.get(link)
        kept = entered.headers["Set-Cookie"]
        assert "Secure" in kept and "HttpOnly" in kept and "SameSite=strict" in kept and server.token not in kept
        assert client.get("/endolens/api/v1/studies").status_code == 200
        upload = "/endolens/api/v1/uploads"
        own, foreign = {"Origin": server.url}, {"Origin": "http://evil.example"}
        for headers, status in (
            (own, 201),
            ({"Sec-Fetch-Site": "same-origin"}, 201),
            ({}, 403),
            (foreign, 403),
            ({"Origin": "null"}, 403),
            ({**own, "Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
        ):
            assert client.post(upload, headers=headers).status_code == status, headers
        client.post("/endolens/logout", headers=own)
        assert client.get("/endolens/api/v1/studies").status_code == 401
    assert httpx.get(link).status_code == 401, "it lets one browser in, once"
    wrong = httpx.post(f"{server.url}/endolens/login", data={"token": "wrong"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    away = httpx.post(f"{server.url}/endolens/login", data={"token": server.token, "next": "//evil.example"})
    assert "evil.example" not in away.text


def test_a_wrong_password_is_a_sentence(server: Server) -> None:
    answer = httpx.post(f"{server.url}/auth/token", data={"username": "jdoe", "password": "wrong"}, timeout=60)
    assert (answer.status_code, answer.json()) == (
        401,
        {"detail": "the issuer of log-ins refuses this name and password"},
    )


def test_a_browser_logs_in_at_the_issuer_and_out_again(server: Server, browser: Browser) -> None:
    page = browser.new_context(ignore_https_errors=True).new_page()
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text) if "Content Security Policy" in line.text else None)
    server.issuer.who = {"realm_access": {"roles": [REVIEWER]}}
    page.goto(f"{server.url}/endolens/studies/{UID}/report")
    page.get_by_role("link", name="Log in with your account").click()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "opening", timeout=60_000)
    expect(page.get_by_label("Editor")).to_have_value("Jane Doe")
    expect(page.locator(".reader")).to_contain_text("Jane Doe")
    page.goto(f"{server.url}/ohif/viewer/dicomjson?url=/endolens/dicomjson/{UID}")
    expect(page.get_by_text("Stills").first).to_be_visible(timeout=60_000)
    page.goto(f"{server.url}/endolens/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Logged out")).to_be_visible()
    page.goto(f"{server.url}/endolens/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert said == []
    page.context.close()


def test_slicer_brings_a_token_and_says_what_it_is_refused_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "monai_label_app" / "viewers" / "slicer" / "EndoLens"))
    from EndoLensLib.server import Server as Client
    from EndoLensLib.server import ServerError

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.environ["SSL_CERT_FILE"])
    with pytest.raises(ServerError, match="log in first"):
        Client(server.url).studies()
    monkeypatch.setenv("ENDOLENS_TOKEN", server.issuer.token(READER))
    assert [one.uid for one in Client(server.url).studies()] == [UID]


def test_what_watches_the_server_learns_how_it_is(server: Server) -> None:
    assert server.ask("GET", "/health/live").json() == {"status": "live"}
    ready = server.ask("GET", "/health/ready")
    assert ready.status_code == 200 and set(ready.json().values()) == {"ready", "ok"}
    numbers = server.ask("GET", "/metrics", server.issuer.token(READER)).text
    assert re.search(r'^endolens_requests_total\{method="GET",status="401"\} [0-9.]+$', numbers, re.MULTILINE)
    assert "endolens_jobs_waiting 0.0" in numbers
    assert PATIENT not in numbers and UID not in numbers


def test_every_answer_says_what_a_browser_is_to_keep_to(server: Server) -> None:
    for path in ("/endolens/", "/endolens/login", "/ohif/", "/info/", f"/endolens/instances/{IMAGE}.dcm", "/nothing"):
        headers = server.ask("GET", path, server.token).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin"
        if headers["Content-Type"].startswith("text/html"):
            policy = headers["Content-Security-Policy"]
            assert "frame-ancestors 'self'" in policy
            assert "'unsafe-inline'" not in policy.split("style-src")[0]
            assert "'unsafe-eval'" not in policy or path == "/ohif/"
            assert "http:" not in policy and "https:" not in policy and "*" not in policy


def test_no_secret_is_in_the_log(server: Server) -> None:
    printed = server.printed
    assert "EndoLens:" in printed
    assert PASSWORD not in printed and server.token not in printed
    assert "eyJ" not in printed, "the beginning of any JSON Web Token"
