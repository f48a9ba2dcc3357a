"""How soon the page shows another layer or class after a click, in a real browser, beside what the network takes.

Example: python -m benchmarks.page --rounds 10
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.dissection import Measure
from monai_label_app.classifier.classifier import open_classifier
from monai_label_app.sample import STUDY
from tests.e2e.conftest import CHROMIUM_FLAGS, ENDOLENS, free_port, running

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


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Each opens a frame, so that nothing is remembered.")
@click.option("--model", default="vgg19", show_default=True, help="A network's name or a checkpoint.")
def main(rounds: int, model: str) -> None:
    """Print medians, and the ratio of each round to the network's own time in the same round."""
    classifier = open_classifier(model)
    image = torch.randn(1, 3, classifier.card.input_size, classifier.card.input_size)
    layers: list[float] = []
    ratios: list[float] = []
    first, *others = classifier.stages[::-1]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shutil.copytree(STUDY, Path(folder) / "study")
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        command = [ENDOLENS, "serve", "--studies", f"{folder}/study", "--port", str(port), "--model", model]
        with running(command, f"{address}/endolens/", Path(folder) / "log"):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
            page = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 720}).new_page()
            page.goto(f"{address}/endolens/")
            page.locator("table a").first.click()
            frames = page.locator(".frames button").all()
            for certainty in page.locator(".frames .certainty").all():
                certainty.scroll_into_view_if_needed()
                expect(certainty).not_to_be_empty(timeout=60_000)  # so that no prediction takes part in what follows
            for _, frame in zip(range(rounds), itertools.cycle(frames), strict=False):
                frame.click()
                page.locator("endolens-explain .classes button").first.wait_for()
                page.evaluate("document.querySelector('endolens-explain').ready")
                layers += [clicked(page, "stage", layer) for layer in [*others, first]]
                labels = [
                    one.get_attribute("value") for one in page.locator(".classes button:not([aria-pressed=true])").all()
                ]
                for label in labels[:2]:
                    floor = forward_and_backward(classifier.network, image)
                    ratios.append(clicked(page, "label", str(label)) / floor)
    click.echo(
        Measure(
            "Another layer of a class that is shown, from click to paint", 1000 * statistics.median(layers), " ms", 100
        )
    )
    click.echo(Measure("Another class, of a forward and backward pass", statistics.median(ratios), "×", 1.3))


if __name__ == "__main__":
    main()
