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


SAW, EXPORTED, ANALYSED, CHANGED, SIGNED = "saw", "exported", "analysed", "changed", "signed"
ADMINISTERED, LOGGED_IN, REFUSED, ERASED = "administered", "logged in", "was refused", "erased"


class Need(NamedTuple):
    """What a request needs, and what is told of it.

    Attributes:
        role: that it needs.
        action: what is done by it; empty where nothing of a patient is.
    """

    role: Role
    action: str = ""


class _Rule(NamedTuple):
    methods: str
    path: str
    role: Role
    action: str = ""


_UID = "[^/]+"
_API = "/endolens/api/v1"
_FRAME = f"{_API}/images/{_UID}/frames/[^/]+"
_REPORT = f"{_API}/studies/{_UID}/report"

_TABLE = (
    # Of no patient: what is needed to log in, and what another server's OHIF loads before it asks for anything.
    _Rule("GET POST", "/endolens/(login|login/callback)", Role.NOBODY, LOGGED_IN),
    _Rule("POST", "/endolens/logout", Role.NOBODY),
    _Rule("GET", "/endolens/(static|ohif)/.+", Role.NOBODY),
    _Rule("GET", "/health/(live|ready)", Role.NOBODY),
    _Rule("GET", "/auth/?", Role.NOBODY),
    _Rule("POST", "/auth/token", Role.NOBODY),
    # Pages, and what viewers ask for.
    _Rule("GET", "/(favicon.ico|openapi.json)?", Role.READING),
    _Rule("GET", "/(static/.*|metrics)", Role.READING),
    _Rule("GET", "/endolens(/slicer.zip)?", Role.READING),
    _Rule("GET", f"/endolens(/|/studies/{_UID}(/report|/video)?)", Role.READING, SAW),
    # WADO-RS of whole objects, which no viewer needs of images: it asks for their metadata and frames.
    _Rule("GET", f"/endolens/dicomweb/studies/{_UID}(/series/{_UID})?(/instances/{_UID})?", Role.READING, EXPORTED),
    _Rule("GET", "/endolens/(dicomweb|dicomjson|instances)/.+", Role.READING, SAW),
    # Our REST interface.
    _Rule("GET", f"{_API}/(openapi.json|models|jobs/{_UID}|jobs/{_UID}/events)", Role.READING),
    _Rule("GET", f"{_API}/studies(/{_UID}(/videos)?)?", Role.READING, SAW),
    _Rule("GET", rf"{_API}/images/{_UID}/(frames|video|video\.mp4)", Role.READING, SAW),
    _Rule("GET", rf"{_FRAME}/explanation\.(npy|dcm)", Role.READING, EXPORTED),
    _Rule("GET", f"{_FRAME}(/(picture.jpg|prediction|evidence|labels|explanation.png))?", Role.READING, SAW),
    _Rule("POST", f"{_FRAME}/(labels|captures|still)", Role.ANALYSING, CHANGED),
    _Rule("POST DELETE", f"{_API}/uploads(/{_UID}|/{_UID}/files)?", Role.ANALYSING),
    _Rule("POST", f"{_API}/uploads/{_UID}/store", Role.ANALYSING, CHANGED),
    _Rule("POST", f"{_API}/studies/{_UID}/analysis", Role.ANALYSING, ANALYSED),
    _Rule("DELETE", f"{_API}/jobs/{_UID}", Role.ANALYSING, CHANGED),
    _Rule("GET", rf"{_REPORT}\.(pdf|dcm)", Role.READING, EXPORTED),
    _Rule("GET", rf"{_REPORT}(/versions|/proposals|\.html|/pictures/.+)?", Role.READING, SAW),
    _Rule("POST PUT", f"{_REPORT}(/evidence|/addendum)?", Role.ANALYSING, CHANGED),
    _Rule("POST", f"{_REPORT}/signature", Role.SIGNING, SIGNED),
    # MONAI Label's routes, by the roles that it gives them itself.
    _Rule("GET", "/(info|batch/infer|train|scoring)/?", Role.READING),
    _Rule("GET", "/auth/token/valid", Role.READING),
    _Rule("POST", "/infer/[^/]+", Role.READING, ANALYSED),
    _Rule("POST", "/activelearning/[^/]+", Role.READING, SAW),
    _Rule("GET", "/datastore/(image|label|dataset)", Role.READING, EXPORTED),
    _Rule("GET", "/datastore/.*", Role.READING, SAW),
    _Rule("PUT POST", "/datastore/.*", Role.ANALYSING, CHANGED),
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
        self._rules = [
            (set(one.methods.split()), re.compile(one.path), Need(one.role, one.action)) for one in (*_TABLE, *more)
        ]

    def of(self, method: str, path: str) -> Need:
        """What a request needs."""
        # A path that leads elsewhere than it seems to is on no table.
        if "//" not in path and not {"..", "."} & set(path.split("/")):
            for methods, pattern, need in self._rules:
                if _READING_METHODS.get(method, method) in methods and pattern.fullmatch(path):
                    return need
        return Need(Role.ADMINISTERING, "" if method in ("GET", *_READING_METHODS) else ADMINISTERED)
