"""deploy/: its files are what they should be, by the schemas of those who read them, and name options that there are.

Containers are not started here; tests/e2e/test_replicas.py starts what is in them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from monai_label_app.cli import main
from tests.validators import missing

DEPLOY = Path(__file__).parents[1] / "deploy"
CHECKS = Path(__file__).parents[1] / ".cache" / "manifests" / "bin"

ELSEWHERE = {"ENDOLENS_REPORTS", "ENDOLENS_UPLOAD_MEGABYTES"}
"""Variables that are no options; docs/operation.md has them."""


def variables(command: click.Command) -> set[str]:
    """By which the options of a command can be set."""
    context = click.Context(command, info_name=command.name, parent=main.make_context("endolens", [str(command.name)]))
    found = set()
    for option in command.params:
        assert isinstance(option, click.Option)
        own = f"{context.auto_envvar_prefix}_{max(option.opts, key=len).lstrip('-').upper().replace('-', '_')}"
        assert own == f"{context.auto_envvar_prefix}_{str(option.name).upper()}", "it is not named as the option"
        found |= {own, *([option.envvar] if isinstance(option.envvar, str) else option.envvar or [])}
    return found


def test_every_variable_that_is_set_is_one_of_an_option_and_the_documentation_has_those_that_are_not() -> None:
    known = ELSEWHERE.union(*(variables(main.commands[name]) for name in ("serve", "listen")))
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(DEPLOY.iterdir()))
    named = set(re.findall(r"\bENDOLENS_[A-Z0-9_]+", text))
    assert len(named) > 10 and named <= known, named - known
    page = (DEPLOY.parent / "docs" / "operation.md").read_text(encoding="utf-8")
    assert all(one in page for one in ELSEWHERE)


def test_an_option_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOLENS_LISTEN_SEND", "http://one/ TWO@three:104")
    monkeypatch.setenv("ENDOLENS_LISTEN_CAPTION", "false")
    context = main.commands["listen"].make_context(
        "listen", [], parent=main.make_context("endolens", ["listen"]), resilient_parsing=False
    )
    assert context.params["send"] == ("http://one/", "TWO@three:104")
    assert context.params["caption"] is False


def checked(*command: str | Path) -> None:
    program = command[0]
    if not (isinstance(program, Path) and program.exists()):
        missing(f"{program}")
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_manifests_are_valid() -> None:
    checked(CHECKS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    checked(CHECKS / "kubernetes-validate", "--strict", DEPLOY / "kubernetes.yaml")


def test_nothing_in_a_container_may_do_more_than_it_must() -> None:
    content = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    pods = [one["spec"]["template"]["spec"] for one in yaml.safe_load_all(content) if one["kind"] == "Deployment"]
    assert len(pods) == 2
    for pod in pods:
        assert pod["enableServiceLinks"] is False, "Kubernetes would set variables of our options"
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name in ("endolens-1", "endolens-2", "node", "proxy"):
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"]
    assert "\nUSER 10001" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_gets_every_package_and_nothing_else() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE))
    packages = {file.parent.name for file in DEPLOY.parent.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert copied == packages
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert allowed[0] == "*" and {one[1:] for one in allowed if one.startswith("!")} >= packages


def test_no_secret_is_in_the_repository() -> None:
    git = shutil.which("git")
    if git is None or not (DEPLOY.parent / ".git").exists():
        pytest.skip("this is no repository")
    for name in (".env", "secrets/token", "secrets/key.pem"):
        ignored = subprocess.run([git, "check-ignore", "-q", DEPLOY / name], cwd=DEPLOY.parent, check=False)
        assert ignored.returncode == 0, f"{name} would be committed"
