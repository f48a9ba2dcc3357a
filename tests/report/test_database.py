"""Databases: their tables are those that the code speaks of, however old the database is and whoever opens it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, MetaData, create_engine, insert, select, text

from monai_label_app import job_queue
from monai_label_app.archive import ledger
from monai_label_app.listening import tables
from monai_label_app.listening.store import ANALYSIS, Store
from report import database, drafts
from report.database import open_database
from tests.postgresql import postgresql

DATABASES = {
    "report:migrations/reports": drafts._TABLES,
    "monai_label_app:migrations/jobs": tables.TABLES,
    "monai_label_app:migrations/analyses": job_queue._TABLES,
    "monai_label_app:migrations/archive": ledger._TABLES,
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        with postgresql(Path(folder)) as url:
            yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'all.sqlite'}"
    server: str = request.getfixturevalue("server")
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return server


def differences(engine: Engine, expected: MetaData) -> list[object]:
    """Between the tables that are there and those of the code, as Alembic finds them."""

    def ours(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        return kind != "table" or name in expected.tables

    with engine.connect() as connection:
        options = {"compare_type": True, "include_object": ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), expected))


def test_the_tables_are_those_of_the_code_and_one_database_holds_them_all(url: str) -> None:
    for migrations, expected in DATABASES.items():
        engine = open_database(url, migrations)
        assert not differences(engine, expected)
        engine.dispose()
    for migrations, expected in DATABASES.items():  # each is up to date already
        engine = open_database(url, migrations)
        assert not differences(engine, expected)
        engine.dispose()


def test_one_that_a_node_left_before_there_were_migrations_is_brought_up_to_date(url: str, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("0123")
    engine = create_engine(url)
    with engine.begin() as connection:
        config = database._config("monai_label_app:migrations/jobs")
        config.attributes.update(connection=connection, version_table="jobs_revision")
        command.upgrade(config, "0001")
        connection.execute(text("DROP TABLE jobs_revision"))
        connection.execute(text("INSERT INTO node (folder, schema) VALUES ('0123', 1)"))
        connection.execute(insert(tables.RECEIVED).values(uid="1.2.3", study="1.2", patient="4711"))
        job = {"state": "waiting", "revision": 3, "attempts": 1, "due": 0.0, "reason": "", "changed": 0.0}
        connection.execute(insert(tables.JOBS).values(study="1.2", task=ANALYSIS, **job))
    engine.dispose()
    store = Store(tmp_path, url)
    assert not differences(store._engine, tables.TABLES)
    assert store.patient("1.2") == "4711"
    begun = store.begin(ANALYSIS, 1)
    assert begun and (begun.study, begun.revision) == ("1.2", 3)
    with store._engine.connect() as connection:
        assert connection.scalars(select(tables.NODE.c.folder)).all() == ["0123"]


def test_one_of_a_later_version_is_refused_in_a_sentence_and_left_as_it_is(url: str) -> None:
    engine = open_database(url, "report:migrations/reports")
    with engine.begin() as connection:
        connection.execute(text("UPDATE reports_revision SET version_num = '9999'"))
    with pytest.raises(ValueError, match=r"^the database of reports is of a later version of EndoLens; install that"):
        open_database(url, "report:migrations/reports")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM reports_revision")) == "9999"


def test_tables_of_another_program_are_refused_in_a_sentence(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE node (name TEXT)"))
    with pytest.raises(
        ValueError, match=r"^the database of jobs (cannot be opened: column|has tables of the same name)"
    ):
        open_database(url, "monai_label_app:migrations/jobs")


def test_several_that_open_it_in_one_moment_all_can(url: str) -> None:
    migrations = "monai_label_app:migrations/jobs"
    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(lambda _: open_database(url, migrations), range(8)))
    assert not differences(engines[0], tables.TABLES)
