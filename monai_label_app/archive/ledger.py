"""What is to be done in an archive, what is done and what failed: on disk, however many studies there are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, and_, delete, func, insert, select, update

from monai_label_app.archive.work import Outcome
from monai_label_app.folder import whole
from report.database import open_database

WAITING, DONE, FAILED = ("waiting", "done", "failed")

_TABLES = MetaData()

_STUDIES = Table(
    "studies",
    _TABLES,
    Column("work", String(64), primary_key=True),
    Column("study", String(64), primary_key=True),
    Column("state", String(8), nullable=False),
    Column("instances", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    # Where the line of the study ends in summary.jsonl; what comes after the last of them never counted.
    Column("line", Integer, nullable=False),
)

_MANY = 500
"""Studies that are held in memory at once."""


class Ledger:
    """What became of the studies that a folder's runs have listed.

    Args:
        folder: exists, and is held by this process alone; gets ``archive.sqlite`` and ``summary.jsonl``.
        work: what is done with the studies; whoever does something else with them begins anew.

    Raises:
        ValueError: the database cannot be opened.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self._folder, self._mine = folder, _STUDIES.c.work == work
        self._work = work
        self._engine = open_database(f"sqlite:///{folder / 'archive.sqlite'}", "monai_label_app:migrations/archive")
        self._summary = (folder / "summary.jsonl").open("ab")
        with self._engine.begin() as connection:
            end = connection.scalar(select(func.max(_STUDIES.c.line))) or 0
            # What the last run failed in is tried again, and what it did not come to may not be asked for any more.
            connection.execute(delete(_STUDIES).where(self._mine, _STUDIES.c.state != DONE))
        if end < self._summary.tell():
            self._summary.truncate(end)

    def close(self) -> None:
        """Let the files go."""
        self._summary.close()
        self._engine.dispose()

    def add(self, found: Mapping[str, int]) -> int:
        """Add studies to be done, each with its number of instances, 0 if not told.

        Returns:
            How many of them were done before. One that has grown since is to be done again.
        """
        names, before = iter(found), 0
        while some := list(islice(names, _MANY)):
            with self._engine.begin() as connection:
                rows = connection.execute(select(_STUDIES).where(self._mine, _STUDIES.c.study.in_(some)))
                known = {row.study: row for row in rows}
                new = [
                    {"work": self._work, "study": one, "state": WAITING, "instances": 0, "reason": "", "line": 0}
                    for one in some
                    if one not in known
                ]
                if new:
                    connection.execute(insert(_STUDIES), new)
                grown = [study for study, row in known.items() if found[study] > row.instances and row.state == DONE]
                same = and_(self._mine, _STUDIES.c.study.in_(grown))
                connection.execute(update(_STUDIES).where(same).values(state=WAITING))
                before += sum(row.state == DONE for row in known.values()) - len(grown)
        return before

    def count(self, state: str) -> int:
        """How many studies are in a state."""
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).where(self._mine, _STUDIES.c.state == state)) or 0

    def waiting(self) -> Iterator[str]:
        """Every study that is to be done, once."""
        last = ""
        mine = select(_STUDIES.c.study).where(self._mine, _STUDIES.c.state == WAITING).order_by(_STUDIES.c.study)
        while True:
            with self._engine.connect() as connection:
                some = connection.scalars(mine.where(_STUDIES.c.study > last).limit(_MANY)).all()
            if not some:
                return
            yield from some
            last = some[-1]

    def note(self, outcome: Outcome) -> None:
        """Keep what came of a study: it is on disk when this returns."""
        state, line = FAILED, 0
        if outcome.summary:
            self._summary.write(f"{outcome.summary}\n".encode())
            self._summary.flush()
            os.fsync(self._summary.fileno())
            state, line = DONE, self._summary.tell()
        kept = {"state": state, "instances": outcome.instances, "reason": outcome.reason, "line": line}
        with self._engine.begin() as connection:
            connection.execute(update(_STUDIES).where(self._mine, _STUDIES.c.study == outcome.study).values(**kept))

    def write_failures(self) -> int:
        """Write ``failures.jsonl``, a line a study that failed or of which something was left out; how many."""
        count = 0
        wrong = select(_STUDIES).where(self._mine, _STUDIES.c.reason != "", _STUDIES.c.state != WAITING)
        with (
            whole(self._folder / "failures.jsonl") as partial,
            partial.open("w", encoding="utf-8") as file,
            self._engine.connect() as connection,
        ):
            for row in connection.execution_options(yield_per=_MANY).execute(wrong.order_by(_STUDIES.c.study)):
                line = {"study": row.study, "state": row.state, "reason": row.reason}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        return count
