"""Classes as coded concepts: what was found, and where in the body.

SNOMED CT codes are those of DICOM's context groups and of the SNOMED CT browser. Where no code is certain a private
one is used, designator 99ENDOLENS.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes

from report.findings import GRAD_CAM

PRIVATE = "99ENDOLENS"


@dataclass(frozen=True)
class Term:
    """A class in the words of the field: the coded finding, its site in the body (None where unknown)."""

    finding: CodedConcept
    site: CodedConcept | None = None


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


_COLON = _sct("71854001", "Colon")
_NORMAL = _sct("17621005", "Normal")

_TERMS = {
    "dyed-lifted-polyps": Term(CodedConcept("DYED-LIFTED", PRIVATE, "Dyed lifted polyp"), _COLON),
    "dyed-resection-margins": Term(CodedConcept("DYED-MARGIN", PRIVATE, "Dyed resection margin"), _COLON),
    "esophagitis": Term(_sct("16761005", "Esophagitis"), _sct("32849002", "Esophagus")),
    "normal-cecum": Term(_NORMAL, _sct("32713005", "Cecum")),
    "normal-pylorus": Term(_NORMAL, _sct("280119005", "Pylorus")),
    "normal-z-line": Term(_NORMAL, _sct("25271004", "Gastro-esophageal junction")),
    "polyps": Term(_sct("68496003", "Polyp of colon"), _COLON),
    "ulcerative-colitis": Term(_sct("64766004", "Ulcerative colitis"), _COLON),
}


def term(label: str) -> Term:
    """The term of a class; a class that is not known gets a private code of its own and no site."""
    if label in _TERMS:
        return _TERMS[label]
    code = f"CLASS-{hashlib.sha256(label.encode()).hexdigest()[:8].upper()}"
    # A backslash would divide the meaning into two.
    return Term(CodedConcept(code, PRIVATE, label.replace("\\", "/")[:64]))


def visual_explanation(method: str) -> CodedConcept:
    """The kind of a map (CID 217): Grad-CAM is a gradient-weighted class activation, any other a saliency."""
    code = codes.DCM.GradientWeightedClassActivation if method == GRAD_CAM else codes.DCM.Saliency
    return CodedConcept(*code[:3])
