"""The REST interface: what it says is what the library says, to many at once, and nothing else."""

from __future__ import annotations

import io
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from flask.testing import FlaskClient
from PIL import Image

from explainers import Dissection, heatmap
from monai_label_app import library as library_module
from monai_label_app import web
from monai_label_app.analysis import analyze
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.library import FolderLibrary
from monai_label_app.reading import read_instances
from monai_label_app.sample import STUDY
from monai_label_app.study import group
from monai_label_app.viewers.ohif import Viewer
from monai_label_app.web.explorer import OPEN

STILLS = sorted(STUDY.iterdir())[:4]
UIDS = [str(pydicom.dcmread(still, stop_before_pixels=True).SOPInstanceUID) for still in STILLS]


@pytest.fixture
def client(tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    for still in STILLS:
        shutil.copy(still, tmp_path)
    monkeypatch.setattr(library_module, "FRESH_SECONDS", 0.0)
    return web.create_app(FolderLibrary(tmp_path), lambda: classifier, Viewer(), pacs=False).test_client()


def frame(uid: str, what: str, number: int = 1) -> str:
    return f"/api/v1/images/{uid}/frames/{number}/{what}"


def array(client: FlaskClient, uid: str, **chosen: str) -> np.ndarray:
    answer = client.get(frame(uid, "explanation.npy"), query_string=chosen)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return np.load(io.BytesIO(answer.data))


def picture(content: bytes) -> np.ndarray:
    opened = Image.open(io.BytesIO(content))
    return np.asarray(opened.convert("RGBA") if opened.mode == "P" else opened).astype(int)


@pytest.mark.parametrize("method", ["grad-cam", "saliency", "guided-grad-cam"])
def test_a_map_is_that_of_the_library_by_method_layer_and_class(client, classifier, method) -> None:
    pixels = pydicom.dcmread(STILLS[1]).pixel_array
    layers = classifier.layers[:2]
    seen, (geometry,) = classifier.dissect([pixels], layers)
    for layer in layers:
        made = next(iter(seen.maps(method, layer, 1)))[2]
        source = geometry.to_source(made[0])
        full = heatmap.peak(source, 100 if method == "grad-cam" else heatmap.GRADIENT_PERCENTILE)
        got = array(client, UIDS[1], method=method, layer=layer, **{"class": classifier.card.classes[1]})
        assert got.dtype == np.float32
        assert np.allclose(got, np.minimum(source / full, 1), atol=1e-6)


def test_two_classes_that_are_compared_share_one_scale(client, classifier) -> None:
    layer, (first, second, *_) = classifier.card.target_layer, classifier.card.classes
    seen, (geometry,) = classifier.dissect([pydicom.dcmread(STILLS[0]).pixel_array])
    maps = {name: geometry.to_source(seen.grad_cam(layer, number)[0]) for number, name in enumerate((first, second))}
    full = max(one.max() for one in maps.values())
    for name, other in ((first, second), (second, first)):
        got = array(client, UIDS[0], **{"class": name, "compared_with": other})
        assert np.allclose(got, maps[name] / full, atol=1e-6)


def test_the_png_over_the_picture_is_the_overlay(client) -> None:
    uid = UIDS[0]
    pixels, saliency = pydicom.dcmread(STILLS[0]).pixel_array, array(client, uid)
    shown = picture(client.get(frame(uid, "explanation.png")).data)
    alpha = 0.45 * shown[..., 3:] / 255  # as a browser lays it over, at this opacity
    laid = (1 - alpha) * pixels + alpha * shown[..., :3]
    assert np.abs(laid - heatmap.overlay(pixels, saliency)).max() <= 2, "more than 256 colours can tell"
    assert not shown[..., 3][saliency == 0].any()


@pytest.mark.slow
def test_the_dicom_object_is_that_of_the_analysis(client, classifier, tmp_path_factory) -> None:
    (study,) = group(read_instances([STILLS[0]])[0])
    result = analyze(study, classifier, tmp_path_factory.mktemp("out"))
    made = {path.stem: pydicom.dcmread(path) for path in result.objects}
    got = pydicom.dcmread(io.BytesIO(client.get(frame(UIDS[0], "explanation.dcm")).data))
    assert np.array_equal(got.pixel_array, made[got.SOPInstanceUID].pixel_array)


def test_a_view_is_stored_with_its_study_once(client, classifier, tmp_path) -> None:
    layer, (label, other, *_) = classifier.layers[0], classifier.card.classes
    made = [
        client.post(frame(UIDS[0], "captures"), json={"layer": layer, "class": one}) for one in (label, other, label)
    ]
    assert [one.status_code for one in made] == [201, 201, 201]
    first, second, again = (one.get_json() for one in made)
    assert [one["stored"] for one in (first, second, again)] == [True, True, False]
    assert again["sop_instance_uid"] == first["sop_instance_uid"] != second["sop_instance_uid"]
    files = {file.stem: pydicom.dcmread(file) for file in tmp_path.glob("*/*.dcm")}
    assert files.keys() == {first["sop_instance_uid"], second["sop_instance_uid"]}
    view = files[first["sop_instance_uid"]]
    query = {"layer": layer, "class": label}
    shown = pydicom.dcmread(io.BytesIO(client.get(frame(UIDS[0], "explanation.dcm"), query_string=query).data))
    assert np.array_equal(view.pixel_array, shown.pixel_array)
    assert view.SourceImageSequence[0].ReferencedSOPInstanceUID == UIDS[0]
    assert view.SeriesInstanceUID == first["series_instance_uid"] != shown.SeriesInstanceUID
    assert sorted(one.InstanceNumber for one in files.values()) == [1, 2]
    refused = client.post(frame(UIDS[0], "captures"), json={"method": "saliency"})
    assert refused.status_code == 422
    assert refused.get_json()["detail"] == "method: of grad-cam, guided-grad-cam there are Secondary Captures"


def test_a_thumbnail_is_the_picture_made_small(client) -> None:
    pixels = pydicom.dcmread(STILLS[0]).pixel_array
    whole, small = (picture(client.get(frame(UIDS[0], f"picture.jpg{query}")).data) for query in ("", "?width=160"))
    assert whole.shape == pixels.shape
    assert np.abs(whole - pixels).mean() < 3
    assert small.shape[1] == 160
    expected = np.asarray(Image.fromarray(pixels).resize((160, small.shape[0]), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - expected).mean() < 6


def test_prediction_and_evidence_agree_and_the_regions_lie_in_the_frame(client, classifier) -> None:
    predicted = client.get(frame(UIDS[0], "prediction")).get_json()
    evidence = client.get(frame(UIDS[0], "evidence")).get_json()
    assert sum(predicted["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert evidence["class"] == predicted["predicted"]
    assert evidence["probability"] == pytest.approx(max(predicted["probabilities"].values()), abs=1e-5)
    assert evidence["layer"] == classifier.card.target_layer
    assert predicted["predicted"] in evidence["sentence"]
    saliency = array(client, UIDS[0])
    for region in evidence["regions"]:
        x0, y0, x1, y1 = region["box"]
        assert 0 <= x0 < x1 <= evidence["width"] == saliency.shape[1]
        assert 0 <= y0 < y1 <= evidence["height"] == saliency.shape[0]
    rows, columns = np.nonzero(saliency == saliency.max())
    x0, y0, x1, y1 = evidence["regions"][0]["box"]
    assert x0 <= columns.mean() <= x1
    assert y0 <= rows.mean() <= y1


@pytest.mark.slow
def test_evidence_on_a_navigation_box_is_measured_and_a_large_share_is_a_warning(client, tmp_path, classifier) -> None:
    still = pydicom.dcmread(tmp_path / STILLS[0].name)
    still.decompress(generate_instance_uid=False)
    pixels = still.pixel_array.copy()
    height, width = pixels.shape[:2]
    top, right = height * 2 // 3, width // 3
    pixels[top:, :right] = (20, 150, 110)
    still.PixelData = pixels.tobytes()
    still.save_as(tmp_path / STILLS[0].name)
    for label in classifier.card.classes:
        evidence = client.get(frame(UIDS[0], "evidence"), query_string={"class": label}).get_json()
        saliency = array(client, UIDS[0], **{"class": label})
        expected = saliency[top:, :right].sum() / saliency.sum() if saliency.any() else 0
        assert evidence["shares"]["navigation box"] == pytest.approx(expected, abs=0.03)
        warned = any("navigation box" in text for text in evidence["warnings"])
        assert warned == (evidence["shares"]["navigation box"] >= 0.25)


def test_what_does_not_change_is_sent_once_and_what_is_gone_is_gone(client, tmp_path) -> None:
    for what in ("picture.jpg", "explanation.png", "explanation.npy?layer=block1_conv1"):
        first = client.get(frame(UIDS[0], what))
        again = client.get(frame(UIDS[0], what), headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        other = client.get(frame(UIDS[1], what), headers={"If-None-Match": first.headers["ETag"]})
        assert other.status_code == 200
    (tmp_path / STILLS[0].name).unlink()
    for what in ("picture.jpg", "explanation.png", "prediction", "evidence"):
        gone = client.get(frame(UIDS[0], what), headers={"If-None-Match": first.headers["ETag"]})
        assert gone.status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (frame(UIDS[0], "evidence", 0), 404, "or frame here"),
        (frame(UIDS[0], "picture.jpg", 10**9), 404, "or frame here"),
        (frame("..%2f..%2fetc%2fpasswd", "evidence"), 404, ""),
        (frame(UIDS[0], "explanation.png?class=polyp"), 422, "did you mean polyps"),
        (frame(UIDS[0], "explanation.png?layer=block9_conv9"), 422, "there is no layer 'block9_conv9'"),
        (frame(UIDS[0], "explanation.png?compared_with=x"), 422, "there is no class 'x'"),
        (frame(UIDS[0], "explanation.npy?method=magic"), 422, "grad-cam, hires-cam, saliency"),
        (frame(UIDS[0], "explanation.dcm?method=saliency"), 422, "method"),
        (frame(UIDS[0], "picture.jpg?width=100000"), 422, "width"),
        (frame(UIDS[0], "evidence", 7), 404, "or frame here"),
        (frame("1.2.3", "evidence"), 404, "no such study, image or frame"),
        ("/api/v1/studies/1.2.3", 404, "no such study, image or frame"),
        ("/api/v1/nothing", 404, "not found"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_in_a_sentence(client, path, status, said) -> None:
    answer = client.get(path)
    assert answer.status_code == answer.get_json()["status"] == status
    assert answer.mimetype == "application/problem+json"
    assert said in answer.get_json()["detail"]


def test_what_is_not_allowed_is_a_problem_that_says_what_is(client) -> None:
    answer = client.delete(frame(UIDS[0], "evidence"))
    assert answer.status_code == answer.get_json()["status"] == 405
    assert answer.mimetype == "application/problem+json"
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("method", "what", "sent", "status", "said"),
    [
        ("POST", "captures", {"data": "[" * 100_000, "content_type": "application/json"}, 422, "is nested too deeply"),
        ("GET", "picture.jpg", {"headers": {"If-Match": '"other"'}}, 412, "It is not as the client has it"),
        ("GET", "explanation.png", {"query_string": {"layer": "x" * 100_000}}, 422, "there is no layer 'xxx"),
    ],
)
def test_a_strange_request_is_a_problem_in_a_sentence(client, method, what, sent, status, said) -> None:
    answer = client.open(frame(UIDS[0], what), method=method, **sent)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert said in answer.get_json()["detail"] and len(answer.data) < 2000


def test_a_mistake_of_ours_is_a_problem_without_our_code(tmp_path: Path) -> None:
    def broken() -> Classifier:
        return {}["no such key"]

    shutil.copy(STILLS[0], tmp_path)
    app = web.create_app(FolderLibrary(tmp_path), broken, Viewer(), pacs=False)
    answer = app.test_client().get("/api/v1/models")
    assert answer.status_code == answer.get_json()["status"] == 500
    assert answer.mimetype == "application/problem+json"
    assert "no such key" not in answer.get_data(as_text=True)


@pytest.mark.slow
def test_sixteen_clients_at_once_get_what_each_asked_for_in_bounded_memory(client, classifier, tmp_path) -> None:
    asked = [
        {"uid": uid, "layer": layer, "class": label}
        for uid in UIDS
        for layer in classifier.stages
        for label in classifier.card.classes[:4]
    ]
    alone = [array(client, **one) for one in asked]
    open_frames: weakref.WeakSet[Dissection] = weakref.WeakSet()

    class Watched(Classifier):
        def dissect(self, *given: Any) -> Any:
            seen, geometries = super().dissect(*given)
            open_frames.add(seen)
            return seen, geometries

    watched = Watched(classifier.network, classifier.card, classifier.fingerprint, classifier.device)
    app = web.create_app(FolderLibrary(tmp_path), lambda: watched, Viewer(), pacs=False)

    def ask(number: int) -> tuple[np.ndarray, int]:
        return array(app.test_client(), **asked[number]), len(open_frames)

    order = np.random.default_rng(5).permutation(len(asked))
    with ThreadPoolExecutor(16) as pool:
        for number, (got, held) in zip(order, pool.map(ask, order), strict=True):
            # Threads sum in another order.
            assert np.allclose(got, alone[number], atol=1e-4), asked[number]
            assert 0 < held <= OPEN + 1
