"""Start the servers: checks first, so that a mistake is one sentence and not a traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from monai_label_app.access.certificate import outdated
from monai_label_app.access.endpoint import Endpoint
from monai_label_app.access.identity import (
    SESSION_KEY_VARIABLE,
    TOKEN_VARIABLE,
    Authentication,
    open_authentication,
    read_token,
)
from monai_label_app.library import Library, beside, is_address, open_library
from monai_label_app.observed.logs import LOG_VARIABLE, Requests, write_as_told
from monai_label_app.viewers.ohif import Viewer
from report.drafts import Drafts

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from monai_label_app.listening.service import Settings
    from monai_label_app.observed.checks import Check

GRACE_SECONDS = 3
"""How long who still listens or sends is waited for when the server ends."""

IDLE_SECONDS = 75
"""How long a connection is kept for the next request; closed too soon, a browser's request on it is lost in a rush."""

INSECURE_VARIABLE = "ENDOLENS_INSECURE"
"""Environment variable: set where other machines may come though nothing asks them who they are."""

OHIF_VARIABLE = "ENDOLENS_OHIF"
"""Environment variable: folder of a built OHIF to serve in place of the bundled one."""

REPORTS_VARIABLE = "ENDOLENS_REPORTS"
"""Environment variable: address of the database of reports under edit, in place of a file beside the datastore."""


def run(
    studies: str,
    endpoint: Endpoint,
    model: str | None,
    ohif: Path | None,
    dataset: Path | None = None,
    log: str = "text",
    node: Settings | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        studies: a folder or a DICOMweb address.
        endpoint: to listen on.
        model: as ``endolens analyze --model``.
        ohif: a built OHIF, or None for the bundled one.
        dataset: labelled pictures that are learned again with the doctors' corrections.
        log: ``text`` or ``json``.
        node: a DICOM node that works beside it, or None.

    Raises:
        ValueError: studies, model or OHIF are not what they should be, the list of labels is damaged, the database of
            reports cannot be opened, the endpoint cannot be listened on.
        ValueError, PacsError, OSError: as :func:`monai_label_app.listening.service.running`.
    """
    pacs = is_address(studies)
    studies = studies if pacs else str(Path(studies).resolve())
    if not pacs and Path(studies).is_dir() and not os.access(studies, os.W_OK):
        raise ValueError(f"{studies} cannot be written, and MONAI Label keeps its labels there")
    library = open_library(studies)
    viewer = Viewer(ohif)
    if reports := os.environ.get(REPORTS_VARIABLE):
        Drafts(reports)
    # MONAI Label reads its settings when it is imported, and not again.
    os.environ["MONAI_LABEL_APP_DIR"] = str(Path(__file__).parent)
    os.environ["MONAI_LABEL_STUDIES"] = studies
    os.environ["MONAI_LABEL_SERVER_PORT"] = str(endpoint.port)
    named = {"model": model, "dataset": str(dataset.resolve()) if dataset else None}
    os.environ["MONAI_LABEL_APP_CONF"] = json.dumps({name: value for name, value in named.items() if value})
    # MONAI Label's background tasks expect the variable to exist.
    os.environ.setdefault("PYTHONPATH", "")
    if ohif:
        os.environ[OHIF_VARIABLE] = str(ohif)
    os.environ[LOG_VARIABLE] = log
    os.environ[INSECURE_VARIABLE] = "1" if endpoint.insecure else ""
    authentication = _authentication(endpoint)
    listener = endpoint.open(authentication.required)

    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.datastore import read_index

    read_index(beside(studies))
    card = open_classifier(model).card
    from monai_label_app.asgi import app

    _warn(endpoint, authentication)
    click.echo(f"Model: {card.name}{', ' + card.notice if card.notice else ''}")
    click.echo(f"OHIF:     {endpoint.url}{viewer.base if pacs else _first_study(library, viewer)}")
    click.echo(f"EndoLens: {endpoint.url}/endolens/")
    if log != "json":  # then it is no person who reads it, and it may be kept for long
        _say_how_to_log_in(endpoint, app.state.authentication, "/endolens/")
    with _beside(node) as checks:
        app.state.checks.update(checks)
        _run(app, endpoint, listener)


@contextmanager
def _beside(node: Settings | None) -> Iterator[Mapping[str, Callable[[], Check]]]:
    """A node beside a server, which ends with it; what is to be looked at of it."""
    if node is None:
        yield {}
        return
    from monai_label_app.listening import service

    with service.running(node, lambda: signal.raise_signal(signal.SIGTERM)) as checks:
        yield checks


def listen(node: Settings, observed: Endpoint | None, log: str = "text") -> None:
    """Be a DICOM node until interrupted.

    Args:
        node: what it does.
        observed: where it answers ``/health`` and ``/metrics``, or None.
        log: ``text`` or ``json``.

    Raises:
        ValueError, PacsError, OSError: as :func:`monai_label_app.listening.service.running`, or the endpoint cannot be
            listened on.
    """
    from monai_label_app.listening import service

    os.environ[LOG_VARIABLE] = log
    write_as_told()
    token_file = observed and observed.token_file
    authentication = Authentication(read_token(token_file) if token_file else None)
    listener = observed.open(authentication.required, issuers=False) if observed else None
    stop = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: stop.set())
    with ExitStack() as stack:
        checks = stack.enter_context(service.running(node, stop.set))
        if observed and listener:
            stack.enter_context(_observing(checks, authentication, observed, listener))
        stop.wait()


@contextmanager
def _observing(
    checks: Mapping[str, Callable[[], Check]],
    authentication: Authentication,
    endpoint: Endpoint,
    listener: socket.socket,
) -> Iterator[None]:
    """Answer ``/health`` and ``/metrics`` in a thread of its own."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    from monai_label_app.access.guard import Guard
    from monai_label_app.access.roles import Roles
    from monai_label_app.observed.health import routes

    guard = Middleware(Guard, authentication=authentication, roles=Roles(), insecure=endpoint.insecure)
    server = _server(Starlette(routes=routes(checks), middleware=[Middleware(Requests), guard]), endpoint)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def watch(source: str, endpoint: Endpoint, model: str | None, folder: Path | None) -> None:
    """Show a running examination until interrupted.

    Args:
        source: a file, an address, or a capture device.
        endpoint: to listen on.
        model: as ``endolens analyze --model``.
        folder: gets what is found, or None.

    Raises:
        ValueError: the source or the model cannot be opened, or the endpoint cannot be listened on.
    """
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.video.live import Live
    from monai_label_app.video.live_page import live_page

    classifier = open_classifier(model)
    authentication = _authentication(endpoint)
    listener = endpoint.open(authentication.required)
    live = Live(source, classifier, folder)
    _warn(endpoint, authentication)
    click.echo(f"Live: {endpoint.url}/")
    _say_how_to_log_in(endpoint, authentication, "/")
    app = live_page(live, classifier.card, source, authentication, endpoint.insecure)
    try:
        _run(app, endpoint, listener)
    finally:
        live.close()


def _run(app: ASGIApp, endpoint: Endpoint, listener: socket.socket) -> None:
    """Serve until interrupted."""
    with suppress(KeyboardInterrupt):  # the usual way to end it, which uvicorn passes on after a clean stop
        _server(app, endpoint).run(sockets=[listener])


def _server(app: ASGIApp, endpoint: Endpoint) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",  # which limits how long an address is; another parser that happens to be there does not
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
        ssl_certfile=endpoint.tls_certificate,
        ssl_keyfile=endpoint.tls_key,
        # As JSON, its lines go the way of all others.
        log_config=None if os.environ.get(LOG_VARIABLE) == "json" else uvicorn.config.LOGGING_CONFIG,
    )
    return uvicorn.Server(config)


def _authentication(endpoint: Endpoint) -> Authentication:
    if endpoint.token_file:
        os.environ[TOKEN_VARIABLE] = str(endpoint.token_file)
    if endpoint.session_key:
        os.environ[SESSION_KEY_VARIABLE] = str(endpoint.session_key)
    return open_authentication()


def _warn(endpoint: Endpoint, authentication: Authentication) -> None:
    if endpoint.tls_certificate and (wrong := outdated(endpoint.tls_certificate)):
        click.echo(f"Warning: {wrong}", err=True)
    if endpoint.loopback:
        return
    if not authentication.required:
        reach = "can be reached from other machines, and nothing asks them who they are"
        click.echo(f"Warning: {endpoint.host} {reach}.", err=True)
    elif not endpoint.tls_certificate:
        todo = "give --tls-certificate and --tls-key, or let a proxy speak TLS for it"
        click.echo(f"Warning: what is sent to {endpoint.host} can be read on its way; {todo}.", err=True)


def _say_how_to_log_in(endpoint: Endpoint, authentication: Authentication, home: str) -> None:
    from monai_label_app.access.login import LOGIN

    if authentication.by_token:
        query = urlencode({"once": authentication.once(), "next": home})
        click.echo(f"Log in:   {endpoint.url}{LOGIN}?{query}")
        click.echo("This link lets one browser in, once; all others ask for the token in the file.")


def _first_study(library: Library, viewer: Viewer) -> str:
    with_images = (study for study in library.studies() if study.images.instances)
    study = next(with_images, None)
    return viewer.address(study.uid, pacs=False) if study else viewer.base
