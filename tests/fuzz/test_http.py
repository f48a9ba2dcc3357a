"""A real server that is asked malformed things: it refuses in a sentence, and goes on."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pydicom
import pytest

from monai_label_app.library import FRESH_SECONDS
from monai_label_app.sample import STUDY
from tests.e2e.conftest import ENDOLENS, free_port, running
from tests.fuzz.damage import MEGABYTES, SECONDS, Door, damaged, damaged_dicom, damaged_json, is_sentence

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STILL = pydicom.dcmread(min(STUDY.iterdir()), stop_before_pixels=True)
UID, IMAGE = str(STILL.StudyInstanceUID), str(STILL.SOPInstanceUID)

ODD = (
    "",
    "0",
    "-1",
    "9" * 400,
    "1e308",
    "nan",
    "null",
    "true",
    "..",
    "%2e%2e%2fetc",
    "\0",
    "\ud800",
    "ü" * 500,
    "[]",
    "' OR 1=1",
)
LATER = 503


@dataclass(frozen=True)
class Server:
    port: int
    process: int
    log: Path

    @property
    def megabytes(self) -> int:
        """The most memory that it ever held."""
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process}/status").read_text())
        assert peak
        return int(peak[1]) // 1024

    def require_sound(self) -> None:
        """It lives, held no more memory than it may, and told of no exception that nobody expected."""
        assert httpx.get(f"http://127.0.0.1:{self.port}/health/live", timeout=SECONDS).status_code == 200
        assert self.megabytes < MEGABYTES
        assert "Traceback" not in self.log.read_text(), self.log.read_text()[-5000:]


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("fuzzed"), free_port()
    (folder / "studies").mkdir()
    for still in sorted(STUDY.iterdir())[:2]:
        shutil.copy(still, folder / "studies")
    command = [ENDOLENS, "serve", "--studies", str(folder / "studies"), "--port", str(port), "--model", str(checkpoint)]
    with running(command, f"http://127.0.0.1:{port}/health/live", folder / "log") as process:
        yield Server(port, process.pid, folder / "log")


def example(schema: dict[str, Any], parts: dict[str, Any], depth: int = 0) -> Any:
    """A value that fits a JSON schema of an OpenAPI description, more or less."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for choice in ("allOf", "anyOf", "oneOf"):
        if choice in schema:
            return example(schema[choice][0], parts, depth)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        fields = schema.get("properties", {}) if depth < 4 else {}
        return {name: example(one, parts, depth + 1) for name, one in fields.items()}
    if kind == "array":
        return [example(schema.get("items", {}), parts, depth + 1)]
    return {"integer": 1, "number": 0.5, "boolean": True, "string": IMAGE}.get(kind)


def operations(
    client: httpx.Client, address: str, root: str
) -> Iterator[tuple[str, str, list[dict[str, Any]], dict[str, Any], Any]]:
    """(method, path, parameters, body's media types, parts) of all that a description says."""
    description = client.get(address).json()
    parts = description.get("components", {}).get("schemas", {})
    for path, methods in description["paths"].items():
        for method, one in methods.items():
            if method != "parameters":
                parameters = [*methods.get("parameters", []), *one.get("parameters", [])]
                content = one.get("requestBody", {}).get("content", {})
                yield method, f"{root}{path}", parameters, content, parts


def malformed(random: Random, operation: tuple[str, str, list[dict[str, Any]], dict[str, Any], Any]) -> httpx.Request:
    """A request of an operation with something wrong in its path, its query or its body."""
    method, path, parameters, content, parts = operation
    place = {
        "uid": UID if "/studies/" in path else IMAGE,
        "number": "1",
        "image": IMAGE,
        "frame": "1",
        "model": "classify",
    }

    def filled(name: str) -> str:
        return quote(
            random.choice(ODD) if random.random() < 0.2 else place.get(name, "1"), safe="", errors="surrogatepass"
        )

    address = re.sub(r"\{(\w+)\}", lambda found: filled(found[1]), path)
    asked = [one["name"] for one in parameters if one["in"] == "query" and random.random() < 0.6]
    known = {**place, "output": "json", "tag": "final"}
    query = [
        (name, random.choice(ODD) if random.random() < 0.6 else known.get(name, "1"))
        for name in asked
    ]  # fmt: skip
    query = "&".join(f"{quote(name)}={quote(value, errors='surrogatepass')}" for name, value in query)
    headers, body = dict[str, str](), None
    if random.random() < 0.5:
        headers["If-Match"] = random.choice(('"1"', "*", "x", '"' * 500))
    if content:
        kind, described = random.choice(list(content.items()))
        body = damaged_json(random, example(described.get("schema", {}), parts))
        if "form" in kind:
            part = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            parts_of_form = (part % (b"params", body), part % (b'label"; filename="a.json', body), b"--x--\r\n")
            kind, body = "multipart/form-data; boundary=x", b"".join(parts_of_form)
            body = damaged(random, body) if random.random() < 0.3 else body
        headers["Content-Type"] = random.choice(
            (kind, kind, kind, kind, "text/plain", "application/json; charset=utf-7")
        )
    return httpx.Request(
        method, f"http://127.0.0.1{address}" + (f"?{query}" if query else ""), headers=headers, content=body
    )


@pytest.mark.parametrize(
    ("name", "address", "root", "count"),
    [("rest", "/endolens/api/v1/openapi.json", "/endolens", 90), ("monailabel", "/openapi.json", "", 40)],
)
def test_a_malformed_request_is_refused_in_a_sentence(
    server: Server, pytestconfig: pytest.Config, name: str, address: str, root: str, count: int
) -> None:
    door = Door(name, pytestconfig.getoption("--seed"), count)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=SECONDS) as client:
        known = list(operations(client, address, root))
        for random in door:
            request = malformed(random, random.choice(known))
            request.url = request.url.copy_with(port=server.port)
            request.headers["Host"] = f"127.0.0.1:{server.port}"
            asked = f"{request.method} {request.url.raw_path.decode()}\n".encode()
            asked += b"".join(b"%s: %s\n" % one for one in request.headers.raw) + b"\n" + request.content
            try:
                answer = client.send(request)
            except httpx.TransportError as error:
                door.fault(f"{request.method} {request.url.path[:200]}: {error!r}", asked)
                continue
            if what := wrong(answer):
                door.fault(f"{request.method} {request.url.path[:200]}: {what}", asked)
    door.require_no_fault()
    server.require_sound()


def wrong(answer: httpx.Response) -> str:
    """What is not as it must be; empty if nothing is."""
    later = answer.status_code == LATER and "Retry-After" in answer.headers
    if answer.status_code >= 500 and not later:
        return f"{answer.status_code} {answer.text[:300]}"
    if answer.status_code < 400 or answer.request.method == "HEAD" or "json" not in answer.headers["Content-Type"]:
        return ""
    return "" if is_sentence(answer.json().get("detail")) else f"{answer.status_code} {answer.text[:300]}"


def test_a_damaged_study_is_shown_or_refused_in_a_sentence(server: Server, pytestconfig: pytest.Config) -> None:
    door = Door("damaged-study", pytestconfig.getoption("--seed"), 15)
    damaged_ones = [a_damaged_study(random, number) for number, random in enumerate(door)]
    for content, study, _ in damaged_ones:
        (server.log.parent / "studies" / f"{study}.dcm").write_bytes(content)
    time.sleep(FRESH_SECONDS)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        assert client.get("/endolens/").status_code == 200
        for (content, study, image), _ in zip(damaged_ones, door, strict=True):
            for method, path in (
                ("GET", f"/endolens/studies/{study}"),
                ("GET", f"/endolens/studies/{study}/report"),
                ("GET", f"/endolens/dicomjson/{study}"),
                ("GET", f"/endolens/instances/{image}.dcm"),
                ("GET", f"/endolens/api/v1/images/{image}/frames/1"),
                ("GET", f"/endolens/api/v1/images/{image}/frames/1/explanation.dcm"),
                ("POST", f"/infer/grad_cam?image={image}&output=image"),
            ):
                if what := wrong(client.request(method, path)):
                    door.fault(f"{method} {path}: {what}", content)
    door.require_no_fault()
    server.require_sound()


def a_damaged_study(random: Random, number: int) -> tuple[bytes, str, str]:
    """A still of the sample as the only one of a study, damaged; and the two UIDs that it has if these are not."""
    path = random.choice(sorted(STUDY.iterdir()))
    still, content = pydicom.dcmread(path, stop_before_pixels=True), path.read_bytes()
    uids = [str(still.StudyInstanceUID), str(still.SOPInstanceUID)]
    new = [f"{uid[:-4]}{number:04}" for uid in uids]
    for old, other in zip(uids, new, strict=True):
        content = content.replace(old.encode(), other.encode())
    return damaged_dicom(random, content), *new


def broken(random: Random, port: int) -> bytes:
    """What is no HTTP, or nearly."""
    host = b"Host: 127.0.0.1:%d\r\n" % port
    whole = b"POST /endolens/api/v1/uploads/x/store HTTP/1.1\r\n" + host + b"Content-Length: 2\r\n\r\n{}"
    chunked = b"POST /infer/classify?image=1 HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    return random.choice(
        (
            damaged(random, whole),
            damaged(random, chunked + b"2\r\n{}\r\n0\r\n\r\n"),
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
            b"GET / HTTP/1.1\r\n" + host + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
            b"GET / HTTP/1.1\r\n" + host + b"X: " + b"y" * 5_000_000,
            whole.replace(b"Content-Length: 2", b"Content-Length: 99999999999999999999"),
            whole.replace(b"Content-Length: 2", b"Content-Length: -2"),
            whole.replace(b"Content-Length: 2", b"Content-Length: 2\r\nTransfer-Encoding: chunked"),
            chunked + b"ffffffffffffffff\r\n{}",
            chunked + b"zz\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\nCookie: \x00\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(99),
            b"\x16\x03\x01" + random.randbytes(300),
            random.randbytes(random.choice((1, 50, 5000))),
        )
    )


def test_what_is_no_http_is_answered_or_hung_up_on(server: Server, pytestconfig: pytest.Config) -> None:
    door = Door("raw-http", pytestconfig.getoption("--seed"), 40)
    for random in door:
        content = broken(random, server.port)
        if what := said(server.port, content):
            door.fault(what, content)
    door.require_no_fault()
    server.require_sound()


def said(port: int, content: bytes) -> str:
    """What is wrong with the answer to bytes after which nothing comes; empty if nothing is."""
    answer, deadline = b"", time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
                if time.monotonic() > deadline:
                    return "it does not end"
        except TimeoutError:
            return f"no end after {SECONDS} seconds: {answer[:200]!r}"
        except OSError:  # hung up on
            pass
    status = re.match(rb"HTTP/1.1 (\d+)", answer)
    if answer and (status is None or int(status[1]) >= 500):
        return repr(answer[:300])
    return ""
