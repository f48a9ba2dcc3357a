"""Take what is kept of a study out of all places but the study itself."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from monai_label_app.access.identity import Identity
from monai_label_app.access.roles import ERASED, Role
from monai_label_app.access.trail import TRAIL, Trail
from monai_label_app.corrections import Corrections
from monai_label_app.datastore import CORRECTIONS, IMAGES, INDEX, REPORTS, read_index
from monai_label_app.folder import whole
from monai_label_app.job_queue import JobQueue
from monai_label_app.library import Library, beside, open_library
from report.drafts import Drafts

_UID = re.compile(r"\d+(\.\d+)*")


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
    library, place = open_library(studies), beside(studies)
    images = {str(one.header.SOPInstanceUID) for one in library.study(study).instances}
    listed = read_index(place).objects

    def known(uid: str) -> bool:
        return uid in listed or _holds(library, uid)

    database = place / REPORTS
    versions = Drafts(reports or f"sqlite:///{database}").erase(study) if reports or database.is_file() else 0
    if reports:
        JobQueue(reports).erase(study)
    corrections = Corrections(place / CORRECTIONS).erase(images)
    copies = _remove(place / IMAGES, images, known)
    labels = sum(_remove(folder, images, known) for folder in (place / "labels").glob("*/"))
    _forget(place / INDEX, images)
    Trail(place / TRAIL).tell(Identity(getpass.getuser(), "", Role.ADMINISTERING), ERASED, f"/{study}", 200)
    return Erased(versions, corrections, copies, labels)


def _remove(folder: Path, images: Collection[str], known: Callable[[str], bool]) -> int:
    """Remove the files, or the links, of images; how many there were."""
    # A hidden one is what a server left that was killed while it wrote.
    found = [file for file in folder.glob("*") if _is_of(file.name.removeprefix("."), images, known)]
    for file in found:
        file.unlink()
    return len(found)


def _is_of(name: str, images: Collection[str], known: Callable[[str], bool]) -> bool:
    """Whether a file is named by one of the images: by its UID, and by what a client added to that after a dot.

    Of ``1.2.3.4.nrrd`` the image may be 1.2.3, too: it is that of the longest UID which is known to be an image's.
    """
    begins = [one for one in _beginnings(name) if _UID.fullmatch(one)]
    own = max((uid for uid in begins if uid in images), key=len, default=None)
    return own is not None and not any(known(uid) for uid in begins if len(uid) > len(own))


def _beginnings(name: str) -> Iterator[str]:
    """What a name may begin with, up to one of its dots or its end, the shortest first."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _holds(library: Library, uid: str) -> bool:
    try:
        library.instance(uid)
    except LookupError:
        return False
    return True


def _forget(index: Path, images: Collection[str]) -> None:
    """Take images out of MONAI Label's list."""
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["objects"] = {uid: one for uid, one in content["objects"].items() if uid not in images}
        with whole(index) as partial:
            partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
