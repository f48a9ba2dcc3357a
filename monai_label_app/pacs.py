"""A PACS by DICOMweb: find a study, fetch its images one by one, store results back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_auth
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from python_multipart.multipart import MultipartParser, parse_options_header
from requests.auth import HTTPBasicAuth

from monai_label_app.files import as_file
from monai_label_app.study import Instance, Study, make_study

if TYPE_CHECKING:  # torch comes with it
    from monai_label_app.results import StudyResult

MODALITY = "ES"
"""Of the studies that are looked for: endoscopy."""

ENDOSCOPY: Mapping[str, str] = {"ModalitiesInStudy": MODALITY}
"""The question for them."""

TIMEOUT = (5, 60)
"""Seconds to connect, and to wait for an answer."""

_OVERLOADED = (429, 502, 503, 504)
"""Status of HTTP that says: later."""

_AS_STORED = (("application/dicom", "*"),)
"""An instance in the transfer syntax that it has; the default of DICOMweb is to decompress it."""

_WHOLE = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
"""The same as a header of HTTP."""

_CHUNK = 1 << 20


def credentials() -> tuple[bytes, bytes] | None:
    """User and password for the PACS, in UTF-8: ``MONAI_LABEL_DICOMWEB_USERNAME`` and ``…_PASSWORD``."""
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    return (user.encode(), password.encode()) if user and password else None


class PacsError(RuntimeError):
    """The PACS is down, refused, or does not have what was asked for; the message is one sentence."""


class NotInPacsError(PacsError, LookupError):
    """The PACS answers, and does not have what was asked for."""


class UnreachableError(PacsError):
    """The PACS does not answer now; it may later."""


class Pacs:
    """A DICOMweb service.

    Args:
        url: base address, e.g. ``http://localhost:8042/dicom-web``.
        login: user and password; by default those of :func:`credentials`.
    """

    def __init__(self, url: str, login: tuple[bytes, bytes] | None = None) -> None:
        if urlsplit(url).username or urlsplit(url).password:
            raise PacsError("a login does not belong into the address of a PACS, where others see it; see the README")
        self.url = url.rstrip("/")
        login = login or credentials()
        self._session = create_session_from_auth(HTTPBasicAuth(*login)) if login else requests.Session()
        # Pixels are compressed as DICOM does it, or not at all: pressing them once more is most of an archive's work.
        self._session.headers["Accept-Encoding"] = "identity"
        with self._explained():
            self._client = DICOMwebClient(self.url, session=self._session, timeout=TIMEOUT)
        # Its retries would keep a user waiting for half a minute to hear that nobody answers.
        self._client.set_http_retry_params(retry=False)

    def study(self, uid: str) -> Study:
        """List a study's instances; their pixels are fetched when they are read.

        Raises:
            PacsError: the PACS cannot be asked, or has no such study.
        """
        if not UID(uid).is_valid:
            raise PacsError(f"{uid!r} is not a Study Instance UID")
        try:
            with self._explained():
                metadata = self._client.retrieve_study_metadata(uid)
        except NotInPacsError:
            metadata = []
        if not metadata:
            raise NotInPacsError(f"{self.url} has no study {uid}, or is not the address of a DICOMweb service")
        headers = [Dataset.from_json(item, bulk_data_uri_handler=lambda *_: None) for item in metadata]
        return make_study(
            uid, [Instance(h.SOPInstanceUID, h, partial(self._read, h), fetch=partial(self._fetch, h)) for h in headers]
        )

    def studies(self, query: Mapping[str, str] = ENDOSCOPY) -> dict[str, int]:
        """Studies, by QIDO-RS: Study Instance UID → number of instances, 0 if not told.

        Args:
            query: attributes of the study that are matched (PS3.18 8.3.4.1), as ``{"StudyDate": "20260101-"}``.

        Raises:
            PacsError: the PACS cannot be asked.
        """
        studies: dict[str, int] = {}
        while True:
            with self._explained():
                # No limit: beside one, Orthanc sends nothing at all from an offset on if it is asked for modalities.
                page = self._client.search_for_studies(search_filters=dict(query), offset=len(studies) or None)
            found = [Dataset.from_json(item) for item in page]
            new = {str(one.StudyInstanceUID): int(one.get("NumberOfStudyRelatedInstances") or 0) for one in found}
            # An archive sends as much as it likes; one that knows no offset starts anew, and brings no news.
            if new.keys() <= studies.keys():
                return studies
            studies.update(new)

    def store(self, datasets: Iterable[Dataset]) -> list[str]:
        """Store objects by STOW-RS, without those that the PACS already has.

        Returns:
            SOP Instance UIDs of those that are new there.

        Raises:
            PacsError: the PACS is down or refuses one of them; those before it are stored.
        """
        present: dict[tuple[str, str], set[str]] = {}
        stored = []
        for dataset in datasets:
            series = dataset.StudyInstanceUID, dataset.SeriesInstanceUID
            if series not in present:
                present[series] = self._instances(*series)
            if dataset.SOPInstanceUID not in present[series]:
                self._store(dataset)
                present[series].add(dataset.SOPInstanceUID)
                stored.append(str(dataset.SOPInstanceUID))
        return stored

    def deliver(self, result: StudyResult) -> list[str]:
        """Store a study's result objects as :meth:`store` does; the result then names them by their UIDs.

        Their files go; those of the result that are no objects stay where they are.

        Returns:
            SOP Instance UIDs of those that are new there.
        """
        stored = self.store(dcmread(path) for path in result.objects)
        for path in result.objects:
            path.unlink()
            with suppress(OSError):  # others lie there
                path.parent.rmdir()
        uids = {str(path): path.stem for path in result.objects}
        result.objects = []
        result.rename(lambda output: uids.get(output, output))
        return stored

    def _instances(self, study: str, series: str) -> set[str]:
        try:
            with self._explained():
                found = self._client.search_for_instances(study, series, fields=["SOPInstanceUID"])
        except NotInPacsError:
            return set()
        return {Dataset.from_json(item).SOPInstanceUID for item in found}

    def _store(self, dataset: Dataset) -> None:
        if getattr(dataset, "preamble", None) is None:
            # The client would send one that was made, not read, without what makes it a file (PS3.10 7.1).
            dataset = as_file(dataset)
        with self._explained():
            answer = self._client.store_instances([dataset], dataset.StudyInstanceUID)
        failed = answer.get("FailedSOPSequence")
        if failed:
            reason = failed[0].get("FailureReason", 0)
            raise PacsError(f"the PACS at {self.url} refused {dataset.SOPInstanceUID} (failure reason {reason:04x}H)")

    def _read(self, header: Dataset) -> Dataset:
        with self._explained():
            return self._client.retrieve_instance(
                header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID, media_types=_AS_STORED
            )

    def _fetch(self, header: Dataset, path: Path) -> None:
        """Write an object to a file as it comes: a long video does not fit into the memory."""
        uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
        address = "{}/studies/{}/series/{}/instances/{}".format(self.url, *uids)
        with (
            self._explained(),
            self._session.get(address, headers=_WHOLE, stream=True, timeout=TIMEOUT) as answer,
            path.open("wb") as file,
        ):
            answer.raise_for_status()
            _write_part(answer.headers.get("content-type"), answer.iter_content(_CHUNK), file)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "?"
            if status == 404:
                raise NotInPacsError(f"the PACS at {self.url} does not have what was asked for") from error
            kind = UnreachableError if status in _OVERLOADED else PacsError
            raise kind(f"the PACS at {self.url} answered with HTTP status {status}") from error
        except requests.ConnectionError as error:
            raise UnreachableError(f"no PACS answers at {self.url}; is it running?") from error
        except requests.Timeout as error:
            raise UnreachableError(f"the PACS at {self.url} did not answer in time") from error
        except (requests.RequestException, ValueError, KeyError) as error:
            raise PacsError(f"{self.url} does not answer as a DICOMweb service: {error}") from error


def _write_part(content_type: str | None, chunks: Iterable[bytes], file: BinaryIO) -> None:
    """Write the one part of a multipart answer, or an object that comes bare; ValueError if it is neither."""
    kind, options = parse_options_header(content_type)
    if kind == b"application/dicom":
        file.writelines(chunks)
        return
    boundary = options.get(b"boundary")
    if boundary is None:  # a gateway's log-in page, for instance
        raise ValueError(f"it sends {kind.decode('latin-1') or 'something'} where DICOM was asked for")
    ended: list[None] = []

    def write(data: bytes, start: int, end: int) -> None:
        file.write(data[start:end])

    parser = MultipartParser(boundary, {"on_part_data": write, "on_end": lambda: ended.append(None)})
    for chunk in chunks:
        parser.write(chunk)
    if not ended:
        raise ValueError("an answer is cut off")
