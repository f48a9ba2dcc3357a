"""What to propose to the doctor: which images, each with its reason, and a first draft of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydicom import Dataset

from report.choices import KINDS, site_of
from report.examination import Evidence, ExaminationReport, Observation
from report.findings import Algorithm, Finding
from report.language import ENGLISH, LANGUAGES, Language


@dataclass(frozen=True)
class Suggestion:
    """A finding whose image is proposed, and why, in words and numbers."""

    finding: Finding
    reason: str


def suggest(findings: Sequence[Finding], language: Language = ENGLISH) -> list[Suggestion]:
    """Of every class the frame that the network is surest of; the first one where several are as sure."""
    frames: dict[str, dict[tuple[str, int], Finding]] = {}
    for one in findings:
        frames.setdefault(one.explanation.label, {}).setdefault((one.sop_instance_uid, one.frame_number), one)
    suggestions = []
    for label, seen in frames.items():
        surest = max(seen.values(), key=lambda one: one.explanation.probability)
        reason = language.said(
            "reason.surest" if len(seen) > 1 else "reason.only",
            frames=len(seen),
            label=label,
            probability=language.percent(surest.explanation.probability),
        )
        suggestions.append(Suggestion(surest, reason))
    return suggestions


def examined(study: Dataset, language: Language = ENGLISH) -> ExaminationReport:
    """What the header of an image already says of the examination: its kind, what was done, and why.

    The kind is that of the procedure code, else the one that the description names by a word of any language.
    """
    codes = study.get("ProcedureCodeSequence") or []
    described = [str(study.get(name) or "") for name in ("StudyDescription", "RequestedProcedureDescription")]
    procedure = next(filter(None, [*described, *(str(one.get("CodeMeaning", "")) for one in codes)]), "")
    coded = {key for key, code in KINDS.items() for one in codes if one.get("CodeValue") == code.value}
    named = {
        key
        for key in KINDS
        for tongue in LANGUAGES.values()
        if tongue[f"kind.{key}"].split(" (")[0].casefold() in procedure.casefold()
    }
    kinds = coded or named
    reasons = (study.get(name) for name in ("ReasonForTheRequestedProcedure", "ReasonForStudy"))
    return ExaminationReport(
        procedure=procedure,
        kind=next(iter(kinds)) if len(kinds) == 1 else "",
        indication=next((str(one) for one in reasons if one), ""),
        language=language.tag,
    )


def draft(
    suggestions: Sequence[Suggestion], algorithm: Algorithm, about: ExaminationReport, looked_at: int, frames: int
) -> ExaminationReport:
    """A report of what a machine proposes, for a doctor to edit: a finding a suggestion, in standard wording.

    Args:
        suggestions: each with its image and, where it has one, its first heatmap.
        algorithm: who proposes.
        about: what is known of the examination.
        looked_at: how many frames the machine classified.
        frames: how many the study has.
    """
    language = LANGUAGES[about.language]
    observations = []
    for one in suggestions:
        finding = one.finding
        evidence = [Evidence(finding.sop_instance_uid, finding.frame_number, reason=one.reason)]
        evidence += [Evidence(uid, caption=finding.explanation.method) for uid in finding.captures[:1]]
        label, chance = finding.explanation.label, finding.explanation.probability
        observations.append(Observation(label, language.wording(label), tuple(evidence), chance, site_of(label)))
    said = language.said(
        "ai.involvement",
        model=f"{algorithm.name} {algorithm.version}",
        frames=looked_at,
        all=frames,
        calibrated=language["ai.calibrated" if algorithm.calibrated else "ai.uncalibrated"],
    )
    return replace(about, observations=tuple(observations), ai_involvement=f"{said} {algorithm.notice}".strip())
