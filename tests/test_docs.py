"""The Python that the documentation shows runs, and makes the picture that is printed beside it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from report.choices import KINDS, SITES
from report.terms import TERMS

ROOT = Path(__file__).parents[1]


def examples(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M))


@pytest.mark.slow
def test_examples_of_the_explainers_page_run_and_make_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(examples("docs/explainers.md"), "docs/explainers.md", "exec"), names)
    assert names["cam"].shape == (2, 7, 7)
    printed, made = (
        np.asarray(Image.open(folder / "explainers.jpg"), dtype=float) for folder in (ROOT / "docs", tmp_path)
    )
    assert made.shape == printed.shape
    assert np.abs(made - printed).mean() < 1


def test_the_conformance_statement_lists_every_code_of_every_class():
    page = (ROOT / "docs" / "dicom-conformance.md").read_text(encoding="utf-8")
    for label, meaning in TERMS.items():
        site = f"{meaning.site.value}, {meaning.site.meaning}" if meaning.site else ""
        assert re.search(
            rf"^\| {re.escape(label)} \| {re.escape(f'{meaning.finding.value}, {meaning.finding.meaning}')} \| [DSP] "
            rf"\| {re.escape(site)} \| [DSP] \|$",
            page,
            re.M,
        ), label


def test_the_conformance_statement_lists_what_a_report_s_fields_may_be_chosen_of():
    page = " ".join((ROOT / "docs" / "dicom-conformance.md").read_text(encoding="utf-8").split())
    for kind in KINDS.values():
        assert kind.value in page, kind.meaning
    sites = page.partition("Sites are SNOMED CT's")[2].partition("PixelMed")[0]
    for site in SITES.values():
        assert site.meaning in sites, site.meaning
