"""A way for the viewer to the PACS: QIDO-RS and WADO-RS through this server, reading only."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
from pydicom import Dataset
from pydicom.uid import SegmentationStorage
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from monai_label_app.pacs import TIMEOUT, credentials
from monai_label_app.viewers.segmentations import as_assumed

_UID = r"/[0-9.]{1,64}"
_STUDIES = re.compile(
    rf"studies({_UID})?(/series({_UID})?)?(/instances({_UID})?)?(/frames/[0-9,]+|/bulk(data)?/[\w/.-]+)?"
    r"(/metadata|/rendered|/thumbnail)?"
)
"""Addresses of QIDO-RS and WADO-RS (PS3.18 table 10.1-1), and nothing else that a PACS may have beside them."""

_TELLING = ("00080016", "00080070", "52009229")
"""SOP Class UID, Manufacturer and Shared Functional Groups Sequence: what tells a Segmentation of ours."""

_CLIENT = httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT[1], connect=TIMEOUT[0]))
_REQUEST_HEADERS = ("accept", "accept-language", "range", "if-none-match")
_ANSWER_HEADERS = ("content-type", "content-length", "content-encoding", "content-range", "etag")


def _told(instance: dict[str, Any]) -> dict[str, Any]:
    """Metadata of an instance, a Segmentation's with what the viewer assumes."""
    told = as_assumed(Dataset.from_json({tag: instance[tag] for tag in _TELLING if tag in instance}))
    return instance if told is None else {**instance, **told.to_json_dict()}


async def forward(pacs: str, request: Request) -> Response:
    """Pass a GET on to the PACS and stream its answer back.

    Args:
        pacs: base address of its DICOMweb service.
        request: with the rest of the address in its path parameter ``path``.
    """
    path: str = request.path_params["path"]
    if not _STUDIES.fullmatch(path):
        return JSONResponse({"detail": "not a DICOMweb address of studies"}, status_code=404)
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
        if SegmentationStorage.encode() in content:
            content = json.dumps([_told(one) for one in json.loads(content)]).encode()
        return Response(content, headers={**kept, "content-length": str(len(content))})
    return StreamingResponse(
        answer.aiter_raw(), status_code=answer.status_code, headers=kept, background=BackgroundTask(answer.aclose)
    )
