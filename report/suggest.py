"""What to propose to the doctor: which images, each with its reason, and a first draft of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from report.examination import Evidence, ExaminationReport, Observation
from report.findings import Algorithm, Finding
from report.terms import term


@dataclass(frozen=True)
class Suggestion:
    """A finding whose image is proposed, and why, in words and numbers."""

    finding: Finding
    reason: str


def suggest(findings: Sequence[Finding]) -> list[Suggestion]:
    """Of every class the frame that the network is surest of; the first one where several are as sure."""
    frames: dict[str, dict[tuple[str, int], Finding]] = {}
    for one in findings:
        frames.setdefault(one.explanation.label, {}).setdefault((one.sop_instance_uid, one.frame_number), one)
    suggestions = []
    for label, seen in frames.items():
        surest = max(seen.values(), key=lambda one: one.explanation.probability)
        chance = f"{surest.explanation.probability:.1%}"
        how = f"the surest of {len(seen)} frames" if len(seen) > 1 else "the only frame"
        suggestions.append(Suggestion(surest, f"{how} taken for {label}, {chance}"))
    return suggestions


def draft(suggestions: Sequence[Suggestion], algorithm: Algorithm, procedure: str, frames: int) -> ExaminationReport:
    """A report of what a machine proposes, for a doctor to edit: a finding a suggestion, in standard wording.

    Args:
        suggestions: each with its image and, where it has one, its first heatmap.
        algorithm: who proposes.
        procedure: what was done, as the study says.
        frames: how many the machine looked at.
    """
    observations = []
    for one in suggestions:
        finding = one.finding
        evidence = [Evidence(finding.sop_instance_uid, finding.frame_number, f"Proposed: {one.reason}")]
        evidence += [Evidence(uid, caption=finding.explanation.method) for uid in finding.captures[:1]]
        label, chance = finding.explanation.label, finding.explanation.probability
        observations.append(Observation(label, term(label).wording, tuple(evidence), chance))
    calibrated = "calibrated" if algorithm.calibrated else "not calibrated"
    said = [
        f"{algorithm.name} {algorithm.version} classified {frames} frames and proposed the findings above, with the "
        f"frame of each that it was surest of. Its probabilities are {calibrated}. No person has verified them.",
        algorithm.notice,
    ]
    return ExaminationReport(procedure, observations=tuple(observations), ai_involvement=" ".join(filter(None, said)))
