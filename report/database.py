"""How every database of ours is opened: SQLite by default, PostgreSQL by its address."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, MetaData, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

LOCKED_SECONDS = 30
"""How long one waits for another who is writing to SQLite."""


def open_database(url: str, tables: MetaData, what: str) -> Engine:
    """Open a database and make the tables that are missing.

    Args:
        url: SQLAlchemy's address of it, e.g. ``sqlite:////srv/reports.sqlite`` or ``postgresql+psycopg://host/name``;
            ``sqlite://`` is one in memory, with one connection, which is not for several threads at once.
        tables: what must be there.
        what: what it holds, for the sentence.

    Raises:
        ValueError: there is no such database, or it cannot be used.
    """
    try:
        address = make_url(url)
        sqlite = address.get_backend_name() == "sqlite"
        if not sqlite:
            engine = create_engine(address, pool_pre_ping=True)
        elif not address.database:
            engine = create_engine(address, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(address, connect_args={"timeout": LOCKED_SECONDS})
            event.listen(engine, "connect", _write_ahead)
        _make(tables, engine)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        # The address may hold a password, and SQLAlchemy's own message the address.
        raise ValueError(f"the database of {what} cannot be opened: {reason(error)}") from error
    return engine


def _make(tables: MetaData, engine: Engine) -> None:
    there = OperationalError if engine.dialect.name == "sqlite" else (IntegrityError, ProgrammingError)
    try:
        tables.create_all(engine)
    except there:  # another process made them in the same moment
        tables.create_all(engine)


def reason(error: Exception) -> str:
    """The first line of what the database itself said."""
    return str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]


def _write_ahead(connection: Any, _: Any) -> None:
    # Readers do not wait for a writer, and what is said to be saved is on disk.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
