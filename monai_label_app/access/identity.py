"""Who asks: by a token that this server was given, by one of an OpenID Connect issuer, or by a browser's session."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt

from monai_label_app.access.roles import Role

TOKEN_VARIABLE = "ENDOLENS_TOKEN_FILE"
"""Environment variable: file that holds the token."""

SESSION_KEY_VARIABLE = "ENDOLENS_SESSION_KEY_FILE"
"""Environment variable: file that holds what sessions are signed by."""

SESSION_SECONDS = 8 * 3600
"""How long a browser stays logged in: a shift."""

RETRY_SECONDS = 5
"""How long an issuer that did not answer is not asked again."""

FEWEST_LETTERS = 16
"""Of a token."""

_KEY = "endolens.identity"


class RefusedError(Exception):
    """It is not known who asks; the message is one sentence."""


class UnreachableError(Exception):
    """Whoever knows does not answer; the message is one sentence."""

    def __init__(self) -> None:
        super().__init__("who comes cannot be asked: the issuer of log-ins does not answer")


@dataclass(frozen=True)
class Identity:
    """Somebody.

    Attributes:
        user: names them here.
        name: of the person, as DICOM writes it (Family^Given); empty where it is not known.
        role: what they may do.
    """

    user: str
    name: str
    role: Role

    def author(self, said: str) -> str:
        """The name that a text or a label of theirs is kept under.

        Args:
            said: what they call themselves, which counts where nobody knows better.
        """
        if self == HERE:
            return said
        if self == SHARED:
            return said or self.user
        return " ".join(filter(None, reversed(self.name.split("^")))) or self.user


HERE = Identity("local", "", Role.ADMINISTERING)
"""Whoever sits at this machine, where nothing asks."""

SHARED = Identity("token", "", Role.ADMINISTERING)
"""Whoever has the token of this server, which tells no persons apart."""

NOBODY = Identity("", "", Role.NOBODY)
"""Whoever did not say."""


class Verifier(Protocol):
    """Whoever knows whose a token is: an issuer of OpenID Connect."""

    @property
    def client(self) -> str:
        """By what name it knows this program."""

    @property
    def algorithms(self) -> list[str]:
        """By which it signs."""

    @property
    def seconds(self) -> float:
        """How long its answers are waited for."""

    async def description(self) -> Mapping[str, str]:
        """What OpenID Connect Discovery says of it; UnreachableError if it does not answer."""

    async def verify(self, token: str) -> Identity:
        """Whose a token is; RefusedError or UnreachableError otherwise."""


class Authentication:
    """Tells who asks.

    Args:
        token: that may do everything; None for none.
        issuer: of other tokens; None for none.
        key: signs what browsers keep. If there is none the token does, where nobody but who has it is let in.

    Attributes:
        secret: made of the key.
    """

    def __init__(self, token: str | None = None, issuer: Verifier | None = None, key: str | None = None) -> None:
        self._token, self.issuer = token, issuer
        # Of a token, so that who is logged in stays so when the server starts again, or another one answers. Not where
        # others log in too: by what their browsers keep, they could try out what the token is.
        kept = key or (token if issuer is None else None) or secrets.token_hex()
        self.secret = hashlib.scrypt(kept.encode(), salt=b"endolens session", n=1 << 14, r=8, p=1).hex()
        self._once: set[str] = set()

    @property
    def required(self) -> bool:
        """Whether anybody is asked."""
        return self._token is not None or self.issuer is not None

    @property
    def by_token(self) -> bool:
        """Whether there is a token of this server's own."""
        return self._token is not None

    async def bearer(self, token: str) -> Identity:
        """Who a token is of.

        Raises:
            RefusedError: nobody's.
            UnreachableError: the issuer does not answer.
        """
        if self._token is not None and hmac.compare_digest(token.encode(), self._token.encode()):
            return SHARED
        if self.issuer is None:
            raise RefusedError("this is not the token of this server")
        return await self.issuer.verify(token)

    def begin(self, identity: Identity) -> str:
        """A session, for a browser to keep."""
        claims = {"sub": identity.user, "name": identity.name, "role": int(identity.role)}
        return jwt.encode({**claims, "exp": int(time.time()) + SESSION_SECONDS}, self.secret, "HS256")

    def session(self, kept: str) -> Identity:
        """Whose session it is; RefusedError if it has ended or is none."""
        try:
            claims = jwt.decode(kept, self.secret, ["HS256"], options={"require": ["exp", "sub"]})
        except jwt.PyJWTError:
            raise RefusedError("the session has ended; log in again") from None
        return Identity(claims["sub"], claims["name"], Role(claims["role"]))

    def once(self) -> str:
        """What lets one browser in, one time, as the token does."""
        code = secrets.token_urlsafe(24)
        self._once.add(code)
        return code

    async def redeem(self, code: str) -> Identity:
        """Use up what :meth:`once` gave; RefusedError if it was used, or never given."""
        try:
            self._once.remove(code)
        except KeyError:
            raise RefusedError("this link was used already, or is none; log in by the token") from None
        return SHARED


def read_token(file: Path) -> str:
    """The token in a file; a file that is not there is made, with a new token, for its owner alone.

    Raises:
        ValueError: others may read it, or it holds none.
        OSError: it cannot be read or made.
    """
    if not file.exists():
        _make(file)
    require_private(file)
    token = file.read_bytes().decode("ascii", errors="replace").strip()
    if len(token) < FEWEST_LETTERS or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"{file} holds no token: {FEWEST_LETTERS} letters of ASCII or more, in one line")
    return token


def require_private(file: Path) -> None:
    """Refuse, by ValueError, a file that holds a secret and can be read by others; OSError if it is not there."""
    status = file.stat()
    # A secret that is given to a container belongs to root, and to the container's group.
    allowed = 0o740 if status.st_uid == 0 and os.geteuid() != 0 else 0o700
    if status.st_mode & 0o777 & ~allowed:
        raise ValueError(f"{file} can be read by others; chmod 600 {file}")


def _make(file: Path) -> None:
    """Make a token, whole or not at all: several servers may want it at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_urlsafe(32) + "\n")
    with suppress(FileExistsError):
        os.link(made, file)
    made.unlink()


def open_authentication() -> Authentication:
    """As the environment says: ``ENDOLENS_TOKEN_FILE``, ``ENDOLENS_SESSION_KEY_FILE``, and ``MONAI_LABEL_AUTH_…``."""
    from monai_label_app import compatibility  # noqa: F401  (before monailabel)

    # isort: split
    from monailabel.config import settings

    from monai_label_app.access.openid import Issuer

    token, key = (
        read_token(Path(file)) if (file := os.environ.get(variable)) else None
        for variable in (TOKEN_VARIABLE, SESSION_KEY_VARIABLE)
    )
    return Authentication(token, Issuer() if settings.MONAI_LABEL_AUTH_ENABLE else None, key)


def put(scope: MutableMapping[str, Any], identity: Identity) -> None:
    """Say who asks, to those who answer."""
    scope[_KEY] = identity


def of(scope: Mapping[str, Any]) -> Identity:
    """Who asks; KeyError where nobody found out."""
    found: Identity = scope[_KEY]
    return found


def known(scope: Mapping[str, Any]) -> str:
    """The user who asks; empty where nobody found out."""
    found: Identity | None = scope.get(_KEY)
    return found.user if found else ""
