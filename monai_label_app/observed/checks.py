"""What EndoLens needs, looked at piece by piece: what is wrong, and what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.library import beside, is_address
from monai_label_app.pacs import TIMEOUT, credentials
from report.database import reason

ROOM = 512 * 1024 * 1024
"""Bytes that should be free."""


@dataclass(frozen=True)
class Check:
    """What was found of one piece.

    Attributes:
        name: of the piece.
        found: what it is, or what is wrong with it.
        todo: what to do about it; empty if nothing is wrong.
    """

    name: str
    found: str
    todo: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.todo


def check_model(model: str | None) -> Check:
    """Whether the model can be opened."""
    from monai_label_app.classifier.classifier import open_classifier

    try:
        used = open_classifier(model)
    except (ValueError, OSError) as error:
        return Check("model", f"{error}", "name a checkpoint, a folder of versions or a network by --model")
    return Check("model", f"{used.card.name} {used.version}, {len(used.card.classes)} classes, on {used.device}")


def check_studies(studies: str) -> Check:
    """Whether a folder can be read and written, or a PACS answers."""
    return _check_pacs(studies) if is_address(studies) else _check_folder(Path(studies))


def _check_folder(folder: Path) -> Check:
    if not folder.is_dir():
        return Check("studies", f"{folder} is no folder", f"make it (mkdir -p {folder}), or name another by --studies")
    for right, word in ((os.R_OK | os.X_OK, "read"), (os.W_OK, "written")):
        if not os.access(folder, right):
            return Check("studies", f"{folder} cannot be {word}", f"give its rights to the user {_user()}")
    return Check("studies", f"{folder} can be read and written")


def _check_pacs(address: str) -> Check:
    try:
        where = f"{address.rstrip('/')}/studies"
        accept = {"accept": "application/dicom+json"}
        answer = httpx.get(where, params={"limit": 1}, headers=accept, auth=credentials(), timeout=TIMEOUT[0])
    except (httpx.HTTPError, httpx.InvalidURL):
        return Check("studies", f"no PACS answers at {address}", "start it, or correct the address in --studies")
    if answer.status_code in (401, 403):
        todo = "set MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD to a login that may read and write"
        return Check("studies", f"the PACS at {address} refuses the login ({answer.status_code})", todo)
    if answer.status_code not in (200, 204):
        found = f"{address} answers {answer.status_code} to a search for studies"
        return Check("studies", found, "correct the address: it is that of the DICOMweb service, e.g. …/dicom-web")
    return Check("studies", f"the PACS at {address} answers")


def check_kept(studies: str) -> Check:
    """Whether what is kept of studies (reports, labels, the audit trail) can be written."""
    place = beside(studies) / ".endolens"
    there = _existing(place)
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Check("kept", f"{place} cannot be written", f"give {there} to the user {_user()}")
    return Check("kept", f"reports, labels and the audit trail in {place}")


def check_reports(database: str | None) -> Check:
    """Whether the database of reports answers, where there is another one than a file."""
    from report.drafts import Drafts

    if not database:
        return Check("reports", "in a file")
    try:
        Drafts(database)
    except ValueError as error:
        return Check("reports", f"{error}", "start it, or correct the address in ENDOLENS_REPORTS")
    return Check("reports", "the database answers")


def check_database(ask: Callable[[], object]) -> Check:
    """Whether the database that servers of one address share answers to a question."""
    try:
        ask()
    except SQLAlchemyError as error:
        return Check("database", reason(error), "start it, or correct the address in ENDOLENS_REPORTS")
    return Check("database", "it answers")


def check_viewer(folder: Path | None) -> Check:
    """Whether there is an OHIF to serve."""
    from monai_label_app.viewers.ohif import Viewer

    try:
        viewer = Viewer(folder)
    except ValueError as error:
        return Check("viewer", f"{error}", "name the dist folder of a built OHIF by --ohif, or leave it out")
    return Check("viewer", f"OHIF in {viewer.folder}")


def check_disk(studies: str) -> Check:
    """Whether there is room where studies are kept and where uploads and analyses wait."""
    there = _existing(beside(studies))
    for folder in dict.fromkeys((there, Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        if free < ROOM:
            found = f"{free // 2**20} MiB are free in {folder}"
            return Check("disk", found, f"make room: {ROOM // 2**20} MiB are little for an analysis (TMPDIR moves it)")
    return Check("disk", f"{shutil.disk_usage(there).free // 2**30} GiB are free in {there}")


def check_pdf() -> Check:
    """Whether a report can be set as PDF; which letters there are not is told, for not every house needs all."""
    from report.render import pdf

    try:
        pdf("<p>Åøß Łukasz Ελένη Анна</p>", every_letter=True)
    except ValueError as error:
        return Check("report as PDF", f"{error}", "install it; until then no such report can be signed")
    try:
        pdf("<p>漢字 김 かな</p>", every_letter=True)
    except ValueError as error:
        return Check("report as PDF", f"Latin, Greek and Cyrillic names can be set; {error}")
    return Check("report as PDF", "Latin, Greek, Cyrillic, Chinese, Japanese and Korean names can be set")


def look(check: Callable[[], Check], name: str) -> Check:
    """What a check finds; what it does not foresee is found wrong, too."""
    try:
        return check()
    except Exception as error:
        return Check(
            name, f"it cannot be looked at: {error}", "run it again; if it stays, report it with this sentence"
        )


def _existing(place: Path) -> Path:
    """A folder, or what there is of the way to it."""
    return next(one for one in (place, *place.parents) if one.exists())


def _user() -> str:
    return str(os.geteuid()) if hasattr(os, "geteuid") else "of the server"
