"""Pixels as they were written: every transfer syntax and every photometric interpretation."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    RLELossless,
)

from monai_label_app.files import read_dicom
from monai_label_app.frames import UnreadableError, frames
from tests.dicom_files import by_gdcm, by_pillow, encapsulated, image, write

SYNTAX = gdcm.TransferSyntax
NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
LOSSLESS = {
    "explicit big endian": SYNTAX.ExplicitVRBigEndian,
    "JPEG lossless": SYNTAX.JPEGLosslessProcess14,
    "JPEG lossless, first-order prediction": SYNTAX.JPEGLosslessProcess14_1,
    "JPEG-LS": SYNTAX.JPEGLSLossless,
    "JPEG 2000 lossless": SYNTAX.JPEG2000Lossless,
}


@pytest.fixture(scope="module")
def picture(polyp: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A real frame of even width, as GDCM's JPEG encoder wants it."""
    return np.ascontiguousarray(polyp[:, :202])


def decode(path: Path) -> list[NDArray[np.uint8]]:
    return [frame.pixels for frame in frames(read_dicom(path), str(path))]


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert one.dtype == other.dtype == np.uint8
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other.astype(int))


def as_pillow_decodes(stream: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(stream)).convert("RGB"))


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("planar", [0, 1])
def test_uncompressed_rgb_is_exact(polyp, tmp_path, syntax, planar):
    dataset = image(polyp, PlanarConfiguration=planar)
    if planar:
        data = polyp.transpose(2, 0, 1).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset.file_meta.TransferSyntaxUID = syntax
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    assert difference(decoded, polyp).max() == 0


@pytest.mark.parametrize("syntax", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_compression_is_exact(picture, tmp_path, syntax):
    source = write(image(picture), tmp_path / "a.dcm")
    (decoded,) = decode(by_gdcm(source, tmp_path / "b.dcm", syntax))
    assert difference(decoded, picture).max() == 0


def test_several_frames_come_in_order_and_one_alone_by_its_number(picture, tmp_path):
    stack = np.stack([picture, picture[::-1], 255 - picture])
    dataset = image(stack)
    dataset.compress(RLELossless)
    for path in (
        write(dataset, tmp_path / "rle.dcm"),
        write(image(stack), tmp_path / "native.dcm"),
        by_gdcm(tmp_path / "native.dcm", tmp_path / "sv1.dcm", SYNTAX.JPEGLosslessProcess14_1),
        by_gdcm(tmp_path / "native.dcm", tmp_path / "jls.dcm", SYNTAX.JPEGLSLossless),
        by_gdcm(tmp_path / "native.dcm", tmp_path / "j2k.dcm", SYNTAX.JPEG2000Lossless),
    ):
        read = read_dicom(path)
        decoded = list(frames(read, "x"))
        assert [frame.number for frame in decoded] == [1, 2, 3]
        for frame, expected in zip(decoded, stack, strict=True):
            assert difference(frame.pixels, expected).max() == 0
        (second,) = frames(read, "x", only=2)
        assert second.number == 2
        assert difference(second.pixels, stack[1]).max() == 0
        with pytest.raises(UnreadableError, match="no frame 4"):
            list(frames(read, "x", only=4))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("label", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_is_what_pillow_decodes_even_where_the_label_is_wrong(polyp, tmp_path, subsampling, label):
    stream = by_pillow(polyp, "JPEG", quality=92, subsampling=subsampling)
    dataset = encapsulated(polyp, JPEGBaseline8Bit, [stream], PhotometricInterpretation=label)
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    assert difference(decoded, as_pillow_decodes(stream)).max() <= 2
    assert difference(decoded, polyp).mean() < 4


def test_jpeg_whose_components_are_rgb_keeps_its_colours(polyp, tmp_path):
    stream = by_pillow(polyp, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    dataset = encapsulated(polyp, JPEGBaseline8Bit, [stream], PhotometricInterpretation="RGB")
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    assert difference(decoded, polyp).mean() < 2


def test_extended_jpeg_of_8_bits_and_grey_jpeg(polyp, tmp_path):
    stream = by_pillow(polyp, "JPEG", quality=92)
    dataset = encapsulated(polyp, JPEGExtended12Bit, [stream], PhotometricInterpretation="YBR_FULL_422")
    assert difference(decode(write(dataset, tmp_path / "a.dcm"))[0], as_pillow_decodes(stream)).max() <= 2
    stream = by_pillow(polyp[..., 1].copy(), "JPEG", quality=92)
    dataset = encapsulated(polyp[..., 1].copy(), JPEGBaseline8Bit, [stream])
    assert difference(decode(write(dataset, tmp_path / "b.dcm"))[0], as_pillow_decodes(stream)).max() == 0


@pytest.mark.parametrize("label", ["YBR_ICT", "RGB"])
def test_lossy_jpeg_2000_is_close(polyp, tmp_path, label):
    stream = by_pillow(
        polyp, "JPEG2000", irreversible=True, mct=int(label == "YBR_ICT"), no_jp2=True, quality_layers=[8]
    )
    dataset = encapsulated(polyp, JPEG2000, [stream], PhotometricInterpretation=label)
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    assert difference(decoded, as_pillow_decodes(stream)).max() <= 1
    assert difference(decoded, polyp).mean() < 3


def test_near_lossless_jpeg_ls_keeps_its_promise(polyp, tmp_path):
    dataset = image(polyp)
    dataset.compress(JPEGLSNearLossless, jls_error=3)
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    assert 0 < difference(decoded, polyp).max() <= 3


def test_ybr_full_uncompressed(polyp, tmp_path):
    converted = convert_color_space(polyp, "RGB", "YBR_FULL")
    (decoded,) = decode(write(image(converted, PhotometricInterpretation="YBR_FULL"), tmp_path / "a.dcm"))
    assert difference(decoded, polyp).max() <= 2


def test_ybr_full_422_uncompressed(picture, tmp_path):
    luma, blue, red = np.moveaxis(np.array(Image.fromarray(picture).convert("YCbCr")), 2, 0)
    # Two luma samples, then one of each chroma, for every two pixels of a row (PS3.3 C.7.6.3.1.2).
    packed = np.stack([luma[:, ::2], luma[:, 1::2], blue[:, ::2], red[:, ::2]], axis=2)
    dataset = image(picture, PhotometricInterpretation="YBR_FULL_422", PixelData=packed.tobytes())
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    chroma = np.stack([np.repeat(plane[:, ::2], 2, axis=1) for plane in (blue, red)])
    expected = np.array(Image.fromarray(np.stack([luma, *chroma], axis=2), "YCbCr").convert("RGB"))
    assert difference(decoded, expected).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour(tmp_path, bits):
    generator = np.random.default_rng(4)
    indices = generator.integers(0, 256, (13, 17), dtype=np.uint8)
    palette = generator.integers(0, 2**bits, (256, 3)).astype(f"<u{bits // 8}")
    dataset = image(indices, sop_class=None, PhotometricInterpretation="PALETTE COLOR")
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(dataset, f"{name}PaletteColorLookupTableData", palette[:, channel].tobytes())
    (decoded,) = decode(write(dataset, tmp_path / "a.dcm"))
    expected = (palette >> (bits - 8)).astype(np.uint8)[indices]
    assert difference(decoded, expected).max() == 0


def grey(values: NDArray, tmp_path: Path, **attributes: object) -> NDArray[np.float64]:
    """The one channel of a grey image as it is decoded."""
    (decoded,) = decode(write(image(values, **attributes), tmp_path / "a.dcm"))
    assert (decoded == decoded[..., :1]).all()
    return decoded[..., 0].astype(float)


def test_monochrome_of_8_bits_is_exact_and_monochrome1_its_negative(polyp, tmp_path):
    values = polyp[..., 1].copy()
    assert (grey(values, tmp_path) == values).all()
    assert (grey(values, tmp_path, PhotometricInterpretation="MONOCHROME1") == 255 - values).all()


def test_monochrome_of_16_and_12_bits_spans_its_stored_range(tmp_path):
    values = np.random.default_rng(5).integers(0, 4096, (20, 30), dtype=np.uint16)
    np.testing.assert_allclose(grey(values, tmp_path), values / 65535 * 255, atol=0.51)
    stored = grey(values, tmp_path, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(stored, values / 4095 * 255, atol=0.51)


def test_signed_monochrome_spans_its_stored_range(tmp_path):
    values = np.random.default_rng(6).integers(-2048, 2048, (20, 30)).astype(np.int16)
    decoded = grey(values.view(np.uint16), tmp_path, PixelRepresentation=1, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(decoded, (values + 2048.0) / 4095 * 255, atol=0.51)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1000)])
def test_a_window_is_applied_after_the_rescale(tmp_path, photometric, slope, intercept):
    values = np.random.default_rng(7).integers(0, 4096, (20, 30), dtype=np.uint16)
    centre, width = 1500.0, 1200.0
    decoded = grey(
        values,
        tmp_path,
        PhotometricInterpretation=photometric,
        BitsStored=12,
        HighBit=11,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=centre,
        WindowWidth=width,
    )
    # PS3.3 C.11.2.1.2.1
    scaled = (values * float(slope) + intercept - (centre - 0.5)) / (width - 1) + 0.5
    expected = 255 * np.clip(scaled, 0, 1)
    np.testing.assert_allclose(decoded, expected if photometric == "MONOCHROME2" else 255 - expected, atol=0.51)


def test_a_voi_lookup_table_is_applied(tmp_path):
    values = np.random.default_rng(8).integers(0, 256, (20, 30), dtype=np.uint8)
    table = np.arange(255, -1, -1, dtype=np.uint16) * 16
    item = Dataset()
    item.LUTDescriptor = [256, 0, 12]
    item.add_new("LUTData", "OW", table.tobytes())
    decoded = grey(values, tmp_path, VOILUTSequence=[item], WindowCenter=10, WindowWidth=20)
    np.testing.assert_allclose(decoded, table[values] / 4095 * 255, atol=0.51)


def test_16_bit_colour_keeps_its_upper_bits(tmp_path):
    values = np.random.default_rng(9).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    (decoded,) = decode(write(image(values), tmp_path / "a.dcm"))
    assert difference(decoded, (values >> 8).astype(np.uint8)).max() == 0


@pytest.mark.skipif(not shutil.which("dcmj2pnm"), reason="dcmtk is not installed")
@pytest.mark.parametrize(
    ("kind", "tolerance"), [("rgb", 0), ("big", 0), ("sv1", 0), ("rle", 0), ("jpeg", 3), ("grey", 1), ("palette", 0)]
)
def test_dcmtk_sees_the_same(picture, tmp_path, kind, tolerance):
    path = tmp_path / f"{kind}.dcm"
    native = write(image(picture), tmp_path / "native.dcm")
    if kind == "rgb":
        path = native
    elif kind in ("big", "sv1"):
        by_gdcm(native, path, SYNTAX.ExplicitVRBigEndian if kind == "big" else SYNTAX.JPEGLosslessProcess14_1)
    elif kind == "rle":
        dataset = image(picture)
        dataset.compress(RLELossless)
        write(dataset, path)
    elif kind == "jpeg":
        stream = by_pillow(picture, "JPEG", quality=92, subsampling=0)
        write(encapsulated(picture, JPEGBaseline8Bit, [stream], PhotometricInterpretation="YBR_FULL_422"), path)
    elif kind == "grey":
        values = picture[..., 0].astype(np.uint16) * 16
        write(image(values, BitsStored=12, HighBit=11, WindowCenter=1800, WindowWidth=2000), path)
    else:
        dataset = image(picture[..., 0].copy(), PhotometricInterpretation="PALETTE COLOR")
        table = np.random.default_rng(3).integers(0, 256, (3, 256), dtype=np.uint16) * 257
        for row, name in zip(table, ("Red", "Green", "Blue"), strict=True):
            setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{name}PaletteColorLookupTableData", row.tobytes())
        write(dataset, path)
    options = ["+Wi", "1"] if kind == "grey" else []
    subprocess.run(["dcmj2pnm", "+on", *options, path, tmp_path / "seen.png"], check=True, capture_output=True)
    seen = np.array(Image.open(tmp_path / "seen.png").convert("RGB"))
    assert difference(decode(path)[0], seen).max() <= tolerance


def test_what_is_decoded_is_what_the_file_says_it_holds(picture, tmp_path):
    """The files of these tests are themselves in the transfer syntax that they are meant to be in."""
    native = write(image(picture), tmp_path / "a.dcm")
    for number, syntax in enumerate(LOSSLESS.values()):
        path = by_gdcm(native, tmp_path / f"{number}.dcm", syntax)
        expected = SYNTAX.GetTSString(syntax)
        assert str(dcmread(path).file_meta.TransferSyntaxUID) == expected
