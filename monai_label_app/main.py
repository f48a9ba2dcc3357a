"""The MONAI Label app: datastore and infer tasks. MONAI Label finds the class by this file's name."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_label_app import compatibility  # noqa: F401  (before monailabel)

# isort: split
import torch
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.random import Random
from pydicom import Dataset

from monai_label_app.analysis import captures_of
from monai_label_app.asking import asking, temporary_file
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.classifier.registry import Registry
from monai_label_app.datastore import open_datastore
from monai_label_app.files import read_dicom
from monai_label_app.frames import Frame
from monai_label_app.library import open_library
from monai_label_app.seeing import Seen, see
from monai_label_app.strategies import Diversity, Uncertainty
from monai_label_app.trainer import Learn


class EndoscopyInfer(InferTask):
    """Look at one frame of one image; subclasses say what is returned."""

    files: tuple[str, ...] = ()
    """Kinds of files that it makes, as MONAI Label's ``output`` names them."""

    def __init__(self, model: str | None, description: str) -> None:
        # The labels are the app's: where a task has them, 3D Slicer's MONAI Label takes it for one that segments.
        super().__init__(InferType.CLASSIFICATION, None, 2, description, {"frame": 1})
        self._model = model

    def is_valid(self) -> bool:
        """True: the model was checked when the app started."""
        return True

    def _look(self, request: dict[str, Any]) -> tuple[Dataset, Frame, Seen, Classifier, dict[str, Any]]:
        """The image, the frame that was asked for, what was seen there and by whom, and that as JSON."""
        classifier = open_classifier(self._model)
        try:
            number = int(request.get("frame", 1))
            dataset = read_dicom(Path(request["image"]))
            frame, seen = see(dataset, str(dataset.SOPInstanceUID), classifier, number)
        except (ValueError, TypeError, OverflowError) as error:
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from error
        prediction = {
            "image": str(dataset.SOPInstanceUID),
            "frame": frame.number,
            "prediction": seen.predicted,
            "probabilities": seen.probabilities,
            "model": f"{classifier.card.name} {classifier.version}",
            "notice": classifier.card.notice,
        }
        return dataset, frame, seen, classifier, prediction


class Classify(EndoscopyInfer):
    """Class probabilities of a frame, as JSON."""

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """No file, and the prediction."""
        return None, self._look(request)[-1]


class GradCam(EndoscopyInfer):
    """Grad-CAM of a frame's predicted class, as a DICOM Secondary Capture."""

    files = ("image",)

    def __call__(self, request: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Path of a DICOM file, which MONAI Label removes after use, and the prediction."""
        dataset, frame, seen, classifier, prediction = self._look(request)
        (capture,) = captures_of(dataset, frame, seen, classifier, frame.number)
        with temporary_file(suffix=".dcm", delete=False) as file:
            capture.save_as(file, enforce_file_format=True)
        return file.name, prediction


class EndoLensApp(MONAILabelApp):
    """EndoLens as MONAI Label sees it.

    ``conf`` takes ``model``: a checkpoint, a folder of them or a network's name, as ``endolens analyze --model``; and
    ``dataset``: labelled pictures that are learned again with the doctors' corrections.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self._model, self._dataset = ((conf or {}).get(name) for name in ("model", "dataset"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="EndoLens",
            description="Explains endoscopy classifiers: Grad-CAM of any frame as a DICOM Secondary Capture",
            version=version("endolens"),
            labels=list(self._classes()),
        )

    def init_datastore(self) -> Datastore:
        """Folder or PACS, as ``studies`` says."""
        return open_datastore(open_library(self.studies), self.studies, self._classes)

    def _classes(self) -> tuple[str, ...]:
        return open_classifier(self._model).card.classes

    def init_infers(self) -> dict[str, InferTask]:
        """``classify`` and ``grad_cam``."""
        return {
            "classify": Classify(self._model, "Class probabilities of an endoscopy frame"),
            "grad_cam": GradCam(self._model, "Grad-CAM of the predicted class, as DICOM Secondary Capture"),
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """``learn``, where the model is one of a folder of versions."""
        if not (self._model and Path(self._model).is_dir()):
            return {}
        return {"learn": Learn(Registry(Path(self._model)), Path(self._dataset) if self._dataset else None)}

    def init_strategies(self) -> dict[str, Strategy]:
        """``random``, ``uncertainty`` and ``diversity``."""
        return {"random": Random(), "uncertainty": Uncertainty(self._model), "diversity": Diversity(self._model)}

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """As MONAI Label's own, which divides by the number of GPUs unless told that there is none."""
        several = bool(request.get("multi_gpu", True)) and torch.cuda.is_available()
        asked = {**request, "multi_gpu": several}
        result: dict[str, Any] = self._batch_infer(asked, datastore or self.datastore(), self._infer)
        return result

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """As MONAI Label's own, of the image that the address names; nothing is saved, for who asks may only read.

        Raises:
            MONAILabelException: the image is another, or not one of the datastore.
        """
        if (now := asking()) and request.get("image") != now.image:
            raise ImageNotFoundException("the image is named by ?image= alone; others, paths and uploads are refused")
        return self._infer({**request, "save_label": False}, datastore)

    def _infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Of images of the datastore only: MONAI Label would open any path that exists on the server."""
        (datastore or self.datastore()).get_image_uri(str(request.get("image")))
        result: dict[str, Any] = super().infer(request, datastore)
        return result
