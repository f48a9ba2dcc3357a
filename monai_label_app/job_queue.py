"""Analyses that are to be done, in a database that several servers may share: each is done by one of them."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from report.database import open_database

IN_MEMORY = "sqlite://"
"""Address of a database that nobody shares, and that ends with its server."""

REMEMBERED = 200
"""Jobs that can be asked about, the latest."""

LOST_SECONDS = 60.0
"""A server that did not say for so long that it works on a job has gone; another begins it anew."""

QUEUED, RUNNING, STORING = "queued", "running", "storing"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
ENDED = frozenset({DONE, FAILED, CANCELLED})
STATES = (QUEUED, RUNNING, STORING, DONE, FAILED, CANCELLED)

_TABLES = MetaData()

_JOBS = Table(
    "analyses",
    _TABLES,
    Column("key", String(32), primary_key=True),
    Column("study", String(64), nullable=False),
    Column("state", String(10), nullable=False),
    Column("frames", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("stored", Integer, nullable=False),
    Column("problems", JSON, nullable=False),
    Column("asked", Float, nullable=False),
    # Who works on it, and when they last said so; seconds since 1970.
    Column("server", String(32)),
    Column("alive", Float),
)

_UNENDED = _JOBS.c.state.in_((QUEUED, RUNNING, STORING))
_TAKEN = _JOBS.c.state.in_((RUNNING, STORING))

# Of two servers that are asked at once only one begins.
Index("one_analysis_a_study", _JOBS.c.study, unique=True, sqlite_where=_UNENDED, postgresql_where=_UNENDED)


@dataclass(frozen=True)
class Job:
    """The analysis of a study, as it stands.

    Attributes:
        key: names it.
        study: Study Instance UID.
        state: one of :data:`STATES`.
        done, frames: how many of its frames were analysed.
        stored: how many objects are new in the library.
        problems: what was left out, or why it failed, a sentence each.
    """

    key: str
    study: str
    frames: int
    state: str = QUEUED
    done: int = 0
    stored: int = 0
    problems: tuple[str, ...] = ()


class TooLateError(Exception):
    """A job that stores its results can no longer be cancelled; the message is one sentence."""


class JobQueue:
    """The jobs of a database, as one of its servers sees them. Safe for several threads.

    Args:
        url: as :func:`report.database.open_database` takes it, or :data:`IN_MEMORY`.

    Raises:
        ValueError: there is no such database, or it cannot be used.
    """

    def __init__(self, url: str = IN_MEMORY) -> None:
        self._engine = open_database(url, "monai_label_app:migrations/analyses")
        self._lock = threading.Lock()  # one in memory has one connection
        self._server = secrets.token_hex(16)

    def add(self, study: str, frames: int) -> Job:
        """Queue a study; the job that waits or runs already, if there is one."""
        job = Job(secrets.token_hex(16), study, frames)
        row = {"key": job.key, "study": study, "state": QUEUED, "frames": frames, "done": 0, "stored": 0}
        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(insert(_JOBS).values(**row, problems=[], asked=time.time()))
                latest = select(_JOBS.c.key).order_by(_JOBS.c.asked.desc()).limit(REMEMBERED)
                connection.execute(delete(_JOBS).where(~_UNENDED, _JOBS.c.key.not_in(latest)))
        except IntegrityError:
            return self.of_study(study) or self.add(study, frames)
        return job

    def get(self, key: str) -> Job:
        """A job as it stands now; LookupError if there is none of this key."""
        with self._lock, self._engine.connect() as connection:
            return _get(connection, key)

    def of_study(self, study: str) -> Job | None:
        """The job of a study that waits or runs."""
        with self._lock, self._engine.connect() as connection:
            row = connection.execute(select(_JOBS).where(_UNENDED, _JOBS.c.study == study)).one_or_none()
        return None if row is None else _job(row)

    def unended(self) -> dict[str, Job]:
        """Study → its job that waits or runs."""
        with self._lock, self._engine.connect() as connection:
            return {row.study: _job(row) for row in connection.execute(select(_JOBS).where(_UNENDED))}

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock, self._engine.connect() as connection:
            count = select(func.count()).where(_JOBS.c.state == QUEUED)
            return int(connection.execute(count).scalar_one())

    def take(self) -> Job | None:
        """The job that waited longest, which is this server's from now on; None if none waits.

        One whose server has gone waits again, and one that this server did not bring to an end: it does one at a time.
        """
        now = time.time()
        queued = select(_JOBS.c.key).where(_JOBS.c.state == QUEUED).order_by(_JOBS.c.asked).limit(1)
        with self._lock, self._engine.begin() as connection:
            lost = update(_JOBS).where(self._mine() | (_TAKEN & (_JOBS.c.alive < now - LOST_SECONDS)))
            connection.execute(lost.values(state=QUEUED, server=None, done=0))
            key = connection.execute(queued).scalar_one_or_none()
            mine = {"state": RUNNING, "server": self._server, "alive": now, "done": 0}
            taken = update(_JOBS).where(_JOBS.c.key == key, _JOBS.c.state == QUEUED).values(**mine)
            return _get(connection, key) if key and connection.execute(taken).rowcount else None

    def change(self, key: str, **changes: Any) -> bool:
        """Say how a job of this server goes on. Whether it is this server's still: it may have been cancelled."""
        with self._lock, self._engine.begin() as connection:
            changed = update(_JOBS).where(self._mine(), _JOBS.c.key == key).values(**changes, alive=time.time())
            return bool(connection.execute(changed).rowcount)

    def live(self) -> None:
        """Say that this server works on what it took."""
        with self._lock, self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(self._mine()).values(alive=time.time()))

    def cancel(self, key: str) -> Job:
        """End a job before it has stored anything; one that has ended stays as it is.

        Raises:
            LookupError: there is none of this key.
            TooLateError: its results are being stored.
        """
        with self._lock, self._engine.begin() as connection:
            may_be = _JOBS.c.state.in_((QUEUED, RUNNING))
            connection.execute(update(_JOBS).where(_JOBS.c.key == key, may_be).values(state=CANCELLED))
            job = _get(connection, key)
        if job.state == STORING:
            raise TooLateError("the analysis is done and its results are being stored")
        return job

    def erase(self, study: str) -> None:
        """Forget the jobs of a study."""
        with self._lock, self._engine.begin() as connection:
            connection.execute(delete(_JOBS).where(_JOBS.c.study == study))

    def put_back(self) -> None:
        """What this server took and did not end waits again, for another."""
        with self._lock, self._engine.begin() as connection:
            again = {"state": QUEUED, "server": None, "done": 0}
            connection.execute(update(_JOBS).where(self._mine(), _JOBS.c.state == RUNNING).values(**again))

    def _mine(self) -> ColumnElement[bool]:
        return _TAKEN & (_JOBS.c.server == self._server)


def _get(connection: Connection, key: str) -> Job:
    row = connection.execute(select(_JOBS).where(_JOBS.c.key == key)).one_or_none()
    if row is None:
        raise LookupError(key)
    return _job(row)


def _job(row: Row[Any]) -> Job:
    return Job(row.key, row.study, row.frames, row.state, row.done, row.stored, tuple(row.problems))
