"""The module EndoLens of 3D Slicer: its entry and its widget. What it does is in EndoLensLib.logic."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import qt
import slicer
from EndoLensLib import volumes
from EndoLensLib.logic import OPACITY, EndoLensLogic
from EndoLensLib.server import DEFAULT, ServerError
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

_PREDICTED = "as the network says"
_ADDRESS, _READER = "EndoLens/address", "EndoLens/reader"


class EndoLens(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = "EndoLens"
        parent.categories = ["Active Learning"]
        parent.dependencies = ["Volumes", "Markups", "Tables", "Sequences"]
        parent.contributors = ["the EndoLens developers"]
        parent.helpText = (
            "Shows why a network says what it says of an endoscopy image: heatmaps of any layer for any class over the "
            "image, and findings as closed curves. It asks an EndoLens server. For research and education."
        )
        parent.acknowledgementText = ""


class EndoLensWidget(ScriptedLoadableModuleWidget):
    """Buttons to logic, answers to labels; nothing else."""

    def setup(self) -> None:
        """Make the panel; Slicer calls it once."""
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/EndoLens.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"):
            self.ui.image.addAttribute(kind, volumes.IMAGE)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = EndoLensLogic(slicer.mrmlScene, slicer.modules.volumes.logic(), self.forget)
        self.ui.address.text = slicer.util.settingsValue(_ADDRESS, DEFAULT)
        self.ui.reader.text = slicer.util.settingsValue(_READER, "")
        self.ui.opacity.value = OPACITY
        for button, act in (
            (self.ui.connectButton, self.connect),
            (self.ui.loadButton, self.load),
            (self.ui.explainButton, self.explain),
            (self.ui.findButton, self.find),
            (self.ui.correctButton, self.correct),
        ):
            button.connect("clicked(bool)", self._doing(act))
        for picker in (self.ui.method, self.ui.layer, self.ui.label):
            picker.connect("activated(int)", self._doing(self.explain))
        self.ui.image.connect("currentNodeChanged(vtkMRMLNode*)", self._doing(self.show))
        self.ui.opacity.connect("valueChanged(double)", self.logic.set_opacity)
        self.ui.table.connect("clicked(QModelIndex)", lambda index: self._doing(lambda: self.go_to(index.row()))())
        self.layout.addStretch(1)

    def connect(self) -> None:
        """List the studies of the server, and what its network knows."""
        studies = self.logic.connect(self.ui.address.text)
        model = self.logic.model
        qt.QSettings().setValue(_ADDRESS, self.ui.address.text)
        self.ui.notice.text = f"{model.title}: {model.notice}"
        _fill(self.ui.method, model.methods, "grad-cam")
        _fill(self.ui.layer, model.layers, model.target_layer)
        _fill(self.ui.label, [_PREDICTED, *model.classes], _PREDICTED)
        _fill(self.ui.shows, model.classes)
        self.ui.studies.clear()
        for study in studies:
            self.ui.studies.addItem(study.title, study.uid)
        for part in (self.ui.look, self.ui.findings, self.ui.correction):
            part.enabled = True

    def load(self) -> None:
        """Load the chosen study."""
        with self._progress("Loading the study") as progress:
            problems = self.logic.load(self.ui.studies.currentData, progress)
        self.ui.image.setCurrentNode(self.logic.shown())
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
        slicer.util.resetSliceViews()
        if problems:
            slicer.util.warningDisplay("\n".join(problems), windowTitle="Some images were left out")

    def show(self) -> None:
        """Show the chosen image."""
        volume = self.ui.image.currentNode()
        if volume is not None:
            self.ui.frames.setMRMLSequenceBrowserNode(volumes.browser_of(slicer.mrmlScene, volume))
            self.logic.show(volume)
            slicer.util.resetSliceViews()

    def forget(self) -> None:
        """Another frame is shown: what was said of the one before is not true of it."""
        self.ui.sentence.text = self.ui.said.text = ""

    def explain(self) -> None:
        """Lay the chosen map over the frame that is shown, and say what is seen."""
        volume, label = self.ui.image.currentNode(), self.ui.label.currentText
        chosen = (self.ui.method.currentText, self.ui.layer.currentText, "" if label == _PREDICTED else label)
        evidence = self.logic.explain(volume, *chosen)
        self.logic.set_opacity(self.ui.opacity.value)
        self.ui.sentence.text = "\n".join([evidence.sentence, *evidence.warnings])
        self.ui.table.setMRMLTableNode(self.logic.table())
        self._tell(self.logic.said(volume))

    def find(self) -> None:
        """Outline the findings of all images."""
        with self._progress("Looking at all images") as progress:
            self.logic.find(progress)
        self.ui.table.setMRMLTableNode(self.logic.table())

    def go_to(self, row: int) -> None:
        """Show the frame of a finding."""
        self.ui.image.setCurrentNode(self.logic.go_to(row))

    def correct(self) -> None:
        """Send what the reader says of the frame that is shown."""
        volume, region = self.ui.image.currentNode(), self.ui.region.currentNode()
        reader = self.ui.reader.text
        self._tell(self.logic.correct(volume, self.ui.shows.currentText, reader, self.ui.comment.text, region))
        qt.QSettings().setValue(_READER, reader)
        self.ui.comment.text = ""

    def _tell(self, said: list[dict[str, Any]]) -> None:
        lines = [f"{one['by']}: {one['class']}{'' if one['current'] else ' (no longer holds)'}" for one in said]
        self.ui.said.text = "\n".join(lines)

    def _doing(self, act: Callable[[], None]) -> Callable[..., None]:
        def done(*_: Any) -> None:
            try:
                with slicer.util.WaitCursor():
                    act()
            except (ServerError, ValueError) as error:
                slicer.util.errorDisplay(str(error), windowTitle="EndoLens")

        return done

    @contextmanager
    def _progress(self, text: str) -> Any:
        dialog = slicer.util.createProgressDialog(labelText=text, windowTitle="EndoLens")

        def progress(done: int, total: int) -> None:
            if dialog.wasCanceled:
                raise ValueError("Stopped; what is there so far stays.")
            dialog.maximum, dialog.value = total, done
            slicer.app.processEvents()

        try:
            yield progress
        finally:
            dialog.close()


class EndoLensTest(ScriptedLoadableModuleTest):
    """Slicer's self-test; what the module does is tested against a server in EndoLens's own tests."""

    def runTest(self) -> None:
        """A wrong address is refused in a sentence."""
        slicer.mrmlScene.Clear()
        logic = EndoLensLogic(slicer.mrmlScene, slicer.modules.volumes.logic())
        with self.assertRaises(ServerError):
            logic.connect("ftp://nowhere")
        self.assertEqual(logic.loaded(), [])


def _fill(picker: Any, names: Any, chosen: str = "") -> None:
    picker.clear()
    picker.addItems(list(names))
    if chosen:
        picker.currentText = chosen
