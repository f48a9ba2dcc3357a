"""JPEG, PNG, TIFF and BMP pictures of every mode become the RGB that a person sees."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from monai_label_app.pictures import read_picture
from tests.dicom_files import by_pillow


def test_a_real_jpeg_is_read_as_pillow_shows_it_and_its_compression_is_known(polyp_files):
    for file in polyp_files:
        still = read_picture(file)
        with Image.open(file) as image:
            assert (still.pixels == np.array(image)).all()
            assert still.lossy_ratio == pytest.approx(3 * image.width * image.height / file.stat().st_size)


def test_a_png_is_exact_and_without_loss(polyp, tmp_path):
    (tmp_path / "a.png").write_bytes(by_pillow(polyp, "PNG"))
    still = read_picture(tmp_path / "a.png")
    assert (still.pixels == polyp).all()
    assert still.lossy_ratio is None


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_is_exact_and_without_loss_unless_it_holds_a_jpeg(polyp, tmp_path, compression):
    Image.fromarray(polyp).save(tmp_path / "a.tif", compression=compression)
    still = read_picture(tmp_path / "a.tif")
    assert (still.pixels == polyp).all()
    assert still.lossy_ratio is None
    Image.fromarray(polyp).save(tmp_path / "lossy.tif", compression="jpeg", quality=50)
    assert read_picture(tmp_path / "lossy.tif").lossy_ratio > 3


def test_a_tiff_of_several_pages_or_of_values_without_a_white_is_refused(polyp, tmp_path):
    page = Image.fromarray(polyp)
    page.save(tmp_path / "two.tiff", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"two\.tiff has 2 pages"):
        read_picture(tmp_path / "two.tiff")
    for dtype in (np.float32, np.int32):
        Image.fromarray(polyp[..., 0].astype(dtype)).save(tmp_path / "wide.tif")
        with pytest.raises(ValueError, match="values of 32 bits"):
            read_picture(tmp_path / "wide.tif")


def test_the_fingerprint_is_of_the_pixels_and_the_size_whatever_the_file(polyp, tmp_path):
    (tmp_path / "a.png").write_bytes(by_pillow(polyp, "PNG"))
    (tmp_path / "b.png").write_bytes(by_pillow(polyp, "PNG", compress_level=1))
    (tmp_path / "turned.png").write_bytes(by_pillow(polyp.reshape(203, 151, 3), "PNG"))
    first, second, turned = (read_picture(tmp_path / f"{name}.png").fingerprint for name in ("a", "b", "turned"))
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert first == second
    assert first != turned
    assert len(bytes.fromhex(first)) == hashlib.sha256().digest_size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_orientation_tag_says(tmp_path, orientation):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8] = 255  # top left
    upright[16:, :8] = (200, 0, 0)  # bottom left
    # How a camera would have stored it (EXIF 2.3, 4.6.4): stored = the inverse of what the tag asks to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(
        by_pillow(np.ascontiguousarray(stored), "JPEG", quality=100, subsampling=0, exif=exif)
    )
    pixels = read_picture(tmp_path / "a.jpg").pixels
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 4


def test_grey_of_8_and_16_bits_keeps_its_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    (tmp_path / "grey16.png").write_bytes(by_pillow(ramp, "PNG"))
    (tmp_path / "grey8.png").write_bytes(by_pillow((ramp >> 8).astype(np.uint8), "PNG"))
    for name in ("grey16", "grey8"):
        pixels = read_picture(tmp_path / f"{name}.png").pixels
        assert (pixels == (ramp >> 8)[..., None]).all(), name


def test_palette_bilevel_and_alpha_keep_their_colours(polyp, tmp_path):
    picture = Image.fromarray(polyp)
    palette = picture.quantize(64)
    palette.save(tmp_path / "palette.png")
    assert (read_picture(tmp_path / "palette.png").pixels == np.array(palette.convert("RGB"))).all()

    picture.convert("1").save(tmp_path / "bilevel.png")
    assert set(np.unique(read_picture(tmp_path / "bilevel.png").pixels)) == {0, 255}

    opaque = np.dstack([polyp, np.full(polyp.shape[:2], 255, np.uint8)])
    Image.fromarray(opaque, "RGBA").save(tmp_path / "alpha.png")
    assert (read_picture(tmp_path / "alpha.png").pixels == polyp).all()

    Image.fromarray(opaque[..., 2:], "LA").save(tmp_path / "grey_alpha.png")
    assert (read_picture(tmp_path / "grey_alpha.png").pixels == polyp[..., 2:]).all()


def test_a_bitmap_is_read_as_it_is(polyp, tmp_path):
    Image.fromarray(polyp).save(tmp_path / "frame.BMP", "BMP")
    still = read_picture(tmp_path / "frame.BMP")
    assert (still.pixels == polyp).all()
    assert still.lossy_ratio is None
    (tmp_path / "frame.BMP").write_bytes((tmp_path / "frame.BMP").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"frame\.BMP cannot be read"):
        read_picture(tmp_path / "frame.BMP")


def test_a_cmyk_jpeg_keeps_its_colours(polyp, tmp_path):
    Image.fromarray(polyp).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    pixels = read_picture(tmp_path / "cmyk.jpg").pixels
    assert np.abs(pixels.astype(int) - polyp).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_another_kind_of_picture_is_refused_whatever_its_suffix(polyp, tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(polyp).save(path, kind)
    with pytest.raises(ValueError, match="is not a JPEG, PNG, TIFF or BMP picture"):
        read_picture(path)


def test_a_missing_picture_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ValueError, match=f"{path} cannot be read"):
            read_picture(path)
