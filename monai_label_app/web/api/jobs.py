"""Analyses of studies: started, watched, cancelled."""

from __future__ import annotations

from functools import partial
from typing import Any

from apiflask import APIBlueprint, Schema
from apiflask.fields import Integer, List, String
from apiflask.validators import OneOf
from flask import Response

from monai_label_app.job_queue import STATES, Job, TooLateError
from monai_label_app.jobs import TooManyJobsError
from monai_label_app.web.api.content import described as content
from monai_label_app.web.api.problems import Refusal, described
from monai_label_app.web.events import EVENT_STREAM, UNKNOWN, event
from monai_label_app.web.services import Services

_MANY: dict[Any, Any] = {503: described("Too many wait.")}
_LATE: dict[Any, Any] = {409: described("Its results are being stored.")}


class JobSchema(Schema):
    """The analysis of a study, as it stands."""

    key = String(required=True)
    study = String(required=True)
    state = String(required=True, validate=OneOf(STATES))
    done = Integer(required=True, metadata={"description": "frames that were analysed"})
    frames = Integer(required=True, metadata={"description": "frames that there are"})
    stored = Integer(required=True, metadata={"description": "objects that are new in the study"})
    problems = List(String(), required=True, metadata={"description": "what was left out, or why it failed"})


def create_blueprint(services: Services) -> APIBlueprint:
    """``/studies/UID/analysis`` and ``/jobs``."""
    api, jobs = APIBlueprint("jobs", __name__, tag="Analysis"), services.jobs
    for error, status in ((LookupError, 404), (TooLateError, 409), (TooManyJobsError, 503)):
        api.register_error_handler(error, partial(_refuse, status=status))

    @api.post("/studies/<uid>/analysis")
    @api.doc(
        summary="Analyse a study; one that waits or runs already is answered with its job",
        responses=_MANY,
    )
    @api.output(JobSchema, 202)
    def start(uid: str) -> Job:
        return jobs.start(uid)

    @api.get("/jobs/<key>")
    @api.doc(summary="How an analysis stands")
    @api.output(JobSchema)
    def job(key: str) -> Job:
        return jobs.get(key)

    @api.get("/jobs/<key>/events")
    @api.doc(
        summary="How an analysis goes on: server-sent events, each with the job as JSON, until it ends",
        responses=content(EVENT_STREAM, "The events."),
    )
    def events(key: str) -> Response:
        # A thread for every listener would be too much: monai_label_app.asgi streams in the place of this one event.
        return Response(event(jobs.get(key)), mimetype=EVENT_STREAM)

    @api.delete("/jobs/<key>")
    @api.doc(summary="Cancel an analysis", responses=_LATE)
    @api.output(JobSchema)
    def cancel(key: str) -> Job:
        return jobs.cancel(key)

    return api


def _refuse(error: Exception, status: int) -> Response:
    if status == 404:
        return Refusal(404, UNKNOWN).as_problem()
    return Refusal(status, str(error), (("Retry-After", "30"),) if status == 503 else ()).as_problem()
