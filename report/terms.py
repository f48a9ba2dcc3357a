"""Classes as coded concepts: what was found, and where in the body. How a report words them, languages say.

SNOMED CT codes are those of DICOM's context groups where it has them, else of the SNOMED CT browser: each is listed
with its source in docs/dicom-conformance.md. Where no code is certain a private one is used, designator 99ENDOLENS.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes

from report.findings import GRAD_CAM

PRIVATE = "99ENDOLENS"


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, PRIVATE, meaning)


ABNORMAL = _sct("49755003", "Morphologically Abnormal Structure")
ANATOMICAL = _sct("91723000", "Anatomical Structure")
SPATIAL = _sct("309825002", "Spatial and Relational Concept")


@dataclass(frozen=True)
class Term:
    """A class in the words of the field.

    Attributes:
        finding: the coded finding.
        site: in the body, None where unknown.
        category: what kind of thing a segmented region of it is (CID 7150).
    """

    finding: CodedConcept
    site: CodedConcept | None = None
    category: CodedConcept = SPATIAL


_COLON, _CECUM, _RECTUM = _sct("71854001", "Colon"), _sct("32713005", "Cecum"), _sct("34402009", "Rectum")
_ILEUM, _STOMACH, _PYLORUS = _sct("34516001", "Ileum"), _sct("69695003", "Stomach"), _sct("280119005", "Pylorus")
_ESOPHAGUS, _Z_LINE = _sct("32849002", "Esophagus"), _sct("25271004", "Gastro-esophageal junction")
NORMAL, _COLITIS = _sct("17621005", "Normal"), _sct("64766004", "Ulcerative colitis")
_ESOPHAGITIS, _BARRETT = _sct("16761005", "Esophagitis"), _sct("302914006", "Barrett's esophagus")


def _normal(site: CodedConcept) -> Term:
    return Term(NORMAL, site, ANATOMICAL)


def _abnormal(finding: CodedConcept, site: CodedConcept) -> Term:
    return Term(finding, site, ABNORMAL)


def _colitis(grade: str) -> Term:
    return _abnormal(_private(f"UC-MAYO-{grade}", f"Ulcerative colitis, Mayo {grade}"), _COLON)


TERMS = {
    # Kvasir v1 and v2
    "dyed-lifted-polyps": _abnormal(_private("DYED-LIFTED", "Dyed lifted polyp"), _COLON),
    "dyed-resection-margins": _abnormal(_private("DYED-MARGIN", "Dyed resection margin"), _COLON),
    "esophagitis": _abnormal(_ESOPHAGITIS, _ESOPHAGUS),
    "normal-cecum": _normal(_CECUM),
    "normal-pylorus": _normal(_PYLORUS),
    "normal-z-line": _normal(_Z_LINE),
    "polyps": _abnormal(_sct("68496003", "Polyp of colon"), _COLON),
    "ulcerative-colitis": _abnormal(_COLITIS, _COLON),
    # HyperKvasir, where it names them otherwise
    "barretts": _abnormal(_BARRETT, _ESOPHAGUS),
    "barretts-short-segment": _abnormal(_private("BARRETT-SHORT", "Barrett's esophagus, short segment"), _ESOPHAGUS),
    "bbps-0-1": Term(_private("BBPS-0-1", "Boston Bowel Preparation Scale 0 to 1"), _COLON),
    "bbps-2-3": Term(_private("BBPS-2-3", "Boston Bowel Preparation Scale 2 to 3"), _COLON),
    "cecum": _normal(_CECUM),
    "esophagitis-a": _abnormal(_private("ESOPHAGITIS-A", "Esophagitis, Los Angeles grade A"), _ESOPHAGUS),
    "esophagitis-b-d": _abnormal(_private("ESOPHAGITIS-B-D", "Esophagitis, Los Angeles grade B to D"), _ESOPHAGUS),
    "hemorrhoids": _abnormal(_sct("70153002", "Hemorrhoids"), _RECTUM),
    "ileum": _normal(_ILEUM),
    "impacted-stool": Term(_private("IMPACTED-STOOL", "Impacted stool"), _COLON),
    "pylorus": _normal(_PYLORUS),
    "retroflex-rectum": _normal(_RECTUM),
    "retroflex-stomach": _normal(_STOMACH),
    "z-line": _normal(_Z_LINE),
    **{f"ulcerative-colitis-grade-{grade}": _colitis(grade) for grade in ("0-1", "1", "1-2", "2", "2-3", "3")},
}
"""Class → term: those of Kvasir and HyperKvasir, by the names of their folders."""


def term(label: str) -> Term:
    """The term of a class; a class that is not known gets a private code of its own and no site."""
    if label in TERMS:
        return TERMS[label]
    return Term(private_code("CLASS", label))


def private_code(kind: str, meaning: str) -> CodedConcept:
    """A private code for a word that no coding scheme knows, the same for the same word."""
    value = f"{kind}-{hashlib.sha256(meaning.encode()).hexdigest()[:8].upper()}"
    return _private(value, long_string(meaning) or value)


def long_string(text: str) -> str:
    """Text as a Long String (LO), of one line: a backslash would divide it. Some readers count its 64 in bytes."""
    return _within(64, " ".join(plain_text(text).replace("\\", "/").split()))


def short_text(text: str) -> str:
    """Text as a Short Text (ST), without backslashes, which highdicom refuses in it."""
    return _within(1024, plain_text(text).replace("\\", "/"))


def plain_text(text: str) -> str:
    """Text without the control characters that DICOM knows none of (PS3.5 6.1.3), as a word processor leaves them."""
    return _CONTROL.sub("", text.replace("\v", "\n"))


def _within(limit: int, text: str) -> str:
    return text.encode()[:limit].decode(errors="ignore")


_CONTROL = re.compile("[^\\t\\n\\f\\r -~\u00a0-\ud7ff\ue000-\U0010ffff]")


def visual_explanation(method: str) -> CodedConcept:
    """The kind of a map (CID 217): Grad-CAM is a gradient-weighted class activation, any other a saliency."""
    code = codes.DCM.GradientWeightedClassActivation if method == GRAD_CAM else codes.DCM.Saliency
    return CodedConcept(*code[:3])
