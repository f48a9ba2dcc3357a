"""What a node has received, and what is to be done with it: files in a folder, and a database that speaks of them.

The files are on disk before the database speaks of them, so whatever is killed when, the database is right.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from report.database import open_database

SCHEMA = 1
"""Version of the tables below."""

ANALYSIS = "analysis"
"""The task of a study that comes first; the others are destinations that its results are sent to."""

WAITING, DONE, DEAD = STATES = ("waiting", "done", "dead")
"""A job is to be done, is done, or was given up and waits for a person."""

_TABLES = MetaData()

_NODE = Table(
    "node",
    _TABLES,
    Column("folder", String(32), primary_key=True),
    Column("schema", Integer, nullable=False),
)
"""One row: the state folder whose files the database speaks of."""

_RECEIVED = Table(
    "received",
    _TABLES,
    Column("uid", String(64), primary_key=True),
    Column("study", String(64), nullable=False, index=True),
    Column("patient", Text, nullable=False),
)

_JOBS = Table(
    "jobs",
    _TABLES,
    Column("study", String(64), primary_key=True),
    Column("task", String(400), primary_key=True),
    Column("state", String(8), nullable=False),
    # How often there was something new to do: who began before that has not done it.
    Column("revision", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed", Float, nullable=False),
)

_RESULTS = Table(
    "results",
    _TABLES,
    Column("uid", String(64), primary_key=True),
    Column("task", String(400), primary_key=True),
    Column("study", String(64), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("sent", Boolean, nullable=False),
)

_POLLED = Table(
    "polled",
    _TABLES,
    Column("source", String(400), primary_key=True),
    Column("study", String(64), primary_key=True),
    Column("instances", Integer, nullable=False),
)


@dataclass(frozen=True)
class Job:
    """What is to be done with a study.

    Attributes:
        study: Study Instance UID.
        task: :data:`ANALYSIS`, or the destination that its results are sent to.
        state: one of :data:`STATES`.
        attempts: how often it was begun.
        due: when it is done at the earliest, in seconds since 1970.
        reason: what went wrong the last time, or was left out; a sentence.
        revision: goes up when there is something new to do.
    """

    study: str
    task: str
    state: str
    attempts: int
    due: float
    reason: str
    revision: int


class Store:
    """The state of a node. Safe for several threads.

    Args:
        folder: of the files; made if it is not there.
        url: of the database, as :func:`report.database.open_database` takes it; by default SQLite in the folder.

    Raises:
        ValueError: the database cannot be opened, or speaks of another folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.received, self.results, self.journals = (folder / one for one in ("received", "results", "journals"))
        for place in (self.received, self.results, self.journals):
            place.mkdir(parents=True, exist_ok=True)
        self._engine = open_database(url or f"sqlite:///{folder / 'jobs.sqlite'}", _TABLES, "jobs")
        self._claim(folder / "id")

    def _claim(self, identity: Path) -> None:
        """See that the database and the folder belong together."""
        if not identity.exists():
            fresh = identity.with_suffix(".partial")
            fresh.write_text(secrets.token_hex(16))
            fresh.replace(identity)
        own = identity.read_text()
        with self._engine.begin() as connection:
            row = connection.execute(select(_NODE)).one_or_none()
            if row is None:
                connection.execute(insert(_NODE).values(folder=own, schema=SCHEMA))
            elif row.folder != own:
                raise ValueError(f"the database speaks of another folder than {identity.parent}; name a new database")
            elif row.schema != SCHEMA:
                raise ValueError(f"the database is of another version of EndoLens (schema {row.schema}, not {SCHEMA})")

    def tidy(self) -> None:
        """Remove the files that the database does not speak of: who was killed had not acknowledged them."""
        with self._engine.connect() as connection:
            received = set(connection.scalars(select(_RECEIVED.c.uid)))
            results = set(connection.scalars(select(_RESULTS.c.uid).where(~_RESULTS.c.sent)))
        for place, known in ((self.received, received), (self.results, results)):
            for entry in place.iterdir():
                if entry.name.startswith("."):
                    _remove(entry)
                    continue
                if not entry.is_dir():
                    continue
                for file in entry.iterdir():
                    if file.stem not in known:
                        _remove(file)
                if not any(entry.iterdir()):
                    entry.rmdir()

    # What comes in

    def known(self, uids: Sequence[str]) -> set[str]:
        """Those of some SOP Instance UIDs that were received."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(_RECEIVED.c.uid).where(_RECEIVED.c.uid.in_(uids))))

    def identity(self, uid: str) -> tuple[str, str] | None:
        """Study and patient of a received object; None if there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_RECEIVED.c.study, _RECEIVED.c.patient).where(_RECEIVED.c.uid == uid))
            found = row.one_or_none()
        return (found.study, found.patient) if found else None

    def patient(self, study: str) -> str | None:
        """Whose study it is; None if nothing of it was received."""
        with self._engine.connect() as connection:
            return connection.scalars(select(_RECEIVED.c.patient).where(_RECEIVED.c.study == study).limit(1)).first()

    def place(self, study: str, uid: str) -> Path:
        """Where a received object lies."""
        return self.received / study / f"{uid}.dcm"

    def add(self, study: str, uid: str, patient: str, due: float) -> None:
        """Note an object that lies in its place; its study is to be analysed when due."""
        with self._engine.begin() as connection:
            connection.execute(insert(_RECEIVED).values(uid=uid, study=study, patient=patient))
            _require(connection, study, ANALYSIS, due)

    def polled(self, source: str) -> dict[str, int]:
        """Study → how many instances it had when all of them had been fetched from a source."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_POLLED.c.study, _POLLED.c.instances).where(_POLLED.c.source == source))
            return {row.study: row.instances for row in rows}

    def note_polled(self, source: str, study: str, instances: int) -> None:
        """Remember how many instances a study has, now that they have been fetched."""
        mine = (_POLLED.c.source == source) & (_POLLED.c.study == study)
        with self._engine.begin() as connection:
            if not connection.execute(update(_POLLED).where(mine).values(instances=instances)).rowcount:
                connection.execute(insert(_POLLED).values(source=source, study=study, instances=instances))

    # What is to be done

    def begin(self, task: str, longest: float) -> Job | None:
        """The job that is due for a task, its attempt counted: a process that dies of it will not try for ever.

        No results are sent while their study is to be analysed: there is no use in those of a study that has grown.

        Args:
            task: of the job.
            longest: seconds until it is due again, should this fail: one at first, twice as many each time, or these.
        """
        ready = (_JOBS.c.task == task) & (_JOBS.c.state == WAITING) & (_JOBS.c.due <= time.time())
        if task != ANALYSIS:
            to_be_analysed = select(_JOBS.c.study).where((_JOBS.c.task == ANALYSIS) & (_JOBS.c.state == WAITING))
            ready &= _JOBS.c.study.not_in(to_be_analysed)
        with self._engine.connect() as connection:
            row = connection.execute(select(_JOBS).where(ready).order_by(_JOBS.c.due).limit(1)).one_or_none()
        if row is None:
            return None
        job = _job(row)
        again = time.time() + min(2.0 ** min(job.attempts, 30), longest)
        with self._engine.begin() as connection:
            begun = update(_JOBS).where(_same(job)).values(attempts=job.attempts + 1, due=again)
            return job if connection.execute(begun).rowcount else None

    def put_back(self, job: Job) -> None:
        """An attempt that was not made after all."""
        with self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(_same(job)).values(attempts=job.attempts, due=job.due))

    def fail(self, job: Job, reason: str, most: int) -> bool:
        """Say why an attempt failed; the job is given up after ``most`` of them. Whether it was."""
        state = DEAD if job.attempts + 1 >= most else WAITING
        with self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(_same(job)).values(state=state, reason=reason, changed=time.time()))
        return state == DEAD

    def analysed(self, job: Job, results: Sequence[str], reason: str, destinations: Iterable[str]) -> bool:
        """Note the results of a study, which lie in their place, and that they are to be sent.

        Returns:
            Whether they count: the study may have got more images meanwhile, or been dropped.
        """
        with self._engine.begin() as connection:
            done = {"state": DONE, "attempts": 0, "reason": reason, "changed": time.time()}
            if not connection.execute(update(_JOBS).where(_same(job)).values(**done)).rowcount:
                return False
            mine = _RESULTS.c.study == job.study
            connection.execute(delete(_RESULTS).where(mine & ~_RESULTS.c.sent & _RESULTS.c.uid.not_in(results)))
            there = {(row.uid, row.task) for row in connection.execute(select(_RESULTS).where(mine))}
            for task in destinations:
                for number, uid in enumerate(results):
                    if (uid, task) not in there:
                        row = {"uid": uid, "task": task, "study": job.study, "number": number, "sent": False}
                        connection.execute(insert(_RESULTS).values(row))
                _require(connection, job.study, task, time.time())
        return True

    def unsent(self, job: Job) -> list[Path]:
        """Files of the results that a destination has not got yet, in the order in which they were made."""
        mine = (_RESULTS.c.study == job.study) & (_RESULTS.c.task == job.task) & ~_RESULTS.c.sent
        with self._engine.connect() as connection:
            uids = connection.scalars(select(_RESULTS.c.uid).where(mine).order_by(_RESULTS.c.number))
            return [self.results / job.study / f"{uid}.dcm" for uid in uids]

    def sent(self, job: Job, uid: str) -> None:
        """Note that a destination has a result."""
        with self._engine.begin() as connection:
            mine = (_RESULTS.c.uid == uid) & (_RESULTS.c.task == job.task)
            connection.execute(update(_RESULTS).where(mine).values(sent=True))

    def delivered(self, job: Job) -> None:
        """Note that a destination has all results; their files go when every destination has them."""
        with self._engine.begin() as connection:
            done = {"state": DONE, "attempts": 0, "reason": "", "changed": time.time()}
            connection.execute(update(_JOBS).where(_same(job)).values(**done))
            left = (_JOBS.c.study == job.study) & (_JOBS.c.state != DONE)
            if connection.execute(select(_JOBS.c.task).where(left).limit(1)).first():
                return
        shutil.rmtree(self.results / job.study, ignore_errors=True)

    def forget(self, days: float) -> None:
        """Remove what is left of studies that were done so many days ago."""
        before = time.time() - days * 86400
        open_, latest = func.sum(case((_JOBS.c.state == DONE, 0), else_=1)), func.max(_JOBS.c.changed)
        with self._engine.connect() as connection:
            rows = connection.execute(select(_JOBS.c.study, open_, latest).group_by(_JOBS.c.study)).all()
        for study, still_open, changed in rows:
            if not still_open and changed < before:
                self._remove(study, _JOBS.c.state == DONE, _JOBS.c.changed < before)

    # What a person decides

    def jobs(self) -> list[Job]:
        """All, by study, the analysis first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_JOBS).order_by(_JOBS.c.study, _JOBS.c.task != ANALYSIS, _JOBS.c.task))
            return [_job(row) for row in rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """Study → how many images were received, and for each destination how many results are not sent yet."""
        counts: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            images = select(_RECEIVED.c.study, func.count()).group_by(_RECEIVED.c.study)
            for study, count in connection.execute(images):
                counts.setdefault(study, {})[ANALYSIS] = count
            unsent = select(_RESULTS.c.study, _RESULTS.c.task, func.count()).where(~_RESULTS.c.sent)
            for study, task, count in connection.execute(unsent.group_by(_RESULTS.c.study, _RESULTS.c.task)):
                counts.setdefault(study, {})[task] = count
        return counts

    def retry(self, study: str | None = None) -> int:
        """Do again what was given up or waits for its next attempt, of one study or of all; how many jobs that are."""
        mine = _JOBS.c.state == DEAD if study is None else (_JOBS.c.study == study) & (_JOBS.c.state != DONE)
        with self._engine.begin() as connection:
            again = {"state": WAITING, "attempts": 0, "due": time.time(), "revision": _JOBS.c.revision + 1}
            return connection.execute(update(_JOBS).where(mine).values(**again)).rowcount

    def drop(self, study: str, task: str | None = None) -> bool:
        """Forget a study with its images and results, or one destination of it. Whether there was something."""
        if task is None or task == ANALYSIS:
            return self._remove(study)
        mine = (_JOBS.c.study == study) & (_JOBS.c.task == task)
        with self._engine.begin() as connection:
            connection.execute(delete(_RESULTS).where((_RESULTS.c.study == study) & (_RESULTS.c.task == task)))
            return bool(connection.execute(delete(_JOBS).where(mine)).rowcount)

    def _remove(self, study: str, *conditions: ColumnElement[bool]) -> bool:
        """Remove a study whose analysis meets conditions; whether it did."""
        files: list[Path] = []
        with self._engine.begin() as connection:
            mine = _JOBS.c.study == study
            # The row is held from here on: an image that comes now begins the study anew.
            if not connection.execute(delete(_JOBS).where(mine, _JOBS.c.task == ANALYSIS, *conditions)).rowcount:
                return False
            connection.execute(delete(_JOBS).where(mine))
            for table, place in ((_RECEIVED, self.received), (_RESULTS, self.results)):
                uids = connection.scalars(select(table.c.uid).where(table.c.study == study))
                files += {place / study / f"{uid}.dcm" for uid in uids}
                connection.execute(delete(table).where(table.c.study == study))
        # After the database, which must not speak of files that are gone.
        for file in files:
            file.unlink(missing_ok=True)
        return True


def _require(connection: Connection, study: str, task: str, due: float) -> None:
    """There is something to do."""
    mine = (_JOBS.c.study == study) & (_JOBS.c.task == task)
    now = {"state": WAITING, "attempts": 0, "due": due, "reason": "", "changed": time.time()}
    if not connection.execute(update(_JOBS).where(mine).values(revision=_JOBS.c.revision + 1, **now)).rowcount:
        connection.execute(insert(_JOBS).values(study=study, task=task, revision=1, **now))


def _same(job: Job) -> ColumnElement[bool]:
    """The row of a job, unless there is something new to do, or it was dropped."""
    mine = (_JOBS.c.study == job.study) & (_JOBS.c.task == job.task)
    return mine & (_JOBS.c.state == WAITING) & (_JOBS.c.revision == job.revision)


def _job(row: Row) -> Job:
    return Job(row.study, row.task, row.state, row.attempts, row.due, row.reason, row.revision)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a state folder, so that no other process works on it.

    Raises:
        ValueError: another process has it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process listens already with the state folder {folder}") from None
        yield
