"""How every command talks: progress, what was left out, and one sentence where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

Progress = Callable[[Iterable[Any], int | None, str], Iterable[Any]]
"""Hands items on while it shows how many of how many are done: (items, length, label) → items."""


def silent(items: Iterable[Any], length: int | None, label: str) -> Iterable[Any]:
    """A :data:`Progress` that shows nothing."""
    return items


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """End with one sentence and exit code 1 where an input, a PACS, a disk or a database fails."""
    from monai_label_app.frames import in_one_line
    from monai_label_app.pacs import PacsError

    try:
        yield
    except (ValueError, PacsError) as error:
        fail(str(error))
    except BrokenPipeError:  # whoever reads what is printed has read enough
        raise
    except OSError as error:
        # pydicom raises its own error, with a page of text, from the system's.
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        fail(f"{cause.filename or out}: {cause.strerror or in_one_line(cause)}")
    except Exception as error:
        # Most commands have no database, and need not import what speaks to one.
        from sqlalchemy.exc import SQLAlchemyError

        from report.database import reason

        if not isinstance(error, SQLAlchemyError):
            raise
        fail(f"the database does not answer: {reason(error)}")


def progress(items: Iterable[Any], length: int | None, label: str) -> Iterator[Any]:
    """Hand items on, with a bar on standard error that shows how many of them are done."""
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield from bar


def name_problems(problems: list[Any], remarks: Iterable[str] = ()) -> None:
    """Say what was left out, and why, and what else was noticed."""
    for problem in problems:
        click.echo(f"left out: {problem.reason}", err=True)
    for remark in remarks:
        click.echo(remark, err=True)


def notice(classifier: Any) -> None:
    """Say what must be known of a model before its results are read."""
    if classifier.card.notice:
        click.echo(f"{classifier.card.name}: {classifier.card.notice}", err=True)


def fail(message: str) -> NoReturn:
    """End with one sentence and exit code 1."""
    raise click.ClickException(message)
