"""What OHIF shows, read from its screen."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from playwright.sync_api import Locator, Page, expect
from scipy.ndimage import binary_dilation


@dataclass
class Ohif:
    """An OHIF with a study opened.

    Attributes:
        servers: addresses that may be asked, beside the one that OHIF comes from.
        foreign: requests that went to another server, which there must be none of.
        errors: what the browser's console calls an error.
    """

    page: Page
    address: str
    servers: tuple[str, ...] = ()
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, *series: str) -> None:
        """Load the page and wait until it lists these series and shows a picture."""
        own = {urlparse(one).netloc for one in (self.address, *self.servers)}

        def watch(url: str) -> None:
            if urlparse(url).scheme.startswith("http") and urlparse(url).netloc not in own:
                self.foreign.append(url)

        self.page.on("request", lambda request: watch(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.goto(self.address)
        for description in series:
            expect(self.page.get_by_text(description).first).to_be_visible(timeout=90_000)
        hide = self.page.get_by_text("Confirm and hide")
        self.page.wait_for_function(
            "() => document.querySelectorAll('canvas').length > 0 && window.cornerstone", timeout=90_000
        )
        self.page.wait_for_timeout(3000)
        if hide.count():
            hide.first.click()

    def open_panel(self) -> Locator:
        """Turn to the panel EndoLens."""
        self.page.locator("[data-cy=endolens-btn]").click()
        panel = self.page.locator("endolens-panel")
        expect(panel.locator("footer")).to_be_visible(timeout=60_000)
        return panel

    def expect_thumbnail(self, description: str, pictures: Sequence[NDArray[np.uint8]]) -> None:
        """The series with this description shows a thumbnail of one of the pictures (H, W, 3)."""
        card = self.page.locator("[data-cy^=study-browser-thumbnail]").filter(has_text=description).first
        image = card.locator("img").first
        expect(image).to_be_visible(timeout=60_000)
        best = 0.0
        for _ in range(60):
            shown = _pixels(bytes(self.page.evaluate(CONTENT, image.get_attribute("src"))))
            best = max(_similarity(shown, picture) for picture in pictures)
            if best > 0.9:
                return
            self.page.wait_for_timeout(500)
        raise AssertionError(f"the thumbnail of {description!r} shows none of the pictures (correlation {best:.2f})")

    def open_video(self, description: str) -> None:
        """Open a video by the beginning of its series' description, and wait until it is there, paused."""
        self.page.locator("[data-cy^=study-browser-thumbnail]").filter(has_text=description).first.dblclick()
        there = f"() => {{ const it = ({VIDEO})(); return it && it.width && it.paused && !it.seeking }}"
        self.page.wait_for_function(there, timeout=60_000)
        self.page.wait_for_timeout(500)

    def video(self) -> dict[str, Any]:
        """The video in the viewport: ``width``, ``height``, ``time`` and ``duration`` in seconds, ``paused``."""
        state: dict[str, Any] = self.page.evaluate(VIDEO)
        return state

    def seek(self, seconds: float) -> None:
        """Go to a moment of the video in the viewport."""
        self.page.evaluate(
            """(seconds) => new Promise((done) => {
                const [engine] = window.cornerstone.getRenderingEngines();
                const [viewport] = engine.getViewports();
                viewport.setTime(seconds);
                viewport.videoElement.addEventListener("seeked", () => requestAnimationFrame(done), { once: true });
            })""",
            seconds,
        )

    def video_pixels(self, width: int, height: int) -> NDArray[np.uint8]:
        """What is drawn of the video in the viewport, at the video's own size."""
        address, (left, top), (right, bottom) = self.page.evaluate(
            """(size) => {
                const [engine] = window.cornerstone.getRenderingEngines();
                const [viewport] = engine.getViewports();
                return [viewport.canvas.toDataURL(), ...[[0, 0], size].map((corner) => viewport.worldToCanvas(corner))];
            }""",
            [width, height],
        )
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            shown = image.convert("RGB").crop((round(left), round(top), round(right), round(bottom)))
            return np.array(shown.resize((width, height), Image.Resampling.BOX))

    def toggle_playing(self) -> None:
        """Press OHIF's button that plays and pauses, which its key C shows."""
        icons = "*[local-name()='svg']"
        bar = self.page.locator(f"xpath=(//*[normalize-space()='FPS']/ancestor::div[count(.//{icons})>3])[last()]")
        if not bar.is_visible():
            self.page.keyboard.press("c")
        bar.locator("svg").first.click()

    def open_findings(self) -> None:
        self.page.get_by_text("EndoLens findings").first.dblclick()
        expect(self.page.get_by_text("SR", exact=True).last).to_be_visible(timeout=60_000)
        self.page.wait_for_function(
            "() => document.querySelector('svg.svg-layer')?.querySelectorAll('polyline, path, line').length > 0",
            timeout=60_000,
        )
        self.page.wait_for_timeout(1000)

    def open_series(self, modality: str, description: str) -> None:
        """Open a series that has no thumbnail, by its modality and the beginning of its description."""
        entry = self.page.locator("[data-cy^=study-browser-thumbnail]").filter(has_text=modality)
        entry.filter(has_text=description).first.dblclick()

    def image_corners(self, width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where on the screen the corners (0, 0) and (width, height) of the shown image are."""
        corners = self.page.evaluate(
            """([width, height]) => {
                const [engine] = window.cornerstone.getRenderingEngines();
                const [viewport] = engine.getViewports();
                const { imageData } = viewport.getImageData();
                const { left, top } = viewport.element.getBoundingClientRect();
                return [[-0.5, -0.5], [width - 0.5, height - 0.5]].map(([i, j]) => {
                    const [x, y] = viewport.worldToCanvas(imageData.indexToWorld([i, j, 0]));
                    return [left + x, top + y];
                });
            }""",
            [width, height],
        )
        return tuple(corners[0]), tuple(corners[1])

    def screen(self) -> NDArray[np.uint8]:
        return _pixels(self.page.screenshot())


SHOWS = """(uids) => {
    const [engine] = window.cornerstone.getRenderingEngines();
    const shown = engine?.getViewports()[0]?.getImageIds?.() ?? [];
    const found = shown.map((one) => window.cornerstone.metaData.get("instance", one)?.SOPInstanceUID);
    return String(found.sort()) === String(uids) && !!engine.getViewports()[0].getImageData();
}"""
"""Whether the viewport has a picture, and the images of these SOP Instance UIDs, sorted, and no others to turn to."""

VIDEO = """() => {
    const [engine] = window.cornerstone.getRenderingEngines();
    const element = engine.getViewports()[0].videoElement;
    if (!element) return undefined;
    const { videoWidth: width, videoHeight: height, currentTime: time, duration, paused, seeking } = element;
    return { width, height, time, duration, paused, seeking };
}"""

CONTENT = "async (address) => Array.from(new Uint8Array(await (await fetch(address)).arrayBuffer()))"
"""What lies at an address that the page knows."""


def _similarity(shown: NDArray[np.uint8], picture: NDArray[np.uint8]) -> float:
    """Correlation of a thumbnail with a picture that is fitted into it, the rest black."""
    height, width = shown.shape[:2]
    fitted = ImageOps.pad(Image.fromarray(picture), (width, height))
    pair = [Image.fromarray(shown), fitted]
    small = [np.asarray(one.resize((64, 64))).astype(float).ravel() for one in pair]
    return float(np.corrcoef(*small)[0, 1]) if small[0].std() > 1 else 0.0


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def annotated(screen: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where OHIF's colours of a report's contours are: green for the selected one, yellow for the others."""
    red, green, blue = (screen[..., channel].astype(int) for channel in range(3))
    return (green > 180) & (blue < 90) & ((red < 90) | (red > 180))


def drawn(contours: Sequence[NDArray[np.float64]], shape: tuple[int, int], thickness: int) -> NDArray[np.bool_]:
    """Contours in screen coordinates as a mask, drawn independently of any viewer."""
    canvas = Image.new("1", (shape[1], shape[0]))
    for contour in contours:
        ImageDraw.Draw(canvas).line([tuple(point) for point in contour], fill=1)
    return binary_dilation(np.array(canvas), iterations=thickness)
