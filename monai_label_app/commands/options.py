"""Options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monai_label_app.access.endpoint import Endpoint, is_loopback
from monai_label_app.console import fail

if TYPE_CHECKING:  # pynetdicom comes with it
    from monai_label_app.listening.service import Settings

_MEBIBYTE = 1024 * 1024


class _Result(click.Path):
    """A path that is written to. An empty one, often a shell variable that is not set, is no name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


result_folder = _Result(path_type=Path, file_okay=False)
result_file = _Result(path_type=Path, dir_okay=False)

model_option = click.option(
    "--model",
    metavar="FILE|FOLDER|NAME",
    help="A checkpoint (.safetensors with a card), a folder of them (see endolens models), or a torchvision network "
    "by name. "
    "[default: the demonstration model, not for clinical use]",
)
method_option = click.option(
    "--method",
    default="grad-cam",
    show_default=True,
    help="grad-cam, hires-cam, saliency (of a layer), guided-backprop (of a class) or guided-grad-cam.",
)
weights_option = click.option("--weights", metavar="imagenet|FILE", help="Weights for a network by name.")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def adding(*options: Decorator) -> Decorator:
    """Several options as one decorator."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


result_options = adding(
    click.option("--guided", is_flag=True, help="Also a guided Grad-CAM heatmap of every frame."),
    click.option("--layer-walk", is_flag=True, help="Also a series that walks through the layers of every frame."),
    click.option("--segmentation", is_flag=True, help="Also the regions of every frame as a DICOM Segmentation."),
    click.option("--key-images", is_flag=True,
                 help="Also a Key Object Selection: the most certain image of each class, with its heatmap."),
    click.option("--report", is_flag=True,
                 help="Also a draft of the examination's report: Structured Report, PDF in DICOM, and FHIR "
                 "(STUDY.fhir.json)."),
    click.option("--caption/--no-caption", default=True, show_default=True,
                 help="A strip under every heatmap: colours, class, probability, layer, model."),
    click.option("--compression", type=click.Choice(["lossless", "jpeg", "none"]), default="lossless",
                 show_default=True, help="Of heatmaps: JPEG-LS without loss, baseline JPEG, or none."),
    click.option("--comprehensive-3d", is_flag=True,
                 help="The findings as a Comprehensive 3D SR, as IHE AI Results asks."),
)  # fmt: skip
"""What an analysis writes: the attributes of :class:`monai_label_app.results.Wanted`."""


log_option = click.option(
    "--log", type=click.Choice(["text", "json"]), default="text", show_default=True,
    envvar="ENDOLENS_LOG", show_envvar=True, help="How to log; as JSON, also a line a request.",
)  # fmt: skip

readable_file = click.Path(path_type=Path, dir_okay=False, exists=True)

guard_options = adding(
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        envvar="ENDOLENS_TOKEN_FILE",
        show_envvar=True,
        help="Ask everybody for the token in this file; made if it is not there.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        envvar="ENDOLENS_INSECURE",
        show_envvar=True,
        help="Let other machines in though nothing asks them who they are.",
    ),
)
"""Whom a server lets in."""


def _tls_options(prefix: str, verb: str) -> Decorator:
    """Certificate and key of a server."""
    return adding(
        *(
            click.option(
                f"--{prefix}tls-{part}", type=readable_file, metavar="FILE", help=f"{verb} with this {part} (PEM)."
            )
            for part in ("certificate", "key")
        )
    )


def endpoint_options(port: int) -> Decorator:
    """Where a server listens, on this port unless told otherwise, and whom it lets in."""
    return adding(
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option("--port", default=port, show_default=True, type=click.IntRange(1, 65535), help="Of the address."),
        guard_options,
        click.option(
            "--session-key",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            envvar="ENDOLENS_SESSION_KEY_FILE",
            show_envvar=True,
            help="Sign the sessions of browsers by what is in this file, the same for servers behind one address; made "
            "if it is not there.  [default: the token where no issuer is asked, else one that ends with the server]",
        ),
        _tls_options("", "Speak TLS"),
    )


def endpoint(given: dict[str, Any]) -> Endpoint:
    """What :func:`endpoint_options` say; they are taken out of what was given."""
    found = Endpoint(**{one.name: given.pop(one.name) for one in fields(Endpoint)})
    _require_both(found.tls_certificate, found.tls_key)
    return found


def _require_both(certificate: Path | None, key: Path | None, prefix: str = "") -> None:
    if bool(certificate) != bool(key):
        raise click.UsageError(f"give --{prefix}tls-certificate and --{prefix}tls-key, or neither")


class _Title(click.ParamType):
    """An AE title (PS3.5 table 6.2-1)."""

    name = "AET"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The title; a usage error if it is none."""
        if not re.fullmatch(r"[ -\[\]-~]{1,16}", value) or not value.strip():
            self.fail(f"{value!r} is no AE title: 1 to 16 characters of ASCII without backslash", param, ctx)
        return str(value).strip()


class _Span(click.FloatRange):
    """A length of time, which has an end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error if it is none or not within the range."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):  # neither too small nor too large
            self.fail(f"{value!r} is not a valid float range.", param, ctx)
        return number


_DAY = 86_400

state_option = click.option(
    "--state", type=result_folder, default=Path("endolens-listen"), show_default=True,
    envvar="ENDOLENS_STATE", show_envvar=True,
    help="Folder that keeps received images, and results until they are sent.",
)  # fmt: skip
database_option = click.option(
    "--database", metavar="URL", envvar="ENDOLENS_JOBS", show_envvar=True,
    help="Database of what is to be done, e.g. postgresql+psycopg://host/name. [default: SQLite in the state folder]",
)  # fmt: skip


def node_options(prefix: str = "") -> Decorator:
    """A DICOM node, what it does, and how patient it is.

    Args:
        prefix: of the options that a server of pages has, too.
    """
    return adding(
        click.option("--aet", type=_Title(), default="ENDOLENS", show_default=True, help="AE title of the node."),
        click.option(f"--{prefix}host", default="127.0.0.1", show_default=True, help="Address of the node."),
        click.option(f"--{prefix}port", default=11112, show_default=True, type=click.IntRange(1, 65535),
                     help="Port of the node."),
        click.option("--peer", type=_Title(), multiple=True,
                     help="AE title that may send; repeat it for several. [default: anyone on this machine]"),
        _tls_options(prefix, "DICOM over TLS,"),
        click.option(f"--{prefix}tls-ca", type=readable_file, metavar="FILE",
                     help="Certificates (PEM) of those that may sign: who sends needs one signed by them, and so do "
                     "destinations of dicom-tls://. [default of destinations: those of the system]"),
        click.option("--poll", metavar="URL", help="DICOMweb address of a PACS to look for new endoscopy studies at."),
        click.option("--since", metavar="YYYYMMDD", default="",
                     help="With --poll: Study Date of the earliest. [default: all studies]"),
        click.option("--every", type=_Span(0.1, _DAY), default=30.0, show_default=True,
                     help="With --poll: seconds between two looks."),
        click.option("--send", metavar="DESTINATION", multiple=True,
                     help="Where results go: a DICOMweb address, AET@host:port, or dicom-tls://AET@host:port; repeat "
                     "it for several."),
        state_option,
        database_option,
        click.option("--quiet", type=_Span(0.1, _DAY), default=30.0, show_default=True,
                     help="Seconds without a new object after which a study is complete."),
        click.option("--attempts", type=click.IntRange(1), default=30, show_default=True,
                     help="After so many a job is given up, until `endolens jobs retry`."),
        click.option("--backoff", type=_Span(1, 7 * _DAY), default=3600.0, show_default=True,
                     help="Most seconds between two attempts; the first wait is one, each is twice the last."),
        click.option("--reserve", type=click.IntRange(0), default=256, show_default=True,
                     help="MiB that stay free on the disk for results; objects are refused before that."),
        click.option("--keep", type=_Span(0, 36_500), default=7.0, show_default=True,
                     help="Days that images are kept after all is done, in case more of their study come."),
    )  # fmt: skip


def node_settings(given: dict[str, Any], model: str | None, prefix: str = "") -> Settings:
    """What :func:`node_options`, :data:`result_options` and :data:`weights_option` say.

    Args:
        given: these options and no others.
        model: as :data:`model_option` has it.
        prefix: as the options have it.
    """
    from monai_label_app.listening.security import Security
    from monai_label_app.listening.service import Settings
    from monai_label_app.listening.work import Patience

    shared = prefix.replace("-", "_")
    host, port = given.pop(f"{shared}host"), given.pop(f"{shared}port")
    certificate, key, authority = (given.pop(f"{shared}tls_{part}") for part in ("certificate", "key", "ca"))
    _require_both(certificate, key, prefix)
    peers, since, destinations = given.pop("peer"), given.pop("since"), given.pop("send")
    if not destinations:
        raise click.UsageError("name where results go by --send")
    if not (is_loopback(host) or peers or (certificate and authority)):
        raise click.UsageError(
            f"{host} can be reached from other machines: name those that may send by --peer, or have them show a "
            f"certificate by --{prefix}tls-ca"
        )
    if since and not re.fullmatch(r"\d{8}", since):
        raise click.UsageError(f"--since {since} is no date of the form YYYYMMDD")
    return Settings(
        folder=given.pop("state"),
        database=given.pop("database"),
        title=given.pop("aet"),
        host=host,
        port=port,
        peers=peers,
        security=Security(certificate, key, authority),
        poll=given.pop("poll"),
        since=since,
        every=given.pop("every"),
        destinations=tuple(dict.fromkeys(destinations)),
        quiet=given.pop("quiet"),
        reserve=given.pop("reserve") * _MEBIBYTE,
        days=given.pop("keep"),
        patience=Patience(given.pop("attempts"), given.pop("backoff")),
        model=model,
        weights=given.pop("weights"),
        wanted=given,
    )


def keep_out(out: Path | None, *sources: Path | None) -> None:
    """End where results would lie among pictures, as if they were some."""
    for source in filter(None, sources):
        if out and source.resolve() in (out.resolve(), *out.resolve().parents):
            fail(f"{out} would lie in {source}; name another place")
