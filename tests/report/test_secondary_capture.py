"""Heatmaps as Secondary Captures: what is burned in, how pixels are stored, where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from pydicom import dcmread
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless

from explainers import heatmap
from report.caption import captioned
from report.findings import GRAD_CAM, GUIDED_GRAD_CAM, Algorithm, Explanation
from report.secondary_capture import GUIDED_HEATMAPS, HEATMAPS, LAYER_WALK, heatmap_capture
from tests.dicom_files import by_pillow, encapsulated, image, write
from tests.validators import dciodvfy

ALGORITHM = Algorithm("tiny", "0.1.0+12345678", "test model, not for clinical use")
EXPLANATION = Explanation(GRAD_CAM, "block5_conv4", "polyps", 0.93217)
COLOURS = heatmap.colourise(np.linspace(0, 1, 256))


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, as endoscopy is: JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([128 + 100 * np.sin(x / 40), 90 + 60 * np.cos(y / 30), 60 + 0 * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", [(480, 640), (576, 720), (1080, 1920)])
def test_the_caption_lies_under_the_picture_and_shows_the_colours_from_low_to_high(size):
    pixels = picture(*size)
    shown = heatmap_capture(image(pixels), 1, pixels, EXPLANATION, ALGORITHM, colours=COLOURS).pixel_array
    assert (shown[: size[0]] == pixels).all(), "nothing is written on the picture itself"
    strip = shown[size[0] :].astype(int)
    assert strip.shape[0] < size[0] / 4
    coloured = np.ptp(strip, axis=2) > 100
    row = coloured.sum(axis=1).argmax()
    bar = strip[row, coloured[row]]
    assert len(bar) > size[1] / 2
    places = np.round(np.linspace(0, 255, len(bar))).astype(int)
    expected = 255 * colormaps["jet"](places)[:, :3]
    assert np.abs(bar - expected).max() < 40


@pytest.mark.parametrize(("size", "least"), [((480, 640), 9), ((1080, 1920), 20)])
def test_the_caption_s_letters_grow_with_the_picture(size, least):
    strip = captioned(np.zeros((*size, 3), np.uint8), "HHHH", COLOURS)[size[0] :]
    rows = np.flatnonzero((strip.min(axis=2) > 128).any(axis=1))
    last = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)[-1]
    assert len(last) >= least, "height of a capital letter"


def test_letters_of_europe_are_drawn_and_no_boxes_in_their_place():
    drawn = [captioned(np.zeros((480, 640, 3), np.uint8), one, COLOURS).tobytes() for one in "äöüßéñçøłžğЖλ–≥\u0378"]
    assert len(set(drawn)) == len(drawn), "the last is no letter: a box"


@given(width=st.integers(33, 400), text=st.text(max_size=200))
def test_any_caption_fits_any_width(width, text):
    pixels = np.full((40, width, 3), 7, np.uint8)
    shown = captioned(pixels, text, COLOURS)
    assert shown.shape[1:] == (width, 3)
    assert (shown[:40] == 7).all()
    strip = shown[40:]
    ink = (strip.min(axis=2) > 100)[strip.shape[0] // 2 :]
    assert not ink[:, -2:].any(), "no letter is cut off"


def test_a_caption_can_be_left_out():
    pixels = picture(60, 80)
    assert (heatmap_capture(image(pixels), 1, pixels, EXPLANATION, ALGORITHM).pixel_array == pixels).all()


@pytest.mark.parametrize(
    ("compression", "syntax"),
    [("lossless", JPEGLSLossless), ("none", ExplicitVRLittleEndian), ("jpeg", JPEGBaseline8Bit)],
)
@pytest.mark.parametrize("size", [(33, 47), (120, 161)])
def test_pixels_come_back_as_they_were_stored(tmp_path, compression, syntax, size):
    pixels = picture(*size)
    made = heatmap_capture(image(pixels), 1, pixels, EXPLANATION, ALGORITHM, compression=compression)
    path = write(made, tmp_path / "capture.dcm")
    assert dciodvfy(path) == []
    read = dcmread(path)
    assert read.file_meta.TransferSyntaxUID == syntax
    back = read.pixel_array  # RGB, whatever is stored
    if compression == "jpeg":
        assert np.abs(back.astype(int) - pixels).mean() < 6
        assert read.LossyImageCompression == "01"
    else:
        assert (back == pixels).all()
        assert read.LossyImageCompression == "00"


def test_noise_that_has_no_room_compressed_is_stored_as_it_is_without_a_word(caplog):
    noise = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    made = heatmap_capture(image(noise), 1, noise, EXPLANATION, ALGORITHM)
    assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (made.pixel_array == noise).all()
    assert not caplog.records


def test_a_lossy_capture_of_a_lossy_source_tells_both_losses(tmp_path):
    pixels = picture(64, 80)
    source = encapsulated(
        pixels, JPEG2000, [by_pillow(pixels, "JPEG2000")], LossyImageCompression="01",
        LossyImageCompressionRatio="12.5", LossyImageCompressionMethod="ISO_15444_1",
    )  # fmt: skip
    made = heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, compression="jpeg")
    path = write(made, tmp_path / "capture.dcm")
    assert dciodvfy(path) == []
    read = dcmread(path)
    assert list(read.LossyImageCompressionMethod) == ["ISO_15444_1", "ISO_10918_1"]
    assert read.LossyImageCompressionRatio[0] == 12.5
    assert read.LossyImageCompressionRatio[1] == pytest.approx(pixels.nbytes / len(read.PixelData), rel=0.02)


@pytest.mark.parametrize("said", [{}, {"LossyImageCompressionRatio": "", "LossyImageCompressionMethod": "ISO_15444_1"}])
def test_a_lossy_capture_says_in_words_what_its_source_does_not_say_in_numbers(tmp_path, said):
    pixels = picture(64, 80)
    source = dcmread(write(image(pixels, LossyImageCompression="01", **said), tmp_path / "source.dcm"))
    lossless = write(heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM), tmp_path / "lossless.dcm")
    lossy = write(
        heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, compression="jpeg"), tmp_path / "lossy.dcm"
    )
    assert dciodvfy(lossless) == dciodvfy(lossy) == []
    assert dcmread(lossless).get("LossyImageCompressionMethod") == said.get("LossyImageCompressionMethod")
    read = dcmread(lossy)
    assert (read["LossyImageCompressionRatio"].VM, read.LossyImageCompressionMethod) == (1, "ISO_10918_1")
    assert "Its source had been compressed with loss before" in read.DerivationDescription


def test_an_unknown_compression_is_refused_by_name():
    pixels = picture(33, 40)
    with pytest.raises(ValueError, match="'gzip'; there are lossless, jpeg, none"):
        heatmap_capture(image(pixels), 1, pixels, EXPLANATION, ALGORITHM, compression="gzip")


def test_what_looks_different_is_another_instance_and_what_does_not_is_the_same():
    pixels = picture(64, 80)
    source = image(pixels)
    guided = Explanation(GUIDED_GRAD_CAM, "block5_conv4", "polyps", 0.93217)
    different = [
        heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM),
        heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, colours=COLOURS),
        heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, compression="jpeg"),
        heatmap_capture(source, 1, pixels, guided, ALGORITHM, series=GUIDED_HEATMAPS),
        heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, series=LAYER_WALK),
    ]
    assert len({one.SOPInstanceUID for one in different}) == len(different)
    assert len({one.SeriesInstanceUID for one in different}) == 3
    same = heatmap_capture(source, 1, pixels, EXPLANATION, ALGORITHM, compression="none")
    assert same.SOPInstanceUID == different[0].SOPInstanceUID


@pytest.mark.parametrize(
    ("method", "series", "code"),
    [(GRAD_CAM, HEATMAPS, ("130403", "DCM")), (GUIDED_GRAD_CAM, GUIDED_HEATMAPS, ("130404", "DCM"))],
)
def test_the_derivation_is_coded(method, series, code):
    pixels = picture(64, 80)
    made = heatmap_capture(image(pixels), 1, pixels, Explanation(method, "l", "polyps", 0.5), ALGORITHM, series=series)
    item = made.DerivationCodeSequence[0]
    assert (item.CodeValue, item.CodingSchemeDesignator) == code
    assert method in made.DerivationDescription
    models = {
        one.get("ManufacturerModelName"): one.get("SoftwareVersions") for one in made.ContributingEquipmentSequence
    }
    assert models[ALGORITHM.name] == ALGORITHM.version
