"""Errors: which status each has, and how it is said and described (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from apiflask import HTTPError
from flask import Response
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, InternalServerError

from monai_label_app.pacs import PacsError
from monai_label_app.video.player import PreparingError

PROBLEM = "application/problem+json"

_LONGEST = 1000
"""Characters of a sentence."""

_NOWHERE = "There is no such study, image or frame here."


_SCHEMA = {
    "description": "What was wrong, in a sentence (RFC 9457).",
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}},
}
_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}


@dataclass(frozen=True)
class Refusal:
    """An error for whoever asked: its HTTP status, one sentence, headers that belong to it, and what helps to go on."""

    status: int
    detail: str
    headers: tuple[tuple[str, str], ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_problem(self) -> Response:
        """As problem details; what was sent is not repeated at any length."""
        title, detail = HTTPStatus(self.status).phrase, self.detail
        if len(detail) > _LONGEST:
            detail = f"{detail[:_LONGEST]}…"
        content = json.dumps({"title": title, "status": self.status, "detail": detail, **self.more})
        return Response(content, self.status, self.headers, mimetype=PROBLEM)


def refusal(error: Exception) -> Refusal:
    """What an error means to a client: a LookupError 404, a ValueError 422, a PACS without answer 502, not ready 503.

    Raises:
        InternalServerError: a KeyError or IndexError, which is a mistake of ours and no want of a study.
    """
    if isinstance(error, KeyError | IndexError):
        raise InternalServerError(original_exception=error) from error
    if isinstance(error, HTTPError):  # a request that does not fit its schema
        return Refusal(error.status_code, _said(error))
    if isinstance(error, HTTPException):
        known = ("Allow", "Retry-After", "Content-Range")
        kept = [(name, value) for name, value in error.get_headers() if name in known]
        return Refusal(error.code or 500, error.description or error.name, tuple(kept))
    if isinstance(error, PacsError):
        return Refusal(404 if isinstance(error, LookupError) else 502, str(error))
    if isinstance(error, PreparingError):
        return Refusal(503, str(error), (("Retry-After", "2"),))
    if isinstance(error, SQLAlchemyError):
        return Refusal(503, "The database does not answer.", (("Retry-After", "5"),))
    if isinstance(error, LookupError):
        return Refusal(404, _NOWHERE)
    if isinstance(error, RecursionError):
        return Refusal(422, "It is nested too deeply.")
    return Refusal(422, str(error))


def _said(error: HTTPError) -> str:
    fields = {name: texts for location in (error.detail or {}).values() for name, texts in _named(location)}
    return " ".join(f"{name}: {texts}" for name, texts in fields.items()) or error.message or "It cannot be used."


def _named(found: Any, name: str = "") -> list[tuple[str, str]]:
    """The sentences of nested validation errors, each with the path of its field."""
    if not isinstance(found, dict):
        return [(name, " ".join(map(str, found)) if isinstance(found, list) else str(found))]
    return [one for key, value in found.items() for one in _named(value, f"{name}.{key}" if name else str(key))]


def described(text: str) -> dict[str, Any]:
    """A refusal in the OpenAPI description of a route: ``@api.doc(responses={409: described("…")})``."""
    return {"description": text, "content": _CONTENT}


UNSTORED: dict[Any, Any] = {503: described("It cannot be stored now.")}


def not_stored(error: OSError) -> Response:
    """What an error of the disk means to who wants to store something: ``api.register_error_handler(OSError, …)``."""
    return Refusal(503, f"It cannot be stored now: {error.strerror or 'it has no room'}.").as_problem()


def document(spec: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI description the answers that all routes have in common."""
    spec.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _SCHEMA
    for path, operations in spec["paths"].items():
        for method in operations.keys() - {"parameters"}:
            operation = operations[method]
            common = {"502": "The PACS does not answer."}
            if "{" in path:
                common["404"] = "There is no such thing."
            if path.startswith("/api/v1/images/"):
                common["503"] = "The video that it belongs to is not ready yet."
            if "{" in path or operation.get("parameters") or "requestBody" in operation:
                common["422"] = "It cannot be used."
            if "requestBody" in operation:
                common |= {"400": "It is no JSON.", "413": "It is too large."}
            for status, text in common.items():
                operation["responses"].setdefault(status, described(text))
            if method == "get":
                operation["responses"].setdefault("304", {"description": "It is as the client knows it."})
                operation["responses"].setdefault("412", described("It is not as the client has it."))
    return spec
