"""Analyse an archive, top to bottom; what was interrupted goes on where it was."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.archive.ledger import FAILED, WAITING, Ledger
from monai_label_app.archive.query import days
from monai_label_app.archive.work import Analyst, Outcome, Task
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.console import progress
from monai_label_app.folder import alone
from monai_label_app.pacs import Pacs, UnreachableError
from report.database import reason
from report.uids import derive

SAY = 60.0
"""Seconds between two lines on how far it is, where they go to a log."""

Hands = Callable[[Iterator[str], Task, Classifier], Iterator[Outcome]]
"""Do studies, and hand on what came of each as soon as it is done; few of them are taken ahead."""


@dataclass(frozen=True)
class Totals:
    """Of a run: studies and frames that it analysed, studies that were done before it and that failed in it, and how
    many of the folder are named in ``failures.jsonl``.
    """

    studies: int
    frames: int
    before: int
    failed: int
    named: int


def one_by_one(studies: Iterator[str], task: Task, classifier: Classifier) -> Iterator[Outcome]:
    """The :data:`Hands` of this process."""
    return map(Analyst(task, classifier), studies)


def run(query: Mapping[str, str], task: Task, classifier: Classifier, out: Path, hands: Hands = one_by_one) -> Totals:
    """Do every study that a query finds and that is not done.

    Args:
        query: as :func:`monai_label_app.archive.query.parse` returns it.
        task: what is done with each.
        classifier: the network.
        out: folder that remembers what is done; gets ``summary.jsonl`` and ``failures.jsonl``.
        hands: who does it.

    Raises:
        PacsError: the archive cannot be asked, or does not answer any more. What is done stays done.
        ValueError: another process works on the folder, or it cannot keep what is done.
    """
    work = derive("work", task.url, classifier.card.name, classifier.fingerprint, task.rate, asdict(task.wanted))
    archive = Pacs(task.url, task.login)
    with alone(out), _explained(out), closing(Ledger(out, work)) as ledger:
        parts = list(days(query))
        before = sum(ledger.add(archive.studies(part)) for part in progress(parts, len(parts), "Looking for studies"))
        total = ledger.count(WAITING)
        try:
            studies, frames = _do(total, hands(ledger.waiting(), task, classifier), ledger)
        finally:
            named = ledger.write_failures()
        return Totals(studies, frames, before, ledger.count(FAILED), named)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise ValueError(f"{out} cannot keep what is done: {reason(error)}") from error


def _do(total: int, outcomes: Iterator[Outcome], ledger: Ledger) -> tuple[int, int]:
    """Keep what came of each study, with a bar; how many studies and frames were analysed."""
    studies = frames = failed = 0
    said = time.monotonic()

    def shown(_: Outcome | None) -> str:
        return f"{frames} frames, {failed} failed"

    with click.progressbar(
        length=total, label="Analysing studies", file=sys.stderr, show_pos=True, item_show_func=shown
    ) as bar:
        for outcome in outcomes:
            if outcome.unreachable:
                raise UnreachableError(f"{outcome.reason} (what is done is kept, and the same command goes on)")
            ledger.note(outcome)
            studies += bool(outcome.summary)
            failed += not outcome.summary
            frames += outcome.frames
            bar.update(1, outcome)
            if not sys.stderr.isatty() and time.monotonic() - said > SAY:  # in a log there is no bar
                said = time.monotonic()
                click.echo(f"{studies + failed} of {total} studies, {shown(outcome)}", err=True)
    return studies, frames
