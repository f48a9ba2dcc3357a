"""``endolens models list | add | activate | rollback``: which version of a model is used."""

from __future__ import annotations

import getpass
import os
from contextlib import ExitStack
from pathlib import Path

import click

from monai_label_app.commands.options import result_folder
from monai_label_app.console import explained, fail, progress

_folder = click.option(
    "--models",
    "folder",
    type=result_folder,
    default=Path("endolens-models"),
    show_default=True,
    help="Folder of the versions and their journal.",
)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have one
        return f"user {os.getuid()}"


_by = click.option("--by", default=_login_name, show_default="your login name", help="Who, for the journal.")


@click.group()
def models() -> None:
    """Keep versions of a model, compare a new one with the one that is used, and go back.

    Other commands use the active one of a folder by --model FOLDER; a running server takes a newly activated one for
    its next request.

    \b
    Example:
      endolens models add mine.safetensors
      endolens models activate 0a1b2c3d --dataset kept-aside
      endolens serve --studies results --model endolens-models
      endolens models rollback
    """


@models.command("list")
@_folder
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: versions, the active one, the journal.")
def list_(folder: Path, as_json: bool) -> None:
    """Show the versions, the active one marked, and what was done when, by whom."""
    import json

    from monai_label_app.classifier.registry import Registry, in_words

    with explained(folder):
        registry = Registry(folder)
        if not registry.versions:
            fail(f"{folder} has no model; add one by endolens models add")
        acts = registry.acts
        if as_json:
            click.echo(json.dumps({"versions": registry.versions, "active": registry.active, "acts": acts}, indent=1))
            return
        for version in registry.versions:
            click.echo(f"{'*' if version == registry.active else ' '} {version}")
        click.echo()
        for act in acts:
            details = f": {in_words(act['comparison'])}" if "comparison" in act else ""
            reason = f"; {act['reason']}" if act.get("reason") else ""
            click.echo(f"{act['at']} {act['act']} {act['version']} by {act['by']}{details}{reason}")


@models.command()
@click.argument("file", type=click.Path(path_type=Path))
@_folder
@_by
def add(file: Path, folder: Path, by: str) -> None:
    """Copy a checkpoint into the folder; it is not used before it is activated."""
    from monai_label_app.classifier.registry import Registry

    with explained(folder):
        version = Registry(folder).add(file, by)
    click.echo(f"{version} in {folder}")


@models.command()
@click.argument("version")
@click.option("--dataset", type=click.Path(path_type=Path),
              help="Labelled pictures that no version was trained on. [default: those of the active one]")  # fmt: skip
@click.option("--reason", default="", help="Why, where it does worse or is compared on other pictures.")
@_folder
@_by
def activate(version: str, dataset: Path | None, reason: str, folder: Path, by: str) -> None:
    """Use VERSION (or the end of it, such as its fingerprint) from now on, if it does no worse than the active one.

    \b
    Example:
      endolens models activate 0a1b2c3d --dataset kept-aside
    """
    from monai_label_app.classifier.classifier import open_classifier
    from monai_label_app.classifier.comparison import compare, fingerprint
    from monai_label_app.classifier.data import find_dataset
    from monai_label_app.classifier.evaluation import learned
    from monai_label_app.classifier.registry import Registry, in_words
    from monai_label_app.folder import alone

    with explained(folder), ExitStack() as stack:
        registry = Registry(folder)
        version = registry.candidate(version)
        stack.enter_context(alone(folder))
        earlier = registry.comparison
        if dataset is None and not earlier:
            fail("name the pictures to compare on by --dataset; they stay the same for later versions")
        place = str(dataset.resolve()) if dataset else str(earlier["dataset"])
        found = find_dataset(Path(place))
        candidate = open_classifier(str(registry.path(version)))
        before = registry.active
        gone = before is not None and before not in registry.versions
        active = open_classifier(str(registry.path())) if before and not gone else None
        files = [registry.path(version), *([registry.path()] if active else [])]
        known = learned(found.examples, *files)
        shown = [one for one in found.examples if one not in known]
        if not shown:
            fail(f"all pictures of {place} were learned by one of the models; name others")
        comparison = {"dataset": place, **compare(candidate, active, shown, progress)}
        comparison |= {"fingerprint": fingerprint(found.examples), "learned": len(known)}
        if gone:
            comparison["gone"] = before
        for reason_why in comparison["left_out"]:
            click.echo(f"left out: {reason_why}", err=True)
        registry.activate(version, by, comparison, reason)
    click.echo(f"{version} is active: {in_words(comparison)}")


@models.command()
@_folder
@_by
def rollback(folder: Path, by: str) -> None:
    """Use the version again that was active before."""
    from monai_label_app.classifier.registry import Registry
    from monai_label_app.folder import alone

    with explained(folder):
        if not folder.is_dir():
            fail(f"{folder} is not a folder of models")
        with alone(folder):
            version = Registry(folder).rollback(by)
    click.echo(f"{version} is active")
