"""What to propose to the doctor: which images, each with its reason, and a first draft of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydicom import Dataset

from report.attributes import words
from report.choices import KINDS, site_of
from report.examination import Evidence, ExaminationReport, Observation
from report.findings import NO_VIDEO, Algorithm, Finding, Footage, Segment
from report.language import ENGLISH, LANGUAGES, Language
from report.terms import NORMAL, term


@dataclass(frozen=True)
class Suggestion:
    """A finding whose image is proposed, and why, in words and numbers."""

    finding: Finding
    reason: str


def suggest(
    findings: Sequence[Finding], language: Language = ENGLISH, segments: Sequence[Segment] = ()
) -> list[Suggestion]:
    """What is proposed: of videos the still of each segment, of other images the surest of every class.

    A class that tells a normal place is proposed once, by its surest segment. Of several as sure it is the first.
    """
    stills = {one.still: one for one in segments if one.still}
    suggestions = _of_segments([one for one in findings if one.sop_instance_uid in stills], stills, language)
    frames: dict[str, dict[tuple[str, int], Finding]] = {}
    for one in findings:
        if one.sop_instance_uid not in stills:
            frames.setdefault(one.explanation.label, {}).setdefault((one.sop_instance_uid, one.frame_number), one)
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


def _of_segments(findings: Sequence[Finding], stills: Mapping[str, Segment], language: Language) -> list[Suggestion]:
    chosen: dict[str, Finding] = {}
    for one in findings:
        segment = stills[one.sop_instance_uid]
        if one.explanation.label != segment.label:  # seen closely, the still is taken for something else
            continue
        key = segment.label if term(segment.label).finding == NORMAL else segment.still
        if key not in chosen or segment.peak > stills[chosen[key].sop_instance_uid].peak:
            chosen[key] = one
    return [Suggestion(one, _reason(stills[one.sop_instance_uid], one, language)) for one in chosen.values()]


def _reason(segment: Segment, finding: Finding, language: Language) -> str:
    return language.said(
        "reason.segment",
        label=segment.label,
        start=language.seconds(segment.start),
        end=language.seconds(segment.end),
        peak=language.percent(segment.peak),
        mean=language.percent(segment.mean),
        time=language.seconds(segment.time),
        probability=language.percent(finding.explanation.probability),
    )


def examined(study: Dataset, language: Language = ENGLISH) -> ExaminationReport:
    """What the header of an image already says of the examination: its kind, what was done, and why.

    The kind is that of the procedure code, else the one that the description names by a word of any language.
    """
    codes = study.get("ProcedureCodeSequence") or []
    described = [words(study, name) for name in ("StudyDescription", "RequestedProcedureDescription")]
    procedure = next(filter(None, [*described, *(str(one.get("CodeMeaning", "")) for one in codes)]), "")
    coded = {key for key, code in KINDS.items() for one in codes if one.get("CodeValue") == code.value}
    named = {
        key
        for key in KINDS
        for tongue in LANGUAGES.values()
        if tongue[f"kind.{key}"].split(" (")[0].casefold() in procedure.casefold()
    }
    kinds = coded or named
    reasons = (words(study, name) for name in ("ReasonForTheRequestedProcedure", "ReasonForStudy"))
    return ExaminationReport(
        procedure=procedure,
        kind=next(iter(kinds)) if len(kinds) == 1 else "",
        indication=next(filter(None, reasons), ""),
        language=language.tag,
    )


def draft(
    suggestions: Sequence[Suggestion],
    algorithm: Algorithm,
    about: ExaminationReport,
    looked_at: int,
    frames: int,
    footage: Footage = NO_VIDEO,
) -> ExaminationReport:
    """A report of what a machine proposes, for a doctor to edit: a finding a suggestion, in standard wording.

    Args:
        suggestions: each with its image and, where it has one, its first heatmap.
        algorithm: who proposes.
        about: what is known of the examination.
        looked_at: how many frames the machine classified.
        frames: how many the study has.
        footage: what the machine saw in videos, whose frames are not among those.
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
        frames=looked_at + footage.looked_at,
        all=frames + footage.frames,
        calibrated=language["ai.calibrated" if algorithm.calibrated else "ai.uncalibrated"],
    )
    said = " ".join(filter(None, (said, _landmarks(footage, language), algorithm.notice)))
    return replace(about, observations=tuple(observations), ai_involvement=said)


def taken_up(proposed: ExaminationReport, versions: Sequence[ExaminationReport]) -> ExaminationReport:
    """A report with what is proposed now and was in none of its versions: what was once taken out stays out.

    Args:
        proposed: by :func:`draft`.
        versions: of the report, the one that counts last.
    """
    first, report = versions[0], versions[-1]
    labels = {one.label for version in versions for one in version.observations}
    shown = {_place(one) for version in versions for one in version.evidence}
    new = {one.label: one for one in proposed.observations}
    observations = [
        replace(one, evidence=(*one.evidence, *(image for image in more.evidence if _place(image) not in shown)))
        if (more := new.get(one.label))
        else one
        for one in report.observations
    ]
    observations += [one for one in proposed.observations if one.label not in labels]
    untouched = report.ai_involvement == first.ai_involvement
    said = proposed.ai_involvement if untouched and observations != list(report.observations) else report.ai_involvement
    return replace(report, observations=tuple(observations), ai_involvement=said)


def _place(image: Evidence) -> tuple[str, int]:
    return image.sop_instance_uid, image.frame_number


def _landmarks(footage: Footage, language: Language) -> str:
    if not footage.landmarks:
        return ""
    lists = [
        ", ".join(language[f"site.{site}"] for site, seen in footage.landmarks if seen is wanted)
        for wanted in (True, False)
    ]
    return language.said("ai.landmarks", seen=lists[0] or "\u2013", missing=lists[1] or "\u2013")
