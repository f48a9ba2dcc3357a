"""An analysis as server-sent events, without a thread for each who listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from monai_label_app.job_queue import ENDED, Job
from monai_label_app.jobs import Jobs
from monai_label_app.web.api.problems import PROBLEM, Refusal, refusal

EVENT_STREAM = "text/event-stream"

UNKNOWN = "There is no such study or analysis here."
"""What is said of a job that is not there, or no longer remembered."""

LOOK_SECONDS = 0.25
"""Time between two looks at a job."""

STREAM_SECONDS = 30
"""How long a stream lasts at most: a server that is to end waits for it. Browsers ask again by themselves."""


def event(job: Job) -> str:
    """A job as one event."""
    return f"data: {json.dumps(asdict(job), ensure_ascii=False)}\n\n"


async def job_events(jobs: Jobs, request: Request) -> Response:
    """Answer with a job's events, until it ends."""
    key: str = request.path_params["key"]
    try:
        await run_in_threadpool(jobs.get, key)
    except LookupError:
        return Response(Refusal(404, UNKNOWN).as_problem().data, 404, media_type=PROBLEM)
    except SQLAlchemyError as error:
        return Response(refusal(error).as_problem().data, 503, media_type=PROBLEM)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(jobs, key), media_type=EVENT_STREAM, headers=headers)


async def _events(jobs: Jobs, key: str) -> AsyncIterator[str]:
    said: Job | None = None
    until = time.monotonic() + STREAM_SECONDS
    while time.monotonic() < until:
        job = await run_in_threadpool(jobs.get, key)
        if job != said:
            yield event(job)
        if job.state in ENDED:
            return
        said = job
        await asyncio.sleep(LOOK_SECONDS)
