"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from monai_label_app.access.endpoint import Endpoint


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
    click.option("--comprehensive-3d", "three_dimensional", is_flag=True,
                 help="The findings as a Comprehensive 3D SR, as IHE AI Results asks."),
)  # fmt: skip
"""What an analysis writes: the attributes of :class:`monai_label_app.analysis.Wanted`."""


def endpoint_options(port: int) -> Decorator:
    """Where a server listens, on this port unless told otherwise, and whom it lets in."""
    return adding(
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option("--port", default=port, show_default=True, type=click.IntRange(1, 65535), help="Of the address."),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            envvar="ENDOLENS_TOKEN_FILE",
            help="Ask everybody for the token in this file; made if it is not there.  [env: ENDOLENS_TOKEN_FILE]",
        ),
        *(
            click.option(
                f"--tls-{part}",
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                metavar="FILE",
                help=f"Speak TLS with this {part} (PEM).",
            )
            for part in ("certificate", "key")
        ),
        click.option("--insecure", is_flag=True, help="Let other machines in though nothing asks them who they are."),
    )


def endpoint(given: dict[str, Any]) -> Endpoint:
    """What :func:`endpoint_options` say."""
    if bool(given["tls_certificate"]) != bool(given["tls_key"]):
        raise click.UsageError("give --tls-certificate and --tls-key, or neither")
    return Endpoint(**given)
