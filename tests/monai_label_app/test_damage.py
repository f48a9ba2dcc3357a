"""Damaged and hostile inputs end in one sentence: never in a grey picture, a crash or a hang."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEGBaseline8Bit,
)

from monai_label_app.files import read_dicom
from monai_label_app.frames import UnreadableError, frames, in_one_line
from monai_label_app.pictures import read_picture
from monai_label_app.reading import read_studies
from tests.dicom_files import CT, ENCAPSULATED, NATIVE, by_pillow, encapsulated, image, of_every_syntax, write
from tests.fuzz.damage import examples

# pydicom warns of what it reads on from; the refusal is what counts here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def read(path: Path) -> list[NDArray[np.uint8]]:
    return [frame.pixels for frame in frames(read_dicom(path), str(path))]


def refusal(action: Callable[[], object]) -> str:
    """The message with which something is refused: one sentence."""
    with pytest.raises(UnreadableError) as caught:
        action()
    message = str(caught.value)
    assert message == message.strip()
    assert "\n" not in message
    assert not message.endswith((".", ":"))
    return message


@pytest.fixture(scope="module")
def files(polyp: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One whole file of every kind, each of the same real frame."""
    return of_every_syntax(np.ascontiguousarray(polyp[:64, :64]), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("kind", [*NATIVE, *ENCAPSULATED])
@pytest.mark.parametrize("kept", [0.35, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_refused(files, tmp_path, kind, kept):
    whole = files[kind].read_bytes()
    assert len(read(files[kind])) == 1
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: int(kept * len(whole))])
    assert str(path) in refusal(lambda: read(path))


@pytest.mark.parametrize("kind", ENCAPSULATED)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.95])
def test_a_frame_that_is_cut_off_inside_a_whole_file_is_refused(files, tmp_path, kind, kept):
    dataset = dcmread(files[kind])
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: int(kept * len(frame))]])
    path = write(dataset, tmp_path / "cut.dcm")
    assert str(path) in refusal(lambda: read(path))


@pytest.mark.parametrize("kind", ["explicit", *ENCAPSULATED])
def test_fewer_frames_than_announced_are_refused(files, tmp_path, kind):
    dataset = dcmread(files[kind])
    dataset.NumberOfFrames = 3
    path = write(dataset, tmp_path / "few.dcm")
    refusal(lambda: read(path))


def test_a_header_that_is_cut_off_is_refused_wherever_the_cut_is(files, tmp_path):
    whole = files["explicit"].read_bytes()
    start_of_pixels = whole.index(b"\xe0\x7f\x10\x00")
    for end in range(0, start_of_pixels, 7):
        path = tmp_path / "cut.dcm"
        path.write_bytes(whole[:end])
        refusal(lambda path=path: read(path))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": None}, "no pixels"),
        ({"PixelData": b""}, "no frames"),
        ({"NumberOfFrames": 0}, "no frames"),
        ({"NumberOfFrames": -1}, "no frames"),
        ({"Rows": 0}, "no frames"),
        ({"Rows": None}, "no frames"),
        ({"Rows": 50000, "Columns": 50000}, "50000 x 50000"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
        ({"PhotometricInterpretation": None}, "cannot be decoded"),
        ({"SamplesPerPixel": 2}, "cannot be decoded"),
        ({"BitsAllocated": None}, "cannot be decoded"),
        ({"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1}, "cannot be decoded"),
        ({"SOPInstanceUID": None}, "has no SOPInstanceUID"),
        ({"StudyInstanceUID": "../../outside"}, "StudyInstanceUID is no UID"),
        ({"StudyInstanceUID": ".."}, "StudyInstanceUID is no UID"),
        ({"SOPInstanceUID": "1." * 33 + "1"}, "SOPInstanceUID is no UID"),
    ],
)
def test_what_an_image_cannot_be_without_is_named(polyp, tmp_path, attributes, reason):
    path = tmp_path / "a.dcm"
    dataset = image(polyp, **attributes)
    dataset.preamble = b"\0" * 128
    dataset.save_as(path)
    assert reason in refusal(lambda: read(path))


@pytest.mark.parametrize(("keyword", "tag"), [("PatientName", b"\x10\0\x10\0PN"), ("PatientID", b"\x10\0\x20\0LO")])
def test_a_patient_that_is_a_number_is_refused(polyp, tmp_path, keyword, tag):
    path = write(image(polyp, PatientID=["4711", "B"]), tmp_path / "a.dcm")
    assert read_dicom(path, pixels=False).PatientID == ["4711", "B"]
    path.write_bytes(path.read_bytes().replace(tag, tag[:4] + b"US"))
    assert refusal(lambda: read_dicom(path, pixels=False)).endswith(f"its {keyword} is no text")


@pytest.mark.parametrize("keyword", ["NumberOfFrames", "SeriesNumber", "InstanceNumber"])
def test_a_number_that_is_none_is_refused(polyp, tmp_path, keyword):
    path = write(image(polyp, NumberOfFrames=77, SeriesNumber=77, InstanceNumber=77), tmp_path / "a.dcm")
    element = {"NumberOfFrames": b"\x28\0\x08\0", "SeriesNumber": b"\x20\0\x11\0", "InstanceNumber": b"\x20\0\x13\0"}
    path.write_bytes(path.read_bytes().replace(element[keyword] + b"IS\x02\x0077", element[keyword] + b"IS\x02\x00ab"))
    refusal(lambda: read(path))


def test_a_compressed_file_that_declares_a_giant_frame_is_refused_before_it_is_decoded(polyp, tmp_path):
    dataset = encapsulated(polyp, JPEGBaseline8Bit, [by_pillow(polyp, "JPEG")], Rows=50000, Columns=50000)
    path = write(dataset, tmp_path / "a.dcm")
    assert "50000 x 50000" in refusal(lambda: read(path))


@pytest.mark.parametrize("name", ["a.dcm", "a.jpg", "a.png", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0" * 2000])
def test_what_is_neither_dicom_nor_a_picture_is_named_and_left_out(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    studies, (problem,) = read_studies([path])
    assert not studies
    assert problem.origin == str(path)
    assert str(path) in problem.reason
    assert "\n" not in problem.reason


def test_a_ct_is_no_endoscopy_picture(polyp, tmp_path):
    write(image(polyp[..., 0].copy(), sop_class=CT, Modality="CT"), tmp_path / "ct.dcm")
    studies, (problem,) = read_studies([tmp_path])
    assert not studies
    assert "is a CT Image Storage, not an endoscopic image" in problem.reason


mutations = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", [*NATIVE, *ENCAPSULATED])
@given(changes=mutations, kept=st.one_of(st.just(1.0), st.floats(0, 1)))
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_no_damage_brings_the_reader_down(files, tmp_path, kind, changes, kept):
    content = bytearray(files[kind].read_bytes())
    for place, value in changes:
        # Half of the file's length would hit nothing but pixels; headers matter as much.
        content[int(place**2 * len(content))] = value
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[: int(kept * len(content))])
    try:
        for pixels in read(path):
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    except UnreadableError as error:
        assert "\n" not in str(error)


@given(
    damage=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), min_size=1, max_size=6),
)
@example(damage=[(17, 2)])  # Adobe's transform for four components
@settings(max_examples=examples(150), deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_no_damaged_header_of_a_lossless_jpeg_ends_the_process(files, damage):
    # A decoder of these streams that aborts would take pytest with it.
    dataset = dcmread(files["sv1"])
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    stream = bytearray(frame)
    for place, value in damage:
        stream[place] = value
    dataset.PixelData = encapsulate([bytes(stream)])
    try:
        list(frames(dataset, "it"))
    except UnreadableError as error:
        assert str(error).startswith("it has")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("got exception: no len()\nTraceback (most recent call last):\n  File x", "got exception: no len()"),
        ("cannot identify <_io.BytesIO object at 0x7f9d0ab2f830>", "cannot identify"),
        (
            "It received b'Doe^Jane' with length 8 and so on. To replace this error with a warning set a.b = True.",
            "It received a length of 8 and so on.",
        ),
        ("", "ValueError"),
    ],
)
def test_what_libraries_say_of_their_inside_is_left_out(said, kept):
    assert in_one_line(ValueError(said)) == kept


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header announces a giant picture, and whose few bytes hold none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(50_000, 50_000), (9000, 9000), (10**9, 1), (12_000, 10_000)])
def test_a_decompression_bomb_is_refused(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(huge_png(*size))
    with pytest.raises(ValueError, match=r"bomb\.png") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.95])
def test_a_picture_that_is_cut_off_is_refused(polyp, tmp_path, kind, kept):
    content = by_pillow(polyp, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"cut\.") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_a_real_jpeg_that_is_cut_off_is_refused(polyp_files, tmp_path):
    content = polyp_files[0].read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_picture(tmp_path / "cut.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@given(changes=mutations, kept=st.one_of(st.just(1.0), st.floats(0, 1)))
@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_no_damaged_picture_brings_the_reader_down(polyp, tmp_path, kind, changes, kept):
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(polyp[:40, :50]).save(stream, kind, exif=exif)
    content = bytearray(stream.getvalue())
    for place, value in changes:
        content[int(place**2 * len(content))] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: int(kept * len(content))])
    try:
        read_picture(path)
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
