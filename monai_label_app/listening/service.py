"""Starts a node with all that belongs to it, and ends it cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.access.certificate import outdated
from monai_label_app.folder import alone
from monai_label_app.listening import node
from monai_label_app.listening.destinations import open_destination
from monai_label_app.listening.poller import Poller
from monai_label_app.listening.receiving import Receiver, require_room
from monai_label_app.listening.security import Security
from monai_label_app.listening.store import ANALYSIS, WAITING, Store
from monai_label_app.listening.work import Analysis, Patience, Sending, Worker
from monai_label_app.observed.checks import Check
from monai_label_app.observed.logs import NODE_LOG
from monai_label_app.observed.metrics import jobs_counted
from monai_label_app.pacs import Pacs
from report.database import reason

_say = NODE_LOG.info

HOUSEKEEPING = 600.0
"""Seconds between two looks for what may be forgotten."""


@dataclass(frozen=True)
class Settings:
    """Of a node.

    Attributes:
        folder: keeps its state.
        database: address of its database, or None for a file in the folder.
        title, host, port: where it listens.
        peers: AE titles that may call; anyone, if there is none.
        security: its certificates.
        poll: DICOMweb address to look for studies at, or None.
        since: Study Date of the earliest that is looked for there, YYYYMMDD; empty for all.
        every: seconds between two looks.
        destinations: addresses that results are sent to.
        quiet: seconds without a new object after which a study is complete.
        reserve: bytes that stay free on the disk.
        days: how long images are kept when all is done.
        patience: with what fails.
        model, weights: as ``endolens analyze`` takes them.
        wanted: attributes of :class:`monai_label_app.results.Wanted`.
    """

    folder: Path
    database: str | None
    title: str
    host: str
    port: int
    peers: tuple[str, ...]
    security: Security
    poll: str | None
    since: str
    every: float
    destinations: tuple[str, ...]
    quiet: float
    reserve: int
    days: float
    patience: Patience
    model: str | None = None
    weights: str | None = None
    wanted: dict[str, Any] = field(default_factory=dict)


@contextmanager
def running(settings: Settings, ended: Callable[[], None]) -> Iterator[Mapping[str, Callable[[], Check]]]:
    """A node that works in threads of its own until the block is left; what was begun goes on at the next start.

    Args:
        settings: of the node.
        ended: called when it cannot go on; the block is to be left then.

    Yields:
        What is to be looked at to know whether it is well: name → check.

    Raises:
        ValueError, PacsError, OSError: an address is none, the port is taken, the state folder or the database cannot
            be used or is in use, or the model cannot be opened. The last is known some seconds later, and raised when
            the block is left.
    """
    opened = {one: open_destination(one, settings.title, settings.security) for one in settings.destinations}
    archive = Pacs(settings.poll) if settings.poll else None
    stop = threading.Event()
    with alone(settings.folder):
        store = Store(settings.folder, settings.database)
        store.tidy()
        receiver = Receiver(store, settings.quiet, settings.reserve)
        store.forget(settings.days)
        for task in sorted({one.task for one in store.jobs() if one.state == WAITING} - {ANALYSIS, *opened}):
            _say(f"results wait for {task}, which --send does not name: name it, or endolens jobs drop them")
        analysis = Analysis(store, settings.destinations, settings.model, settings.weights, settings.wanted, stop)
        analyst = Worker(ANALYSIS, analysis, store, settings.patience, _say, lambda: receiver.complete)
        senders = (Worker(to, Sending(store, at, stop), store, settings.patience, _say) for to, at in opened.items())
        loops = [analysis.load, analyst.run, *(one.run for one in senders), partial(_forget, store, settings.days)]
        if archive:
            loops.append(Poller(archive, settings.since, settings.every, receiver, store, _say).run)
        close = node.listen(
            receiver, settings.title, settings.host, settings.port, settings.peers, settings.security, _say
        )
        _say(f"{settings.title} listens on {settings.host}:{settings.port}")
        if settings.security.certificate and (wrong := outdated(settings.security.certificate)):
            _say(f"Warning: {wrong}")
        failures: list[BaseException] = []

        def guarded(loop: Callable[[threading.Event], None]) -> None:
            try:
                loop(stop)
            except BaseException as error:  # a node that half works would go unnoticed
                failures.append(error)
                stop.set()
                ended()

        threads = [threading.Thread(target=guarded, args=(loop,)) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            with jobs_counted(store.numbers):
                yield {"node": partial(_check, store, settings)}
        finally:
            stop.set()
            close()
            for thread in threads:
                thread.join()
            if failures:
                raise failures[0]


def _forget(store: Store, days: float, stop: threading.Event) -> None:
    while not stop.wait(HOUSEKEEPING):
        with suppress(SQLAlchemyError):  # those who work say that it does not answer
            store.forget(days)


def _check(store: Store, settings: Settings) -> Check:
    """Whether it can take in an object now."""
    try:
        require_room(settings.folder, settings.reserve)
        store.require_writable()
    except OSError:
        todo = f"make room: {settings.reserve // 2**20} MiB stay free for results (--reserve)"
        return Check("node", f"the disk of {settings.folder} is full", todo)
    except SQLAlchemyError as error:
        return Check("node", f"its database does not answer: {reason(error)}", "start it, or correct its address")
    return Check("node", f"{settings.title} listens on {settings.host}:{settings.port}")
