"""Options that several commands share."""

from __future__ import annotations

import click

model_option = click.option(
    "--model",
    metavar="FILE|NAME",
    help="A checkpoint (.safetensors with a card) or a torchvision network by name. "
    "[default: the demonstration model, not for clinical use]",
)
method_option = click.option(
    "--method",
    default="grad-cam",
    show_default=True,
    help="grad-cam, hires-cam, saliency (of a layer), guided-backprop (of a class) or guided-grad-cam.",
)
weights_option = click.option("--weights", metavar="imagenet|FILE", help="Weights for a network by name.")
