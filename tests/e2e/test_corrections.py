"""A doctor's correction, from MONAI Label's own client to a new version of the model."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from monai_label_app import compatibility  # noqa: F401
from monai_label_app.classifier.checkpoint import load
from monai_label_app.classifier.registry import Registry
from monai_label_app.sample import MODEL, STUDY
from tests.e2e.conftest import ENDOLENS, endolens, free_port, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    shutil.copytree(STUDY, folder / "study")
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The demonstration model as the active version, compared on two frames of the sample study."""
    dataset = tmp_path_factory.mktemp("kept-aside")
    for label, number in (("polyps", 0), ("normal-cecum", 1)):
        (dataset / label).mkdir()
        shutil.copyfile(sorted(STUDY.glob("*.dcm"))[number], dataset / label / "still.dcm")
    registry = Registry(tmp_path_factory.mktemp("models"))
    folder = ["--models", registry.folder]
    endolens("models", "add", MODEL, *folder)
    endolens("models", "activate", registry.versions[0], "--dataset", dataset, *folder)
    return registry


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def server(studies: Path, registry: Registry, port: int, tmp_path: Path) -> Iterator[str]:
    """Started anew for each test, on the same folders."""
    command = [ENDOLENS, "serve", "--studies", str(studies), "--model", str(registry.folder), "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}/info/", tmp_path / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def images() -> list[str]:
    import pydicom

    return sorted(str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in STUDY.glob("*.dcm"))


def put(server: str, image: str, content: object) -> httpx.Response:
    sent = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.put(f"{server}/datastore/label", params={"image": image}, files={"label": ("label.json", sent)})


def test_a_correction_is_kept_with_who_and_when_and_the_one_before_it(server, images, studies, tmp_path) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server, str(tmp_path))
    region = [[10, 10], [100, 10], [100.5, 90]]
    for content in (
        {"class": "polyps", "by": "Dr. Åse", "region": region, "comment": "flat"},
        {"class": "normal-cecum", "by": "Dr. Bo"},
    ):
        (tmp_path / "label.json").write_text(json.dumps(content))
        client.save_label(images[0], str(tmp_path / "label.json"))
    stored = json.loads(httpx.get(f"{server}/datastore/label", params={"label": images[0], "tag": "final"}).content)
    first, second = stored["corrections"]
    assert (first["label"], first["by"], first["region"], first["comment"]) == ("polyps", "Dr. Åse", region, "flat")
    assert (second["label"], second["by"], second["region"]) == ("normal-cecum", "Dr. Bo", [])
    assert abs(time.time() - time.mktime(time.strptime(second["at"][:19], "%Y-%m-%dT%H:%M:%S"))) < 24 * 3600
    assert client.info()["datastore"]["completed"] == 1
    assert len((studies / ".endolens" / "corrections.jsonl").read_text().splitlines()) == 2


def test_after_a_restart_it_is_still_there_and_strategies_choose_among_the_rest(server, images, tmp_path) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server, str(tmp_path))
    assert client.info()["datastore"]["completed"] == 1
    assert put(server, images[1], {"class": "cancer", "by": "x"}).status_code == 400
    refused = put(server, images[1], b"{")
    assert refused.status_code == 400
    assert "the correction is not JSON" in refused.text
    chances = {image: json.loads(client.infer("classify", image, {})[1])["probabilities"] for image in images}
    assert set(client.info()["strategies"]) == {"random", "uncertainty", "diversity"}
    chosen = client.next_sample("uncertainty", {})
    surest = {image: max(values.values()) for image, values in chances.items() if image != images[0]}
    assert chosen["id"] in sorted(surest, key=surest.__getitem__)[:3]
    assert 0 < chosen["entropy"] <= 1
    assert client.next_sample("uncertainty", {})["id"] == chosen["id"]
    other = client.next_sample("diversity", {})
    assert other["id"] != images[0]
    assert 0 < other["distance"] <= 2


def test_the_train_task_makes_a_new_version_that_is_used_once_it_is_activated(
    server, images, registry, studies, tmp_path
) -> None:
    from monailabel.client import MONAILabelClient

    client = MONAILabelClient(server, str(tmp_path))
    before = json.loads(client.infer("classify", images[0], {})[1])
    wanted = min(before["probabilities"], key=before["probabilities"].__getitem__)
    for image in images[:3]:
        assert put(server, image, {"class": wanted, "by": "Dr. Example"}).status_code == 200
    assert "learn" in client.info()["trainers"]
    client.train_start("learn", {"epochs": 6, "rate": 1e-3})
    lines: list[str] = []
    for _ in range(300):
        task = client.train_status()
        lines += [line for line in task.get("details", []) if line not in lines]
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(0.5)
    assert task["status"] == "DONE", task["details"]
    assert any("Training: " in line for line in lines), lines
    active, new = registry.versions
    assert registry.active == active
    assert json.loads(client.infer("classify", images[0], {})[1])["model"] == before["model"]
    assert client.info()["train_stats"]["learn"]["epoch"] == 6
    card = load(registry.path(new))[1]
    release, _, patch = load(registry.path(active))[1].version.rpartition(".")
    assert card.version == f"{release}.{int(patch) + 1}"
    assert card.notice == "demonstration model for research and education, not for clinical use"
    assert card.training_data.endswith("3 corrections by 1 readers")
    endolens("models", "activate", new, "--models", registry.folder, "--reason", "a test")
    after = json.loads(client.infer("classify", images[0], {})[1])
    assert after["model"] != before["model"]
    assert after["probabilities"][wanted] > before["probabilities"][wanted] + 0.1
    endolens("models", "rollback", "--models", registry.folder)
    assert json.loads(client.infer("classify", images[0], {})[1]) == before


def test_a_correction_that_is_taken_back_counts_no_more(server, images, studies) -> None:
    from monai_label_app.corrections import Corrections

    file = Corrections(studies / ".endolens" / "corrections.jsonl")
    assert images[1] in {one.image for one in file.current()}
    answer = httpx.delete(f"{server}/datastore/label", params={"id": images[1], "tag": "final"})
    assert answer.status_code == 200
    assert images[1] not in {one.image for one in file.current()}
    assert images[1] in {one.image for one in file.all()}
