"""Videos: played in pieces, and which frame is shown at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Boolean, Float, Integer, List, Nested, String
from apiflask.validators import Range
from flask import Response, request
from werkzeug.utils import send_file

from monai_label_app.study import Instance
from monai_label_app.video.dicom_video import frame_seconds
from monai_label_app.web.api.content import described as content
from monai_label_app.web.api.frames import FRAME
from monai_label_app.web.api.problems import UNSTORED, described, not_stored
from monai_label_app.web.reporting import findings_report
from monai_label_app.web.services import Services
from report.attributes import is_own_result
from report.endoscopic_video import is_still
from report.findings import Segment
from report.video_segments import read_segments

MP4 = "video/mp4"

PIECE = 4 * 1024 * 1024
"""Bytes of a video in one answer, at most: the browser asks for the next piece when it is needed (RFC 9110, 15.3.7)."""

_RANGES: dict[Any, Any] = {
    206: {
        "description": "A piece of the video.",
        "content": {MP4: {"schema": {"type": "string", "format": "binary"}}},
    },
    416: described("The video has no such piece."),
}


class VideoSummary(Schema):
    """A video of a study, by its header."""

    sop_instance_uid = String(required=True)
    title = String(required=True)
    seconds = Float(required=True)
    clip = Boolean(required=True, metadata={"description": "it was cut from a recording by an analysis"})


class SegmentSchema(Schema):
    """A part of a video in which a class is seen, in seconds after the first frame, and the still of it."""

    label = String(data_key="class", required=True)
    start = Float(required=True)
    end = Float(required=True)
    peak = Float(required=True, metadata={"description": "of the class's probability"})
    mean = Float(required=True, metadata={"description": "of the class's probability"})
    still = String(required=True, allow_none=True, metadata={"description": "SOP Instance UID"})
    still_time = Float(required=True, allow_none=True)
    still_frame = Integer(required=True, allow_none=True)


class VideoSchema(Schema):
    """A video that can be played."""

    width = Integer(required=True)
    height = Integer(required=True)
    frames = Integer(required=True)
    seconds = Float(required=True, metadata={"description": "until the last frame is no longer shown"})
    copied = Boolean(required=True, metadata={"description": "it is played as it was coded"})
    segments = List(
        Nested(SegmentSchema), required=True, metadata={"description": "what the newest analysis saw, machine output"}
    )


class MomentChoice(Schema):
    """A moment of a video."""

    time = Float(required=True, validate=Range(0, 1e6), metadata={"description": "in seconds after the first frame"})


class Moment(Schema):
    """A frame of a video, and from when to when it is shown, in seconds after the first frame."""

    number = Integer(required=True)
    start = Float(required=True)
    end = Float(required=True)


class Still(Schema):
    """A frame of a video as an image of its study."""

    sop_instance_uid = String(required=True)
    stored = Boolean(required=True, metadata={"description": "it is new; otherwise it was there already"})


def create_blueprint(services: Services) -> APIBlueprint:
    """``/studies/UID/videos``, ``/images/UID/video``, its ``.mp4``, the frame of a moment, and its still."""
    api, player = APIBlueprint("videos", __name__, tag="Videos"), services.player
    api.register_error_handler(OSError, not_stored)

    @api.get("/studies/<uid>/videos")
    @api.doc(summary="The videos of a study: recordings, then clips of them")
    @api.output(VideoSummary(many=True))
    def listing(uid: str) -> list[dict[str, Any]]:
        return summaries(services.library.study(uid).videos)

    @api.get("/images/<uid>/video")
    @api.doc(summary="A video, once it is ready to be played")
    @api.output(VideoSchema)
    def video(uid: str) -> dict[str, Any]:
        playable, header = player.open(uid).playable, services.library.instance(uid).header
        report = findings_report(services.library.study(str(header.StudyInstanceUID)))
        return {
            "width": int(header.Columns),
            "height": int(header.Rows),
            "frames": len(playable.times),
            "seconds": playable.end,
            "copied": playable.copied,
            "segments": [_segment(one) for one in (read_segments(report) if report else []) if one.video == uid],
        }

    @api.get("/images/<uid>/frames")
    @api.input(MomentChoice, location="query")
    @api.doc(summary="The frame of a video that is shown at a moment")
    @api.output(Moment)
    def moment(uid: str, query_data: dict[str, Any]) -> dict[str, Any]:
        playable = player.open(uid).playable
        number = playable.shown_at(query_data["time"])
        ends = (*playable.times[number : number + 1], playable.end)
        return {"number": number, "start": playable.times[number - 1], "end": ends[0]}

    @api.post(f"{FRAME}/still")
    @api.doc(
        summary="Store a frame of a video as an image of its study; the same frame is stored once", responses=UNSTORED
    )
    @api.output(Still, 201)
    def still(uid: str, number: int) -> dict[str, Any]:
        study = services.library.study(str(services.library.instance(uid).header.StudyInstanceUID))
        place = 1 + sum(is_still(one.header) for one in study.instances)
        made = player.open(uid).still(number, place)
        return {"sop_instance_uid": str(made.SOPInstanceUID), "stored": bool(services.library.store([made]))}

    @api.get("/images/<uid>/video.mp4")
    @api.doc(
        summary="A video without its sound, as H.264 in MP4; in pieces, if a range is asked for",
        responses={**content(MP4, "The whole video."), **_RANGES},
    )
    def mp4(uid: str) -> Response:
        path = player.open(uid).playable.path
        asked = {**request.environ, **_no_more_than_a_piece(path.stat().st_size)}
        response = send_file(path, asked, MP4, conditional=True, response_class=Response)
        del response.headers["Cache-Control"]  # as all answers have it, which is stricter
        return response  # type: ignore[return-value]  # it is of the class that was asked for

    return api


def _no_more_than_a_piece(size: int) -> dict[str, str]:
    """The asked range, ended where a piece does; nothing where none is asked for, or one that is not there."""
    if not request.range:
        return {}
    # Of more last bytes than there are: all (RFC 9110, 14.1.2).
    more = request.range.ranges[0][0] < -size
    wanted = (0, size) if more else request.range.range_for_length(size)
    if wanted is None:
        return {}
    start, stop = wanted
    return {"HTTP_RANGE": f"bytes={start}-{min(stop, start + PIECE) - 1}"}


def _segment(one: Segment) -> dict[str, Any]:
    shown = (one.still, one.time, one.frame) if one.still else (None, None, None)
    names = ("label", "start", "end", "peak", "mean")
    return {
        **{name: getattr(one, name) for name in names},
        **dict(zip(("still", "still_time", "still_frame"), shown, strict=True)),
    }


def summaries(videos: Sequence[Instance]) -> list[dict[str, Any]]:
    """Videos for people to read, by their headers; those of one name are numbered."""
    names = [str(one.header.get("SeriesDescription") or "Video") for one in videos]
    titles = [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
    return [
        {
            "sop_instance_uid": str(one.header.SOPInstanceUID),
            "title": title,
            "seconds": one.frame_count * (frame_seconds(one.header) or 1 / 25),
            "clip": is_own_result(one.header),
        }
        for one, title in zip(videos, titles, strict=True)
    ]
