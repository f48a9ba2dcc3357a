"""The main job: from a server to a study in the scene, to a map and findings on it, and back to a correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vtk

from . import findings, volumes
from .server import Evidence, Frame, Image, Model, Server, ServerError, Study

OPACITY = 0.45
"""Of the map, where it is full."""

_MOST_BYTES = 2 * 1024**3


class EndoLensLogic:
    """What the reader does with the module. What goes wrong is a :class:`ServerError` or ValueError with a sentence.

    Args:
        scene: the MRML scene.
        volumes_logic: Slicer's ``vtkSlicerVolumesLogic`` of that scene.
        turned: called when another image or frame is shown, by whatever means.
    """

    def __init__(self, scene: Any, volumes_logic: Any, turned: Callable[[], None] = lambda: None) -> None:
        self._scene, self._volumes, self._turned = scene, volumes_logic, turned
        self._server: Server | None = None
        self._model: Model | None = None
        self._said: dict[Frame, int] = {}
        self._watched: dict[str, Any] = {}
        self._settled: Frame | None = None
        self._settling = False
        scene.AddObserver(scene.EndImportEvent, lambda *_: self._watch())

    @property
    def server(self) -> Server:
        """The server that :meth:`connect` found."""
        if self._server is None:
            raise ServerError("Connect to a server first.")
        return self._server

    @property
    def model(self) -> Model:
        """Its network, as it was when it was asked last."""
        if self._model is None:
            raise ServerError("Connect to a server first.")
        return self._model

    def connect(self, address: str) -> list[Study]:
        """Find a server, and ask it for its network and its studies."""
        server = Server(address)
        self._model, found = server.model(), server.studies()
        self._server = server
        return found

    def load(self, study: str | None, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Load a study's images and heatmaps, those that are not there yet, and show its first image.

        Args:
            study: its UID; empty or None where none is chosen.
            progress: told how many images of how many are done.

        Returns:
            What could not be loaded, a sentence each.
        """
        server = self.server
        if not study:
            raise ValueError("Choose a study first; a server that lists none has no endoscopy images.")
        listed = server.images(study)
        problems = []
        for number, image in enumerate(listed):
            progress(number, len(listed))
            try:
                self._load(image)
            except (ValueError, ServerError) as error:
                problems.append(f"{image.title}: {error}")
        progress(len(listed), len(listed))
        first = next((self.volume(image.uid) for image in listed if image.source and self.volume(image.uid)), None)
        if first is not None:
            self.show(first)
        return problems

    def _load(self, image: Image) -> None:
        if self.volume(image.uid) is not None:
            return
        if image.video:
            raise ValueError("it is a video, which Slicer does not read; watch it in OHIF")
        if image.size > _MOST_BYTES:
            raise ValueError(f"its {image.frames} frames do not fit into memory; look at it on the EndoLens page")
        if image.source:
            # Slicer shows chance values where a file is cut off; the server refuses such a frame.
            self.server.size(Frame(image.uid, image.frames))
        volumes.load(self._volumes, self._scene, self.server.file(image.uid), image)

    def volume(self, image: str) -> Any:
        """The volume of an image; None if it is not loaded."""
        return next((one for one in self.loaded() if one.GetAttribute(volumes.IMAGE) == image), None)

    def loaded(self) -> list[Any]:
        """The volumes of all images."""
        return volumes.of_images(self._scene)

    def show(self, volume: Any, number: int | None = None) -> None:
        """Show an image, by default the frame of it that it is at, in the slice views."""
        self._watch()
        browser = volumes.browser_of(self._scene, volume)
        if browser is not None and number is not None:
            browser.SetSelectedItemNumber(number - 1)
        for view in self._views():
            view.SetBackgroundVolumeID(volume.GetID())
        self._settle()

    def shown(self) -> Any:
        """The image's volume in the slice views; None if there is none, or several."""
        found = [volume for volume in self.loaded() if volume.GetID() in map(_background, self._views())]
        return found[0] if len(found) == 1 else None

    def explain(self, volume: Any, method: str = "grad-cam", layer: str = "", label: str = "") -> Evidence:
        """Show a volume with a map over its frame, and outline what a class is read from.

        Args:
            volume: of an image.
            method: one of the server's.
            layer: the model's target layer unless given.
            label: the predicted class unless given.
        """
        frame = self._source(volume)
        self._model = self.server.model()  # another version may be active by now
        evidence = self.server.evidence(frame, layer, label)
        coloured = self.server.explanation(frame, method, evidence.layer, evidence.label)
        title = f"{method} of {evidence.label} in {evidence.layer}"
        self.show(volume)
        laid = volumes.lay(self._scene, coloured, volume, title)
        self._keep(volume, frame, evidence)
        for view in self._views():
            view.SetForegroundVolumeID(laid.GetID())
            view.SetForegroundOpacity(view.GetForegroundOpacity() or OPACITY)
        self._settle()
        return evidence

    def set_opacity(self, opacity: float) -> None:
        """How much of the map is seen, 0 to 1."""
        for view in self._views():
            view.SetForegroundOpacity(opacity)

    def find(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Outline what the predicted class is read from, on every frame of every image that is loaded."""
        self._model = self.server.model()
        frames = [(volume, frame) for volume in self.loaded() for frame in self._frames(volume)]
        for number, (volume, frame) in enumerate(frames):
            progress(number, len(frames))
            self._keep(volume, frame, self.server.evidence(frame))
        progress(len(frames), len(frames))
        self._settle()

    def table(self) -> Any:
        """The table of findings."""
        return findings.table(self._scene)

    def go_to(self, row: int) -> Any:
        """Show the frame of a finding, and return its volume."""
        frame = findings.frame_in_row(self._scene, row)
        volume = self.volume(frame.image)
        if volume is None:
            raise ValueError("The image of this finding is no longer in the scene; load the study again.")
        self.show(volume, frame.number)
        return volume

    def said(self, volume: Any) -> list[dict[str, Any]]:
        """What readers said of the frame that a volume shows, the oldest first."""
        frame = self._source(volume)
        said = self.server.labels(frame)
        self._said[frame] = len(said)
        return said

    def correct(self, volume: Any, label: str, by: str, comment: str = "", curve: Any = None) -> list[dict[str, Any]]:
        """Say what the frame that a volume shows is, as a label of MONAI Label's datastore.

        Args:
            volume: of an image.
            label: the class.
            by: the reader's name.
            comment: in the reader's words.
            curve: a closed curve around what is meant; the whole frame is meant without.

        Returns:
            What readers said of the frame, the oldest first.

        Raises:
            ServerError: it was refused, or another reader was quicker since :meth:`said` asked; sent again it is kept.
        """
        frame = self._source(volume)
        before = self.server.labels(frame)
        if len(before) > self._said.get(frame, len(before)):
            self._said[frame] = len(before)
            last = before[-1]
            raise ServerError(
                f"Meanwhile {last['by']} said that this frame shows {last['class']}. "
                "Nothing was sent; send again if you see it otherwise."
            )
        region = findings.region_of(curve, volume) if curve is not None else []
        said = {"class": label, "by": by, "comment": comment, "region": region, "model": self.model.title}
        after = self.server.correct(frame, said)
        self._said[frame] = len(after)
        return after

    def _keep(self, volume: Any, frame: Frame, evidence: Evidence) -> None:
        made_by = f"EndoLens {self.model.title}, unverified"
        findings.put(self._scene, volume, frame, evidence, made_by)

    def _source(self, volume: Any) -> Frame:
        if volume is None or not volume.GetAttribute(volumes.IMAGE):
            raise ValueError("Load a study and show one of its images first.")
        if not volume.GetAttribute(volumes.SOURCE):
            raise ValueError("This is a heatmap of EndoLens; show the image that it was made of.")
        return volumes.frame_of(self._scene, volume)

    def _frames(self, volume: Any) -> list[Frame]:
        if not volume.GetAttribute(volumes.SOURCE):
            return []
        browser = volumes.browser_of(self._scene, volume)
        count = 1 if browser is None else browser.GetNumberOfItems()
        return [Frame(volume.GetAttribute(volumes.IMAGE), number) for number in range(1, count + 1)]

    def _views(self) -> list[Any]:
        return volumes.nodes(self._scene, "vtkMRMLSliceCompositeNode")

    def _watch(self) -> None:
        """Settle whenever the reader turns to another image or frame, by whichever of Slicer's controls."""
        for node in (*self._views(), *volumes.nodes(self._scene, "vtkMRMLSequenceBrowserNode")):
            if self._watched.get(node.GetID()) is not node:
                self._watched[node.GetID()] = node
                node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._settle())

    def _settle(self) -> None:
        """No map and no curve over a frame that it was not made of."""
        if self._settling:
            return
        self._settling = True
        try:
            for view in self._views():
                below, laid = (self._scene.GetNodeByID(one or "") for one in (_background(view), _foreground(view)))
                if laid is not None and not volumes.fits(self._scene, laid, below):
                    view.SetForegroundVolumeID(None)
            shown = self.shown()
            frame = None if shown is None else volumes.frame_of(self._scene, shown)
            findings.show(self._scene, frame)
        finally:
            self._settling = False
        if frame != self._settled:
            self._settled = frame
            self._turned()


def _background(view: Any) -> Any:
    return view.GetBackgroundVolumeID()


def _foreground(view: Any) -> Any:
    return view.GetForegroundVolumeID()
