"""Which studies of an archive are asked for, as ``Modality=ES&StudyDate=20200101-20201231``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from urllib.parse import parse_qsl

from pydicom.datadict import tag_for_keyword

from monai_label_app.pacs import ENDOSCOPY

_RANGE = re.compile(r"(?P<day>\d{8})|(?P<first>\d{8})-(?P<last>\d{8})?|-(?P<until>\d{8})")


def parse(text: str) -> dict[str, str]:
    """A query as attributes of the study that are matched; of endoscopy, unless it names a modality.

    Raises:
        ValueError: it is none. An archive passes over what it does not know, and would answer with every study.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
        if not pairs:
            raise ValueError
    except ValueError:
        raise ValueError(f"the query {text!r} is not of the form Attribute=value&Attribute=value") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        keyword = "ModalitiesInStudy" if name == "Modality" else name
        if tag_for_keyword(keyword) is None:
            raise ValueError(f"the query names {name!r}, which is no attribute of DICOM; an example is StudyDate")
        if keyword in query or not value:
            raise ValueError(f"the query gives {name} {'no value' if not value else 'more than once'}")
        query[keyword] = value
    if "StudyDate" in query:
        _bounds(query["StudyDate"])
    return {**ENDOSCOPY, **query}


def days(query: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The same query day by day where its dates have a beginning and an end, so that each answer is short.

    Some archives cut long answers off and have no way to ask for the rest.
    """
    first, last = _bounds(query["StudyDate"]) if "StudyDate" in query else (None, None)
    if first is None or last is None:
        yield query
        return
    for number in range((last - first).days + 1):
        yield {**query, "StudyDate": f"{first + timedelta(number):%Y%m%d}"}


def _bounds(text: str) -> tuple[date | None, date | None]:
    """The first and the last day of a date or a range of dates (PS3.4 C.2.2.2.5.1); None where it has no end."""
    found = _RANGE.fullmatch(text)
    try:
        if not found:
            raise ValueError
        ends = (found["first"] or found["day"], found["last"] or found["until"] or found["day"])
        first, last = (datetime.strptime(one, "%Y%m%d").date() if one else None for one in ends)
    except ValueError:
        raise ValueError(f"StudyDate={text} is neither YYYYMMDD nor a range of the form YYYYMMDD-YYYYMMDD") from None
    if first and last and last < first:
        raise ValueError(f"StudyDate={text} ends before it begins")
    return first, last
