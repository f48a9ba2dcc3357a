"""A way for the viewer to the PACS: QIDO-RS and WADO-RS through this server, reading only."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from monai_label_app.library import Library
from monai_label_app.pacs import TIMEOUT, PacsError, credentials
from monai_label_app.video.player import Player
from monai_label_app.viewers.segmentations import as_assumed
from monai_label_app.viewers.videos import as_played
from monai_label_app.web.playing import rendered, thumbnail

_UID = r"/[0-9.]{1,64}"
_STUDIES = re.compile(
    rf"studies({_UID})?(/series({_UID})?)?(/instances({_UID})?)?(/frames/[0-9,]+|/bulk(data)?/[\w/.-]+)?"
    r"(/metadata|/rendered|/thumbnail)?"
)
"""Addresses of QIDO-RS and WADO-RS (PS3.18 table 10.1-1), and nothing else that a PACS may have beside them."""

_IN_ONE_PIECE = re.compile(rf"studies/([0-9.]+)/series{_UID}/instances/([0-9.]+)/(rendered|thumbnail)")
"""An image as others show it; of a video PACS answer with one frame, or not at all."""

_CLASS, _FRAMES, *_TELLING = (
    f"{tag_for_keyword(keyword):08X}"
    for keyword in (
        *("SOPClassUID", "NumberOfFrames", "Manufacturer", "SharedFunctionalGroupsSequence"),
        *("AvailableTransferSyntaxUID", "PhotometricInterpretation"),
        *("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"),
    )
)
"""What tells a Segmentation of ours and a video; those without the first two are neither."""

_CLIENT = httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT[1], connect=TIMEOUT[0]))
_REQUEST_HEADERS = ("accept", "accept-language", "range", "if-none-match")
_ANSWER_HEADERS = ("content-type", "content-length", "content-encoding", "content-range", "etag")


def _told(instance: dict[str, Any]) -> dict[str, Any]:
    """Metadata of an instance; of a Segmentation with what the viewer assumes, of a video with what it plays."""
    if _CLASS not in instance or _FRAMES not in instance:
        return instance
    telling = (_CLASS, _FRAMES, *_TELLING)
    header = Dataset.from_json({tag: instance[tag] for tag in telling if tag in instance}, lambda *_: None)
    told = as_assumed(header) or as_played(header)
    return instance if told is None else {**instance, **told.to_json_dict()}


async def _video(library: Library, player: Player, path: str, request: Request) -> Response | None:
    """A video in one piece or its thumbnail, if that is asked for."""
    asked = _IN_ONE_PIECE.fullmatch(path)
    if not asked:
        return None
    study, uid, what = asked.groups()
    try:
        found = await run_in_threadpool(library.study, study)
    except (LookupError, PacsError):
        return None
    if not any(one.plays and one.header.SOPInstanceUID == uid for one in found.instances):
        return None
    return await (rendered if what == "rendered" else thumbnail)(player, uid, request)


async def forward(pacs: str, library: Library, player: Player, request: Request) -> Response:
    """Pass a GET on to the PACS and stream its answer back; of a video its MP4 and thumbnail are made here.

    Args:
        pacs: base address of its DICOMweb service.
        library: its studies.
        player: of their videos.
        request: with the rest of the address in its path parameter ``path``.
    """
    path: str = request.path_params["path"]
    if not _STUDIES.fullmatch(path):
        return JSONResponse({"detail": "not a DICOMweb address of studies"}, status_code=404)
    if video := await _video(library, player, path, request):
        return video
    headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
    address = httpx.URL(f"{pacs.rstrip('/')}/{path}", query=request.url.query.encode())
    outgoing = _CLIENT.build_request("GET", address, headers={"accept-encoding": "identity", **headers})
    try:
        answer = await _CLIENT.send(outgoing, stream=True, auth=credentials())
    except httpx.HTTPError:
        return JSONResponse({"detail": f"no PACS answers at {pacs}; is it running?"}, status_code=502)
    kept = {name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers}
    if "json" in kept.get("content-type", "") and answer.status_code == 200:
        # Metadata says where bulk data lies, at the PACS, which a browser must not ask itself.
        content, own = await answer.aread(), f"{request.base_url}endolens/dicomweb"
        content = content.replace(f'"{pacs.rstrip("/")}/studies/'.encode(), f'"{own}/studies/'.encode())
        if _FRAMES.encode() in content:
            content = json.dumps([_told(one) for one in json.loads(content)]).encode()
        return Response(content, headers={**kept, "content-length": str(len(content))})
    return StreamingResponse(
        answer.aiter_raw(), status_code=answer.status_code, headers=kept, background=BackgroundTask(answer.aclose)
    )
