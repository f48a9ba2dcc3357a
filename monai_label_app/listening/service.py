"""Starts a node with all that belongs to it, and ends it cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.listening import node
from monai_label_app.listening.destinations import open_destination
from monai_label_app.listening.poller import Poller
from monai_label_app.listening.receiving import Receiver
from monai_label_app.listening.store import ANALYSIS, Store
from monai_label_app.listening.work import Analysis, Patience, Sending, Worker
from monai_label_app.pacs import Pacs

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
        poll: DICOMweb address to look for studies at, or None.
        since: Study Date of the earliest that is looked for there, YYYYMMDD; empty for all.
        every: seconds between two looks.
        destinations: addresses that results are sent to.
        quiet: seconds without a new object after which a study is complete.
        reserve: bytes that stay free on the disk.
        days: how long images are kept when all is done.
        patience: with what fails.
        model, weights: as ``endolens analyze`` takes them.
        wanted: attributes of :class:`monai_label_app.analysis.Wanted`.
    """

    folder: Path
    database: str | None
    title: str
    host: str
    port: int
    peers: tuple[str, ...]
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


def run(settings: Settings) -> None:
    """Listen until interrupted; what was begun goes on at the next start.

    Raises:
        ValueError, PacsError, OSError: an address is none, the port is taken, the state folder or the database cannot
            be used or is in use, or the model cannot be opened.
    """
    opened = {one: open_destination(one, settings.title) for one in settings.destinations}
    archive = Pacs(settings.poll) if settings.poll else None
    stop = threading.Event()
    with _alone(settings.folder):
        store = Store(settings.folder, settings.database)
        store.tidy()
        receiver = Receiver(store, settings.quiet, settings.reserve)
        store.forget(settings.days)
        analysis = Analysis(store, settings.destinations, settings.model, settings.weights, settings.wanted, stop)
        analyst = Worker(ANALYSIS, analysis, store, settings.patience, _say, lambda: receiver.complete)
        senders = (Worker(to, Sending(store, at, stop), store, settings.patience, _say) for to, at in opened.items())
        loops = [analysis.load, analyst.run, *(one.run for one in senders)]
        if archive:
            loops.append(Poller(archive, settings.since, settings.every, receiver, store, _say).run)
        close = node.listen(receiver, settings.title, settings.host, settings.port, settings.peers, _say)
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, lambda *_: stop.set())
        _say(f"{settings.title} listens on {settings.host}:{settings.port}")
        failures: list[BaseException] = []
        threads = [threading.Thread(target=_guarded, args=(loop, stop, failures)) for loop in loops]
        for thread in threads:
            thread.start()
        while not stop.wait(HOUSEKEEPING):
            with suppress(SQLAlchemyError):  # those who work say that it does not answer
                store.forget(settings.days)
        close()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a state folder, so that no other process works on it.

    Raises:
        ValueError: another process has it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process listens already with the state folder {folder}") from None
    with held:
        yield


def _guarded(loop: Callable[[threading.Event], None], stop: threading.Event, failures: list[BaseException]) -> None:
    """A thread that fails ends them all: a node that half works would go unnoticed."""
    try:
        loop(stop)
    except BaseException as error:
        failures.append(error)
        stop.set()


def _say(sentence: str) -> None:
    with suppress(OSError):  # who reads may be gone, and the disk of a log be full
        click.echo(sentence)
