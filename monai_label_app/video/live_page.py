"""The page of a running examination, for one machine: the picture, the map beside it, class and delay."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from monai_label_app.access.guard import Guard
from monai_label_app.access.headers import SafeHeaders
from monai_label_app.access.identity import Authentication
from monai_label_app.access.login import Login
from monai_label_app.access.roles import Roles
from monai_label_app.classifier.checkpoint import Card
from monai_label_app.video.live import Live
from report.findings import as_reported
from report.language import ENGLISH


def live_page(
    live: Live, card: Card, source: str, authentication: Authentication | None = None, insecure: bool = False
) -> ASGIApp:
    """The ASGI application: ``/``, and what it asks for again and again: ``frame.jpg``, ``map.jpg``, ``state``.

    Args:
        live: the examination.
        card: of the network.
        source: what is watched.
        authentication: tells who asks; nobody is asked unless given.
        insecure: other machines may come all the same.
    """
    asked = authentication or Authentication()
    templates = Environment(loader=PackageLoader("monai_label_app.video", "."), autoescape=True)
    text = templates.get_template("live.html").render(
        card=card, source=Path(source).name if Path(source).is_file() else ""
    )

    def page(request: Request) -> Response:
        return HTMLResponse(text)

    def frame(request: Request) -> Response:
        return _picture(live.newest.pixels if live.newest else None)

    def overlay(request: Request) -> Response:
        return _picture(live.seen.overlay if live.seen else None)

    def state(request: Request) -> Response:
        seen, newest = live.seen, live.newest
        return JSONResponse(
            {
                "frame": newest.number if newest else 0,
                "analysed": seen.of.number if seen else 0,
                "class": seen.label if seen else "",
                "probability": as_reported(seen.probability) if seen else 0.0,
                "percent": ENGLISH.percent(seen.probability) if seen else "",
                "delay": round(time.monotonic() - seen.of.arrived, 3) if seen else None,
                "ended": live.ended,
                "problem": live.problem or (seen.problem if seen else ""),
            }
        )

    def static(request: Request) -> Response:
        return FileResponse(Path(__file__).with_name(request.url.path.removeprefix("/")))

    pages = {
        "/": page,
        "/live.css": static,
        "/live.js": static,
        "/frame.jpg": frame,
        "/map.jpg": overlay,
        "/state": state,
    }
    routes = [Route(path, answer) for path, answer in pages.items()]
    login = Login(asked, "/").routes() if asked.required else []
    return SafeHeaders(Guard(Starlette(routes=[*routes, *login]), asked, Roles(pages), insecure))


def _picture(pixels: NDArray[np.uint8] | None) -> Response:
    if pixels is None:
        return Response(status_code=204)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return Response(stream.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "no-store"})
