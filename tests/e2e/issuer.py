"""A small OpenID Connect issuer: discovery, keys, and the authorisation code flow with PKCE, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

CLIENT = "monailabel-app"
KID = "key-1"
DISCOVERY = "/.well-known/openid-configuration"


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Issuer:
    """Issues tokens for whoever it is told: every log-in in a browser is that of ``who``.

    ``instead`` has what it says at a path in place of what is right; ``asked`` all paths, in their order. While it is
    not ``speaking``, it takes requests and answers none.
    """

    def __init__(self) -> None:
        self.key = new_key()
        self.url = ""
        self.who: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.instead: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.speaking = threading.Event()
        self.speaking.set()

    def claims(self, *roles: str, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        about = {"sub": "1", "preferred_username": "jdoe", "family_name": "Doe", "given_name": "Jane"}
        times = {"iat": now, "exp": now + 600}
        roles_ = {"realm_access": {"roles": list(roles)}}
        return {**about, **times, **roles_, "iss": self.url, "aud": "account", "azp": CLIENT, **more}

    def token(self, *roles: str, **more: Any) -> str:
        return jwt.encode(self.claims(*roles, **more), pem(self.key), "RS256", {"kid": KID})

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        self.speaking.wait()
        if path in self.instead:
            return 200, {}, self.instead[path]
        if path == DISCOVERY:
            places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            found = {name: f"{self.url}/{place}" for name, place in places.items()}
            kinds = {"response_types_supported": ["code"], "id_token_signing_alg_values_supported": ["RS256"]}
            return _json({"issuer": self.url, **found, **kinds})
        if path == "/keys":
            key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            return _json({"keys": [{**key, "kid": KID, "alg": "RS256", "use": "sig"}]})
        if path == "/authorize":
            assert query["code_challenge_method"] == "S256" and query["client_id"] == CLIENT
            code = secrets.token_hex()
            self.codes[code] = query
            back = urlencode({"code": code, "state": query["state"]})
            return 302, {"Location": f"{query['redirect_uri']}?{back}"}, b""
        if path == "/token" and query.get("code") in self.codes:
            asked = self.codes.pop(query["code"])
            challenge = base64.urlsafe_b64encode(hashlib.sha256(query["code_verifier"].encode()).digest()).rstrip(b"=")
            assert challenge.decode() == asked["code_challenge"] and query["redirect_uri"] == asked["redirect_uri"]
            identity = self.token(nonce=asked["nonce"], aud=CLIENT)
            granted = {"access_token": self.token(**self.who), "id_token": identity, "token_type": "Bearer"}
            return _json({**granted, "expires_in": 600})
        return 400, {}, b"{}"


def _json(content: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, query: str) -> None:
            sent = {name: values[0] for name, values in parse_qs(query).items()}
            status, headers, content = issuer.answer(urlsplit(self.path).path, sent)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who asked has had enough
                self.wfile.write(content)

        def do_GET(self) -> None:
            self._answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield issuer
    finally:
        issuer.speaking.set()
        server.shutdown()
        server.server_close()
