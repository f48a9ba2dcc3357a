"""A report as JSON, and back: what comes from outside is held to the types of :mod:`report.examination`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter, ValidationError

from report.choices import KINDS, SEDATIONS, SITES
from report.examination import ExaminationReport
from report.language import LANGUAGES

_REPORT = TypeAdapter(ExaminationReport)


def to_json(report: ExaminationReport) -> str:
    """The report as JSON, the same for the same report."""
    return _REPORT.dump_json(report).decode()


def as_dict(report: ExaminationReport) -> dict[str, Any]:
    """The report as JSON knows it: dicts, lists, texts and numbers."""
    made: dict[str, Any] = _REPORT.dump_python(report, mode="json")
    return made


def from_json(content: str | bytes) -> ExaminationReport:
    """Read a report.

    Raises:
        ValueError: what is wrong with it, in a sentence.
    """
    try:
        return checked(_REPORT.validate_json(content))
    except ValidationError as error:
        raise ValueError(in_a_sentence(error)) from None


def checked(report: ExaminationReport) -> ExaminationReport:
    """The report itself.

    Raises:
        ValueError: a choice of it is on no list.
    """
    lists: list[tuple[str, str, Collection[str]]] = [
        ("kind", report.kind, KINDS),
        ("sedation", report.sedation.key, SEDATIONS),
        ("extent", report.extent.key, SITES),
        *(("site", one.site, SITES) for one in report.observations),
    ]
    chosen = [(name, key, known) for name, key, known in lists if key]
    for name, key, known in [*chosen, ("language", report.language, LANGUAGES)]:
        if key not in known:
            raise ValueError(f"there is no {name} {key!r}; there are {', '.join(known)}")
    return report


def in_a_sentence(error: ValidationError) -> str:
    """The first things that are wrong, each with its place."""
    said = [f"{'.'.join(map(str, one['loc'])) or 'the report'}: {one['msg']}" for one in error.errors()[:3]]
    return "; ".join(said)
