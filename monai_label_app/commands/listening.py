"""``endolens listen | jobs``: a DICOM node that analyses what it is sent, and a look at what it has to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from monai_label_app.access.endpoint import is_loopback
from monai_label_app.commands.options import model_option, result_folder, result_options, weights_option
from monai_label_app.console import explained, fail

_MEBIBYTE = 1024 * 1024

_state = click.option(
    "--state", "folder", type=result_folder, default=Path("endolens-listen"), show_default=True,
    help="Folder that keeps received images, and results until they are sent.",
)  # fmt: skip
_database = click.option(
    "--database", metavar="URL", envvar="ENDOLENS_JOBS", show_envvar=True,
    help="Database of what is to be done, e.g. postgresql+psycopg://host/name. [default: SQLite in the state folder]",
)  # fmt: skip


class _Titles(click.ParamType):
    """An AE title (PS3.5 table 6.2-1)."""

    name = "AET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The title; a usage error if it is none."""
        if not re.fullmatch(r"[ -\[\]-~]{1,16}", value) or not value.strip():
            self.fail(f"{value!r} is no AE title: 1 to 16 characters of ASCII without backslash", param, ctx)
        return str(value).strip()


@click.command()
@click.option("--aet", type=_Titles(), default="ENDOLENS", show_default=True, help="AE title of this node.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=11112, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--peer", "peers", type=_Titles(), multiple=True,
              help="AE title that may send; repeat it for several. [default: anyone on this machine]")  # fmt: skip
@click.option("--poll", metavar="URL", help="DICOMweb address of a PACS to look for new endoscopy studies at.")
@click.option("--since", metavar="YYYYMMDD", default="",
              help="With --poll: Study Date of the earliest. [default: all studies]")  # fmt: skip
@click.option("--every", type=click.FloatRange(0.1), default=30.0, show_default=True,
              help="With --poll: seconds between two looks.")  # fmt: skip
@click.option("--send", "destinations", metavar="DESTINATION", multiple=True, required=True,
              help="Where results go: a DICOMweb address or AET@host:port; repeat it for several.")  # fmt: skip
@_state
@_database
@click.option("--quiet", type=click.FloatRange(0.1), default=30.0, show_default=True,
              help="Seconds without a new object after which a study is complete.")  # fmt: skip
@click.option("--attempts", type=click.IntRange(1), default=30, show_default=True,
              help="After so many a job is given up, until `endolens jobs retry`.")  # fmt: skip
@click.option("--backoff", type=click.FloatRange(1), default=3600.0, show_default=True,
              help="Most seconds between two attempts; the first wait is one, each is twice the last.")  # fmt: skip
@click.option("--reserve", type=click.IntRange(0), default=256, show_default=True,
              help="MiB that stay free on the disk for results; objects are refused before that.")  # fmt: skip
@click.option("--keep", type=click.FloatRange(0), default=7.0, show_default=True,
              help="Days that images are kept after all is done, in case more of their study come.")  # fmt: skip
@result_options
@model_option
@weights_option
def listen(
    aet: str, host: str, port: int, peers: tuple[str, ...], poll: str | None, since: str, every: float,
    destinations: tuple[str, ...], folder: Path, database: str | None, quiet: float, attempts: int, backoff: float,
    reserve: int, keep: float, model: str | None, weights: str | None, **wanted: Any,
) -> None:  # fmt: skip
    """Be a DICOM node: analyse every study that comes in by C-STORE or is found in a PACS, and send the results on.

    What has been acknowledged is on disk and in the database; after a crash, a full disk or a PACS that was down, the
    work goes on where it was. Ctrl-C ends it.

    \b
    Example:
      endolens listen --aet ENDOLENS --port 11112 --send http://localhost:8042/dicom-web
      endolens listen --poll http://localhost:8042/dicom-web --send ORTHANC@localhost:4242
    """
    from monai_label_app.listening import service
    from monai_label_app.listening.work import Patience

    if not (is_loopback(host) or peers):
        raise click.UsageError(f"{host} can be reached from other machines: name those that may send by --peer")
    if since and not re.fullmatch(r"\d{8}", since):
        raise click.UsageError(f"--since {since} is no date of the form YYYYMMDD")
    with explained(folder):
        service.run(
            service.Settings(
                folder, database, aet, host, port, peers, poll, since, every, tuple(dict.fromkeys(destinations)),
                quiet, reserve * _MEBIBYTE, keep, Patience(attempts, backoff), model, weights, wanted,
            )
        )  # fmt: skip


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
@_state
@_database
@click.option("--dead", is_flag=True, help="Only what was given up.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object a job.")
def list_(folder: Path, database: str | None, dead: bool, as_json: bool) -> None:
    """Show every job: study, task, state, attempts, what is left to do, and what went wrong the last time.

    \b
    Example:
      endolens jobs list --dead --json
    """
    import json

    from monai_label_app.listening.store import DEAD

    with explained(folder):
        store = _open(folder, database)
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
@_state
@_database
def retry(studies: tuple[str, ...], every: bool, folder: Path, database: str | None) -> None:
    """Do again what was given up, of the STUDIES named by their UIDs or of all; a running node begins at once.

    \b
    Example:
      endolens jobs retry 1.2.840.113619.2.1
      endolens jobs retry --all
    """
    if bool(studies) == every:
        raise click.UsageError("give either STUDIES or --all")
    with explained(folder):
        store = _open(folder, database)
        count = store.retry() if every else sum(map(store.retry, studies))
    if not (count or every):
        fail("none of these studies has anything left to do; see endolens jobs list")
    click.echo(f"{count} jobs are tried again")


@jobs.command()
@click.argument("studies", nargs=-1, required=True)
@click.option("--task", metavar="DESTINATION", help="Only this destination; the study stays.")
@_state
@_database
def drop(studies: tuple[str, ...], task: str | None, folder: Path, database: str | None) -> None:
    """Forget STUDIES with their images and results here; what is in a PACS stays there.

    \b
    Example:
      endolens jobs drop 1.2.840.113619.2.1
      endolens jobs drop 1.2.840.113619.2.1 --task ORTHANC@localhost:4242
    """
    with explained(folder):
        store = _open(folder, database)
        unknown = [study for study in studies if not store.drop(study, task)]
    for study in unknown:
        click.echo(f"there is no such job of {study}", err=True)
    click.echo(f"{len(studies) - len(unknown)} dropped")
    if unknown:
        fail(f"{len(unknown)} were not there")


def _open(folder: Path, database: str | None) -> Any:
    from monai_label_app.listening.store import Store

    if not (folder / "id").exists():
        fail(f"{folder} is no state folder of endolens listen; name it by --state")
    return Store(folder, database)
