"""Content with an ETag: made, and sent, only if the client does not know it yet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from flask import Response, request
from PIL import Image

from monai_label_app.web.api.problems import Refusal

# What is shown are patients' data: kept by the reader's own browser alone, and asked after each time.
_CACHING = "private, no-cache"


def described(kind: str, text: str) -> dict[int, Any]:
    """Content of a media type in the OpenAPI description of a route: ``@api.doc(responses=described(…))``."""
    return {200: {"description": text, "content": {kind: {"schema": {"type": "string", "format": "binary"}}}}}


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file, e.g. of kind "JPEG" or "PNG"."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def unchanging(kind: str, make: Callable[[], bytes], *key: Any) -> Response:
    """Content that a key stands for."""
    tag = hashlib.sha256(repr((kind, *key)).encode()).hexdigest()[:32]
    known = tag in request.if_none_match
    response = Response(b"" if known else make(), 304 if known else 200, mimetype=kind)
    response.set_etag(tag)
    return response


def tag(response: Response) -> Response:
    """Give an answer an ETag by its content, if it has none by its key."""
    response.headers.setdefault("Cache-Control", _CACHING)
    if request.method == "GET" and response.status_code == 200 and not response.is_streamed:
        response.add_etag()
        response.make_conditional(request)
        if response.status_code == 412:
            return Refusal(412, "It is not as the client has it.").as_problem()
    return response
