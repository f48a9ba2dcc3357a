"""A study's report: proposed from what the machine saw, edited, and stored with the study once it is signed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache

from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
)

from monai_label_app.frames import UnreadableError, frames
from monai_label_app.library import Library
from monai_label_app.study import Instance, Study
from monai_label_app.web.cache import Cache
from report.attributes import is_own_result
from report.choices import site_of
from report.completeness import missing
from report.drafts import Drafts, SignedError, StaleError, Version
from report.examination import Evidence, ExaminationReport, Observation, Signature
from report.examination_report import examination_report
from report.findings import Algorithm, Explanation, Finding, Segment
from report.language import ENGLISH, LANGUAGES, Language
from report.record import checked
from report.render import page, pdf
from report.signed_report import reference, signed_documents
from report.structured_report import read_algorithm, read_findings
from report.suggest import draft, examined, suggest, taken_up
from report.video_segments import read_segments

LOOKED_AT = 32
"""Frames that are classified for the draft of a study without analysis; of a longer one, so many spread evenly."""

PICTURE_WIDTH = 900
"""Most pixels across a picture in a report."""

_PICTURES = 256


class IncompleteError(ValueError):
    """A report that does not say all it should, and whose signer does not say that they know.

    Attributes:
        missing: names of the fields that are empty.
    """

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"The report does not say all that it should: {', '.join(missing)}.")
        self.missing = missing


class Reporting:
    """The reports of a library's studies.

    Args:
        library: the studies.
        drafts: opens where reports under edit are kept, once.
        predict: SOP Instance UID, frame number → class → probability.
        algorithm: who predicts.
    """

    def __init__(
        self,
        library: Library,
        drafts: Callable[[], Drafts],
        predict: Callable[[str, int], Mapping[str, float]],
        algorithm: Callable[[], Algorithm],
    ) -> None:
        self._library, self._open, self._predict, self._algorithm = library, cache(drafts), predict, algorithm
        self._made: Cache[bytes] = Cache(_PICTURES)

    @property
    def drafts(self) -> Drafts:
        """Reports under edit, and all their versions."""
        return self._open()

    def open(self, study: str, language: str = ENGLISH.tag) -> Version:
        """The report of a study; if it has none, a draft that says what is known and proposes what was seen.

        Raises:
            LookupError: there is no such study, or it has no images.
            ValueError: there is no such language.
        """
        if language not in LANGUAGES:
            raise ValueError(f"there is no language {language!r}; there are {', '.join(LANGUAGES)}")
        with suppress(LookupError):
            return self.drafts.current(study)
        return self.drafts.create(study, *self._proposal(self._library.study(study), LANGUAGES[language]))

    def proposed(self, study: str) -> tuple[Version, ExaminationReport]:
        """The version that counts, and what it would be with what is proposed by now and was never in it.

        A newer analysis by another model proposes nothing: a report names one machine.

        Raises:
            LookupError: the study has no report, or is not there.
        """
        version = self.drafts.current(study)
        if version.signature:
            return version, version.report
        proposal, algorithm = self._proposal(self._library.study(study), LANGUAGES[version.report.language])
        if algorithm != self.drafts.algorithm(study):
            return version, version.report
        before = [one.report for one in self.drafts.versions(study) if one.number != version.number]
        return version, taken_up(proposal, [*before, version.report])

    def save(self, study: str, base: int, report: ExaminationReport, author: str = "") -> Version:
        """Save a report, as :meth:`Drafts.save` does.

        Raises:
            ValueError: a choice of it is on no list, or it shows an image that is not of the study.
        """
        checked(report)
        images = {str(one.header.SOPInstanceUID): one for one in self._library.study(study).instances}
        for one in report.evidence:
            image = images.get(one.sop_instance_uid)
            if image is None or "Rows" not in image.header:
                raise ValueError(f"{one.sop_instance_uid} is no image of this study")
            if one.frame_number > image.frame_count:
                raise ValueError(f"{one.sop_instance_uid} has no frame {one.frame_number}")
        return self.drafts.save(study, base, report, author)

    def attach(
        self, study: str, label: str, image: Evidence, capture: str = "", author: str = "", language: str = ENGLISH.tag
    ) -> Version:
        """Add a frame to the finding of a class, once; where there is no such finding, or no report, it is begun.

        Args:
            study: Study Instance UID.
            label: the class; a finding that is begun is the machine's where it takes the frame for that class.
            image: the frame.
            capture: SOP Instance UID of a view on it, which is added too.
            author: who adds it.
            language: of a report that is begun; English where it is none of ours.

        Raises:
            LookupError: there is no such study or frame.
            ValueError: there is no such class; else as :meth:`save`.
            StaleError, SignedError: as :meth:`save`.
        """
        chances = self._predict(image.sop_instance_uid, image.frame_number)
        if label not in chances:
            raise ValueError(f"there is no class {label!r}; the model knows {', '.join(chances)}")
        version = self.open(study, language if language in LANGUAGES else ENGLISH.tag)
        report, words = version.report, LANGUAGES[version.report.language]
        proposed = chances[label] if label == max(chances, key=chances.__getitem__) else None
        begun = Observation(label, words.wording(label), (), proposed, site_of(label))
        finding = next((one for one in report.observations if one.label == label), begun)
        images = [image, *([Evidence(capture)] if capture else [])]
        shown = {(one.sop_instance_uid, one.frame_number) for one in finding.evidence}
        new = [one for one in images if (one.sop_instance_uid, one.frame_number) not in shown]
        added = replace(finding, evidence=(*finding.evidence, *new))
        others = [one for one in report.observations if one is not finding]
        place = next((index for index, one in enumerate(report.observations) if one is finding), len(others))
        observations = (*others[:place], added, *others[place:])
        return self.save(study, version.number, replace(report, observations=observations), author)

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
            raise IncompleteError(lacking)
        # Made before it is signed: what cannot be made is not signed.
        made = self._documents(version, version.signature or signature)
        signed = self.drafts.sign(study, number, signature)
        if signed.documents:
            return signed
        if signed.signature and signed.signature != (version.signature or signature):
            made = self._documents(signed, signed.signature)  # somebody was faster
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
        pictures = self._pictures(version.report, images)
        return page(version.report, images[0].header, algorithm, pictures, version.signature)

    def pdf(self, version: Version) -> bytes:
        """As PDF, of a signed version the one that is stored; ValueError if Pango is not installed."""
        stored = self._stored(version, EncapsulatedPDFStorage)
        if stored is None:
            return pdf(self.html(version))
        content: bytes = stored.EncapsulatedDocument[: stored.get("EncapsulatedDocumentLength")]
        return content

    def structured_report(self, version: Version) -> Dataset:
        """As an Enhanced SR, unverified; of a signed version the one that is stored."""
        stored = self._stored(version, EnhancedSRStorage)
        if stored is not None:
            return stored
        return examination_report(
            version.report,
            [one.header for one in self._images(version)],
            self.drafts.algorithm(version.study),
            version.signature,
            self._predecessor(version) if version.signature else None,
        )

    def picture(self, study: str, uid: str, number: int, width: int = PICTURE_WIDTH) -> bytes:
        """An image of a study or a result on it, as JPEG.

        Raises:
            LookupError: the study has no such image.
            UnreadableError: it cannot be read.
        """
        for instance in self._library.study(study).instances:
            if instance.header.SOPInstanceUID == uid and 1 <= number <= instance.frame_count:
                return self._picture(instance, number, width)
        raise LookupError(uid)

    def _picture(self, instance: Instance, number: int, width: int) -> bytes:
        uid = str(instance.header.SOPInstanceUID)

        def make() -> bytes:
            shown = Image.fromarray(next(frames(instance.read(), uid, number)).pixels)
            shown.thumbnail((width, shown.height))
            stream = io.BytesIO()
            shown.save(stream, "JPEG", quality=88)
            return stream.getvalue()

        return self._made.get((uid, number, width), make)

    def _stored(self, version: Version, kind: UID) -> Dataset | None:
        for one in self._library.study(version.study).instances if version.documents else ():
            if one.header.SOPInstanceUID in version.documents and one.header.SOPClassUID == kind:
                return one.read()
        return None

    def _documents(self, version: Version, signature: Signature) -> list[Dataset]:
        images = self._images(version)
        return signed_documents(
            version.report,
            [one.header for one in images],
            self.drafts.algorithm(version.study),
            signature,
            self._pictures(version.report, images),
            self._predecessor(version),
        )

    def _predecessor(self, version: Version) -> Dataset | None:
        """The signed report before an addendum, or the draft that an analysis stored."""
        reports = _own(self._library.study(version.study), EnhancedSRStorage)
        signed = self.drafts.predecessor(version)
        if signed:
            uid = signed.documents[0]
            stored = (one.header for one in reports if one.header.SOPInstanceUID == uid)
            return next(stored, reference(version.study, uid))
        drafted = [one for one in reports if one.header.get("VerificationFlag") == "UNVERIFIED"]
        return drafted[0].header if drafted else None

    def _images(self, version: Version) -> list[Instance]:
        """Those of the evidence, or the study's first if there is none.

        Raises:
            LookupError: there is no such study.
            ValueError: an image is no longer there.
        """
        study = self._library.study(version.study)
        known = {str(one.header.SOPInstanceUID): one for one in study.instances}
        evidence = dict.fromkeys(one.sop_instance_uid for one in version.report.evidence)
        for uid in evidence:
            if uid not in known:
                raise ValueError(f"the report shows {uid}, which is no longer in the study; detach it")
        return [known[uid] for uid in evidence] or [_first_image(study)]

    def _pictures(self, report: ExaminationReport, images: list[Instance]) -> dict[tuple[str, int], bytes]:
        known = {str(one.header.SOPInstanceUID): one for one in images}
        shown = [(one.sop_instance_uid, one.frame_number) for one in report.evidence]
        return {(uid, number): self._picture(known[uid], number, PICTURE_WIDTH) for uid, number in shown}

    def _proposal(self, study: Study, language: Language) -> tuple[ExaminationReport, Algorithm]:
        about = examined(_first_image(study).header, language)
        places = [
            (str(image.header.SOPInstanceUID), number)
            for image in study.images.instances
            for number in range(1, image.frame_count + 1)
        ]
        reported = findings_report(study)
        segments: list[Segment] = []
        if reported is not None:
            there = {str(one.header.SOPInstanceUID) for one in study.instances}
            findings = [_still_shown(one, there) for one in read_findings(reported) if one.sop_instance_uid in there]
            algorithm = read_algorithm(reported)
            # Of a clip the times are its own, which would mislead who reads them.
            recordings = {str(one.header.SOPInstanceUID) for one in study.instances if one.is_video}
            segments = [one for one in read_segments(reported) if one.video in recordings]
            looked_at = len({(one.sop_instance_uid, one.frame_number) for one in findings})
        else:
            count = min(LOOKED_AT, len(places))
            findings = list(self._seen(places[index * len(places) // count] for index in range(count)))
            algorithm, looked_at = self._algorithm(), len(findings)
        if not findings:
            return about, algorithm
        return draft(suggest(findings, language, segments), algorithm, about, looked_at, len(places)), algorithm

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


def findings_report(study: Study) -> Dataset | None:
    """The newest findings report of an analysis; None if there is none."""
    reports = _own(study, ComprehensiveSRStorage, Comprehensive3DSRStorage)
    return reports[0].read() if reports else None


def _own(study: Study, *kinds: UID) -> list[Instance]:
    """Results of this software of some SOP Classes, the newest first."""
    found = [one for one in study.instances if one.header.SOPClassUID in kinds and is_own_result(one.header)]
    times = ("ContentDate", "ContentTime")
    return sorted(found, key=lambda one: [str(one.header.get(name, "")) for name in times], reverse=True)


def _still_shown(finding: Finding, there: set[str]) -> Finding:
    """The finding with those of its captures that the study has."""
    return replace(finding, captures=tuple(uid for uid in finding.captures if uid in there))
