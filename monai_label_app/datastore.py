"""MONAI Label's datastore over a library: one image is one SOP Instance, from a folder or from a PACS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
from filelock import FileLock
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from monai_label_app.asking import asking
from monai_label_app.classifier.data import Example
from monai_label_app.corrections import Correction, Corrections, parse
from monai_label_app.folder import temporary, whole
from monai_label_app.library import FolderLibrary, Library, beside
from monai_label_app.study import Instance

INDEX = "datastore_v2.json"
"""MONAI Label's list of images and their labels."""

IMAGES = ".endolens/images"
CORRECTIONS = ".endolens/corrections.jsonl"
REPORTS = ".endolens/reports.sqlite"
LABELS_LOCK = ".endolens/labels.lock"


def read_index(folder: Path) -> LocalDatastoreModel:
    """MONAI Label's list of the images that were asked for, and of their labels; empty before the first.

    Raises:
        ValueError: it is damaged; the message is one sentence.
        OSError: it cannot be read.
    """
    file = folder / INDEX
    if not file.exists():
        return LocalDatastoreModel(name="", description="")
    try:
        return LocalDatastoreModel.model_validate_json(file.read_bytes())
    except ValueError:
        raise ValueError(
            f"{file}, MONAI Label's list of labels, is damaged: put a copy of it back, or move it away, and it is made "
            "anew of the corrections in labels/ (other label files stay, and are not listed)"
        ) from None


class StudyDatastore(LocalDatastore):
    """Images by SOP Instance UID, read from the library when asked for; labels in a folder, as MONAI Label keeps them.

    Args:
        library: where the images are.
        folder: gets ``labels/`` and, hidden, corrections, reports under edit and the images that were asked for.
        classes: of which a correction may be, asked for at each.
    """

    def __init__(self, library: Library, folder: Path, classes: Callable[[], Sequence[str]]) -> None:
        self._library, self._classes = library, classes
        self._saving = FileLock(folder / LABELS_LOCK)
        self.corrections = Corrections(folder / CORRECTIONS)
        self.reports = folder / REPORTS
        (folder / LABELS_LOCK).parent.mkdir(parents=True, exist_ok=True)
        with self._saving:
            self._relink(folder / IMAGES)
            super().__init__(str(folder), images_dir=IMAGES, extensions=["*.dcm", "*.json"], auto_reload=False)

    def list_images(self) -> list[str]:
        """SOP Instance UIDs of all images that can be analysed."""
        studies = self._library.studies()
        return [str(one.header.SOPInstanceUID) for study in studies for one in study.images.instances]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images without a final label."""
        labeled = set(self.get_labeled_images(label_tag, labels))
        return [uid for uid in self.list_images() if uid not in labeled]

    def json(self) -> dict[str, Any]:
        """What the datastore holds, with the images that nobody asked for yet."""
        self._init_from_datastore_file()
        kept: dict[str, Any] = super().json()
        untouched = {"image": {"ext": ".dcm", "info": {}}, "labels": {}}
        return {**kept, "objects": {**dict.fromkeys(self.list_images(), untouched), **kept["objects"]}}

    def get_image_uri(self, image_id: str) -> str:
        """Path of a DICOM file with this image.

        Raises:
            ImageNotFoundException: there is no such image in the library.
            UnreadableError, PacsError: it is there and cannot be read.
        """
        try:
            instance = self._library.instance(image_id)
        except LookupError:
            raise ImageNotFoundException(
                "there is no such image in the datastore; name one of its SOP Instances, paths and uploads are refused"
            ) from None
        if instance.refusal is not None:
            raise ImageNotFoundException(f"{image_id} {instance.refusal}")
        # The name comes from the library, not from the request.
        file = Path(self._datastore.image_path()) / f"{instance.header.SOPInstanceUID}.dcm"
        if not file.exists():
            self._relink(file.parent)
            self._place(instance, file)
        if image_id not in self._datastore.objects:
            with self._alone():
                self.refresh()
        return str(file)

    def _relink(self, images: Path) -> None:
        """Have images whose studies were moved lead to where they are now, before their labels are lost."""
        for file in images.glob("*.dcm"):
            if file.is_symlink() and not file.exists():
                with suppress(LookupError):
                    instance = self._library.instance(file.stem)
                    if instance.path:
                        file.unlink(missing_ok=True)
                        self._place(instance, file)

    def _place(self, instance: Instance, file: Path) -> None:
        if instance.path:
            with suppress(FileExistsError):  # another server was asked for it, too
                file.symlink_to(instance.path.resolve())
            return
        with whole(file) as partial:
            instance.read().save_as(partial, enforce_file_format=True)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Study, series and place of an image; its path once it was asked for."""
        self.get_image_uri(image_id)
        info: dict[str, Any] = super().get_image_info(image_id)
        header = self._library.instance(image_id).header
        return {
            **info,
            "StudyInstanceUID": str(header.StudyInstanceUID),
            "SeriesInstanceUID": str(header.SeriesInstanceUID),
            "Modality": str(header.get("Modality", "")),
        }

    def corrected(self) -> list[Example]:
        """What doctors corrected, as examples to train on; frames of one study are one group.

        Those whose image is no longer in the library are left out.
        """
        examples = []
        for one in self.corrections.current():
            with suppress(ImageNotFoundException):
                path, study = Path(self.get_image_uri(one.image)), self._library.instance(one.image).header
                examples.append(Example(path, one.label, str(study.StudyInstanceUID), one.frame, one.region))
        return examples

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refuse: images come from the folder or the PACS, which MONAI Label must not change."""
        raise ImageNotFoundException("images are added to the studies folder or the PACS itself")

    def remove_image(self, image_id: str) -> None:
        """Refuse, as :meth:`add_image`."""
        raise ImageNotFoundException("images are removed from the studies folder or the PACS itself")

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Path of a ZIP of the labelled images; LabelNotFoundException if there is none."""
        if not self.datalist():
            raise LabelNotFoundException("there is no labelled image yet")
        archive: str = super().get_dataset_archive(limit_cases)
        return archive

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label of an image. A final one that is JSON is a correction, which is added to those before it.

        An inference never takes the place of what a person said, nor does a file of another kind that of a correction.

        Raises:
            ImageNotFoundException: there is no such image, or no such tag.
            MONAILabelException: the correction has a mistake.
        """
        if label_tag not in {tag.value for tag in DefaultLabelTag}:
            raise ImageNotFoundException(f"there is no label tag {label_tag!r}")
        self.get_image_uri(image_id)
        _require_text(label_info)
        if label_tag == DefaultLabelTag.FINAL.value and _is_json(Path(label_filename)):
            return self._save_correction(image_id, Path(label_filename), label_info)
        info = _signed(label_info or {})
        with self._alone():
            before = self.get_label_info(image_id, label_tag)
            if before and _is_of_model(info) and not _is_of_model(before):
                return image_id
            if label_tag == DefaultLabelTag.FINAL.value and self._is_corrected(image_id):
                reason = "what doctors said of this image is its final label; send what is to be added to it as JSON"
                raise MONAILabelException(MONAILabelError.INVALID_INPUT, reason)
            label: str = super().save_label(image_id, label_filename, label_tag, info)
        return label

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known of a label; MONAILabelException for what it says itself, and by whom."""
        if own := sorted({"class", "by", "model"} & set(info)):
            reason = f"{', '.join(own)} of a label cannot be changed beside it; save another label"
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, reason)
        _require_text(info)
        with self._alone():
            super().update_label_info(label_id, label_tag, info)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image, such as which strategy chose it for whom."""
        _require_text(info)
        super().update_image_info(image_id, info)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take a label away; corrections stay in the file as withdrawn.

        Raises:
            LabelNotFoundException: there is none.
        """
        with self._alone():
            said = label_tag == DefaultLabelTag.FINAL.value and self._is_corrected(label_id)
            if not said and not super().get_label_uri(label_id, label_tag):
                raise LabelNotFoundException(f"there is no label {label_tag} of {label_id}")
            if label_tag == DefaultLabelTag.FINAL.value:
                self.corrections.withdraw(label_id, _author(""))
            super().remove_label(label_id, label_tag)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Path of a label; empty if there is none."""
        self._init_from_datastore_file()
        label: str = super().get_label_uri(label_id, label_tag)
        return label

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images with a final label."""
        self._init_from_datastore_file()
        images: list[str] = super().get_labeled_images(label_tag, labels)
        return images

    def _is_corrected(self, image_id: str) -> bool:
        return any(one.image == image_id for one in self.corrections.current())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the labels as they are now: another server of the folder may have changed them, and may want to."""
        with self._saving:
            self._init_from_datastore_file()
            yield

    def _save_correction(self, image_id: str, sent: Path, label_info: dict[str, Any]) -> str:
        try:
            correction = parse(sent.read_bytes(), self._library.instance(image_id).header, self._classes())
        except ValueError as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from error
        return self.keep(replace(correction, by=_author(correction.by)), label_info)

    def keep(self, correction: Correction, label_info: dict[str, Any] | None = None) -> str:
        """Add a correction to those before it; they are the image's final label, whose name is returned.

        Raises:
            ImageNotFoundException: there is no such image.
            UnreadableError, PacsError: it is there and cannot be read.
        """
        self.get_image_uri(correction.image)
        with self._alone(), temporary() as folder:
            self.corrections.add(correction)
            # MONAI Label keeps one file an image: all that was said of it.
            history = folder / f"{correction.image}.json"
            history.write_text(self.corrections.history(correction.image), encoding="utf-8")
            info = {**(label_info or {}), "class": correction.label, "by": correction.by}
            tag = DefaultLabelTag.FINAL.value
            label: str = super().save_label(correction.image, str(history), tag, info)
        return label


def _require_text(info: dict[str, Any] | None) -> None:
    """Raise UnicodeEncodeError for half a character, which MONAI Label would write and never read again."""
    json.dumps(info, ensure_ascii=False, default=str).encode()


def _is_json(file: Path) -> bool:
    """Whether a label is meant as JSON, whatever a client calls it."""
    with file.open("rb") as content:
        return file.suffix.lower() == ".json" or content.read(64).lstrip()[:1] == b"{"


def _author(said: str) -> str:
    """Who says what a label says: whoever asks, as far as that is known."""
    now = asking()
    return now.who.author(said) if now else said


def _is_of_model(info: dict[str, Any]) -> bool:
    """Whether a label is an inference, whose model MONAI Label keeps; with a reader's name it is theirs."""
    return "model" in info and "by" not in info


def _signed(info: dict[str, Any]) -> dict[str, Any]:
    return {**info, "by": _author(str(info["by"]))} if "by" in info else info


def open_datastore(library: Library, studies: str, classes: Callable[[], Sequence[str]]) -> StudyDatastore:
    """The datastore of a library: beside a folder's studies, or in the cache for a PACS."""
    folder = library.folder if isinstance(library, FolderLibrary) else beside(studies)
    return StudyDatastore(library, folder, classes)
