"""Versions of a model in one folder: which there are, which is active, and what became active when, and why."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from monai_label_app import journal
from monai_label_app.classifier import checkpoint
from monai_label_app.folder import whole

_JOURNAL, _LOCK = "journal.jsonl", ".adding.lock"

ADD, ACTIVATE, ROLLBACK = "add", "activate", "rollback"


class Registry:
    """A folder of checkpoints, and a journal to which every act is added.

    Nothing is ever removed or written over, so each version that was once active can be so again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def versions(self) -> list[str]:
        """What there is, as ``name-version+fingerprint``, in alphabetical order."""
        return sorted(path.name.removesuffix(".safetensors") for path in self.folder.glob("*.safetensors"))

    @property
    def acts(self) -> list[dict[str, Any]]:
        """What was done, the oldest first: ``at``, ``by``, ``act``, ``version`` and, of an activation, its reasons."""
        return list(journal.read(self.folder / _JOURNAL))

    @property
    def comparison(self) -> dict[str, Any]:
        """Of what is active with what was before it; empty where nothing is."""
        active = self.active
        found = [act for act in self.acts if (act["act"], act["version"]) == (ACTIVATE, active)]
        return dict(found[-1].get("comparison", {})) if found else {}

    @property
    def active(self) -> str | None:
        """The version that is used; None if none was activated."""
        stack = self._stack()
        return stack[-1] if stack else None

    def path(self, version: str | None = None) -> Path:
        """The checkpoint of a version, by default of the active one.

        Raises:
            ValueError: there is none.
        """
        version = version or self.active
        if version is None:
            raise ValueError(f"{self.folder} has no active model; see endolens models --help")
        return self.folder / f"{self.find(version)}.safetensors"

    def find(self, name: str) -> str:
        """The one version of this name, or that ends in it, such as its fingerprint.

        Raises:
            ValueError: there is none, or several.
        """
        versions = self.versions
        found = [name] if name in versions else [version for version in versions if name and version.endswith(name)]
        if len(found) != 1:
            what = "several versions" if found else "no version"
            there = ", ".join(found or versions) or "none at all"
            raise ValueError(f"{self.folder} has {what} {name!r}; there are {there}")
        return found[0]

    def candidate(self, name: str) -> str:
        """As :meth:`find`, of a version that may become active.

        Raises:
            ValueError: there is none, there are several, or it is the active one.
        """
        version = self.find(name)
        if version == self.active:
            raise ValueError(f"{version} is the active model already")
        return version

    def add(self, file: Path, by: str) -> str:
        """Copy a checkpoint here, once, however often it is added.

        Raises:
            ValueError: it is no checkpoint of ours.
        """
        _, card, fingerprint = checkpoint.load(file)
        version = f"{card.name}-{card.version}+{fingerprint[:8]}".replace("/", "-").replace(" ", "-")
        place = self.folder / f"{version}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / _LOCK):
            if not place.exists():
                with whole(place) as partial:
                    shutil.copyfile(file, partial)
                journal.append(self.folder / _JOURNAL, {"by": by, "act": ADD, "version": version})
        return version

    def activate(self, version: str, by: str, comparison: Mapping[str, Any], reason: str = "") -> None:
        """Use a version from now on.

        Args:
            version: by :meth:`candidate`.
            by: who wants it.
            comparison: with the active one, by :func:`monai_label_app.classifier.comparison.compare`.
            reason: why, where it did worse.

        Raises:
            ValueError: it did worse than the active one, or cannot be compared with it, or not on the pictures of that
                one's own comparison, and there is no reason.
        """
        before = self.comparison.get("fingerprint")
        if not reason and before and before != comparison["fingerprint"]:
            raise ValueError("these are not the pictures of the comparison before; name those, or give a --reason")
        if not reason and (comparison["worse"] or comparison.get("unknown")):
            raise ValueError(f"{in_words(comparison)}; it stays as it is, unless you give a --reason")
        content = {"by": by, "act": ACTIVATE, "version": version, "comparison": comparison, "reason": reason}
        journal.append(self.folder / _JOURNAL, content)

    def rollback(self, by: str) -> str:
        """Go back to the version that was active before; again, further back.

        Raises:
            ValueError: there was none, or its file is gone.
        """
        stack = self._stack()
        if len(stack) < 2:
            raise ValueError(f"{self.folder} has no model that was active before")
        version = self.find(stack[-2])
        journal.append(self.folder / _JOURNAL, {"by": by, "act": ROLLBACK, "version": version})
        return version

    def _stack(self) -> list[str]:
        stack: list[str] = []
        for act in self.acts:
            if act["act"] == ACTIVATE:
                stack.append(act["version"])
            elif act["act"] == ROLLBACK:
                stack.pop()
        return stack


def in_words(comparison: Mapping[str, Any]) -> str:
    """A comparison as a sentence."""
    new, old = comparison["candidate"], comparison["active"]
    pictures = f"{comparison['pictures']} pictures"
    if learned := comparison.get("learned"):
        pictures += f" ({learned} more, which one of the models learned, do not count)"
    if old is None:
        before = "no model was active before"
        if comparison.get("gone"):
            before = f"{comparison['gone']}, active before, is gone"
        if comparison.get("unknown"):
            before = f"the active model does not know {', '.join(comparison['unknown'])}"
        return f"macro F1 {new['macro_f1']:.3f} on {pictures}; {before}"
    return (
        f"macro F1 {new['macro_f1']:.3f}, of the active model {old['macro_f1']:.3f}, on {pictures}: "
        f"{comparison['only_candidate']} only it gets right, {comparison['only_active']} only the active one "
        f"(p = {comparison['p']:.2g})"
    )
