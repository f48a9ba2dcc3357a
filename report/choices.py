"""What a report's fields may be chosen of, each with its code; languages name them by the same keys."""

from __future__ import annotations

from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from report.terms import PRIVATE, private_code, term


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, PRIVATE, meaning)


def _of(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme_designator, code.meaning)


_SCT = codes.SCT

KINDS = {
    "colonoscopy": CodedConcept("73761001", "SCT", "Colonoscopy"),
    "sigmoidoscopy": _private("SIGMOIDOSCOPY", "Sigmoidoscopy"),
    "gastroscopy": CodedConcept("76009000", "SCT", "Esophagogastroduodenoscopy"),
}
"""Kinds of examination."""

LOWER = frozenset({"colonoscopy", "sigmoidoscopy"})
"""Kinds of examination for which the bowel was prepared."""

SITES = {
    "esophagus": _of(_SCT.Esophagus),
    "z-line": CodedConcept("25271004", "SCT", "Gastro-esophageal junction"),
    "stomach": _of(_SCT.Stomach),
    "pylorus": CodedConcept("280119005", "SCT", "Pylorus"),
    "duodenum": _of(_SCT.Duodenum),
    "ileum": _of(_SCT.Ileum),
    "cecum": _of(_SCT.Cecum),
    "ascending-colon": _of(_SCT.AscendingColon),
    "hepatic-flexure": _of(_SCT.HepaticFlexureOfColon),
    "transverse-colon": _of(_SCT.TransverseColon),
    "splenic-flexure": _of(_SCT.SplenicFlexureOfColon),
    "descending-colon": _of(_SCT.DescendingColon),
    "sigmoid-colon": _of(_SCT.SigmoidColon),
    "rectum": _of(_SCT.Rectum),
    "colon": _of(_SCT.Colon),
}
"""Sites in the body, from the mouth to the anus; ``colon`` where it is not known where in it."""

_PLACES = list(SITES)
_REACHED = {
    "colonoscopy": _PLACES[_PLACES.index("ileum") :],
    "sigmoidoscopy": _PLACES[_PLACES.index("splenic-flexure") :],
    "gastroscopy": _PLACES[: _PLACES.index("duodenum") + 1],
}

SEDATIONS = {
    "none": _private("SEDATION-NONE", "No sedation"),
    "minimal": _private("SEDATION-MINIMAL", "Minimal sedation"),
    "moderate": _private("SEDATION-MODERATE", "Moderate sedation"),
    "deep": _private("SEDATION-DEEP", "Deep sedation"),
    "general": _of(_SCT.GeneralAnesthesia),
}
"""Depths of sedation, as the American Society of Anesthesiologists tells them apart."""

SEGMENTS = {
    "right": _private("BBPS-RIGHT", "Boston Bowel Preparation Scale, right colon"),
    "transverse": _private("BBPS-TRANSVERSE", "Boston Bowel Preparation Scale, transverse colon"),
    "left": _private("BBPS-LEFT", "Boston Bowel Preparation Scale, left colon"),
}
"""Segments of the Boston Bowel Preparation Scale."""

TOTAL = _private("BBPS-TOTAL", "Boston Bowel Preparation Scale, total")

ROLES = {"endoscopist": _of(codes.DCM.Performing), "assistant": _of(codes.DCM.Assisting)}
"""Roles in a procedure that DICOM has a code for (CID 7453), by their words in small letters."""

EXTENT = _private("EXTENT-REACHED", "Extent reached")


def role(words: str) -> CodedConcept:
    """Who signs does so in a role of their own words: one that DICOM has no code for extends CID 7453."""
    return ROLES.get(words.strip().casefold()) or private_code("ROLE", words)


def reaches(kind: str, site: str) -> bool:
    """Whether an examination of a kind comes to a site; nothing speaks against it where either is not said."""
    return not (kind and site) or site in _REACHED[kind]


def site_of(label: str) -> str:
    """The key of the site that a class tells by itself; empty if it tells none."""
    site = term(label).site if label else None
    return next((key for key, code in SITES.items() if site and code.value == site.value), "")
