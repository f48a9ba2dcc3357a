"""A study's report: proposed from what the machine saw, edited, and stored with the study once it is signed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from PIL import Image
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from monai_label_app.frames import UnreadableError, frames
from monai_label_app.library import Library
from monai_label_app.study import Instance, Study
from report.attributes import is_own_result
from report.completeness import missing
from report.drafts import Drafts, SignedError, StaleError, Version
from report.examination import ExaminationReport, Signature
from report.examination_report import examination_report, report_series
from report.findings import Algorithm, Explanation, Finding
from report.language import ENGLISH, Language
from report.render import page, pdf
from report.signed_report import signed_documents
from report.structured_report import read_algorithm, read_findings
from report.suggest import draft, examined, suggest

LOOKED_AT = 32
"""Frames of a study that was not analysed which are classified for its draft; of a longer one, so many spread evenly."""

PICTURE_WIDTH = 900
"""Most pixels across a picture in a report."""

_PICTURES = 256


class IncompleteError(ValueError):
    """A report that does not say all it should, and whose signer does not say that they know."""


class Reporting:
    """The reports of a library's studies.

    Args:
        library: the studies.
        drafts: where reports under edit are kept.
        predict: SOP Instance UID, frame number → class → probability.
        algorithm: who predicts.
    """

    def __init__(
        self,
        library: Library,
        drafts: Drafts,
        predict: Callable[[str, int], dict[str, float]],
        algorithm: Callable[[], Algorithm],
    ) -> None:
        self.drafts = drafts
        self._library, self._predict, self._algorithm = library, predict, algorithm

        @lru_cache(maxsize=_PICTURES)
        def picture(uid: str, number: int, width: int) -> bytes:
            shown = Image.fromarray(next(frames(library.instance(uid).read(), uid, number)).pixels)
            shown.thumbnail((width, width))
            stream = io.BytesIO()
            shown.save(stream, "JPEG", quality=88)
            return stream.getvalue()

        self._picture = picture

    def open(self, study: str, language: Language = ENGLISH) -> Version:
        """The report of a study; if it has none, a draft that says what is known and proposes what was seen.

        Raises:
            LookupError: there is no such study, or it has no images.
        """
        with suppress(LookupError):
            return self.drafts.current(study)
        return self.drafts.create(study, *self._proposal(self._library.study(study), language))

    def save(self, study: str, base: int, report: ExaminationReport, author: str = "") -> Version:
        """Save a report, as :meth:`Drafts.save` does; ValueError if it shows an image that is not of the study."""
        images = {str(one.header.SOPInstanceUID): one for one in self._library.study(study).instances}
        for one in report.evidence:
            image = images.get(one.sop_instance_uid)
            if image is None or "Rows" not in image.header:
                raise ValueError(f"{one.sop_instance_uid} is no image of this study")
            if one.frame_number > image.frame_count:
                raise ValueError(f"{one.sop_instance_uid} has no frame {one.frame_number}")
        return self.drafts.save(study, base, report, author)

    def sign(self, study: str, number: int, signature: Signature, incomplete: bool = False) -> Version:
        """Sign a version and store its documents with the study, each exactly once.

        If they cannot be stored the report is signed all the same; signed again, it is stored and nothing else.

        Args:
            study: Study Instance UID.
            number: of the version.
            signature: who answers for it.
            incomplete: the signer knows that it does not say all.

        Raises:
            LookupError: the study has no report.
            IncompleteError: it is incomplete.
            StaleError, SignedError: as :meth:`Drafts.sign`.
            OSError, PacsError: the documents cannot be stored now.
        """
        version = self.drafts.current(study)
        if version.number != number:
            raise StaleError(version)
        lacking = self.missing(version)
        if lacking and not (incomplete or version.signature):
            raise IncompleteError(f"the report does not say: {', '.join(lacking)}")
        # Made before it is signed: what cannot be made is not signed.
        made = None if version.signature else self._documents(replace(version, signature=signature))
        signed = self.drafts.sign(study, number, signature)
        if signed.documents:
            return signed
        if made is None or signed.signature != signature:
            made = self._documents(signed)
        self._library.store(made)
        return self.drafts.stored(study, number, [str(one.SOPInstanceUID) for one in made])

    def addendum(self, study: str, author: str = "") -> Version:
        """Begin a version after the signed one.

        Raises:
            LookupError: the study has no report.
            SignedError: the signed one is not stored yet.
        """
        signed = self.drafts.current(study)
        if signed.signature and not signed.documents:
            raise SignedError("the signed report is not stored with its study yet; sign it again to store it")
        return self.drafts.addendum(study, author)

    def missing(self, version: Version) -> list[str]:
        """What it does not say and should, as :func:`report.completeness.missing`."""
        return missing(version.report, addendum=self.drafts.predecessor(version) is not None)

    def html(self, version: Version) -> str:
        """As a page that needs no other file."""
        images, algorithm = self._images(version), self.drafts.algorithm(version.study)
        return page(version.report, images[0], algorithm, self._pictures(version.report), version.signature)

    def pdf(self, version: Version) -> bytes:
        """As PDF; ValueError if Pango is not installed."""
        return pdf(self.html(version))

    def structured_report(self, version: Version) -> Dataset:
        """As an Enhanced SR, unverified or, of a signed version, verified."""
        if version.signature:
            return self._documents(version)[0]
        algorithm = self.drafts.algorithm(version.study)
        return examination_report(version.report, self._images(version), algorithm)

    def picture(self, study: str, uid: str, number: int, width: int = PICTURE_WIDTH) -> bytes:
        """An image of a study or a result on it, as JPEG.

        Raises:
            LookupError: the study has no such image.
            UnreadableError: it cannot be read.
        """
        if str(self._library.instance(uid).header.StudyInstanceUID) != study:
            raise LookupError(uid)
        return self._picture(uid, number, width)

    def _documents(self, version: Version) -> list[Dataset]:
        if version.signature is None:
            raise ValueError("only a signed report has documents")
        return signed_documents(
            version.report,
            self._images(version),
            self.drafts.algorithm(version.study),
            version.signature,
            self._pictures(version.report),
            self._predecessor(version),
        )

    def _predecessor(self, version: Version) -> str | None:
        """The signed report before an addendum, or the draft that an analysis stored."""
        signed = self.drafts.predecessor(version)
        if signed:
            return signed.documents[0]
        series = report_series(version.study)
        drafted = [
            str(one.header.SOPInstanceUID)
            for one in self._library.study(version.study).instances
            if one.header.SeriesInstanceUID == series and one.header.get("VerificationFlag") == "UNVERIFIED"
        ]
        return drafted[-1] if drafted else None

    def _images(self, version: Version) -> list[Dataset]:
        """Headers of the evidence, or of the study's first image if there is none."""
        evidence = dict.fromkeys(one.sop_instance_uid for one in version.report.evidence)
        found = [self._library.instance(uid).header for uid in evidence]
        return found or [_first_image(self._library.study(version.study)).header]

    def _pictures(self, report: ExaminationReport) -> dict[tuple[str, int], bytes]:
        shown = {(one.sop_instance_uid, one.frame_number) for one in report.evidence}
        return {(uid, number): self._picture(uid, number, PICTURE_WIDTH) for uid, number in shown}

    def _proposal(self, study: Study, language: Language) -> tuple[ExaminationReport, Algorithm]:
        about = examined(_first_image(study).header, language)
        places = [
            (str(image.header.SOPInstanceUID), number)
            for image in study.images.instances
            for number in range(1, image.frame_count + 1)
        ]
        reported = _findings_report(study)
        if reported is not None:
            there = {str(one.header.SOPInstanceUID) for one in study.instances}
            findings = [_still_shown(one, there) for one in read_findings(reported) if one.sop_instance_uid in there]
            algorithm = read_algorithm(reported)
            looked_at = len({(one.sop_instance_uid, one.frame_number) for one in findings})
        else:
            count = min(LOOKED_AT, len(places))
            findings = list(self._seen(places[index * len(places) // count] for index in range(count)))
            algorithm, looked_at = self._algorithm(), len(findings)
        if not findings:
            return about, algorithm
        return draft(suggest(findings, language), algorithm, about, looked_at, len(places)), algorithm

    def _seen(self, places: Iterable[tuple[str, int]]) -> Iterable[Finding]:
        """What frames are taken for, without a map; those that cannot be read are passed over."""
        for uid, number in places:
            with suppress(UnreadableError):
                chances = self._predict(uid, number)
                label = max(chances, key=chances.__getitem__)
                yield Finding(Explanation("", "", label, chances[label]), uid, number, (), whole_image=True)


def _first_image(study: Study) -> Instance:
    images = study.images.instances
    if not images:
        raise LookupError(study.uid)
    return images[0]


def _findings_report(study: Study) -> Dataset | None:
    """The newest findings report of an analysis."""
    kinds = (ComprehensiveSRStorage, Comprehensive3DSRStorage)
    reports = [one for one in study.instances if one.header.SOPClassUID in kinds and is_own_result(one.header)]
    if not reports:
        return None
    newest = max(reports, key=lambda one: f"{one.header.get('ContentDate', '')}{one.header.get('ContentTime', '')}")
    return newest.read()


def _still_shown(finding: Finding, there: set[str]) -> Finding:
    """The finding with those of its captures that the study has."""
    return replace(finding, captures=tuple(uid for uid in finding.captures if uid in there))
