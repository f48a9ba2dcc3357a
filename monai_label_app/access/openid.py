"""Tokens of an OpenID Connect issuer, by MONAI Label's own settings (``MONAI_LABEL_AUTH_…``)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import httpx
import jwt

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
from monailabel.config import settings

from monai_label_app.access.identity import HERE, SHARED, Identity, RefusedError, UnreachableError
from monai_label_app.access.roles import Role

# Signed by a key that only the issuer has: never "none", and never by a secret that both sides share.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_CLOCKS_DIFFER = 30
"""Seconds, at most."""

ROLES = {
    settings.MONAI_LABEL_AUTH_ROLE_USER: Role.READING,
    settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR: Role.ANALYSING,
    settings.MONAI_LABEL_AUTH_ROLE_REVIEWER: Role.SIGNING,
    settings.MONAI_LABEL_AUTH_ROLE_ADMIN: Role.ADMINISTERING,
}
"""MONAI Label's roles, by the names that its settings give them."""


class Issuer:
    """The issuer of a realm. Its keys are fetched when they are first needed, and anew when it changes them.

    MONAI Label asks Keycloak alone for one key, and does not look for whom a token was made; this asks any issuer.
    """

    def __init__(self) -> None:
        self._realm = settings.MONAI_LABEL_AUTH_REALM_URI.rstrip("/")
        self._seconds = settings.MONAI_LABEL_AUTH_TIMEOUT
        self.client = settings.MONAI_LABEL_AUTH_CLIENT_ID

    @property
    def discovery(self) -> str:
        """Address of its description."""
        return f"{self._realm}/.well-known/openid-configuration"

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """Its addresses and its name; UnreachableError if it does not answer."""
        try:
            found: dict[str, Any] = httpx.get(self.discovery, timeout=self._seconds).raise_for_status().json()
            return {"issuer": found["issuer"], "jwks_uri": found["jwks_uri"], **found}
        except (httpx.HTTPError, ValueError, KeyError):
            raise UnreachableError("who comes cannot be asked: the issuer of log-ins does not answer") from None

    @cached_property
    def _keys(self) -> jwt.PyJWKClient:
        return jwt.PyJWKClient(self.description["jwks_uri"], timeout=self._seconds)

    def verify(self, token: str) -> Identity:
        """Who a token is of.

        Raises:
            RefusedError: it is expired, of another issuer, for another program, or no token.
            UnreachableError: the issuer does not answer.
        """
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token, key, _ALGORITHMS, issuer=self.description["issuer"],
                leeway=_CLOCKS_DIFFER,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )  # fmt: skip
        except jwt.PyJWKClientConnectionError:
            raise UnreachableError("who comes cannot be asked: the issuer of log-ins does not answer") from None
        except (jwt.PyJWTError, ValueError):
            raise RefusedError("the token is expired, or none of this issuer's") from None
        audience = claims.get("aud") or []
        if self.client not in ([audience] if isinstance(audience, str) else audience) + [claims.get("azp")]:
            raise RefusedError("the token was made for another program")
        return Identity(_user(claims), _person_name(claims), _role(claims))


def _user(claims: Mapping[str, Any]) -> str:
    """Who the issuer says it is, which is none of those that this server itself names."""
    name = str(claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME) or claims.get("sub") or "unnamed")
    return f"{name}@issuer" if name.strip() in ("", HERE.user, SHARED.user) else name


def _role(claims: Mapping[str, Any]) -> Role:
    """The highest of the roles that MONAI Label knows."""
    found: Any = claims
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        found = found.get(part) if isinstance(found, Mapping) else None
    named = found if isinstance(found, list) else []
    return max((ROLES[one] for one in named if isinstance(one, str) and one in ROLES), default=Role.NOBODY)


def _person_name(claims: Mapping[str, Any]) -> str:
    """As DICOM writes it: Family^Given."""
    parts = [claims.get("family_name"), claims.get("given_name")]
    if not parts[0]:
        parts = [claims.get(settings.MONAI_LABEL_AUTH_TOKEN_NAME) or ""]
    kept = ["".join(" " if one in "\\^=" or ord(one) < 32 else one for one in str(part or "")) for part in parts]
    return "^".join(one.strip() for one in kept).rstrip("^")[:64]
