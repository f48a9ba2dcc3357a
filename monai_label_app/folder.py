"""Results in a folder: a file, or all of a study's objects, appear there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydicom import Dataset

if TYPE_CHECKING:  # torch comes with it
    from monai_label_app.results import StudyResult


_STAGED = ".partial-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden file to write to; it takes the place of ``path`` when the work ends, and goes if it fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def settle(path: Path) -> None:
    """See that a file, or the names in a folder, are on disk and not in the memory of the system alone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if it is not there, so that no other process works on it.

    Raises:
        ValueError: another process has it.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / "lock").acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process works already on the folder {folder}") from None
    with held:
        yield


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A hidden folder inside ``out`` to work in; whatever is left there goes when the work ends or fails.

    What a process left that was killed goes too: it may hold pictures of a patient.
    """
    existed = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            with _held(out):  # nobody takes the folder for one that was left before it is held
                sweep(out)
                name = stack.enter_context(tempfile.TemporaryDirectory(prefix=_STAGED, dir=out))
                stack.enter_context(_held(Path(name)))
            yield Path(name)
    finally:
        if not existed and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder to work in on the system's temporary disk (``TMPDIR``); it goes as that of :func:`staging` does.

    Raises:
        OSError: it cannot be made, or another user has taken its place.
    """
    root = Path(tempfile.gettempdir(), f"endolens-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    if root.lstat().st_uid != os.getuid():
        raise PermissionError(f"{root} belongs to another user")
    with staging(root) as folder:
        yield folder


def sweep(out: Path) -> None:
    """Remove what processes left in a folder of results that were killed in the midst of their work."""
    for left in out.glob(f"{_STAGED}*"):
        with suppress(OSError), _held(left, wait=False) as alone:
            if alone:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _held(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a folder for one process, until it ends however it ends; False where it is held by another or cannot be."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        held = True
    except OSError:  # another has it, or it lies on a file system without locks
        held = False
    try:
        yield held
    finally:
        os.close(handle)


def add_objects(datasets: Iterable[Dataset], folder: Path) -> None:
    """Write objects as ``STUDY/INSTANCE.dcm``, named by their UIDs. All are on disk before the first appears.

    Raises:
        OSError: the folder cannot be written, and none appears.
    """
    with staging(folder) as staged:
        places = []
        for dataset in datasets:
            place = folder / str(dataset.StudyInstanceUID) / f"{dataset.SOPInstanceUID}.dcm"
            with (staged / place.name).open("wb") as file:
                dataset.save_as(file, enforce_file_format=True)
            settle(staged / place.name)
            places.append(place)
        for place in places:
            place.parent.mkdir(exist_ok=True)
            (staged / place.name).replace(place)
        for parent in dict.fromkeys(place.parent for place in places):
            settle(parent)
        settle(folder)


def deliver(result: StudyResult, staged: Path, out: Path) -> None:
    """Move a study's objects and other files from the staging folder to their place and name them there in its result.

    A study that is new in ``out`` appears in one step. One that is there gets the same objects again, each in one step.
    """
    source, target = staged / result.study_uid, out / result.study_uid
    places = {path: target / path.relative_to(source) for path in [*result.objects, *result.files]}
    if not places:
        return
    if not target.exists():
        source.rename(target)
    else:
        for path, place in places.items():
            place.parent.mkdir(exist_ok=True)
            path.replace(place)
    result.objects = [places[path] for path in result.objects]
    result.files = [places[path] for path in result.files]
    result.rename(lambda output: str(places.get(Path(output), output)))
