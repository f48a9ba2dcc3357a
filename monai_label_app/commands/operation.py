"""``endolens doctor | accesses | erase``: for whoever runs a server."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from monai_label_app.commands.options import model_option
from monai_label_app.console import explained, fail


@click.command()
@click.option("--studies", required=True, metavar="DIR|URL", help="As endolens serve is given them.")
@click.option("--ohif", type=click.Path(path_type=Path), metavar="DIR", help="As endolens serve is given it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object a check.")
@model_option
def doctor(studies: str, ohif: Path | None, as_json: bool, model: str | None) -> None:
    """Look whether all is there that a server needs, and say what to do about what is not.

    Model, studies folder or PACS, what is kept (labels, reports, audit trail), issuer of log-ins, viewer, disk, and the
    letters of a report as PDF.
    The exit code is 1 if something is wrong.

    \b
    Example:
      endolens doctor --studies results
      endolens doctor --studies http://localhost:8042/dicom-web --model endolens-models --json
    """
    from monai_label_app.access.trail import TRAIL, Trail
    from monai_label_app.library import beside
    from monai_label_app.observed import checks
    from monai_label_app.server import REPORTS_VARIABLE

    found = [
        checks.look(check, name)
        for name, check in {
            "model": lambda: checks.check_model(model),
            "studies": lambda: checks.check_studies(studies),
            "kept": lambda: checks.check_kept(studies),
            "labels": lambda: checks.check_labels(studies),
            "reports": lambda: checks.check_reports(os.environ.get(REPORTS_VARIABLE), studies),
            "audit trail": Trail(beside(studies) / TRAIL).check,
            "issuer": checks.check_issuer,
            "viewer": lambda: checks.check_viewer(ohif),
            "disk": lambda: checks.check_disk(studies),
            "report as PDF": checks.check_pdf,
        }.items()
    ]
    if as_json:
        click.echo(json.dumps([{"ok": one.ok, **asdict(one)} for one in found], ensure_ascii=False, indent=1))
    else:
        for one in found:
            click.echo(f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.found}")
            if one.todo:
                click.echo(f"      → {one.todo}")
    if wrong := sum(not one.ok for one in found):
        fail(f"{wrong} of {len(found)} checks failed")


@click.group()
def accesses() -> None:
    """The audit trail: who saw, analysed, changed, signed and exported what, and when.

    `endolens serve` writes it, in .endolens/accesses.jsonl in the studies folder, for a PACS in ~/.cache/endolens.
    Lines are only added; each carries a hash of the one before. Studies and images are named by UID,
    patients not at all.

    \b
    Example:
      endolens accesses list --studies results --user jdoe
      endolens accesses export --studies results --uid 1.2.840.113619.2.1 > accesses.jsonl
      endolens accesses verify --studies results
    """


_studies = click.option("--studies", required=True, metavar="DIR|URL", help="As endolens serve was given them.")


def _chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, text in (("uid", "Of this study or image alone."), ("user", "Of this user alone.")):
        command = click.option(f"--{name}", metavar=name.upper(), help=text)(command)
    return _studies(command)


@accesses.command("list")
@_chosen
def list_(studies: str, user: str | None, uid: str | None) -> None:
    """Show the trail, the oldest first."""
    from monai_label_app.access.trail import accesses as found
    from monai_label_app.access.trail import objects

    for one in found(_trail(studies), user, uid):
        uids = objects(one)
        named = " ".join(map(_in_one_word, uids[:2])) + (f" and {len(uids) - 2} more" if len(uids) > 2 else "")
        at, who, action, status = (_in_one_word(one.get(key, "?")) for key in ("at", "user", "action", "status"))
        click.echo(f"{at}  {who:16} {action:12} {status}  {named}".rstrip())


def _in_one_word(value: object) -> str:
    """For one column of one line: whoever named themselves may have meant it to look like more."""
    text = str(value)
    return text if text.isprintable() and len(text.split()) == 1 else repr(text)


@accesses.command()
@_chosen
def export(studies: str, user: str | None, uid: str | None) -> None:
    """Write the trail as JSON lines to standard output."""
    from monai_label_app.access.trail import accesses as found

    for one in found(_trail(studies), user, uid):
        click.echo(json.dumps(one, ensure_ascii=False))


@accesses.command()
@_studies
def verify(studies: str) -> None:
    """Check that no line was changed, moved, put in or taken out.

    Lines taken off the end, and a trail made anew, show by the last hash alone: keep it elsewhere.
    """
    from monai_label_app.journal import broken, read

    path = _trail(studies)
    if wrong := broken(path):
        lines = ", ".join(map(str, wrong[:10])) + (" …" if len(wrong) > 10 else "")
        fail(f"{path} was changed: line {lines} is not as it was written, or does not follow the one before")
    if not (last := deque(read(path), maxlen=1)):
        fail(f"{path} was changed: it has no line 1, and a trail begins with one")
    click.echo(f"{path} is as it was written; it ends with {last[0]['hash']}")


def _trail(studies: str) -> Path:
    from monai_label_app.access.trail import TRAIL
    from monai_label_app.library import beside

    path = beside(studies) / TRAIL
    if not path.is_file():
        fail(f"there is no audit trail at {path}; endolens serve writes one")
    return path


@click.command()
@_studies
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(studies: str, study: str, yes: bool) -> None:
    """Erase what is kept of a STUDY (its UID) beside it: report, labels, corrections, copies of images.

    Its images and results stay; remove them afterwards where they are kept. No server may run meanwhile. The audit
    trail stays, and gets a line.

    \b
    Example:
      endolens erase --studies http://localhost:8042/dicom-web 1.2.840.113619.2.1
    """
    from monai_label_app import erasure
    from monai_label_app.server import REPORTS_VARIABLE

    if not yes:
        click.confirm(f"Erase report, labels and corrections of {study}, for ever?", abort=True)
    with explained(Path(studies)):
        try:
            erased = erasure.erase(studies, study, os.environ.get(REPORTS_VARIABLE))
        except LookupError:
            fail(f"there is no study {study} in {studies}")
    click.echo(
        f"erased: {erased.versions} versions of its report, {erased.corrections} corrections, {erased.labels} label "
        f"files, {erased.copies} copies of images"
    )
