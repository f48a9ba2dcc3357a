"""The report of an examination: what the doctor reads, edits and signs. Plain frozen data."""

from __future__ import annotations

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """An image that shows a finding: its SOP Instance UID, its frame (counted from 1), and what is said under it."""

    sop_instance_uid: str
    frame_number: int = 1
    caption: str = ""


@dataclass(frozen=True)
class Observation:
    """One finding of a report.

    Attributes:
        label: its class, which :func:`report.terms.term` knows by finding and site; empty for one in words alone.
        text: what the report says.
        evidence: the images that show it, the best first.
        probability: that a machine gave it, 0 to 1; None where a person found it.
    """

    label: str
    text: str
    evidence: tuple[Evidence, ...] = ()
    probability: float | None = None


@dataclass(frozen=True)
class ExaminationReport:
    """A report of one examination; what is empty is left out.

    Attributes:
        procedure: what was done, in words.
        ai_involvement: which machine took part, and what it did.
    """

    procedure: str
    indication: str = ""
    observations: tuple[Observation, ...] = ()
    impression: str = ""
    recommendation: str = ""
    complications: str = ""
    ai_involvement: str = ""


@dataclass(frozen=True)
class Signature:
    """Who answers for a report.

    Attributes:
        name: DICOM person name, ``Family^Given``.
        role: in the procedure, e.g. ``Endoscopist``.
        organization: where; DICOM demands one.
        time: of signing.
    """

    name: str
    role: str
    organization: str
    time: datetime.datetime
