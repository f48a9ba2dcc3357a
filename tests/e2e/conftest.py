"""Real servers and a real browser: Orthanc, `endolens serve`, Chromium."""

import datetime
import ipaddress
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from pydicom import Dataset
from pynetdicom import AE

from monai_label_app.viewers.ohif import Viewer, mended
from tests.e2e.issuer import new_key, pem
from tests.validators import missing

ENDOLENS = str(Path(sys.executable).with_name("endolens"))
REPOSITORY = Path(__file__).parents[2]
ORTHANC_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended early:\n{log.read_text()}"
        try:
            if httpx.get(url, timeout=30).status_code < 500:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer:\n{log.read_text()}")


@contextmanager
def running(command: list[str], url: str, log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    try:
        wait_for(url, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc with an empty, temporary store."""

    http: str
    dimse_port: int
    process: subprocess.Popen[bytes]

    @property
    def dicomweb(self) -> str:
        return f"{self.http}/dicom-web"

    def instances(self) -> set[str]:
        return set(httpx.get(f"{self.http}/instances").raise_for_status().json())

    def store(self, folder: Path) -> None:
        for file in sorted(folder.rglob("*.dcm")):
            httpx.post(f"{self.http}/instances", content=file.read_bytes()).raise_for_status()

    def store_by_dimse(self, datasets: Sequence[Dataset]) -> None:
        """C-STORE, each in the transfer syntax that it has."""
        entity = AE()
        for one in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}:
            entity.add_requested_context(*one)
        association = entity.associate("127.0.0.1", self.dimse_port)
        assert association.is_established
        statuses = [association.send_c_store(one).Status for one in datasets]
        association.release()
        assert set(statuses) == {0}

    def download(self, folder: Path) -> list[Path]:
        files = []
        for name in sorted(self.instances()):
            file = folder / f"{name}.dcm"
            file.write_bytes(httpx.get(f"{self.http}/instances/{name}/file").raise_for_status().content)
            files.append(file)
        return files


@contextmanager
def running_orthanc(store: Path, port: int, dimse_port: int, **more: object) -> Iterator[Orthanc]:
    """An Orthanc over a folder, which keeps what is stored; ``more`` is added to its configuration."""
    program = shutil.which("Orthanc")
    if program is None or not ORTHANC_DICOMWEB.exists():
        missing("Orthanc with its DICOMweb plugin")
    store.mkdir(exist_ok=True)
    configuration = {
        "Name": "EndoLens test",
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "HttpPort": port,
        "DicomPort": dimse_port,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "Plugins": [str(ORTHANC_DICOMWEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    (store / "orthanc.json").write_text(json.dumps(configuration))
    url = f"http://127.0.0.1:{port}"
    command = [str(program), str(store / "orthanc.json")]
    with running(command, f"{url}/system", store / "log") as process:
        yield Orthanc(url, dimse_port, process)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", free_port(), free_port()) as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start `endolens serve` on a free port with the given options; returns its address."""
    contexts = []

    def start(*options: str) -> str:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [ENDOLENS, "serve", "--port", str(port), *options]
        context = running(command, f"{url}/info/", tmp_path / f"serve-{port}.log")
        context.__enter__()
        contexts.append(context)
        return url

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[[], Page]]:
    """Open a page that knows nothing of those before it."""
    contexts = []

    def start() -> Page:
        contexts.append(browser.new_context(viewport={"width": 1600, "height": 900}))
        return contexts[-1].new_page()

    yield start
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[[], Page]) -> Page:
    return new_page()


@pytest.fixture
def depict(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Keep what a page shows as a picture of docs/, if they are to be drawn anew (`make screenshots`)."""
    folder: Path | None = request.config.getoption("--screenshots")

    def keep(page: Page, name: str) -> None:
        if folder:
            page.wait_for_load_state("networkidle")  # pictures are there
            page.screenshot(path=folder / name, type="jpeg", quality=85)

    return keep


@pytest.fixture(params=["bundled", "npm"])
def ohif_options(request: pytest.FixtureRequest) -> list[str]:
    """Options of `endolens serve` for each OHIF: the one that MONAI Label brings, and a current one from npm."""
    if request.param == "bundled":
        return []
    builds = sorted((REPOSITORY / ".cache").glob("ohif-*"))
    if not builds:
        missing("npm's @ohif/app")
    return ["--ohif", str(builds[-1])]


def certificate_of_here(folder: Path) -> tuple[Path, Path]:
    """For 127.0.0.1, signed by itself, and its key."""
    key, name = new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "EndoLens test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    signed = made.add_extension(here, critical=False).sign(key, SHA256())
    (folder / "certificate.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(pem(key))
    (folder / "key.pem").chmod(0o600)
    return folder / "certificate.pem", folder / "key.pem"


class _Hospital(SimpleHTTPRequestHandler):
    """OHIF's build as any web server has it, with an app-config that names our extension."""

    viewer: Viewer
    configuration: str

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        file = self.viewer.file(path)
        text = self.configuration if path == "app-config.js" else mended(file)
        content = file.read_bytes() if text is None else text.encode()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hospital(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bool], str]]:
    """Serve npm's OHIF from an origin of its own, for a server of ours that lets it; returns its address."""
    builds = sorted((REPOSITORY / ".cache").glob("ohif-*"))
    if not builds:
        missing("npm's @ohif/app")
    viewer, port = Viewer(builds[-1]), free_port()
    monkeypatch.setenv("MONAI_LABEL_CORS_ORIGINS", f'["http://127.0.0.1:{port}"]')
    handler = type("Handler", (_Hospital,), {"viewer": viewer})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def start(ours: str, pacs: bool) -> str:
        handler.configuration = viewer.configuration(pacs).replace('"/endolens/', f'"{ours}/endolens/')
        return f"http://127.0.0.1:{port}"

    yield start
    server.shutdown()
    server.server_close()


def endolens(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [ENDOLENS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=300)


@pytest.fixture(scope="session")
def real_study(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real frames of four classes as a VL Endoscopic study, made by `endolens dicomize`.

    The second, in which the demonstration model finds two regions, is of an odd size, so that bits of its
    Segmentation's regions do not fill whole bytes.
    """
    folders = ("polyps", "ulcerative-colitis", "normal-cecum", "dyed-lifted-polyps")
    pictures = [largest(real_images / "kvasir-8" / name) for name in folders]
    pictures[1] = pictures[1].with_name("ulcerative-colitis_616726cc59.jpg")
    out = tmp_path_factory.mktemp("real") / "study"
    with Image.open(pictures[1]) as picture:
        pictures[1] = out.with_name("odd.png")
        picture.crop((0, 0, picture.width // 2 * 2 - 1, picture.height // 2 * 2 - 1)).save(pictures[1])
    endolens("dicomize", *pictures, "--out", out, "--patient-name", "Test^Real", "--study-date", "20260102")
    return out


def largest(folder: Path) -> Path:
    """The picture of most pixels."""

    def pixel_count(picture: Path) -> tuple[int, str]:
        with Image.open(picture) as image:
            return image.width * image.height, picture.name

    return max(folder.iterdir(), key=pixel_count)
