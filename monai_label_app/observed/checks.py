"""What EndoLens needs, looked at piece by piece: what is wrong, and what to do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from sqlalchemy.exc import SQLAlchemyError

from monai_label_app.frames import without_login
from monai_label_app.library import beside, is_address
from monai_label_app.pacs import TIMEOUT, Pacs, PacsError, credentials
from report.database import reason

if TYPE_CHECKING:
    from report.drafts import Drafts

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
    login = "MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD"
    try:
        Pacs(address)
    except PacsError as error:
        return Check("studies", f"{error}", f"correct the address in --studies; a login is set by {login}")
    try:
        where = f"{address.rstrip('/')}/studies"
        accept = {"accept": "application/dicom+json"}
        answer = httpx.get(where, params={"limit": 1}, headers=accept, auth=credentials(), timeout=TIMEOUT[0])
    except (httpx.HTTPError, httpx.InvalidURL):
        return Check("studies", f"no PACS answers at {address}", "start it, or correct the address in --studies")
    if answer.status_code in (401, 403):
        todo = f"set {login} to a login that may read and write"
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
    return Check("kept", f"{place} can be written")


def check_labels(studies: str) -> Check:
    """Whether MONAI Label's list of labels is whole, where there is one."""
    from monai_label_app.datastore import read_index

    place = beside(studies)
    try:
        count = len(read_index(place).objects)
    except (ValueError, OSError) as error:
        return Check("labels", f"{error}", "until then the server does not start")
    return Check("labels", f"{count} images were asked for or have labels, in {place}")


def check_reports(database: str | None, studies: str) -> Check:
    """Whether the database of reports answers: another one, or the file beside the datastore."""
    from monai_label_app.datastore import REPORTS

    file = beside(studies) / REPORTS
    if not (database or file.exists()):
        return Check("reports", f"the first makes {file}")
    try:
        _drafts(database or f"sqlite:///{file}").states()
    except (ValueError, SQLAlchemyError) as error:
        found = reason(error) if isinstance(error, SQLAlchemyError) else f"{error}"
        if database:
            return Check("reports", found, "start it, or correct the address in ENDOLENS_REPORTS")
        return Check("reports", f"{file}: {found}", "put a copy of it back; moved away, all reports begin anew")
    return Check("reports", "the database answers" if database else f"{file} can be read")


@cache
def _drafts(url: str) -> Drafts:
    """Opened once: whoever asks whether a server is ready asks every few seconds."""
    from report.drafts import Drafts

    return Drafts(url)


def check_issuer() -> Check:
    """Whether the issuer of log-ins, where there is one, describes itself and has keys to know its tokens by."""
    from monai_label_app import compatibility  # noqa: F401  (before monailabel)

    # isort: split
    from monailabel.config import settings

    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return Check("issuer", "no OpenID Connect is set (MONAI_LABEL_AUTH_ENABLE)")
    realm = without_login(settings.MONAI_LABEL_AUTH_REALM_URI.rstrip("/"))
    try:
        described = _json(f"{settings.MONAI_LABEL_AUTH_REALM_URI.rstrip('/')}/.well-known/openid-configuration")
        keys = _json(described["jwks_uri"])["keys"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError):
        keys = None
    if not keys:
        found = f"{realm} does not answer as an issuer of OpenID Connect does, or has no keys"
        return Check("issuer", found, "start it, or correct MONAI_LABEL_AUTH_REALM_URI; until then nobody can log in")
    return Check("issuer", f"{realm} answers, and has {len(keys)} keys")


def _json(address: str) -> Any:
    return httpx.get(address, timeout=TIMEOUT[0]).raise_for_status().json()


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
