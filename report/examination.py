"""The report of an examination: what the doctor reads, edits and signs. Plain frozen data.

Its fields are those that the European Society of Gastrointestinal Endoscopy asks of every endoscopy report.
:mod:`report.record` reads one from outside and holds it to what the types say here.
"""

from __future__ import annotations

import datetime
import unicodedata
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, with_config


def _written(text: str) -> str:
    """Text without control characters other than line breaks, which neither DICOM nor FHIR takes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join(letter for letter in text if letter == "\n" or unicodedata.category(letter) != "Cc")


Text = Annotated[str, Field(max_length=20_000), AfterValidator(_written)]
Line = Annotated[str, Field(max_length=400), AfterValidator(_written)]
Key = Annotated[str, Field(max_length=64)]
Uid = Annotated[str, Field(max_length=64, pattern=r"^[0-9.]+$")]
Score = Annotated[int, Field(ge=0, le=3)]


@with_config(extra="forbid")
@dataclass(frozen=True)
class Evidence:
    """An image that shows a finding.

    Attributes:
        sop_instance_uid, frame_number: which; frames are counted from 1.
        caption: what is said under it.
        reason: why a machine proposed it; empty where a person attached it.
    """

    sop_instance_uid: Uid
    frame_number: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    caption: Line = ""
    reason: Line = ""


@with_config(extra="forbid")
@dataclass(frozen=True)
class Observation:
    """One finding of a report.

    Attributes:
        label: its class, which :func:`report.terms.term` knows; empty for one in words alone.
        text: what the report says.
        evidence: the images that show it, the best first.
        probability: that a machine gave it, 0 to 1; None where a person found it.
        site: where, a key of :data:`report.choices.SITES`; empty where it is not said.
    """

    label: Key
    text: Text
    evidence: Annotated[tuple[Evidence, ...], Field(max_length=100)] = ()
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    site: Key = ""


@with_config(extra="forbid")
@dataclass(frozen=True)
class Choice:
    """One of a list of :mod:`report.choices` by its key, empty where none was chosen, and what is said beside it."""

    key: Key = ""
    remark: Text = ""


@with_config(extra="forbid")
@dataclass(frozen=True)
class BowelPreparation:
    """Boston Bowel Preparation Scale of each segment, 0 to 3; None where it was not scored."""

    right: Score | None = None
    transverse: Score | None = None
    left: Score | None = None

    @property
    def scores(self) -> dict[str, int]:
        """Segment → score, of those that were scored."""
        every = {"right": self.right, "transverse": self.transverse, "left": self.left}
        return {name: score for name, score in every.items() if score is not None}

    @property
    def total(self) -> int | None:
        """The sum, 0 to 9, once all three segments are scored."""
        return sum(self.scores.values()) if len(self.scores) == 3 else None


@with_config(extra="forbid")
@dataclass(frozen=True)
class ExaminationReport:
    """A report of one examination; what is empty was not said, and is left out.

    Attributes:
        procedure: what was done, in words.
        kind: of examination, a key of :data:`report.choices.KINDS`.
        sedation: its depth, of :data:`report.choices.SEDATIONS`, with drugs and doses.
        extent: the farthest site reached, of :data:`report.choices.SITES`, with the reason if it was not the goal.
        interventions: what was done to the patient: biopsies, resections, treatment of bleeding.
        adverse_events: of the examination; that there were none must be said too.
        impression: the diagnosis.
        ai_involvement: which machine took part, and what it did.
        addendum: what an addendum adds to the signed report before it; empty in a first report.
        language: of a file in ``report/languages``.
    """

    procedure: Text = ""
    kind: Key = ""
    indication: Text = ""
    sedation: Choice = Choice()
    extent: Choice = Choice()
    preparation: BowelPreparation = BowelPreparation()
    observations: Annotated[tuple[Observation, ...], Field(max_length=100)] = ()
    interventions: Text = ""
    adverse_events: Text = ""
    impression: Text = ""
    recommendation: Text = ""
    ai_involvement: Text = ""
    addendum: Text = ""
    language: Key = "en"

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The images of all findings, each once, in their order."""
        seen: dict[tuple[str, int], Evidence] = {}
        for image in (image for one in self.observations for image in one.evidence):
            seen.setdefault((image.sop_instance_uid, image.frame_number), image)
        return tuple(seen.values())


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

    @property
    def identity(self) -> tuple[str, ...]:
        """All of it as text, the same for the same moment in the same time zone however the zone is named."""
        return self.name, self.role, self.organization, self.time.isoformat()
