"""Tokens of an OpenID Connect issuer, by MONAI Label's own settings (``MONAI_LABEL_AUTH_…``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import jwt

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
from monailabel.config import settings

from monai_label_app.access.answers import Kept
from monai_label_app.access.identity import HERE, SHARED, Identity, RefusedError
from monai_label_app.access.roles import Role

# Signed by a key that only the issuer has: never "none", and never by a secret that both sides share.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_CLOCKS_DIFFER = 30
"""Seconds, at most."""

_KEYS_SECONDS, _NEW_KEY_SECONDS = 300, 30
"""How old the keys may be, and how old where one is asked for that is not among them."""

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

    Raises:
        ValueError: the realm is no address.
    """

    def __init__(self) -> None:
        self._realm = settings.MONAI_LABEL_AUTH_REALM_URI.rstrip("/")
        if not _is_address(self._realm):
            raise ValueError(
                f"MONAI_LABEL_AUTH_REALM_URI is {self._realm!r}, no address of an issuer; it begins with https://"
            )
        self.algorithms = _ALGORITHMS
        self.client, self.seconds = settings.MONAI_LABEL_AUTH_CLIENT_ID, float(settings.MONAI_LABEL_AUTH_TIMEOUT)
        self._description, self._keys = Kept(self.seconds, _description), Kept(self.seconds, _keys)

    async def description(self) -> Mapping[str, str]:
        """Its name and its addresses; UnreachableError if it does not answer."""
        return await self._description.at(f"{self._realm}/.well-known/openid-configuration")

    async def verify(self, token: str) -> Identity:
        """Who a token is of.

        Raises:
            RefusedError: it is expired, of another issuer, for another program, or no token.
            UnreachableError: the issuer does not answer.
        """
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token, key, _ALGORITHMS, issuer=(await self.description())["issuer"],
                leeway=_CLOCKS_DIFFER,
                options={"require": ["exp", "iss"], "verify_aud": False},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise RefusedError("the token is expired, or none of this issuer's") from None
        audience = claims.get("aud")
        if self.client not in [*(audience if isinstance(audience, list) else [audience]), claims.get("azp")]:
            raise RefusedError("the token was made for another program")
        return Identity(_user(claims), _person_name(claims), _role(claims))

    async def _key(self, name: Any) -> jwt.PyJWK:
        address = (await self.description())["jwks_uri"]
        keys = await self._keys.at(address, _KEYS_SECONDS)
        if name not in keys:
            keys = await self._keys.at(address, _NEW_KEY_SECONDS)
        if name not in keys:
            raise jwt.InvalidTokenError
        return keys[name]


def _user(claims: Mapping[str, Any]) -> str:
    """Who the issuer says it is, which is none of those that this server itself names."""
    name = str(claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME) or claims.get("sub") or "unnamed")
    return f"{name}@issuer" if name.strip() in ("", HERE.user, SHARED.user) else name


def _description(said: Any) -> Mapping[str, str]:
    """What OpenID Connect Discovery asks for, and where to log out if it says so."""
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    found: dict[str, Any] = {
        name: said.get(name) for name in ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
    }
    if _is_address(leaving := said.get("end_session_endpoint")):
        found["end_session_endpoint"] = leaving
    for name, value in found.items():
        if not _is_address(value):
            raise ValueError(f"its {name} is no address")
    return found


def _keys(said: Any) -> Mapping[str, jwt.PyJWK]:
    """Those that sign, by their names."""
    try:
        found = jwt.PyJWKSet.from_dict(said).keys
    except jwt.PyJWTError as error:
        raise ValueError(f"{error}") from None
    return {one.key_id: one for one in found if one.key_id and one.public_key_use in ("sig", None)}


def _is_address(text: Any) -> bool:
    try:
        found = httpx.URL(text)
        return found.scheme in ("http", "https") and bool(found.host) and (found.port or 0) < 1 << 16
    except (httpx.InvalidURL, TypeError):
        return False


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
