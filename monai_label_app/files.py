"""Read DICOM files, and list the files of folders."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import STR_VR

from monai_label_app.frames import UnreadableError, in_one_line
from monai_label_app.pictures import is_own

TIMELINE = "timeline.html"
"""The page of what was seen in a study's videos."""

_BOOKKEEPING = frozenset({"DICOMDIR", "summary.json", "datastore_v2.json", "manifest.json", TIMELINE})


def read_dicom(path: Path, *, pixels: bool = True) -> Dataset:
    """Read a DICOM file.

    Raises:
        UnreadableError: it is missing, not DICOM, or cut off in the header.
    """
    try:
        dataset = dcmread(path, stop_before_pixels=not pixels)
        _require_identity(dataset)
        if not pixels and "EncapsulatedDocument" in dataset:
            del dataset.EncapsulatedDocument
    except InvalidDicomError:
        raise UnreadableError(f"{path} is neither DICOM nor a picture") from None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise UnreadableError(f"{path} is damaged DICOM: {in_one_line(error)}") from error
    return dataset


def read_header(path: Path) -> Dataset:
    """A DICOM file without its pixels; raises as :func:`read_dicom`."""
    return read_dicom(path, pixels=False)


def as_file(dataset: Dataset) -> Dataset:
    """The dataset as it is read from a file of it: with preamble and file meta information, and empty in one way."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return dcmread(stream)


def _require_identity(dataset: Dataset) -> None:
    """Refuse, by any exception, a header without the UIDs and numbers by which a study is sorted and results named.

    Nor may it be unclear whose results they are.
    """
    if not dataset:  # pydicom gives up what it has read where the file ends inside an element of undefined length
        raise ValueError("it is cut off")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = dataset.get(keyword)
        if not uid:
            raise ValueError(f"it has no {keyword}")
        # Folders and files are named by UIDs. Many real ones break the rule against leading zeros.
        if len(uid) > 64 or not re.fullmatch(r"\d+(\.\d+)*", uid):
            raise ValueError(f"its {keyword} is no UID")
    for keyword in ("PatientID", "PatientName"):
        if keyword in dataset and dataset[keyword].VR not in STR_VR:
            raise ValueError(f"its {keyword} is no text")
    for keyword in ("SeriesNumber", "InstanceNumber", "NumberOfFrames"):
        int(dataset.get(keyword) or 0)


def list_folder(folder: Path) -> Iterator[Path]:
    """Every file under a folder, sorted, without hidden files and bookkeeping; none is opened."""
    found: list[Path] = []
    # Unlike Path.rglob it does not fail where a folder goes while it is looked at.
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".") and name not in _BOOKKEEPING]
    labels = folder / "labels" if (folder / "datastore_v2.json").exists() else None
    yield from (file for file in sorted(found) if file.is_file() and labels not in file.parents)


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file under the given files and folders, sorted, without hidden files, bookkeeping, and maps made here.

    Raises:
        UnreadableError: a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from (file for file in list_folder(path) if not is_own(file))
        elif path.is_file():
            yield path
        elif path.exists():
            raise UnreadableError(f"{path} is not a regular file")
        else:
            raise UnreadableError(f"{path} does not exist")
