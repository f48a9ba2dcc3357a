"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from monai_label_app.endpoint import Endpoint


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


def endpoint_options(port: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Where a server listens, on this port unless told otherwise, and whom it lets in."""
    options = [
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
    ]

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def endpoint(given: dict[str, Any]) -> Endpoint:
    """What :func:`endpoint_options` say."""
    if bool(given["tls_certificate"]) != bool(given["tls_key"]):
        raise click.UsageError("give --tls-certificate and --tls-key, or neither")
    return Endpoint(**given)
