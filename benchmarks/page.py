"""How soon the page shows another layer or class after a click, in a real browser, beside what the network takes.

Example: python -m benchmarks.page --rounds 10
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.dissection import Measure
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.sample import STUDY
from tests.e2e.conftest import CHROMIUM_FLAGS, ENDOLENS, free_port, running

CLASSES = 2
"""Other classes that a round looks at."""

SHOWN = """
async (button) => {
  const explorer = document.querySelector("endolens-explain");
  const shown = new Promise((done) => explorer.addEventListener("endolens-shown", done, { once: true }));
  const start = performance.now();
  explorer.shadowRoot.querySelector(button).click();
  await shown;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const painted = performance.now() - start;
  await explorer.ready;
  return painted;
}
"""
"""Click, and say how many milliseconds it takes until the map is painted."""


def clicked(page: Page, name: str, value: str) -> float:
    """Seconds from a click to the painted map."""
    taken: float = page.evaluate(SHOWN, f'button[name="{name}"][value="{value}"]')
    return taken / 1000


def forward_and_backward(network: torch.nn.Module, image: torch.Tensor) -> float:
    """Seconds of a score and its gradient in the image."""
    start = time.perf_counter()
    image = image.clone().requires_grad_()
    torch.autograd.grad(network(image)[0, 0], image)
    return time.perf_counter() - start


@contextmanager
def opened(model: str) -> Iterator[Page]:
    """The sample study on the page "Dissect", every frame predicted: no prediction takes part in what follows."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shutil.copytree(STUDY, Path(folder) / "study")
        port = free_port()
        address = f"http://127.0.0.1:{port}/endolens/"
        command = [ENDOLENS, "serve", "--studies", f"{folder}/study", "--port", str(port), "--model", model]
        with running(command, address, Path(folder) / "log"):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
            page = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 720}).new_page()
            page.goto(address)
            page.locator("table a").first.click()
            for certainty in page.locator(".frames .certainty").all():
                certainty.scroll_into_view_if_needed()
                expect(certainty).not_to_be_empty(timeout=60_000)
            yield page


def measure(page: Page, classifier: Classifier, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each other layer, and of each other class as a multiple of the network's own in the same moment."""
    image = torch.randn(1, 3, classifier.card.input_size, classifier.card.input_size)
    layers: list[float] = []
    ratios: list[float] = []
    frames = page.locator(".frames button").all()
    for frame in frames[:rounds]:
        frame.click()
        page.evaluate("document.querySelector('endolens-explain').ready")
        layers += [clicked(page, "stage", layer) for layer in classifier.stages]
        for button in page.locator(".classes button:not([aria-pressed=true])").all()[:CLASSES]:
            floor = forward_and_backward(classifier.network, image)
            ratios.append(clicked(page, "label", str(button.get_attribute("value"))) / floor)
    return layers, ratios


@click.command()
@click.option("--rounds", type=click.IntRange(1, 8), default=8, show_default=True, help="Each opens another frame.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name or a checkpoint.")
def main(rounds: int, model: str) -> None:
    """Print the medians."""
    with opened(model) as page:
        layers, ratios = measure(page, open_classifier(model), rounds)
    click.echo(Measure("Another layer of a class that is shown", 1000 * statistics.median(layers), " ms", 100))
    click.echo(Measure("Another class: a forward and backward pass's time", statistics.median(ratios), "×", 1.3))


if __name__ == "__main__":
    main()
