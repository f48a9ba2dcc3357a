"""How every database of ours is opened, SQLite or PostgreSQL, and its tables brought up to date.

A change of a ``Table`` is a file more in the folder of its migrations, which databases that are there go through.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

LOCKED_SECONDS = 30
"""How long one waits for another who is writing to SQLite."""

_PATIENCE = {"connect_timeout": 10, "tcp_user_timeout": 30_000, "keepalives_idle": 30}
"""With a PostgreSQL whose machine is gone; what its address says counts more."""

_LOCK = 0x656E646F
"""Names our lock among those of a PostgreSQL."""


def open_database(url: str, migrations: str) -> Engine:
    """Open a database, and bring its tables up to date; other tables may be in it too.

    Args:
        url: SQLAlchemy's address of it, e.g. ``sqlite:////srv/reports.sqlite`` or ``postgresql+psycopg://host/name``;
            ``sqlite://`` is one in memory, with one connection, which is not for several threads at once.
        migrations: the folder of Alembic's scripts that make the tables, as ``package:path``. What they are is its last
            part.

    Raises:
        ValueError: there is no such database, or it cannot be used.
    """
    what = _content(migrations)
    try:
        address = make_url(url)
        sqlite = address.get_backend_name() == "sqlite"
        if not sqlite:
            patience = _PATIENCE.items() if address.get_backend_name() == "postgresql" else ()
            unsaid = {name: value for name, value in patience if name not in address.query}
            engine = create_engine(address, pool_pre_ping=True, connect_args=unsaid)
        elif not address.database:
            engine = create_engine(address, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(address, connect_args={"timeout": LOCKED_SECONDS})
            event.listen(engine, "connect", _write_ahead)
        _update(engine, migrations)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        # The address may hold a password, and SQLAlchemy's own message the address.
        raise ValueError(f"the database of {what} cannot be opened: {reason(error)}") from error
    except CommandError as error:
        raise ValueError(f"the database of {what} is of a later version of EndoLens; install that one") from error
    except (AssertionError, KeyError) as error:  # what Alembic says of tables that it does not know
        raise ValueError(f"the database of {what} has tables of the same names for something else") from error
    return engine


def _update(engine: Engine, migrations: str) -> None:
    newest = _scripts(migrations).get_current_head()
    version_table = f"{_content(migrations)}_revision"
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": version_table})
        if context.get_current_revision() == newest:
            return
    with engine.begin() as connection:
        _keep_others_out(connection)
        config = _config(migrations)
        config.attributes.update(connection=connection, version_table=version_table)
        command.upgrade(config, "head")


def _keep_others_out(connection: Connection) -> None:
    """Until what is begun here is committed: several processes may open one database in the same moment."""
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else f"SELECT pg_advisory_xact_lock({_LOCK})")


@cache
def _scripts(migrations: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(migrations))


def _config(migrations: str) -> Config:
    config = Config()
    config.set_main_option("script_location", "report:migrations")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", migrations)
    return config


def _content(migrations: str) -> str:
    return migrations.rpartition("/")[2]


def reason(error: Exception) -> str:
    """The first line of what the database itself said."""
    return str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]


def _write_ahead(connection: Any, _: Any) -> None:
    # Readers do not wait for a writer, and what is said to be saved is on disk.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
