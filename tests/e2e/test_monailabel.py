"""MONAI Label's API over our app, as its own server starts it, driven by its own client."""

import io
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from monai_label_app import compatibility  # noqa: F401
from monai_label_app.sample import STUDY
from tests.e2e.conftest import REPOSITORY, endolens, free_port, running
from tests.mrml import Slicer, library

pytestmark = pytest.mark.e2e

STILL = str(min(STUDY.iterdir()))
IMAGE = str(pydicom.dcmread(STILL, stop_before_pixels=True).SOPInstanceUID)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore with the sample study, untidy as in life: in sub-folders, with a stray file."""
    folder = tmp_path_factory.mktemp("datastore")
    shutil.copytree(STUDY, folder / "patient" / "stills")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    app = str(REPOSITORY / "monai_label_app")
    command = [str(Path(sys.executable).with_name("monailabel")), "start_server", "--app", app]
    command += ["--studies", str(studies), "--uvicorn_app", "monai_label_app.asgi:app"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with running(command, f"{url}/info/", tmp_path_factory.mktemp("log") / "log"):
        yield url


@pytest.fixture(scope="module")
def analysed(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What `endolens analyze` says of the same study."""
    out = tmp_path_factory.mktemp("out")
    endolens("analyze", STUDY, "--out", out)
    frames: list[dict] = json.loads((out / "summary.json").read_text())["frames"]
    return frames


@pytest.fixture(scope="module")
def client(server: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from monailabel.client import MONAILabelClient

    return MONAILabelClient(server, str(tmp_path_factory.mktemp("client")), "reader")


def test_client_lists_models_and_images(client: Any, analysed: list[dict]) -> None:
    info = client.info()
    assert set(info["models"]) == {"classify", "grad_cam"}
    assert info["datastore"]["total"] == 8
    assert set(client.datastore()["objects"]) == {frame["sop_instance_uid"] for frame in analysed}
    for strategy in info["strategies"]:
        sample = client.next_sample(strategy, {})
        assert sample["id"] in client.datastore()["objects"], strategy
        assert Path(sample["path"]).suffix == ".dcm"


def test_client_infers(client: Any, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    file, prediction = client.infer("classify", image, {})
    assert file is None
    assert json.loads(prediction)["image"] == image
    file, prediction = client.infer("grad_cam", image, {"frame": 1})
    assert pydicom.dcmread(file).SourceImageSequence[0].ReferencedSOPInstanceUID == image
    assert prediction["prediction"] == analysed[0]["predicted"]


def test_client_saves_and_reads_a_correction(client: Any, analysed: list[dict], tmp_path: Path) -> None:
    image, label = analysed[1]["sop_instance_uid"], tmp_path / "label.json"
    label.write_text(json.dumps({"class": "esophagitis", "by": "Dr. Åse"}))
    before = client.info()["datastore"]["completed"]
    assert client.save_label(image, str(label))["label"] == image
    (kept,) = json.loads(Path(client.download_label(image, "final")).read_text())["corrections"]
    assert (kept["label"], kept["by"]) == ("esophagitis", "Dr. Åse")
    assert "final" in client.datastore()["objects"][image]["labels"]
    assert client.info()["datastore"]["completed"] == before + 1
    assert client.next_sample("random", {})["id"] != image


def test_what_3d_slicer_s_monai_label_computes_from_info_works(client: Any) -> None:
    """It knows these types of options, and runs by itself the model that segments where a model has labels."""
    assert not client.auth_enabled()
    info = client.info()
    assert "config" not in info, "it takes that for an old server"
    assert len(info["labels"]) == 8
    for name, model in info["models"].items():
        assert model["type"] == "classification", name
        assert not set(info["labels"]) & set(model["labels"]), "or it asks a model that segments, and there is none"
        assert all(isinstance(value, bool | int | float | str) for value in model["config"].values())


def test_what_is_seen_and_said_in_3d_slicer(server: str, client: Any, studies: Path, analysed: list[dict]) -> None:
    """Our own module, over the whole server: a study with a heatmap, a map, findings, and a correction."""
    frame = next(one for one in analysed if one["predicted"] == "polyps")
    uid = frame["sop_instance_uid"]
    shutil.copyfile(frame["outputs"][0], studies / "heatmap.dcm")
    slicer = Slicer()
    (study,) = slicer.logic.connect(server)
    deadline = time.monotonic() + 60
    while len(slicer.logic.loaded()) < 9 and time.monotonic() < deadline:
        time.sleep(0.5)  # the server does not look into its folder at every request
        assert slicer.logic.load(study.uid) == []
    assert len(slicer.logic.loaded()) == 9
    volume = slicer.logic.volume(uid)
    heatmap = slicer.logic.volume(str(pydicom.dcmread(frame["outputs"][0]).SOPInstanceUID))
    with pytest.raises(ValueError, match="show the image that it was made of"):
        slicer.logic.explain(heatmap)
    evidence = slicer.logic.explain(volume)
    assert (evidence.label, evidence.probability) == (
        "polyps",
        pytest.approx(frame["probabilities"]["polyps"], abs=1e-5),
    )
    (curve, *_), region = library().findings.curves(slicer.scene), frame["regions"][0]["contour"]
    assert curve.GetDisplayNode().GetVisibility()
    first = curve.GetNthControlPointPositionWorld(0)
    assert list(first) == pytest.approx(slicer.place(volume, *region[0]), abs=0.01), "as `endolens analyze` has it"
    slicer.logic.correct(volume, "normal-cecum", "Dr. Slicer", curve=curve)
    kept = json.loads(Path(client.download_label(uid, "final")).read_text())["corrections"][-1]
    assert (kept["label"], kept["by"], len(kept["region"])) == ("normal-cecum", "Dr. Slicer", len(region) - 1)
    (studies / "heatmap.dcm").unlink()


@pytest.mark.parametrize(
    ("method", "arguments", "reason"),
    [
        ("auth_token", ("name", "password"), "there is no log-in here"),
        ("next_sample", ("nothing", {}), "There is no such strategy"),
        ("create_session", (STILL,), "images are not uploaded to ask about them"),
        ("get_session", ("1",), "images are not uploaded to ask about them"),
        ("remove_session", ("1",), "images are not uploaded to ask about them"),
        ("upload_image", (STILL, "1"), "images are added to the studies folder or the PACS itself"),
        ("infer", ("nothing", IMAGE, {}), "There is no model"),
        ("infer", ("classify", "1.2.3", {}), "there is no such image in the datastore"),
        ("infer", ("classify", "", {}, None, STILL), "name an image by"),
        ("wsi_infer", ("classify", IMAGE), "there are no whole-slide images here"),
        ("save_label", ("1.2.3", STILL), "there is no such image in the datastore"),
        ("download_label", (IMAGE, "nothing"), "Label NOT Found"),
        ("train_start", ("learn", {}), "there is no train task"),
        ("train_status", (), "No Train Tasks Found"),
    ],
)
def test_what_client_cannot_have_is_refused_in_a_sentence(client, method, arguments, reason) -> None:
    with pytest.raises(Exception, match=reason) as caught:
        getattr(client, method)(*arguments)
    assert type(caught.value).__name__ == "MONAILabelClientException"
    assert re.search("Status: 4[0-9]{2}", caught.value.msg)


def test_client_learns_that_nothing_trains_and_nobody_is_logged_in(client: Any) -> None:
    assert client.train_status(check_if_running=True) is False
    assert client.train_stop() is None
    assert client.auth_valid_token() is False


def test_every_output_is_answered_or_refused(server: str, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    found = {}
    for task in ("classify", "grad_cam"):
        for output in ("json", "image", "all", "dicom_seg", "nothing"):
            answer = httpx.post(f"{server}/infer/{task}", params={"image": image, "output": output}, timeout=60)
            found[task, output] = answer.status_code, answer.headers["content-type"].split(";")[0]
    json_, refused, invalid = (200, "application/json"), (400, "application/json"), (422, "application/json")
    assert [found["classify", one] for one in ("json", "all")] == [json_, json_]
    assert [found["grad_cam", one] for one in ("json", "all")] == [json_, (200, "multipart/form-data")]
    assert found["grad_cam", "image"] == (200, "application/dicom")
    assert {found["classify", "image"], found["classify", "dicom_seg"], found["grad_cam", "dicom_seg"]} == {refused}
    assert {found["classify", "nothing"], found["grad_cam", "nothing"]} <= {refused, invalid}


def test_inference_equals_the_command_line(server: str, analysed: list[dict], tmp_path: Path) -> None:
    for frame in analysed[:2]:
        image = frame["sop_instance_uid"]
        prediction = httpx.post(f"{server}/infer/classify", params={"image": image, "output": "json"}).json()
        assert prediction["prediction"] == frame["predicted"]
        assert prediction["probabilities"] == pytest.approx(frame["probabilities"], abs=1e-5)
        assert prediction["notice"] == "demonstration model for research and education, not for clinical use"
        answer = httpx.post(f"{server}/infer/grad_cam", params={"image": image, "output": "image"})
        assert answer.headers["content-type"] == "application/dicom"
        (tmp_path / "capture.dcm").write_bytes(answer.content)
        capture = pydicom.dcmread(tmp_path / "capture.dcm")
        same = pydicom.dcmread(frame["outputs"][0])
        assert capture.SOPInstanceUID == same.SOPInstanceUID
        assert capture.PixelData == same.PixelData


@pytest.mark.parametrize("task", ["classify", "grad_cam"])
@pytest.mark.parametrize(
    "image", ["/etc/passwd", "../../../etc/passwd", "notes", "1.2.3", "patient/stills/still_0001.dcm", ""]
)
def test_path_that_is_not_in_the_datastore_is_refused(server: str, task: str, image: str) -> None:
    answers = [
        httpx.post(f"{server}/infer/{task}", params={"image": image or "x"}),
        httpx.post(f"{server}/infer/{task}", params={"image": "x"}, data={"params": json.dumps({"image": image})}),
    ]
    for answer in answers:
        assert answer.status_code == 404
        assert "root:" not in answer.text
        assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/scoring/", 404, "nothing here by which images are scored"),
        ("POST", "/scoring/x", 404, "nothing here by which images are scored"),
        ("POST", "/infer/classify", 404, "name an image by ?image="),
        ("DELETE", "/datastore/image", 422, "query.id: Field required"),
    ],
)
def test_what_monai_label_cannot_answer_is_refused_in_a_sentence(
    server: str, method: str, path: str, status: int, said: str
) -> None:
    answer = httpx.request(method, f"{server}{path}")
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_text_where_a_file_belongs_is_refused_in_a_sentence(server: str) -> None:
    answer = httpx.post(f"{server}/infer/classify", params={"image": IMAGE}, data={"label": "x"})
    said = "body.label: it is sent as text, not as a file with a name"
    assert (answer.status_code, answer.json()["detail"]) == (422, said)


def test_params_nested_too_deeply_are_refused(server: str) -> None:
    answer = httpx.post(f"{server}/infer/classify", params={"image": IMAGE}, data={"params": "[" * 100_000})
    assert (answer.status_code, answer.json()["detail"]) == (400, "what was sent is nested too deeply")


def test_uploaded_file_and_session_are_refused(server: str) -> None:
    content = next(STUDY.iterdir()).read_bytes()
    answer = httpx.post(f"{server}/infer/classify", files={"file": ("still.dcm", content)})
    assert answer.status_code == 404
    session = httpx.put(f"{server}/session/", files={"files": ("still.dcm", content)})
    assert session.status_code == 404
    assert httpx.post(f"{server}/infer/classify", params={"session_id": "1"}).status_code == 404


@pytest.mark.parametrize("route", ["endolens/instances/{}.dcm", "endolens/dicomjson/{}", "endolens/studies/{}"])
@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "1.2.3", "notes.txt"])
def test_pages_serve_nothing_but_the_datastore(server: str, route: str, name: str) -> None:
    answer = httpx.get(f"{server}/{route.format(name)}")
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_viewer_serves_nothing_but_its_own_files(server: str) -> None:
    outside = httpx.get(f"{server}/ohif/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd")
    assert "root:" not in outside.text
    assert 'id="root"' in outside.text


def test_wrong_frame_and_parameters_are_one_sentence(server: str, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    for params in ('{"frame": 7}', '{"frame": "x"}', '{"frame": null}', "{bad"):
        answer = httpx.post(f"{server}/infer/classify", params={"image": image}, data={"params": params})
        assert answer.status_code == 400, params
        assert "Traceback" not in answer.text
    assert httpx.post(f"{server}/infer/nothing", params={"image": image}).status_code == 400


def test_label_outside_the_datastore_is_refused(server: str, studies: Path, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    for name, tag in (("../../escaped", "final"), (image, "../../escaped")):
        answer = httpx.put(
            f"{server}/datastore/label", params={"image": name, "tag": tag}, files={"label": ("a.json", b"{}")}
        )
        assert answer.status_code == 404
    upload = httpx.put(f"{server}/datastore/image", params={"image": "../../escaped"}, files={"file": ("a.dcm", b"x")})
    assert upload.status_code == 404
    assert not list(studies.parent.rglob("*escaped*"))


def test_other_web_sites_are_kept_out(server: str, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    foreign = {"Origin": "http://evil.example"}
    for route in ("/info/", f"/datastore/image?image={image}"):
        answer = httpx.get(server + route, headers=foreign)
        assert "access-control-allow-origin" not in answer.headers
    answer = httpx.post(f"{server}/infer/classify", params={"image": image}, headers=foreign)
    assert answer.status_code == 403
    own = httpx.post(f"{server}/infer/classify", params={"image": image}, headers={"Origin": server})
    assert own.status_code == 200


@pytest.mark.parametrize("route", ["/proxy/dicom/studies", "/proxy/dicom/..%2fsystem", "/logs/", "/docs"])
def test_routes_that_reach_too_far_are_closed(server: str, route: str) -> None:
    for method in ("GET", "POST"):
        assert httpx.request(method, server + route).status_code == 404


def test_label_in_the_form_of_an_image_is_no_image(server: str, analysed: list[dict]) -> None:
    image = analysed[0]["sop_instance_uid"]
    foreign = pydicom.dcmread(next(STUDY.iterdir()))
    foreign.StudyInstanceUID, foreign.SOPInstanceUID = "1.2.3", "1.2.3.4"
    content = io.BytesIO()
    foreign.save_as(content)
    stored = httpx.put(
        f"{server}/datastore/label",
        params={"image": image, "tag": "final"},
        files={"label": ("a.dcm", content.getvalue())},
    )
    assert stored.status_code == 200
    assert httpx.get(f"{server}/endolens/studies/1.2.3").status_code == 404
    assert httpx.get(f"{server}/info/").json()["datastore"]["total"] == 8


def test_batch_inference_labels_every_image(server: str, studies: Path, analysed: list[dict]) -> None:
    started = httpx.post(f"{server}/batch/infer/grad_cam", params={"images": "all"}, json={"device": "cpu"})
    assert started.status_code == 200
    for _ in range(240):
        task = httpx.get(f"{server}/batch/infer").json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(0.5)
    assert task["status"] == "DONE", task["details"]
    labels = {file.stem: pydicom.dcmread(file) for file in (studies / "labels" / "original").glob("*.dcm")}
    assert set(labels) == {frame["sop_instance_uid"] for frame in analysed}
    for uid, capture in labels.items():
        assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == uid
    assert httpx.get(f"{server}/info/").json()["datastore"]["total"] == 8
