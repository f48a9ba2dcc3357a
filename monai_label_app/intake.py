"""Which of the files that came in are endoscopic images, and which of those may be added to a library."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_label_app.files import as_file, read_dicom
from monai_label_app.folder import whole
from monai_label_app.frames import UnreadableError, frames, in_one_line, require_size
from monai_label_app.library import Library, PacsLibrary
from monai_label_app.pacs import MODALITY
from monai_label_app.pictures import read_picture
from monai_label_app.reading import convert_pictures
from monai_label_app.study import Instance
from monai_label_app.video.decode import VIDEO_SUFFIXES
from monai_label_app.video.dicom_video import open_dicom
from monai_label_app.video.recording import as_dicom, fingerprint, require_storable
from report.endoscopic_image import Examination, study_of

STORED, PRESENT, REFUSED = "stored", "present", "refused"

_HEAD = 132
"""Bytes of a DICOM file up to the end of its mark, DICM (PS3.10 7.1)."""


@dataclass(frozen=True)
class Received:
    """A file that is an endoscopic image.

    Attributes:
        name: what the sender calls it.
        path: where it lies.
        fingerprint: of a picture's pixels, or of a video; empty for DICOM.
        number: its place among those that were received together, from 1.
        video: it is a video that is no DICOM.
    """

    name: str
    path: Path
    fingerprint: str = ""
    number: int = 1
    video: bool = False

    @property
    def kind(self) -> str:
        """``picture``, ``video`` or ``DICOM``."""
        if self.video:
            return "video"
        return "picture" if self.fingerprint else "DICOM"


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        number: of the file.
        state: ``stored``, ``present`` (it was there already) or ``refused``.
        study: Study Instance UID; empty if it was refused.
        reason: a sentence, where there is something to say.
    """

    number: int
    state: str
    study: str = ""
    reason: str = ""


_DEFERRED = 1024 * 1024
"""Bytes of a value above which it is passed over, not read."""


def look(path: Path, name: str) -> Received:
    """See what a file is, by its content. A DICOM image is written anew, as it will be stored.

    Args:
        path: where it lies.
        name: what the sender calls it, for the sentences; it decides nothing.

    Raises:
        UnreadableError: it is no endoscopic image, or cannot be read to the end.
    """
    try:
        with path.open("rb") as file:
            if file.read(_HEAD).endswith(b"DICM"):
                return _look_at_dicom(path, name)
        if Path(name).suffix.lower() in VIDEO_SUFFIXES:
            require_storable(path, name)
            return Received(name, path, fingerprint(path), video=True)
        still = read_picture(path)
        require_size(still.pixels, name)
        return Received(name, path, still.fingerprint)
    except ValueError as error:
        # Where it lies here is nobody's business.
        raise UnreadableError(str(error).replace(str(path), name)) from None


def _look_at_dicom(path: Path, name: str) -> Received:
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception as error:  # a damaged file makes pydicom raise nearly anything
        raise UnreadableError(f"{name} is damaged DICOM: {in_one_line(error)}") from None
    if syntax == DeflatedExplicitVRLittleEndian:  # a small file can become one of any size
        raise UnreadableError(f"{name} is deflated as a whole, and such files are not taken")
    header = read_dicom(path, pixels=False)
    instance = Instance(name, header, partial(read_dicom, path))
    if instance.is_video and instance.streamed:
        _require_whole_stream(path, name, header)
        return Received(name, path)
    if reason := instance.refusal:
        raise UnreadableError(f"{name} {reason}")
    dataset = instance.read()
    require_size(next(frames(dataset, name, only=1)).pixels, name)
    with _damage_told(name), whole(path) as partly:
        dataset.save_as(partly, enforce_file_format=True)
    return Received(name, path)


def _require_whole_stream(path: Path, name: str, header: Dataset) -> None:
    """Look at a video where it lies, for it may be longer than the memory is large; it is kept as it came."""
    open_dicom(name, header, path, streamed=True)
    with _damage_told(name):
        header.save_as(io.BytesIO(), enforce_file_format=True)
        dcmread(path, defer_size=_DEFERRED)


@contextmanager
def _damage_told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise UnreadableError(f"{name} is damaged DICOM: {in_one_line(error)}") from None


def store(files: Iterable[Received], examination: Examination, library: Library) -> list[Outcome]:
    """Add images to a library: DICOM to the studies that they name, all pictures as one study of the examination.

    Nothing is overwritten, doubled, or put into another patient's study.

    Returns:
        What became of each file, in their order.

    Raises:
        OSError, PacsError: as :meth:`monai_label_app.library.Library.store`.
    """
    files = list(files)
    candidates = list(_instances(files, examination))
    endoscopic = {one.header.StudyInstanceUID for _, one in candidates if one.header.get("Modality") == MODALITY}
    accepted: dict[str, tuple[Received, Instance]] = {}
    patients: dict[str, str] = {}
    outcomes: dict[int, Outcome] = {}
    for file, instance in candidates:
        uid, study = str(instance.header.SOPInstanceUID), str(instance.header.StudyInstanceUID)
        if study not in patients:
            patients[study] = patient_of(next(iter(_headers(library, study)), instance.header))
        known = accepted[uid][1] if uid in accepted else _stored(library, uid)
        listed = study in endoscopic or _finds(library, study)
        state, reason = _judge(instance, known, patients[study], listed)
        if reason:
            study = study if state == PRESENT else ""
            outcomes[file.number] = Outcome(file.number, state, study, f"{file.name} {reason}")
        else:
            accepted[uid] = file, instance
    new = set(library.store(instance.read() for _, instance in accepted.values()))
    for uid, (file, instance) in accepted.items():
        state = STORED if uid in new else PRESENT
        outcomes[file.number] = Outcome(file.number, state, str(instance.header.StudyInstanceUID))
    first = {file.fingerprint: file for file in reversed(files)}
    return [outcomes.get(file.number) or _again(file, first[file.fingerprint], outcomes) for file in files]


def _instances(files: Sequence[Received], examination: Examination) -> Iterator[tuple[Received, Instance]]:
    pictures: dict[str, Received] = {}
    videos: dict[str, Received] = {}
    for file in files:
        if file.fingerprint:
            (videos if file.video else pictures).setdefault(file.fingerprint, file)
        else:
            yield file, Instance(file.name, read_dicom(file.path, pixels=False), partial(read_dicom, file.path))
    if videos:  # of one study with the pictures
        examination = study_of(examination, [*pictures, *videos])
    converted, _ = convert_pictures([file.path for file in pictures.values()], examination)
    yield from zip(pictures.values(), converted, strict=True)
    for number, file in enumerate(videos.values(), start=1):
        read = partial(as_dicom, file.path, examination, file.fingerprint, number)
        header = read()
        del header.PixelData
        yield file, Instance(file.name, header, read)


def _judge(instance: Instance, known: Instance | None, patient: str, listed: bool) -> tuple[str, str]:
    """What becomes of an image, and why it is not added, as the end of a sentence.

    Args:
        instance: the image.
        known: what has the same SOP Instance UID and is there.
        patient: of its study.
        listed: its study will be found again.
    """
    if known is not None and _same(known, instance):
        return PRESENT, "is there already"
    if known is not None:
        return (
            REFUSED,
            "has the SOP Instance UID of an image that is there with other content; nothing is overwritten",
        )
    if patient_of(instance.header) != patient:
        return REFUSED, "names another patient than the rest of its study"
    if not listed:
        return REFUSED, f"is of a study without images of modality {MODALITY}, and no others are looked for in the PACS"
    return STORED, ""


def _again(file: Received, first: Received, outcomes: Mapping[int, Outcome]) -> Outcome:
    """Of a picture that was sent twice."""
    state = REFUSED if outcomes[first.number].state == REFUSED else PRESENT
    return Outcome(file.number, state, outcomes[first.number].study, f"{file.name} is the same picture as {first.name}")


def _finds(library: Library, study: str) -> bool:
    """Whether a library will list a study to which an image of another modality is added."""
    return not isinstance(library, PacsLibrary) or any(
        one.get("Modality") == MODALITY for one in _headers(library, study)
    )


def _stored(library: Library, uid: str) -> Instance | None:
    try:
        return library.instance(uid)
    except LookupError:
        return None


def _headers(library: Library, study: str) -> list[Dataset]:
    try:
        return [one.header for one in library.study(study).instances]
    except LookupError:
        return []


def _same(one: Instance, other: Instance) -> bool:
    try:
        return as_file(one.read()) == as_file(other.read())
    except UnreadableError:
        return False


def patient_of(header: Dataset) -> str:
    """Whose image it is: the Patient ID, or the name where there is none."""
    return str(header.get("PatientID") or "").strip() or str(header.get("PatientName") or "")
