"""``endolens listen | jobs``: a DICOM node that analyses what it is sent, and a look at what it has to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from monai_label_app.access.endpoint import Endpoint
from monai_label_app.commands.options import (
    database_option,
    guard_options,
    log_option,
    model_option,
    node_options,
    node_settings,
    result_options,
    state_option,
    weights_option,
)
from monai_label_app.console import explained, fail


class _Address(click.ParamType):
    """A port, or host:port."""

    name = "[HOST:]PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Host and port; a usage error if it is none."""
        found = re.fullmatch(r"(?:(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):)?(?P<port>\d{1,5})", value)
        if found is None or not 0 < int(found["port"]) < 65536:
            self.fail(f"{value!r} is neither a port nor of the form host:port", param, ctx)
        return (found["host"] or "127.0.0.1").strip("[]"), int(found["port"])


@click.command()
@node_options()
@click.option("--metrics", type=_Address(), help="Answer /health/live, /health/ready and /metrics here, by HTTP.")
@guard_options
@log_option
@result_options
@model_option
@weights_option
def listen(
    metrics: tuple[str, int] | None,
    token_file: Path | None,
    insecure: bool,
    log: str,
    model: str | None,
    **given: Any,
) -> None:
    """Be a DICOM node: analyse every study that comes in by C-STORE or is found in a PACS, and send the results on.

    What has been acknowledged is on disk and in the database; after a crash, a full disk or a PACS that was down, the
    work goes on where it was. Ctrl-C ends it.

    \b
    Example:
      endolens listen --aet ENDOLENS --port 11112 --send http://localhost:8042/dicom-web
      endolens listen --poll http://localhost:8042/dicom-web --send ORTHANC@localhost:4242
      endolens listen --send http://localhost:8042/dicom-web --metrics 9104
    """
    from monai_label_app import server

    settings = node_settings(given, model)
    observed = Endpoint(*metrics, token_file, insecure) if metrics else None
    with explained(settings.folder):
        server.listen(settings, observed, log)


@click.group()
def jobs() -> None:
    """See what `endolens listen` has to do, and decide on what it gave up.

    A job is the analysis of a study, or the sending of its results to a destination.

    \b
    Example:
      endolens jobs list --state endolens-listen
      endolens jobs retry --all
      endolens jobs drop 1.2.840.113619.2.1
    """


@jobs.command("list")
@state_option
@database_option
@click.option("--dead", is_flag=True, help="Only what was given up.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object a job.")
def list_(state: Path, database: str | None, dead: bool, as_json: bool) -> None:
    """Show every job: study, task, state, attempts, what is left to do, and what went wrong the last time.

    \b
    Example:
      endolens jobs list --dead --json
    """
    import json

    from monai_label_app.listening.store import DEAD

    with explained(state):
        store = _open(state, database)
        counts = store.counts()
        lines = [
            {"study": one.study, "task": one.task, "state": one.state, "attempts": one.attempts,
             "objects": counts.get(one.study, {}).get(one.task, 0), "reason": one.reason}
            for one in store.jobs() if not dead or one.state == DEAD
        ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(lines, indent=1))
        return
    for line in lines:
        what = "{objects} images" if line["task"] == "analysis" else "{objects} results to send"
        tried = ", attempt {attempts}" if line["attempts"] else ""
        text = "{study}  {task}: {state}, " + what + tried + ("; {reason}" if line["reason"] else "")
        click.echo(text.format(**line))
    click.echo(f"{len(lines)} jobs, {sum(line['state'] == DEAD for line in lines)} of them dead", err=True)


@jobs.command()
@click.argument("studies", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Everything that was given up.")
@state_option
@database_option
def retry(studies: tuple[str, ...], every: bool, state: Path, database: str | None) -> None:
    """Do again what was given up, of the STUDIES named by their UIDs or of all; a running node begins at once.

    \b
    Example:
      endolens jobs retry 1.2.840.113619.2.1
      endolens jobs retry --all
    """
    if bool(studies) == every:
        raise click.UsageError("give either STUDIES or --all")
    with explained(state):
        store = _open(state, database)
        count = store.retry() if every else sum(map(store.retry, studies))
    if not (count or every):
        fail("none of these studies has anything left to do; see endolens jobs list")
    click.echo(f"{count} jobs are tried again")


@jobs.command()
@click.argument("studies", nargs=-1, required=True)
@click.option("--task", metavar="DESTINATION", help="Only this destination; the study stays.")
@state_option
@database_option
def drop(studies: tuple[str, ...], task: str | None, state: Path, database: str | None) -> None:
    """Forget STUDIES with their images and results here; what is in a PACS stays there.

    \b
    Example:
      endolens jobs drop 1.2.840.113619.2.1
      endolens jobs drop 1.2.840.113619.2.1 --task ORTHANC@localhost:4242
    """
    with explained(state):
        store = _open(state, database)
        unknown = [study for study in studies if not store.drop(study, task)]
    for study in unknown:
        click.echo(f"there is no such job of {study}", err=True)
    click.echo(f"{len(studies) - len(unknown)} dropped")
    if unknown:
        fail(f"{len(unknown)} were not there")


def _open(state: Path, database: str | None) -> Any:
    from monai_label_app.listening.store import Store

    if not (state / "id").exists():
        fail(f"{state} is no state folder of endolens listen; name it by --state")
    return Store(state, database)
