"""The command line, ``endolens``."""

from __future__ import annotations

import logging
import signal
import sys
import warnings

import click

from monai_label_app.commands import learning, listening, models, operation, pictures, studies


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ENDOLENS"})
@click.version_option(package_name="endolens")
def main() -> None:
    """See why a network says "polyp": heatmaps and findings of endoscopy images, as DICOM.

    \b
    Example:
      endolens dicomize stills/*.jpg --out study --patient-id 4711
      endolens analyze study --out results
      endolens serve --studies results
      endolens explain still.jpg --layer all --class all

    Every option can be set by the environment too: --host of serve by ENDOLENS_SERVE_HOST.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C does, so that what is half done is taken away.
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    # They warn of oddities that they read all the same; what we cannot use gets a sentence of our own.
    for library in ("pydicom", "highdicom", "PIL"):
        warnings.filterwarnings("ignore", category=UserWarning, module=library)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # its errors are told as those of the file


for command in (
    studies.analyze,
    studies.dicomize,
    studies.serve,
    studies.watch,
    studies.demo,
    listening.listen,
    listening.jobs,
    pictures.explain,
    pictures.faithfulness,
    pictures.artifacts,
    learning.evaluate,
    learning.train,
    learning.crossval,
    learning.audit,
    models.models,
    operation.doctor,
    operation.accesses,
    operation.erase,
):
    main.add_command(command)
