"""How long 64 clients of the page wait, beside one alone.

A client does what the page does when a reader opens a frame and chooses a class and a layer: prediction, picture,
evidence, map, one after the other; then the next frame, at once, by chance. First one client does so alone, then 64
at a time, on a real ``endolens serve``.

Each of 64 that never rest waits for the 63 others, so the queue is 64 long: a server that serves them in turn takes 64
times what one waits alone, on the mean. The 95th percentile of all openings may be 4 times that, and no request may
fail. Beside it stands the same for each kind of request, by what this kind takes alone: it shows who waits for others.

Example: python -m benchmarks.clients --model vgg19
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click
import httpx
import numpy as np

from benchmarks.dissection import Measure
from monai_label_app.classifier.classifier import Classifier, open_classifier
from monai_label_app.sample import STUDY
from tests.e2e.conftest import ENDOLENS, free_port, running

PATIENCE = 300.0
"""Seconds after which an answer counts as failed."""


class Waits:
    """Seconds of every opening of a frame and of every request, by kind, and what failed."""

    def __init__(self) -> None:
        self.openings: list[float] = []
        self.requests: defaultdict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []


async def opening(client: httpx.AsyncClient, images: list[str], classifier: Classifier, waits: Waits) -> None:
    """Open a frame, and look at a class in a layer."""
    frame = f"images/{random.choice(images)}/frames/1"
    chosen = {"class": random.choice(classifier.card.classes), "layer": random.choice(classifier.stages)}
    start = time.perf_counter()
    for kind, query in (("prediction", {}), ("picture.jpg", {}), ("evidence", chosen), ("explanation.png", chosen)):
        begun = time.perf_counter()
        try:
            answer = await client.get(f"{frame}/{kind}", params=query)
            if answer.status_code != 200:
                waits.errors.append(f"{kind}: {answer.status_code}")
        except httpx.HTTPError as error:
            waits.errors.append(f"{kind}: {type(error).__name__}")
        waits.requests[kind].append(time.perf_counter() - begun)
    waits.openings.append(time.perf_counter() - start)


async def crowd(address: str, count: int, seconds: float, images: list[str], classifier: Classifier) -> Waits:
    """Let clients ask for some time; what was begun in it is waited for."""
    waits, end = Waits(), time.perf_counter() + seconds
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=f"{address}/endolens/api/v1/", timeout=PATIENCE, limits=limits) as client:

        async def one() -> None:
            while time.perf_counter() < end:
                await opening(client, images, classifier, waits)

        await asyncio.gather(*(one() for _ in range(count)))
    return waits


@click.command()
@click.option("--clients", default=64, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="How long they ask; alone, a third of it.")
@click.option("--model", help="A network's name or a checkpoint; by default the demonstration model.")
def main(clients: int, seconds: float, model: str | None) -> None:
    """Print the ratios; the aim is below 4, without an error."""
    random.seed(1)
    classifier = open_classifier(model)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(STUDY, Path(folder) / "study")
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        command = [ENDOLENS, "serve", "--studies", f"{folder}/study", "--port", str(port)]
        command += ["--model", model] if model else []
        with running(command, f"{address}/endolens/", Path(folder) / "log"):
            images = _images(address)
            asyncio.run(crowd(address, 1, seconds / 6, images, classifier))  # warms up
            alone = asyncio.run(crowd(address, 1, seconds / 3, images, classifier))
            all_of_them = asyncio.run(crowd(address, clients, seconds, images, classifier))
    fair = clients * statistics.mean(alone.openings)
    worst = float(np.percentile(all_of_them.openings, 95))
    click.echo(Measure(f"{clients} clients: 95th percentile, of a fair wait", worst / fair, "×", 4))
    click.echo(f"  {worst:.1f} s, alone {statistics.mean(alone.openings):.3f} s; {len(all_of_them.openings)} openings")
    for kind, waited in all_of_them.requests.items():
        single, late = statistics.mean(alone.requests[kind]), float(np.percentile(waited, 95))
        click.echo(f"  {kind}: {late / clients / single:.2f} × ({late:.2f} s, alone {1000 * single:.0f} ms)")
    failed = sorted(set(alone.errors + all_of_them.errors))
    click.echo(Measure("Requests that failed", len(alone.errors + all_of_them.errors), "", 0))
    for error in failed:
        click.echo(f"  {error}")


def _images(address: str) -> list[str]:
    (study,) = httpx.get(f"{address}/endolens/api/v1/studies", timeout=PATIENCE).raise_for_status().json()
    return [one["sop_instance_uid"] for one in study["images"]]


if __name__ == "__main__":
    main()
