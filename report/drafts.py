"""Reports of studies under edit: every save is a version, nothing is overwritten, and what is signed stays.

SQLite by default, PostgreSQL by its address. Several people, threads and servers may work on one database.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.valuerep import PersonName
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from report.database import open_database
from report.examination import ExaminationReport, Signature
from report.findings import Algorithm
from report.record import from_json, to_json

_TABLES = MetaData()

_REPORTS = Table(
    "reports",
    _TABLES,
    Column("study", String(64), primary_key=True),
    # Which version counts, and how many there are: some were set aside.
    Column("current", Integer, nullable=False),
    Column("last", Integer, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("algorithm", JSON, nullable=False),
)
"""One row a study. Every change of it names the version that it starts from,
so that of two at once only one succeeds."""

_VERSIONS = Table(
    "versions",
    _TABLES,
    Column("study", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("base", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("saved", DateTime, nullable=False),
    Column("set_aside", Boolean, nullable=False),
    Column("signature", JSON),
    Column("documents", JSON),
)


@dataclass(frozen=True)
class Version:
    """A report as it was saved once.

    Attributes:
        study: Study Instance UID.
        number: from 1, counted within the study.
        base: number of the version that it was made of; 0 for the first.
        report: what it says.
        author: who saved it, as far as they said.
        saved: when, in UTC.
        set_aside: it was saved over a version that no longer counted, and never counted itself.
        signature: who signed it; None for a draft.
        documents: SOP Instance UIDs of the signed documents, once they are stored; the Structured Report is the first.
    """

    study: str
    number: int
    base: int
    report: ExaminationReport
    author: str
    saved: datetime.datetime
    set_aside: bool = False
    signature: Signature | None = None
    documents: tuple[str, ...] = ()


class StaleError(ValueError):
    """Someone else saved in the meantime; both texts are kept.

    Attributes:
        current: the version that counts.
        aside: the one that was refused, set aside; None where nothing was to be saved.
    """

    def __init__(self, current: Version, aside: Version | None = None) -> None:
        super().__init__(f"Version {current.number} was saved in the meantime.{_kept(aside)}")
        self.current, self.aside = current, aside


class SignedError(ValueError):
    """The report is signed and cannot be changed; what someone else wrote meanwhile is kept, and never counts."""


class Drafts:
    """The reports of a database.

    Args:
        url: SQLAlchemy's address of it, e.g. ``sqlite:////srv/reports.sqlite`` or ``postgresql+psycopg://host/name``.

    Raises:
        ValueError: there is no such database, or it cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url, "report:migrations/reports")

    def current(self, study: str) -> Version:
        """The version that counts.

        Raises:
            LookupError: the study has no report.
        """
        with self._engine.connect() as connection:
            return _current(connection, study)

    def versions(self, study: str) -> list[Version]:
        """All, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_VERSIONS).where(_VERSIONS.c.study == study).order_by(_VERSIONS.c.number))
            return [_version(row) for row in rows]

    def version(self, study: str, number: int) -> Version:
        """One; LookupError if there is none."""
        with self._engine.connect() as connection:
            return _numbered(connection, study, number)

    def predecessor(self, version: Version) -> Version | None:
        """The signed version that an addendum follows; None for a first report."""
        before = [one for one in self.versions(version.study) if one.number < version.number and one.signature]
        return before[-1] if before else None

    def algorithm(self, study: str) -> Algorithm:
        """The machine that the draft was made by; LookupError if the study has no report."""
        with self._engine.connect() as connection:
            row = connection.execute(select(_REPORTS.c.algorithm).where(_REPORTS.c.study == study)).one_or_none()
        if row is None:
            raise LookupError(study)
        return Algorithm(**row.algorithm)

    def states(self) -> dict[str, str]:
        """Study → ``draft``, ``unstored`` (signed, its documents not in the archive yet) or ``signed``."""
        counted = (_VERSIONS.c.study == _REPORTS.c.study) & (_VERSIONS.c.number == _REPORTS.c.current)
        with self._engine.connect() as connection:
            rows = connection.execute(select(_REPORTS.c.study, _REPORTS.c.open, _VERSIONS.c.documents).where(counted))
            return {row.study: "draft" if row.open else "signed" if row.documents else "unstored" for row in rows}

    def create(self, study: str, report: ExaminationReport, algorithm: Algorithm) -> Version:
        """The first version of a study's report; the one that counts if there is a report already."""
        try:
            with self._engine.begin() as connection:
                row = {"study": study, "current": 1, "last": 1, "open": True, "algorithm": asdict(algorithm)}
                connection.execute(insert(_REPORTS).values(row))
                return _add(connection, Version(study, 1, 0, report, "", _now()))
        except IntegrityError:
            return self.current(study)

    def save(self, study: str, base: int, report: ExaminationReport, author: str = "") -> Version:
        """Add a version; what is saved already is not saved again.

        Args:
            study: Study Instance UID.
            base: number of the version that was edited.
            report: what it says now.
            author: who saves.

        Raises:
            LookupError: the study has no report.
            StaleError: another version counts by now; this one is set aside.
            SignedError: the report is signed; this one is set aside.
        """
        with self._engine.begin() as connection:
            counted = (_REPORTS.c.study == study) & (_REPORTS.c.current == base) & _REPORTS.c.open
            # The row is locked from here on, even where nothing comes of it.
            held = connection.execute(update(_REPORTS).where(counted).values(last=_REPORTS.c.last)).rowcount
            current = _current(connection, study)
            same = current.report == report
            if same and not current.signature:
                return current
            if held:
                return _next(connection, study, base, report, author)
            aside = None if same else _set_aside(connection, study, base, report, author)
        if current.signature:
            raise SignedError(f"{_signed_by(current)}{_kept(aside)}")
        raise StaleError(current, aside)

    def sign(self, study: str, number: int, signature: Signature) -> Version:
        """Sign the version that counts; from then on it stays as it is.

        Where the same person signed it already, nothing happens.

        Raises:
            LookupError: the study has no report.
            StaleError: another version counts by now.
            SignedError: someone else signed it.
        """
        with self._engine.begin() as connection:
            counted = (_REPORTS.c.study == study) & (_REPORTS.c.current == number) & _REPORTS.c.open
            if connection.execute(update(_REPORTS).where(counted).values(open=False)).rowcount:
                _mark(connection, study, number, signature={**asdict(signature), "time": signature.time.isoformat()})
            signed = _current(connection, study)
        if signed.number != number:
            raise StaleError(signed)
        if signed.signature is None or _who(signed.signature) != _who(signature):
            raise SignedError(_signed_by(signed))
        return signed

    def stored(self, study: str, number: int, documents: list[str]) -> Version:
        """Note that the documents of a signed version are in the archive."""
        with self._engine.begin() as connection:
            _mark(connection, study, number, documents=documents)
            return _numbered(connection, study, number)

    def addendum(self, study: str, author: str = "") -> Version:
        """Begin a version after a signed one, which it starts from; the one that counts if it is not signed.

        Raises:
            LookupError: the study has no report.
        """
        with self._engine.begin() as connection:
            closed = (_REPORTS.c.study == study) & ~_REPORTS.c.open
            if not connection.execute(update(_REPORTS).where(closed).values(open=True)).rowcount:
                return _current(connection, study)
            signed = _current(connection, study)
            return _next(connection, study, signed.number, signed.report, author)

    def erase(self, study: str) -> int:
        """Take a study's report with all its versions out of the database, and of SQLite's file; returns how many."""
        sqlite = self._engine.dialect.name == "sqlite"
        with self._engine.connect() as connection:
            if sqlite:
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            erased = connection.execute(delete(_VERSIONS).where(_VERSIONS.c.study == study)).rowcount
            connection.execute(delete(_REPORTS).where(_REPORTS.c.study == study))
            connection.commit()
            if sqlite:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(erased)


def _current(connection: Connection, study: str) -> Version:
    number = connection.execute(select(_REPORTS.c.current).where(_REPORTS.c.study == study)).scalar_one_or_none()
    if number is None:
        raise LookupError(study)
    return _numbered(connection, study, number)


def _numbered(connection: Connection, study: str, number: int) -> Version:
    place = (_VERSIONS.c.study == study) & (_VERSIONS.c.number == number)
    row = connection.execute(select(_VERSIONS).where(place)).one_or_none()
    if row is None:
        raise LookupError(f"{study} {number}")
    return _version(row)


def _next(connection: Connection, study: str, base: int, report: ExaminationReport, author: str) -> Version:
    """Add a version that counts from now on."""
    number = _number(connection, study)
    connection.execute(update(_REPORTS).where(_REPORTS.c.study == study).values(current=number))
    return _add(connection, Version(study, number, base, report, author, _now()))


def _set_aside(connection: Connection, study: str, base: int, report: ExaminationReport, author: str) -> Version:
    """Add a version that does not count, unless the same was set aside before."""
    like = _VERSIONS.c.set_aside & (_VERSIONS.c.base == base) & (_VERSIONS.c.content == to_json(report))
    row = connection.execute(select(_VERSIONS).where((_VERSIONS.c.study == study) & like)).first()
    if row is not None:
        return _version(row)
    number = _number(connection, study)
    return _add(connection, Version(study, number, base, report, author, _now(), set_aside=True))


def _number(connection: Connection, study: str) -> int:
    mine = _REPORTS.c.study == study
    connection.execute(update(_REPORTS).where(mine).values(last=_REPORTS.c.last + 1))
    return int(connection.execute(select(_REPORTS.c.last).where(mine)).scalar_one())


def _add(connection: Connection, version: Version) -> Version:
    row = {
        "study": version.study,
        "number": version.number,
        "base": version.base,
        "content": to_json(version.report),
        "author": version.author,
        "saved": version.saved.replace(tzinfo=None),
        "set_aside": version.set_aside,
    }
    connection.execute(insert(_VERSIONS).values(row))
    return version


def _mark(connection: Connection, study: str, number: int, **values: Any) -> None:
    place = (_VERSIONS.c.study == study) & (_VERSIONS.c.number == number)
    connection.execute(update(_VERSIONS).where(place).values(**values))


def _version(row: Row[Any]) -> Version:
    signature = row.signature and {**row.signature, "time": datetime.datetime.fromisoformat(row.signature["time"])}
    return Version(
        study=row.study,
        number=row.number,
        base=row.base,
        report=from_json(row.content),
        author=row.author,
        saved=row.saved.replace(tzinfo=datetime.timezone.utc),
        set_aside=row.set_aside,
        signature=Signature(**signature) if signature else None,
        documents=tuple(row.documents or ()),
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def _who(signature: Signature) -> tuple[str, str, str]:
    return signature.name, signature.role, signature.organization


def _kept(aside: Version | None) -> str:
    return f" What you wrote is kept as version {aside.number}." if aside else ""


def _signed_by(version: Version) -> str:
    signature = version.signature
    who = f" by {PersonName(signature.name).family_comma_given()}, {signature.time:%Y-%m-%d %H:%M}" if signature else ""
    return f"The report is signed{who} and cannot be changed; begin an addendum."
