"""What can be served: the studies of a folder or of a PACS, with their results."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

from pydicom import Dataset

from monai_label_app.files import list_folder, read_header
from monai_label_app.folder import add_objects
from monai_label_app.pacs import Pacs
from monai_label_app.reading import read_instances
from monai_label_app.study import Instance, Problem, Study, group

Found = TypeVar("Found")

FRESH_SECONDS = 2.0
"""How long a look at the folder or the PACS is taken for current."""


class Library(Protocol):
    """Studies that can be listed and read, with their images, results and documents."""

    def studies(self) -> list[Study]:
        """Every study.

        Raises:
            PacsError: the PACS cannot be asked.
        """

    def study(self, uid: str) -> Study:
        """One study.

        Raises:
            LookupError: there is none of this UID.
        """

    def instance(self, uid: str) -> Instance:
        """The object of this SOP Instance UID.

        Raises:
            LookupError: there is none.
        """

    def store(self, datasets: Iterable[Dataset]) -> list[str]:
        """Add objects to their studies, each whole or not at all, and none whose SOP Instance UID is there already.

        Returns:
            SOP Instance UIDs of those that are new; a look at the library that begins now finds them.

        Raises:
            OSError: the folder cannot be written, and nothing was added.
            PacsError: the PACS is down or refuses one of them; those before it are stored.
        """


class FolderLibrary:
    """The DICOM files and pictures of a folder and its sub-folders.

    What is stored becomes ``STUDY/INSTANCE.dcm`` in the folder, named by UIDs, wherever the study's other files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[Problem] = []
        self._lock, self._storing = threading.Lock(), threading.Lock()
        self._looked = float("-inf")
        self._seen: dict[Path, tuple[int, int]] = {}
        self._headers: dict[Path, Dataset] = {}
        self._studies: dict[str, Study] = {}
        self._instances: dict[str, Instance] = {}

    def studies(self) -> list[Study]:
        """Every study of the folder."""
        self._look()
        return list(self._studies.values())

    def study(self, uid: str) -> Study:
        """One study; LookupError if there is none."""
        self._look()
        return _found(self._studies, uid)

    def instance(self, uid: str) -> Instance:
        """One object; LookupError if there is none."""
        self._look()
        return _found(self._instances, uid)

    def store(self, datasets: Iterable[Dataset]) -> list[str]:
        """Add objects, each once; OSError if the folder cannot be written."""
        with self._storing:
            self._look(again=True)
            new: dict[str, None] = {}

            def missing() -> Iterator[Dataset]:
                for dataset in datasets:
                    uid = str(dataset.SOPInstanceUID)
                    if uid not in self._instances and uid not in new:
                        new[uid] = None
                        yield dataset

            add_objects(missing(), self.folder)
            self._look(again=True)
        return list(new)

    def _look(self, again: bool = False) -> None:
        with self._lock:
            if not again and time.monotonic() - self._looked < FRESH_SECONDS:
                return
            files = dict(self._snapshot())
            if files != self._seen:
                same = files.items() & self._seen.items()
                self._headers = {file: self._headers[file] for file, _ in same if file in self._headers}
                instances, self.problems = read_instances([self.folder], self._header)
                self._studies = {study.uid: study for study in group(instances)}
                self._instances = {str(instance.header.SOPInstanceUID): instance for instance in instances}
                self._seen = files
            self._looked = time.monotonic()

    def _header(self, file: Path) -> Dataset:
        if file not in self._headers:
            self._headers[file] = read_header(file)
        return self._headers[file]

    def _snapshot(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        for file in list_folder(self.folder):
            # A file may go while it is looked at.
            with suppress(OSError):
                status = file.stat()
                yield file, (status.st_mtime_ns, status.st_size)


class PacsLibrary:
    """The endoscopy studies of a PACS. A study's list of instances is fetched again only when their number changed."""

    def __init__(self, pacs: Pacs) -> None:
        self._pacs = pacs
        self._lock, self._storing = threading.Lock(), threading.Lock()
        self._looked = float("-inf")
        self._stores = 0
        self._counts: dict[str, int] = {}
        self._studies: dict[str, tuple[int, Study]] = {}

    def studies(self) -> list[Study]:
        """Every endoscopy study; PacsError if the PACS cannot be asked."""
        return [self._fetched(uid, count) for uid, count in self._look().items()]

    def study(self, uid: str) -> Study:
        """One study; LookupError if there is none, PacsError if the PACS cannot be asked."""
        return self._fetched(uid, self._look().get(uid, 0))

    def instance(self, uid: str) -> Instance:
        """One object; LookupError if there is none, PacsError if the PACS cannot be asked."""
        counts = self._look()
        # Those that are known first: an archive has many.
        for study in sorted(counts, key=lambda one: one not in self._studies):
            for instance in self._fetched(study, counts[study]).instances:
                if instance.header.SOPInstanceUID == uid:
                    return instance
        raise LookupError(uid)

    def store(self, datasets: Iterable[Dataset]) -> list[str]:
        """Add objects, each once; PacsError if the PACS cannot be asked or refuses one."""
        try:
            with self._storing:
                return self._pacs.store(datasets)
        finally:
            self._stores += 1
            self._looked = float("-inf")

    def _look(self) -> dict[str, int]:
        if time.monotonic() - self._looked > FRESH_SECONDS:
            # Not under the lock: a slow PACS would hold up those who need no news of it.
            stores, counts = self._stores, self._pacs.studies()
            with self._lock:
                # What was stored meanwhile may not be counted.
                self._counts, self._looked = counts, time.monotonic() if stores == self._stores else float("-inf")
                self._studies = {uid: known for uid, known in self._studies.items() if uid in counts}
        return self._counts

    def _fetched(self, uid: str, count: int) -> Study:
        known = self._studies.get(uid)
        if known is None or known[0] != count or count == 0:
            known = self._studies[uid] = (count, self._pacs.study(uid))
        return known[1]


def _found(known: Mapping[str, Found], uid: str) -> Found:
    if uid not in known:
        raise LookupError(uid)
    return known[uid]


def beside(studies: str) -> Path:
    """Folder for what is kept of studies: their own, or for those of a PACS one in the cache."""
    if not is_address(studies):
        return Path(studies)
    cache = os.environ.get("MONAI_LABEL_DICOMWEB_CACHE_PATH") or Path.home() / ".cache" / "endolens"
    return Path(cache) / hashlib.sha256(studies.encode()).hexdigest()[:16]


def is_address(studies: str) -> bool:
    """Whether studies are named by the address of a PACS, not by a folder."""
    return studies.startswith(("http://", "https://"))


@lru_cache(maxsize=1)
def open_library(studies: str) -> Library:
    """The library at a folder or a DICOMweb address, the same one for all who ask.

    Raises:
        ValueError: the folder does not exist.
        PacsError: the address is none.
    """
    if is_address(studies):
        return PacsLibrary(Pacs(studies))
    folder = Path(studies)
    if not folder.is_dir():
        raise ValueError(f"{studies} is neither a folder nor a DICOMweb address")
    return FolderLibrary(folder)
