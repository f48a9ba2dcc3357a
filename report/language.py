"""The words of a report, a file a language in ``report/languages``: headings, choices, standard wording of the terms.

A new language is a copy of ``en.json`` with every value translated and every key and every ``{place}`` kept; its name
is the language's tag (RFC 5646), e.g. ``nb.json``. Nothing else is to be changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Language:
    """A language by its tag, e.g. ``en``, and its words by key."""

    tag: str
    words: Mapping[str, str]

    @property
    def name(self) -> str:
        """In English, as a coded language names it."""
        return self.words["language.english"]

    def __getitem__(self, key: str) -> str:
        """The words of a key; KeyError if there are none."""
        return self.words[key]

    def said(self, key: str, **places: Any) -> str:
        """The words of a key with its places filled."""
        return self.words[key].format(**places)

    def wording(self, label: str) -> str:
        """What a report says of a class, after the Minimal Standard Terminology for digestive endoscopy (OMED).

        A class that is not known is worded by its name.
        """
        return self.words.get(f"term.{label}", label)

    def percent(self, share: float) -> str:
        """A share, 0 to 1, as the language writes it: ``93.0 %``.

        What is neither all nor nothing never reads so: it is ``> 99.9 %`` or ``< 0.1 %``.
        """
        written = f"{100 * share:.1f}"
        if 0 < share < 1:
            written = {"100.0": "> 99.9", "0.0": "< 0.1"}.get(written, written)
        return written.replace(".", self.words["decimal"]) + " %"

    def seconds(self, time: float) -> str:
        """A time in a video as the language writes it: ``12.4 s``."""
        return f"{time:.1f}".replace(".", self.words["decimal"]) + " s"


def _all() -> dict[str, Language]:
    folder = files("report") / "languages"
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {
        tag: Language(tag, json.loads(file.read_text(encoding="utf-8")))
        for file in found
        for tag in [file.name.removesuffix(".json")]
    }


LANGUAGES = _all()
"""Tag → language."""

ENGLISH = LANGUAGES["en"]
