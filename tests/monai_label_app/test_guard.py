"""Who is let in: this machine alone, until something asks who comes; then who has the token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from monai_label_app.access.endpoint import Endpoint
from monai_label_app.access.guard import Guard
from monai_label_app.access.identity import HERE, SHARED, Authentication, Identity, RefusedError, of, read_token
from monai_label_app.access.login import Login
from monai_label_app.access.openid import _user
from monai_label_app.access.roles import Role, Roles
from monai_label_app.cli import main
from monai_label_app.listening.security import Security
from monai_label_app.listening.service import Settings, running
from monai_label_app.listening.work import Patience
from monai_label_app.observed.logs import NODE_LOG
from monai_label_app.sample import STUDY
from monai_label_app.server import _warn


@pytest.mark.parametrize("command", [["serve", "--studies", str(STUDY)], ["watch", str(min(STUDY.iterdir()))]])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_that_others_reach_is_refused_in_a_sentence(command: list[str], host: str) -> None:
    result = CliRunner().invoke(main, [*command, "--host", host, "--port", "1"])
    assert result.exit_code == 1
    assert "nothing would ask them who they are" in result.output
    assert "--insecure" in result.output


def test_a_node_is_not_told_to_ask_an_issuer(tmp_path: Path) -> None:
    command = ["listen", "--send", "http://127.0.0.1:1/dicom-web", "--metrics", "0.0.0.0:1", "--state", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "give --token-file FILE or say --insecure" in result.output


def test_a_setting_of_monai_label_that_is_none_is_a_sentence() -> None:
    command = [sys.executable, "-c", "import monai_label_app.compatibility"]
    environment = {**os.environ, "MONAI_LABEL_AUTH_ENABLE": "maybe"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr
    assert said.splitlines()[-1].startswith("ValueError: MONAI_LABEL_AUTH_ENABLE is 'maybe': ")


TOKEN = "a-token-of-many-letters"


def client(address: str, authentication: Authentication, insecure: bool = False) -> TestClient:
    """Of a guarded page that says who it takes its reader for; the server listens on the address that is asked."""

    def page(request: Request) -> Response:
        return PlainTextResponse(of(request.scope).user)

    app = Starlette(routes=[Route("/", page), *Login(authentication, "/").routes()])
    return TestClient(Guard(app, authentication, Roles(["/"]), insecure), base_url=address)


def test_where_nobody_is_asked_only_this_machine_is_answered_under_its_own_names() -> None:
    for address in ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000"):
        assert client(address, Authentication()).get("/").text == "local", address
    assert client("http://192.0.2.1", Authentication()).get("/").status_code == 403
    here = client("http://127.0.0.1", Authentication())
    for name in ("evil.example", "127.0.0.1.evil.example", "[", "", "127.0.0.1@evil.example"):
        assert here.get("/", headers={"Host": name}).status_code == 403, name
    assert client("http://192.0.2.1", Authentication(), insecure=True).get("/").text == "local"


def test_a_token_lets_in_from_everywhere_and_nothing_else_does() -> None:
    asked = client("http://endolens.example.org", Authentication(TOKEN))
    assert asked.get("/").status_code == 401
    assert asked.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).text == "token"
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer ü"):
        assert asked.get("/", headers={"Authorization": wrong.encode()}).status_code == 401, wrong
    shown = asked.get("/?a=b", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (shown.status_code, shown.headers["Location"]) == (303, "/endolens/login?next=%2F%3Fa%3Db")
    entered = asked.post("/endolens/login", data={"token": TOKEN, "next": "/?a=b"})
    assert 'content="0;url=/?a=b"' in entered.text
    assert asked.get("/").text == "token"
    other = client("http://endolens.example.org", Authentication("another-token-of-many"))
    other.cookies.update(asked.cookies)
    assert other.get("/").status_code == 401, "a session of another server's token"
    assert asked.post("/endolens/login", data={"token": "x" * 10_000}).status_code in (403, 413)


def test_who_logged_in_is_the_author_and_nobody_else() -> None:
    for who, author in (
        (Identity("jdoe", "Doe^Jane", Role.ANALYSING), "Jane Doe"),
        (Identity("jdoe", "", Role.ANALYSING), "jdoe"),
        (SHARED, "Evil Other"),
        (HERE, "Evil Other"),
    ):
        assert who.author("Evil Other") == author


def test_a_token_file_is_made_for_its_owner_alone_and_refused_where_others_read_it(tmp_path: Path) -> None:
    token = read_token(tmp_path / "new" / "token")
    assert len(token) >= 40 and read_token(tmp_path / "new" / "token") == token
    assert (tmp_path / "new" / "token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "new" / "token").chmod(0o640)
    with pytest.raises(ValueError, match="can be read by others"):
        read_token(tmp_path / "new" / "token")
    for wrong in (b"short", b"\xff\xfe-a-token-of-letters"):
        (tmp_path / "wrong").write_bytes(wrong)
        (tmp_path / "wrong").chmod(0o600)
        with pytest.raises(ValueError, match="wrong holds no token"):
            read_token(tmp_path / "wrong")


def certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """A certificate that ends in some days from now, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    end = datetime.now(timezone.utc) + timedelta(days)
    signed = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(10), end).sign(key, SHA256())
    (folder / "certificate.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "key.pem").chmod(0o600)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize(("days", "said"), [(-1, "expired on"), (5, ""), (15, "not valid before")])
def test_a_certificate_whose_days_are_not_now_is_told_when_a_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, said: str
) -> None:
    endpoint = Endpoint("127.0.0.1", 0, tls_certificate=(files := certificate(tmp_path, days))[0], tls_key=files[1])
    endpoint.open(guarded=True).close()
    _warn(endpoint, Authentication(TOKEN))
    told = capsys.readouterr().err
    assert said in told and ("certificate.pem" in told) is bool(said)


def test_a_node_tells_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", NODE_LOG.name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    given: dict[str, Any] = {"poll": None, "since": "", "every": 30.0, "quiet": 30.0, "reserve": 0, "days": 7.0}
    settings = Settings(
        tmp_path / "state", None, "HERE", "127.0.0.1", port, (), Security(*certificate(tmp_path, -1)),
        destinations=(), patience=Patience(1, 1.0), **given,
    )  # fmt: skip
    with running(settings, lambda: None):
        pass
    assert "expired on" in caplog.text


def test_a_key_that_others_may_read_is_refused_as_a_token_is(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, 5)
    key.chmod(0o644)
    options = ["--tls-certificate", str(cert), "--tls-key", str(key)]
    for command in (["serve", "--studies", str(STUDY)], ["listen", "--send", "http://127.0.0.1:1", "--state",
                                                         str(tmp_path / "state"), "--port", "1"]):  # fmt: skip
        result = CliRunner().invoke(main, [*command, *options])
        assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
        assert f"{key} can be read by others; chmod 600 {key}" in result.output


def test_who_an_issuer_calls_as_the_server_calls_itself_is_told_apart() -> None:
    assert _user({"preferred_username": "jdoe"}) == "jdoe"
    assert [_user({"preferred_username": name}) for name in ("local", "token")] == ["local@issuer", "token@issuer"]
    assert _user({"sub": "local"}) == "local@issuer" and _user({}) == "unnamed"


def test_servers_with_the_same_key_believe_each_other_s_sessions() -> None:
    here, there = (Authentication(issuer=None, token=TOKEN, key="a-key-of-all-replicas") for _ in range(2))
    assert there.session(here.begin(Identity("jdoe", "Doe^Jane", Role.SIGNING))).user == "jdoe"
    with pytest.raises(RefusedError):
        Authentication(TOKEN).session(here.begin(Identity("jdoe", "", Role.SIGNING)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root")
def test_a_secret_of_root_may_be_read_by_the_group_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    monkeypatch.setattr("os.geteuid", lambda: 10001)
    file.chmod(0o440)
    assert read_token(file) == TOKEN
    file.chmod(0o444)
    with pytest.raises(ValueError, match="can be read by others"):
        read_token(file)


def test_a_token_that_many_make_at_once_is_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        assert len(set(pool.map(lambda _: read_token(tmp_path / "token"), range(16)))) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["token"]
