"""Hands studies to workers on a Ray cluster: as many as it has CPUs, each with the model in its memory."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

import torch

from monai_label_app.access.endpoint import is_loopback
from monai_label_app.archive.run import Hands
from monai_label_app.archive.work import Analyst, Outcome, Task
from monai_label_app.classifier.classifier import Classifier
from monai_label_app.frames import in_one_line

LOOK = 5.0
"""Seconds between two looks at how many CPUs the cluster has."""

ATTEMPTS = 3
"""Of a study in whose midst the worker dies; and of workers that cannot even start."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to Ray's makers
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # by default it takes a quarter of an hour to say that there is no cluster
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # which does not let the driver tidy up on SIGTERM
}

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""On every system: this machine is 127.0.0.1, and listens there alone."""

_OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # Ray's own, 15, leaves workers next to nothing beside anything else that runs
}
"""Of a cluster for this process alone."""


@contextmanager
def workers(address: str = "") -> Iterator[Hands]:
    """The workers of a cluster.

    Args:
        address: ``HOST:PORT`` of a cluster that this machine is a node of; empty to have one here meanwhile.

    Raises:
        ValueError: there is no Ray, or no cluster.
    """
    os.environ.update(_SETTINGS)
    if not address:
        os.environ.update(_OWN, RAY_AUTH_TOKEN=secrets.token_hex(32))
    if not address or is_loopback(address.rpartition(":")[0]):
        os.environ.update(_LOOPBACK)
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs Ray, which is not installed: pip install 'endolens[ray]'") from None
    with ExitStack() as stack:
        where: dict[str, Any] = {"address": address}
        if not address:
            # A short name: those of sockets in it may have 107 characters.
            files = stack.enter_context(TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            where = {"address": "local", "include_dashboard": False, "_temp_dir": files}
        stack.callback(ray.shutdown)
        stack.enter_context(redirect_stdout(sys.stderr))  # where Ray itself says what it has to say
        try:
            if address:
                _require_listener(address)
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            if not _cpus(ray):
                raise ValueError("it has no CPU")
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = f"{f'at {address}' if address else 'to be had here'}: {in_one_line(error)}"
            raise ValueError(f"there is no Ray cluster {reason}") from error
        yield _spread


def _require_listener(address: str) -> None:
    """Ray itself would wait long."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError("the address is not of the form HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"nobody answers there ({in_one_line(error)})") from None


def _cpus(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _spread(studies: Iterator[str], task: Task, classifier: Classifier) -> Iterator[Outcome]:
    """Do studies by all workers at once, each one study at a time; what a worker dies of goes to another."""
    pool = _Pool(task, classifier)
    ahead = deque(islice(studies, 1))
    deaths: Counter[str] = Counter()
    while ahead or pool.busy:
        pool.fill()
        while pool.idle and ahead:
            pool.begin(ahead.popleft())
            ahead.extend(islice(studies, 0 if ahead else 1))
        for study, outcome in pool.wait():
            deaths[study] += outcome is None
            if outcome is None and deaths[study] < ATTEMPTS:
                ahead.append(study)
                continue
            times = deaths.pop(study)
            yield outcome or Outcome(study, reason=f"the worker died in the midst of it, {times} times")


class _Pool:
    """Workers that start, have a study, or have none."""

    def __init__(self, task: Task, classifier: Classifier) -> None:
        import ray

        self._ray: Any = ray
        self._task = task
        # Once to each node; a node may have no GPU, or no file of the model.
        cpu = torch.device("cpu")
        self._classifier = self._ray.put(replace(classifier, network=classifier.network.to(cpu), device=cpu))
        self._kind = self._ray.remote(num_cpus=1)(_Worker)
        self._starting: dict[Any, Any] = {}
        self.busy: dict[Any, tuple[Any, str]] = {}
        self.idle: list[Any] = []
        self._failed_starts = 0

    def fill(self) -> None:
        """Start as many workers as are missing: some may have died, or nodes have come."""
        for _ in range(_cpus(self._ray) - len(self._starting) - len(self.busy) - len(self.idle)):
            worker = self._kind.remote(self._task, self._classifier)
            self._starting[worker.ready.remote()] = worker

    def begin(self, study: str) -> None:
        """Give a study to a worker that has none."""
        worker = self.idle.pop()
        self.busy[worker.analyze.remote(study)] = worker, study

    def wait(self) -> Iterator[tuple[str, Outcome | None]]:
        """What came of studies, as soon as there is something; None where the worker died."""
        awaited = [*self.busy, *self._starting]
        if not awaited:  # the nodes are gone, and may come back
            time.sleep(LOOK)
            return
        done, _ = self._ray.wait(awaited, timeout=LOOK)
        for one in done:
            worker, study = self.busy.pop(one) if one in self.busy else (self._starting.pop(one), "")
            try:
                outcome = self._ray.get(one)
            except self._ray.exceptions.RayError as error:
                if study:
                    yield study, None
                else:
                    self._not_started(error)
                continue
            self.idle.append(worker)
            if study:
                yield study, outcome
            else:
                self._failed_starts = 0

    def _not_started(self, error: Exception) -> None:
        self._failed_starts += 1
        if self._failed_starts >= ATTEMPTS:
            raise ValueError(f"no worker can start on the Ray cluster: {in_one_line(error)}") from error


class _Worker:
    """An actor: keeps the model, and does one study after the other with its share of the node's CPUs."""

    def __init__(self, task: Task, classifier: Classifier) -> None:
        import ray

        torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._analyst = Analyst(task, replace(classifier, network=classifier.network.to(device), device=device))

    def ready(self) -> None:
        """Returns when the model is there."""

    def analyze(self, study: str) -> Outcome:
        """Do a study."""
        return self._analyst(study)
