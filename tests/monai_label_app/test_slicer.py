"""3D Slicer's module in Slicer's own libraries: what it loads from a server, and whether it lies in the right place."""

from __future__ import annotations

import importlib
import io
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import httpx
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import MPEG4HP41, VideoEndoscopicImageStorage
from shapely.geometry import Point, Polygon
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from explainers.heatmap import overlay
from monai_label_app import web
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.datastore import StudyDatastore
from monai_label_app.library import FolderLibrary
from monai_label_app.viewers import slicer as module
from monai_label_app.viewers.ohif import Viewer
from tests.dicom_files import encapsulated, image, write
from tests.mrml import Slicer, library

slicer = pytest.importorskip("slicer", reason="slicer-core has no build for this Python")
pytestmark = pytest.mark.filterwarnings("ignore")

STUDY, STILL, FILM, OTHER = "2.25.1", "2.25.2", "2.25.3", "2.25.4"
LEFT, TOP, RIGHT, BOTTOM = 120, 60, 160, 100
"""The planted blob, in pixels of the still: neither flip nor swap of the axes leaves it where it is."""


@pytest.fixture(scope="module")
def still(polyp: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A real frame, too dark for the spotlight but for a blob that is planted on it."""
    planted = polyp // 3
    planted[TOP:BOTTOM, LEFT:RIGHT] = 255
    return planted


@pytest.fixture(scope="module")
def film(still: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([still, still[:, ::-1], still // 3])


@dataclass(frozen=True)
class Bench:
    address: str
    folder: Path
    datastore: StudyDatastore


@pytest.fixture(scope="module")
def bench(still, film, spotlight: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A server of a study, whose network's map is known: it is the brightness above one half."""
    folder = tmp_path_factory.mktemp("studies")
    same = {"StudyInstanceUID": STUDY}
    write(image(still, SOPInstanceUID=STILL, PixelSpacing=[0.5, 0.5], **same), folder / "still.dcm")
    write(image(film, SOPInstanceUID=FILM, SeriesNumber=2, **same), folder / "film.dcm")
    library = FolderLibrary(folder)
    datastore = StudyDatastore(library, folder, lambda: spotlight.card.classes)
    app = web.create_app(library, lambda: spotlight, Viewer(), False, datastore=lambda: datastore)
    server = make_server("127.0.0.1", 0, DispatcherMiddleware(NotFound(), {"/endolens": app}), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_label_app.library.FRESH_SECONDS", 0.0)
        yield Bench(f"http://127.0.0.1:{server.port}", folder, datastore)
    server.shutdown()
    thread.join()


@pytest.fixture
def there(bench: Bench) -> Slicer:
    """Slicer with the study loaded."""
    started = Slicer()
    (study,) = started.logic.connect(bench.address)
    assert started.logic.load(study.uid) == []
    return started


def test_a_study_is_listed_and_loaded_with_its_pixels(bench, there, still, film) -> None:
    (study,) = there.logic.server.studies()
    assert (study.uid, study.title) == (STUDY, "Doe Jane, 4711, 2024-01-02, 2 images, new")
    volume = there.logic.volume(STILL)
    assert volume.GetClassName() == "vtkMRMLVectorVolumeNode"
    assert np.array_equal(there.pixels(volume), still)
    assert there.logic.shown().GetID() == volume.GetID()
    for number, frame in enumerate(film, 1):
        there.logic.show(there.logic.volume(FILM), number)
        there.sequences.UpdateAllProxyNodes()
        assert np.array_equal(there.pixels(there.logic.volume(FILM)), frame), number
        assert np.abs(there.picture(*frame.shape[:2]) - frame).max() <= 1, "its colours are not stretched"
    count = len(there.logic.loaded())
    assert there.logic.load(STUDY) == []
    assert len(there.logic.loaded()) == count == 2


def test_map_and_curve_lie_on_the_planted_blob(there) -> None:
    volume = there.logic.volume(STILL)
    evidence = there.logic.explain(volume)
    assert evidence.label == "polyps"
    composite = there.view.GetSliceCompositeNode()
    laid = there.scene.GetNodeByID(composite.GetForegroundVolumeID())
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.45)
    rows, columns = np.nonzero(there.pixels(laid)[..., 3] == 255)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), abs=0.6)
    for corner in ((0, 0), (203, 0), (203, 151)):
        assert there.place(laid, *corner) == pytest.approx(there.place(volume, *corner))
    (curve,) = library().findings.curves(there.scene)
    count = curve.GetNumberOfControlPoints()
    outline = Polygon([list(curve.GetNthControlPointPositionWorld(number))[:2] for number in range(count)])
    blob = Polygon(
        [there.place(volume, x, y)[:2] for x, y in ((LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM))]
    )
    assert outline.intersection(blob).area / outline.union(blob).area > 0.85
    assert outline.centroid.distance(blob.centroid) < 0.6
    assert not outline.contains(Point(there.place(volume, LEFT - 8, TOP + 10)[:2]))
    assert "unverified" in curve.GetName()
    assert curve.GetLocked()


def test_what_is_seen_in_the_view_is_the_map_over_the_frame(bench, there, still) -> None:
    there.logic.explain(there.logic.volume(STILL))
    shown = there.picture(*still.shape[:2])
    numbers = httpx.get(f"{bench.address}/endolens/api/v1/images/{STILL}/frames/1/explanation.npy").content
    expected = overlay(still, np.load(io.BytesIO(numbers)), opacity=0.45)
    assert np.abs(shown - expected).max() <= 2, "as on the page, and untouched where the map is zero"
    assert np.abs(shown - still).max() > 100


def test_a_map_never_lies_over_another_frame(there) -> None:
    still, film = there.logic.volume(STILL), there.logic.volume(FILM)
    composite = there.view.GetSliceCompositeNode()
    there.logic.show(film, 2)
    evidence = there.logic.explain(film)
    assert evidence.contours[0][:, 0].max() < 100, "mirrored"
    (curve,) = library().findings.curves(there.scene)
    assert curve.GetDisplayNode().GetVisibility()
    browser = library().volumes.browser_of(there.scene, film)
    browser.SetSelectedItemNumber(2)  # as by Slicer's own sequence toolbar
    assert composite.GetForegroundVolumeID() is None
    assert not curve.GetDisplayNode().GetVisibility()
    browser.SetSelectedItemNumber(1)
    assert curve.GetDisplayNode().GetVisibility()
    there.logic.explain(film)
    composite.SetBackgroundVolumeID(still.GetID())  # as by the view's own menu
    assert composite.GetForegroundVolumeID() is None
    assert not any(one.GetDisplayNode().GetVisibility() for one in library().findings.curves(there.scene))
    there.logic.explain(still)
    other = there.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    other.SetLayoutName("Green")
    there.logic.show(still)
    other.SetForegroundVolumeID(composite.GetForegroundVolumeID())
    other.SetBackgroundVolumeID(film.GetID())  # two views, two images: the map stays over its own
    assert (composite.GetForegroundVolumeID() is None, other.GetForegroundVolumeID() is None) == (False, True)
    assert not any(one.GetDisplayNode().GetVisibility() for one in library().findings.curves(there.scene))


def test_findings_of_all_frames_stand_in_a_table_that_leads_to_them(there) -> None:
    seen: list[tuple[int, int]] = []
    there.logic.find(lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    table, columns = there.logic.table(), library().findings.COLUMNS
    rows = [
        dict(zip(columns, map(table.GetCellText, [row] * len(columns), range(len(columns))), strict=True))
        for row in range(table.GetNumberOfRows())
    ]
    assert [(row["SOP Instance UID"], row["Frame"]) for row in rows] == [(STILL, "1"), *((FILM, n) for n in "123")]
    assert rows[0]["Finding"] == "polyps"
    assert "unverified" in rows[0]["Made by"]
    assert rows[3]["Where"] == "no region stands out"
    left, right = map(int, rows[0]["Where"].split(", ")[0].removeprefix("columns ").split("–"))
    assert (left, right) == pytest.approx((LEFT, RIGHT), abs=3)
    assert there.scene.GetNodeByID(rows[0]["Curve"]).GetClassName() == "vtkMRMLMarkupsClosedCurveNode"
    there.logic.go_to(2)
    assert library().volumes.frame_of(there.scene, there.logic.shown()).number == 2
    there.logic.find()
    assert table.GetNumberOfRows() == 4, "found again, nothing is there twice"
    there.scene.RemoveNode(there.logic.volume(STILL))
    with pytest.raises(ValueError, match="load the study again"):
        there.logic.go_to(0)


def test_a_correction_arrives_with_its_region_in_pixels(bench, there) -> None:
    volume = there.logic.volume(STILL)
    drawn = there.scene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode")
    drawn.SetCurveTypeToLinear()
    for corner in ((LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (-20, BOTTOM)):
        drawn.AddControlPointWorld(there.place(volume, *corner))
    there.logic.said(volume)
    said = there.logic.correct(volume, "normal-cecum", "Dr. Åse", "a reflection", drawn)
    assert [one["class"] for one in said] == ["normal-cecum"]
    (kept,) = bench.datastore.corrections.current()
    assert (kept.label, kept.by, kept.frame, kept.comment) == ("normal-cecum", "Dr. Åse", 1, "a reflection")
    assert kept.model == "spotlight 2.0+5a5a5a5a"
    assert kept.region == ((LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (0, BOTTOM)), "cut off at the image's edge"
    drawn.SetCurveTypeToCardinalSpline()
    there.logic.correct(volume, "polyps", "Dr. Åse", "", drawn)
    for number in range(4):
        drawn.SetNthControlPointPositionWorld(number, there.place(volume, -50 - number, -50))
    with pytest.raises(ValueError, match="no closed curve on the image"):
        there.logic.correct(volume, "polyps", "Dr. Åse", "", drawn)
    smooth = Polygon(bench.datastore.corrections.current()[0].region)
    assert smooth.contains(Point(LEFT + 10, TOP + 10))


def test_who_was_overtaken_by_another_reader_is_told(bench, there) -> None:
    volume, other = there.logic.volume(FILM), Slicer()
    there.logic.said(volume)
    other.logic.connect(bench.address)
    other.logic.load(STUDY)
    other.logic.correct(other.logic.volume(FILM), "normal-cecum", "Dr. Bo")
    with pytest.raises(
        library().server.ServerError, match=r"Meanwhile Dr\. Bo said that this frame shows normal-cecum"
    ):
        there.logic.correct(volume, "polyps", "Dr. Åse")
    assert len(there.logic.correct(volume, "polyps", "Dr. Åse")) == 2


def test_what_goes_wrong_is_one_plain_sentence(bench, there, tmp_path) -> None:
    refused = library().server.ServerError
    logic, still = there.logic, there.logic.volume(STILL)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(refused, match=r"No server answers at http://127\.0\.0\.1:\d+\. Is the address right"):
            logic.connect(f"127.0.0.1:{closed.getsockname()[1]}")
    for wrong in ("ftp://host", "http://", "http://host:port"):
        with pytest.raises(refused, match="is no address of a server"):
            logic.connect(wrong)
    for answer in (
        NotFound(),
        Response('{"detail": "Not Found"}', 404, mimetype="application/json"),
        Response("hello"),
    ):
        with pytest.raises(refused, match="answers, but is no EndoLens server"):
            stranger(logic, answer)
    with pytest.raises(refused, match="no such study"):
        logic.load("1.2.3")
    with pytest.raises(refused, match="there is no class 'cancer'"):
        logic.correct(still, "cancer", "Dr. Åse")
    with pytest.raises(refused, match="the reader's name"):
        logic.correct(still, "polyps", " ")
    with pytest.raises(refused, match="layer"):
        logic.explain(still, layer="block9")
    with pytest.raises(ValueError, match="Load a study"):
        logic.explain(None)
    with pytest.raises(ValueError, match="Choose a study first"):
        logic.load(None)
    with pytest.raises(refused, match="Connect to a server first"):
        Slicer().logic.load(STUDY)


def stranger(logic: Any, answer: Any) -> None:
    server = make_server("127.0.0.1", 0, answer)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        logic.connect(f"http://127.0.0.1:{server.port}")
    finally:
        thread.join()
        server.server_close()


def test_what_cannot_be_loaded_is_named_and_the_others_are_there(bench, tmp_path) -> None:
    cut_off = pydicom.dcmread(bench.folder / "still.dcm")
    cut_off.SOPInstanceUID = cut_off.file_meta.MediaStorageSOPInstanceUID = OTHER
    cut_off.SeriesNumber, cut_off.PixelData = 3, b"\0" * 10
    video = encapsulated(
        np.zeros((2, 40, 60, 3), np.uint8), MPEG4HP41, [b"\0" * 64], sop_class=VideoEndoscopicImageStorage
    )
    video.StudyInstanceUID, video.SeriesNumber = STUDY, 4
    files = [write(cut_off, bench.folder / "cut.dcm"), write(video, bench.folder / "video.dcm")]
    try:
        fresh = Slicer()
        fresh.logic.connect(bench.address)
        first, second = fresh.logic.load(STUDY)
        assert first == f"still 1: {OTHER} is truncated: it announces 1 frames and holds 0"
        assert second == "video 1: it is a video, which Slicer does not read; watch it in OHIF"
        assert len(fresh.logic.loaded()) == 2
    finally:
        for file in files:
            file.unlink()


@pytest.mark.slow
def test_what_the_server_hands_out_runs_alone(bench, tmp_path) -> None:
    """On the computer where Slicer runs there is no EndoLens."""
    answer = httpx.get(f"{bench.address}/endolens/slicer.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as given:
        given.extractall(tmp_path)
    code = "import sys, EndoLensLib.logic; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    command, folder = [sys.executable, "-c", code], tmp_path / "EndoLens"
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert not {"monai_label_app", "explainers", "report", "torch", "monai", "PIL", "pydicom"} & set(ran.stdout.split())
    listed = (folder / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", "EndoLens").replace(")", " ").split()
    files = {name.removeprefix("EndoLens/") for name in given.namelist()}
    assert files - {"CMakeLists.txt"} == {name for name in listed if "." in name}, "Slicer's build takes every file"


class Part:
    """Stands in for one of Slicer's Qt widgets, which no package brings: it keeps what it is given."""

    def __init__(self) -> None:
        self.text, self.enabled, self.value, self.items, self.slots = "", False, 0.0, [], {}
        self.node = self.table = self.currentText = self.currentData = None

    def connect(self, signal: str, slot: Any) -> None:
        self.slots[signal] = slot

    def click(self) -> None:
        self.slots["clicked(bool)"](False)

    def clear(self) -> None:
        self.items = []

    def addItems(self, names: list[str]) -> None:  # noqa: N802
        self.items, self.currentText = names, names[0]

    def addItem(self, text: str, data: str) -> None:  # noqa: N802
        self.items.append(text)
        self.currentText, self.currentData = text, self.currentData or data

    def currentNode(self) -> Any:  # noqa: N802
        return self.node

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        changed, self.node = node is not self.node, node
        if changed:
            self.slots["currentNodeChanged(vtkMRMLNode*)"](node)

    def setMRMLTableNode(self, node: Any) -> None:  # noqa: N802
        self.table = node

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def panel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The widget over real MRML; of Qt no more than the names and signals that it uses."""
    library()
    around, said = Slicer(), []
    names = [one.get("name") for one in ElementTree.parse(module.FOLDER / "EndoLens/Resources/UI/EndoLens.ui").iter()]
    parts = SimpleNamespace(**{name: Part() for name in names if name and name.isidentifier()})
    base = ModuleType("slicer.ScriptedLoadableModule")
    base.ScriptedLoadableModule = base.ScriptedLoadableModuleTest = object
    base.ScriptedLoadableModuleWidget = type(
        "Widget", (), {"setup": lambda self: None, "layout": Part(), "resourcePath": lambda self, path: path}
    )
    kept: dict[str, Any] = {}
    settings = SimpleNamespace(setValue=kept.__setitem__)
    monkeypatch.setitem(sys.modules, "qt", SimpleNamespace(QSettings=lambda: settings))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.setattr(slicer, "mrmlScene", around.scene, raising=False)
    volumes = SimpleNamespace(logic=lambda: around.volumes)
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(volumes=volumes), raising=False)
    monkeypatch.setattr(slicer, "app", Part(), raising=False)
    slicer.app.layoutManager = Part
    for name, stand_in in (
        ("loadUI", lambda path: Part()),
        ("childWidgetVariables", lambda panel: parts),
        ("settingsValue", lambda key, default: kept.get(key, default)),
        ("errorDisplay", lambda text, **_: said.append(text)),
        ("warningDisplay", lambda text, **_: said.append(text)),
        ("createProgressDialog", lambda **_: SimpleNamespace(wasCanceled=False, close=lambda: None)),
        ("resetSliceViews", lambda: None),
        ("WaitCursor", nullcontext),
    ):
        assert hasattr(slicer.util, name)
        monkeypatch.setattr(slicer.util, name, stand_in)
    monkeypatch.delitem(sys.modules, "EndoLens", raising=False)
    widget = importlib.import_module("EndoLens").EndoLensWidget()
    widget.setup()
    yield SimpleNamespace(ui=parts, said=said, widget=widget, around=around)
    del sys.modules["EndoLens"]


def test_the_panel_leads_from_an_address_to_a_correction(panel, bench) -> None:
    ui = panel.ui
    ui.address.text = "127.0.0.1:1"
    ui.connectButton.click()
    assert len(panel.said) == 1
    assert panel.said.pop().startswith("No server answers at http://127.0.0.1:1.")
    ui.address.text = bench.address
    ui.connectButton.click()
    assert "not for clinical use" in ui.notice.text
    assert ui.label.items == ["as the network says", "polyps", "normal-cecum"]
    ui.loadButton.click()
    assert ui.image.node.GetAttribute("EndoLens.image") == STILL
    ui.explainButton.click()
    assert ui.sentence.text.startswith("The network takes this frame for polyps")
    assert ui.table.table.GetNumberOfRows() == 1
    ui.label.currentText = "normal-cecum"
    ui.label.slots["activated(int)"](2)
    assert ui.sentence.text.startswith("The network gives normal-cecum")
    ui.opacity.slots["valueChanged(double)"](0.2)
    assert panel.around.view.GetSliceCompositeNode().GetForegroundOpacity() == pytest.approx(0.2)
    ui.findButton.click()
    ui.table.slots["clicked(QModelIndex)"](SimpleNamespace(row=lambda: 3))
    assert ui.sentence.text == "", "another frame is shown"
    ui.shows.currentText, ui.reader.text, ui.comment.text = "polyps", "Dr. Cy", "seen in Slicer"
    ui.correctButton.click()
    assert panel.said == []
    kept = bench.datastore.corrections.all()[-1]
    assert (kept.image, kept.by, kept.comment) == (
        ui.image.node.GetAttribute("EndoLens.image"),
        "Dr. Cy",
        "seen in Slicer",
    )
    assert "Dr. Cy: polyps" in ui.said.text
