"""Two replicas of `endolens serve` behind nginx, as deploy/ sets them up: what one began the other goes on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import ENDOLENS, REPOSITORY, certificate_of_here, free_port, running, running_orthanc
from tests.e2e.listening import stills, until
from tests.postgresql import postgresql
from tests.validators import missing

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DEPLOY = REPOSITORY / "deploy"
PASSWORD = "orthanc-password-4711"
STUDY = "1.2.3.7"
REPORT = f"/endolens/api/v1/studies/{STUDY}/report"
ANALYSIS = f"/endolens/api/v1/studies/{STUDY}/analysis"
DOCTOR = {"name": "Doe^Jane", "role": "Endoscopist", "organization": "St. Elsewhere", "incomplete": True}


@dataclass
class House:
    """What compose.yaml has, without containers."""

    proxy: httpx.Client
    replicas: list[httpx.Client]
    processes: list[subprocess.Popen[bytes]]
    logs: list[Path]
    orthanc: httpx.Client

    def said(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def objects(self) -> list[dict[str, Any]]:
        """What the PACS has of the study."""
        found = self.orthanc.post(
            "/tools/find", json={"Level": "Instance", "Query": {"StudyInstanceUID": STUDY}, "Expand": True}
        )
        return [one["MainDicomTags"] for one in found.raise_for_status().json()]


def environment(replacements: dict[str, str]) -> dict[str, str]:
    """The variables of a replica in compose.yaml, with other addresses and folders."""
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["endolens-1"]
    found = dict(service["environment"])
    for old, new in replacements.items():
        found = {name: value.replace(old, new) for name, value in found.items()}
    return found


@contextmanager
def nginx(folder: Path, port: int, upstream: list[int], certificate: Path, key: Path) -> Iterator[None]:
    program = shutil.which("nginx", path=f"/usr/sbin:{os.environ['PATH']}")
    if program is None:
        missing("nginx")
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    replaced = {"/tmp/": f"{folder}/", "/run/secrets/certificate.pem": certificate, "/run/secrets/key.pem": key}
    replaced |= {f"endolens-{number}:8000": f"127.0.0.1:{to}" for number, to in enumerate(upstream, start=1)}
    replaced |= {"listen 8443": f"listen 127.0.0.1:{port}", "listen 8080": f"listen 127.0.0.1:{free_port()}"}
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, str(new))
    (folder / "nginx.conf").write_text(f"daemon off;\n{text}")
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]
    with running(command, f"https://127.0.0.1:{port}/health/live", folder / "nginx.log"):
        yield


@pytest.fixture(scope="module")
def house(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("replicas")
    certificate, key = certificate_of_here(folder)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SSL_CERT_FILE", str(certificate))
        patch.setenv("ORTHANC_PASSWORD", PASSWORD)
        database_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database_folder.chmod(0o777)
        database = stack.enter_context(postgresql(database_folder))
        settings = json.loads((DEPLOY / "orthanc.json").read_text(encoding="utf-8"))
        here = {name: settings[name] for name in settings if name not in ("HttpPort", "DicomPort", "Plugins")}
        here |= {"StorageDirectory": str(folder / "archive"), "IndexDirectory": str(folder / "archive")}
        archive = stack.enter_context(running_orthanc(folder / "archive", free_port(), free_port(), **here))
        variables = environment(
            {
                "http://orthanc:8042": archive.http,
                "postgresql+psycopg://endolens@database/endolens": database,
                "/run/secrets/token": str(folder / "token"),
                "/var/lib/endolens": str(folder / "kept"),
                "${ORTHANC_PASSWORD:?set it in .env}": PASSWORD,
            }
        )
        node = {
            "ENDOLENS_SERVE_LISTEN": "true",
            "ENDOLENS_SERVE_DICOM_PORT": str(free_port()),
            "ENDOLENS_SERVE_POLL": archive.dicomweb,
            "ENDOLENS_SERVE_EVERY": "1",
            "ENDOLENS_SERVE_QUIET": "1",
            "ENDOLENS_SERVE_SEND": archive.dicomweb,
            "ENDOLENS_SERVE_RESERVE": "1",
            "ENDOLENS_STATE": str(folder / "state"),
            "ENDOLENS_JOBS": database,
        }
        ports, logs, processes = [free_port(), free_port()], [], []
        for number, (port, more) in enumerate(zip(ports, (node, {}), strict=True)):
            logs.append(folder / f"replica-{number}.log")
            own = {"ENDOLENS_SERVE_PORT": str(port), "ENDOLENS_SERVE_MODEL": str(checkpoint), **more}
            with logs[-1].open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [ENDOLENS, "serve"], env={**os.environ, **variables, **own}, stdout=log, stderr=log
                    )
                )
            stack.callback(processes[-1].kill)
        port = free_port()
        proxy = f"https://127.0.0.1:{port}"
        until(lambda: all(_answers(one) for one in ports), lambda: "\n".join(log.read_text() for log in logs))
        stack.enter_context(nginx(folder, port, ports, certificate, key))
        token = (folder / "token").read_text().strip()
        through = httpx.Client(base_url=proxy, headers={"Origin": proxy}, timeout=60)
        shown = through.post("/endolens/login", data={"token": token, "next": "/endolens/"})
        assert shown.status_code == 200, shown.text
        # A session that one of them began is valid at both.
        ((name, session),) = through.cookies.items()
        headers = {"Host": f"127.0.0.1:{port}", "Origin": proxy, "Cookie": f"{name}={session}"}
        clients = [httpx.Client(base_url=f"http://127.0.0.1:{one}", headers=headers, timeout=60) for one in ports]
        pacs = httpx.Client(base_url=archive.http, auth=("endolens", PASSWORD), timeout=60)
        yield House(through, clients, processes, logs, pacs)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code < 300, (answer.status_code, answer.text)
    return answer.json()


def test_what_one_replica_began_the_other_goes_on_with_and_nothing_is_lost_or_double(house: House) -> None:
    first, second = house.replicas
    # The DICOM node in the first finds the study in the PACS, and sends its results there.
    for still in stills(7, 2):
        buffer = Path(tempfile.mkstemp(suffix=".dcm")[1])
        still.save_as(buffer, enforce_file_format=True)
        house.orthanc.post("/instances", content=buffer.read_bytes()).raise_for_status()
        buffer.unlink()
    until(lambda: len(house.objects()) == 5, house.said)
    assert ok(first.get("/health/ready"))["node"] == "ok" and "node" not in ok(second.get("/health/ready"))
    assert 'endolens_node_jobs{state="dead",task="sending"} 0.0' in first.get("/metrics").text
    assert house.proxy.get("/metrics").status_code == 404

    # A draft that both are asked for at once is one; each sees what the other saved, and no text is lost.
    until(lambda: ok(second.get(f"/endolens/api/v1/studies/{STUDY}"))["state"] == "analysed", house.said)
    with ThreadPoolExecutor() as pool:
        begun = list(pool.map(lambda one: ok(one.post(REPORT, json={})), (first, second)))
    assert begun[0] == begun[1]
    report = begun[0]["report"]
    words, base = (
        [{"report": {**report, "impression": f"by the {one}"}} for one in ("first", "second")],
        {"If-Match": '"1"'},
    )
    saved = ok(second.put(REPORT, json=words[1], headers=base))
    late = first.put(REPORT, json=words[0], headers=base)
    assert late.status_code == 412 and late.json()["current"]["report"]["impression"] == "by the second"
    assert [one["set_aside"] for one in ok(second.get(f"{REPORT}/versions"))["versions"]] == [False, False, True]

    # An analysis that both are asked for is one, and both tell how it goes on.
    with ThreadPoolExecutor() as pool:
        jobs = list(pool.map(lambda one: ok(one.post(ANALYSIS)), (first, second)))
    assert jobs[0]["key"] == jobs[1]["key"] or {one["state"] for one in jobs} == {"done", "queued"}
    for one in house.replicas:
        until(lambda one=one: ok(one.get(f"/endolens/api/v1/jobs/{jobs[0]['key']}"))["state"] == "done", house.said)
    assert len(house.objects()) == 5

    # What doctors say of an image is kept of both.
    labels = "/endolens/api/v1/images/1.2.3.7.1.{}/frames/1/labels"
    for number, one in enumerate(house.replicas, start=1):
        ok(one.post(labels.format(number), json={"class": "polyps", "by": "Doe"}))
    for one in house.replicas:
        labelled = ok(one.get("/datastore/?output=all"))["objects"]
        assert [name for name in labelled if labelled[name]["labels"]] == ["1.2.3.7.1.1", "1.2.3.7.1.2"]

    # One is killed in the midst of it; who is logged in goes on at the other, and signs.
    house.processes[0].kill()
    house.processes[0].wait()
    version = {"If-Match": f'"{saved["number"]}"'}
    signed = ok(house.proxy.post(f"{REPORT}/signature", json=DOCTOR, headers=version))
    assert signed["report"]["impression"] == "by the second" and signed["documents"]
    again = ok(house.proxy.post(f"{REPORT}/signature", json=DOCTOR, headers=version))
    assert again["documents"] == signed["documents"]
    there = [one["SOPInstanceUID"] for one in house.objects()]
    assert len(there) == len(set(there)) == 5 + len(signed["documents"])
    assert set(signed["documents"]) <= set(there)

    house.processes[1].terminate()
    house.processes[1].wait(60)
    assert "Traceback" not in house.said()
    assert PASSWORD not in house.said() and not re.search("once=|eyJ", house.said())
