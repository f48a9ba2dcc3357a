"""What a role may do: one table of all routes. What is not in it is for administrators."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    NOBODY = 0
    READING = 1
    ANALYSING = 2
    SIGNING = 3
    ADMINISTERING = 4


class _Rule(NamedTuple):
    methods: str
    path: str
    role: Role


_UID = "[^/]+"
_API = "/endolens/api/v1"
_FRAME = f"{_API}/images/{_UID}/frames/[^/]+"
_REPORT = f"{_API}/studies/{_UID}/report"

_TABLE = (
    # Of no patient: what is needed to log in, and what another server's OHIF loads before it asks for anything.
    _Rule("GET POST", "/endolens/(login|login/callback|logout)", Role.NOBODY),
    _Rule("GET", "/endolens/(static|ohif)/.+", Role.NOBODY),
    _Rule("GET", "/auth/?", Role.NOBODY),
    _Rule("POST", "/auth/token", Role.NOBODY),
    # Pages, and what viewers ask for.
    _Rule("GET", "/(favicon.ico|openapi.json)?", Role.READING),
    _Rule("GET", "/static/.*", Role.READING),
    _Rule("GET", f"/endolens(/|/studies/{_UID}|/studies/{_UID}/(report|video)|/slicer.zip)?", Role.READING),
    _Rule("GET", "/endolens/(dicomweb|dicomjson|instances)/.+", Role.READING),
    # Our REST interface.
    _Rule("GET", f"{_API}/(openapi.json|models|studies|studies/{_UID}|jobs/{_UID}|jobs/{_UID}/events)", Role.READING),
    _Rule("GET", rf"{_API}/(studies/{_UID}/videos|images/{_UID}/(frames|video|video\.mp4))", Role.READING),
    _Rule("GET", f"{_FRAME}(/(picture.jpg|prediction|evidence|labels|explanation.(png|npy|dcm)))?", Role.READING),
    _Rule("POST", f"{_FRAME}/(labels|captures|still)", Role.ANALYSING),
    _Rule("POST DELETE", f"{_API}/uploads(/.+)?", Role.ANALYSING),
    _Rule("POST", f"{_API}/studies/{_UID}/analysis", Role.ANALYSING),
    _Rule("DELETE", f"{_API}/jobs/{_UID}", Role.ANALYSING),
    _Rule("GET", rf"{_REPORT}(/versions|\.html|\.pdf|\.dcm|/pictures/.+)?", Role.READING),
    _Rule("POST PUT", f"{_REPORT}(/evidence|/addendum)?", Role.ANALYSING),
    _Rule("POST", f"{_REPORT}/signature", Role.SIGNING),
    # MONAI Label's routes, by the roles that it gives them itself.
    _Rule("GET", "/(info|batch/infer|train|scoring)/?", Role.READING),
    _Rule("GET", "/auth/token/valid", Role.READING),
    _Rule("POST", "/(infer|activelearning)/[^/]+", Role.READING),
    _Rule("GET", "/datastore/.*", Role.READING),
    _Rule("PUT POST", "/datastore/.*", Role.ANALYSING),
    _Rule("GET", "/model/.+", Role.ANALYSING),
    _Rule("POST", "/scoring/.*", Role.ANALYSING),
)

_READING_METHODS = {"HEAD": "GET", "OPTIONS": "GET"}


class Roles:
    """The table, with the paths of a viewer or of a page beside it.

    Args:
        reading: route patterns as Starlette's, ``/viewer/{path:path}``, of what is only read.
    """

    def __init__(self, reading: Iterable[str] = ()) -> None:
        more = [_Rule("GET", re.escape(path).replace(r"\{path:path\}", ".*"), Role.READING) for path in reading]
        self._rules = [(set(one.methods.split()), re.compile(one.path), one.role) for one in (*_TABLE, *more)]

    def of(self, method: str, path: str) -> Role:
        """The role that a request needs."""
        # A path that leads elsewhere than it seems to is on no table.
        if "//" not in path and not {"..", "."} & set(path.split("/")):
            for methods, pattern, role in self._rules:
                if _READING_METHODS.get(method, method) in methods and pattern.fullmatch(path):
                    return role
        return Role.ADMINISTERING
