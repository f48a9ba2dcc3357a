"""Take what is kept of a study out of all places but the study itself."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from monai_label_app.access.identity import Identity
from monai_label_app.access.roles import ERASED, Role
from monai_label_app.access.trail import TRAIL, Trail
from monai_label_app.corrections import Corrections
from monai_label_app.datastore import CORRECTIONS, IMAGES, REPORTS
from monai_label_app.folder import whole
from monai_label_app.job_queue import JobQueue
from monai_label_app.library import beside, open_library
from report.drafts import Drafts

_INDEX = "datastore_v2.json"
_EXTENSION = re.compile(r"\.[A-Za-z][\w.]*$")  # a UID has none, but has dots


@dataclass(frozen=True)
class Erased:
    """How much was erased: versions of reports, corrections, copies of images, and label files."""

    versions: int
    corrections: int
    copies: int
    labels: int


def erase(studies: str, study: str, reports: str | None) -> Erased:
    """Erase what EndoLens and MONAI Label keep of a study. Its images and results stay where they are.

    No server may run meanwhile, for it would write down again what it has in memory.

    Args:
        studies: a folder or a DICOMweb address.
        study: Study Instance UID.
        reports: address of the database of reports; a file beside the datastore unless given.

    Raises:
        LookupError: there is no such study, so that it is not known which images it had.
        ValueError, PacsError, OSError: the studies, or what is kept, cannot be read or written.
    """
    images = {str(one.header.SOPInstanceUID) for one in open_library(studies).study(study).instances}
    place = beside(studies)
    database = place / REPORTS
    versions = Drafts(reports or f"sqlite:///{database}").erase(study) if reports or database.is_file() else 0
    if reports:
        JobQueue(reports).erase(study)
    corrections = Corrections(place / CORRECTIONS).erase(images)
    copies = _remove(place / IMAGES, images)
    labels = sum(_remove(folder, images) for folder in (place / "labels").glob("*/"))
    _forget(place / _INDEX, images)
    Trail(place / TRAIL).tell(Identity(getpass.getuser(), "", Role.ADMINISTERING), ERASED, f"/{study}", 200)
    return Erased(versions, corrections, copies, labels)


def _remove(folder: Path, images: Collection[str]) -> int:
    """Remove the files, or the links, that are named by images."""
    found = [file for file in folder.glob("*") if _EXTENSION.sub("", file.name) in images]
    for file in found:
        file.unlink()
    return len(found)


def _forget(index: Path, images: Collection[str]) -> None:
    """Take images out of MONAI Label's list."""
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["objects"] = {uid: one for uid, one in content["objects"].items() if uid not in images}
        with whole(index) as partial:
            partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
