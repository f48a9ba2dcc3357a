"""Videos for a viewer, which asks once: it waits until they are ready, without a thread for each who waits."""

from __future__ import annotations

import asyncio

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from monai_label_app.pacs import PacsError
from monai_label_app.video.player import Player, PreparingError, Screening
from monai_label_app.web.api.content import encoded
from monai_label_app.web.api.problems import PROBLEM, refusal

LOOK_SECONDS = 0.2
"""Time between two looks at a video that is being made ready."""

THUMBNAIL = 256
"""Pixels of the longer side of a thumbnail."""

_HEADERS = {"Cache-Control": "no-store"}


async def rendered(player: Player, uid: str, request: Request) -> Response:
    """Answer with a video as MP4, or the range of it that is asked for."""
    try:
        screening = await _ready(player, uid, request)
    except (LookupError, ValueError, PacsError, PreparingError) as error:
        return _refused(error)
    return FileResponse(screening.playable.path, media_type="video/mp4", headers=_HEADERS)


async def thumbnail(player: Player, uid: str, request: Request) -> Response:
    """Answer with the frame in the middle of a video as a small JPEG."""
    try:
        screening = await _ready(player, uid, request)
        content = await run_in_threadpool(_middle, screening)
    except (LookupError, ValueError, PacsError, PreparingError) as error:
        return _refused(error)
    return Response(content, media_type="image/jpeg", headers=_HEADERS)


async def _ready(player: Player, uid: str, request: Request) -> Screening:
    while True:
        try:
            return await run_in_threadpool(player.open, uid, 0)
        except PreparingError:
            if await request.is_disconnected():
                raise
        await asyncio.sleep(LOOK_SECONDS)


def _middle(screening: Screening) -> bytes:
    picture = Image.fromarray(screening.frame(len(screening.playable.times) // 2 + 1))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return encoded(picture, "JPEG", quality=85)


def _refused(error: Exception) -> Response:
    found = refusal(error)
    return Response(found.as_problem().data, found.status, dict(found.headers), PROBLEM)
