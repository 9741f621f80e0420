"""Damaged files that decoders make a picture of; whole ones, however odd, are never refused."""

import contextlib
import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.formats.damage import (
    check_deflate,
    check_fax,
    check_jpeg,
    heeding_complaints,
)
from extract.datasets.files.formats.stored import UnreadableImage

Y, X = np.mgrid[:240, :328]
GREY = (128 + 60 * np.sin(X / 9) + 50 * np.cos(Y / 13)).clip(0, 255).astype(np.uint8)
COLOUR = np.dstack([GREY, 255 - GREY, GREY[::-1]])
HALF_BLACK = np.where(Y < 110, GREY, 0).astype(np.uint8)  # as a radiograph may be
MID_GREY = np.full_like(GREY, 128)  # what libjpeg puts in the place of missing blocks
NOISE = np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8)
END = b"\xff\xd9"


def encode(image, mode=None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


JPEGS = {
    "grey": encode(GREY, quality=90),
    "4:4:4": encode(COLOUR, quality=95, subsampling=0),
    "4:2:2": encode(COLOUR, quality=95, subsampling=1),
    "4:2:0": encode(COLOUR, quality=75),
    "cmyk": encode(COLOUR, "CMYK"),
    "progressive": encode(COLOUR, progressive=True),
    "restarts": encode(GREY, restart_marker_blocks=7),
    "noise": encode(NOISE, quality=100),
    "coarse": encode(COLOUR, quality=2),
    "half black": encode(HALF_BLACK),
    "half black, tables of its own": encode(HALF_BLACK, optimize=True),
    "half black, progressive": encode(HALF_BLACK, progressive=True),
}
UNIFORM = {
    "mid-grey": encode(MID_GREY),
    "mid-grey, tables of its own": encode(MID_GREY, optimize=True),
    "black": encode(0 * GREY, optimize=True),
    "white in colour": encode(255 + 0 * COLOUR),
    "tiny": encode(GREY[:1, :1]),
}
every_jpeg = pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)


def insert(data: bytes, at: int, what: bytes) -> bytes:
    return data[:at] + what + data[at:]


@pytest.mark.parametrize("data", [*JPEGS.values(), *UNIFORM.values()], ids=[*JPEGS, *UNIFORM])
def test_whole_jpegs_are_read(data):
    check_jpeg(data)
    check_jpeg(data[:-2] + b"\xff\xff" + END)  # fill, T.81, B.1.1.2
    check_jpeg(data + b"what stands behind")
    if data[-9:-2] != bytes(7):
        check_jpeg(data[:-2] + bytes(50) + END)  # some encoders pad
    check_jpeg(data[:-2])  # Pillow's own affair
    check_jpeg(insert(data, 20, b"junk"))  # between two tables
    check_jpeg(insert(data, 2, b"\xff\xe1\x00\x06\xff\xd9\xff\xda"))  # markers inside of metadata
    check_jpeg(insert(data, 2, b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x09"))  # a warning


@every_jpeg
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_jpeg_that_was_cut_and_closed_is_refused(data, share):
    with pytest.raises(UnreadableImage, match="^Corrupt JPEG data: "):
        check_jpeg(data[: int(share * len(data))] + END)


@every_jpeg
def test_a_jpeg_with_zeros_inside_is_refused(data):
    middle = int(0.4 * len(data))  # of what isn't black
    for n in (200, len(data) - middle - 2):
        with pytest.raises(UnreadableImage, match="^Corrupt JPEG data: "):
            check_jpeg(data[:middle] + bytes(n) + data[middle + n :])


def test_a_progressive_jpeg_that_lacks_scans_is_refused():
    data = JPEGS["progressive"]
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    for scan in scans[2:]:
        tables = data.rindex(b"\xff\xc4", 0, scan)
        with pytest.raises(UnreadableImage, match="ends before its last scan|premature"):
            check_jpeg(data[: tables if tables > scans[1] else scan] + END)


def test_nothing_but_a_refusal_comes_of_any_bytes():
    rng = np.random.default_rng(0)
    refused = 0
    for data in [*JPEGS.values()] * 5:
        damaged = bytearray(data)
        for place in rng.integers(0, 700, 4):  # tables and headers
            damaged[place % len(data)] = rng.integers(256)
        try:
            check_jpeg(bytes(damaged))
        except UnreadableImage:
            refused += 1
    assert refused > 10


def test_what_is_no_jpeg_that_can_be_judged_passes():
    for data in (b"", b"\xff", b"\xff\xd8" + END, b"no picture", bytes(100)):
        check_jpeg(data)
    lossless = JPEGS["grey"].replace(b"\xff\xc0", b"\xff\xc3")
    check_jpeg(lossless[:1000] + END)


def test_files_are_checked_once(tmp_path):
    data = JPEGS["4:2:0"]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path, None, None)
    path.write_bytes(data[: len(data) // 2] + END)
    for read in (inspect, read_image):
        with pytest.raises(UnreadableImage, match="premature end"):
            read(path, None, None)
    half = read_image(path, None, None, checked=True)  # as after a check of the same bytes
    assert half.shape == whole.shape
    assert (half != whole).any()


# ----------------------------------------------------------------------------------- TIFF


def save_tiff(path, image, compression, **options):
    """A TIFF, where its first strip begins, and its length."""
    Image.fromarray(image).save(path, compression=compression, **options)
    with Image.open(path) as file:
        return file.tag_v2[273][0], file.tag_v2[279][0]


@pytest.mark.parametrize(
    ("compression", "image"),
    [
        ("jpeg", GREY),
        ("jpeg", COLOUR),
        ("tiff_adobe_deflate", GREY),
        ("group4", GREY > 128),
        ("tiff_ccitt", GREY > 128),
    ],
)
@pytest.mark.parametrize("n_pages", [1, 2])
def test_tiffs_with_zeros_inside_are_refused(tmp_path, compression, image, n_pages):
    path = tmp_path / "a.tif"
    more = [Image.fromarray(image)] * (n_pages - 1)
    start, size = save_tiff(
        path, image, compression, save_all=n_pages > 1, append_images=more, strip_size=10**6
    )
    read_image(path, None, None)
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size // 2 + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="(?i)corrupt|Fax"):
        read_image(path, None, None)


def test_a_deflated_strip_may_be_longer_but_is_no_bomb():
    check_deflate(zlib.compress(bytes(300_000)), 100_000)
    with pytest.raises(UnreadableImage, match="far more than its image has"):
        check_deflate(zlib.compress(bytes(1_000_000)), 100_000)
    check_deflate(zlib.compress(bytes(1000))[:-5], 1000)  # libtiff says where rows are missing


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes_with_wrong_codes_are_refused(tmp_path, compression, capfd):
    path = tmp_path / "a.tif"
    start, size = save_tiff(path, GREY > 128, compression)
    read_image(path, None, None)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    data[start + size // 4 : start + size // 2] = rng.bytes(size // 2 - size // 4)
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="^Fax.* at line "):
        read_image(path, None, None)
    assert capfd.readouterr().err == ""


def test_zeros_at_a_faxs_end_are_padding():
    check_fax(b"\x12\x00\x00\x34" + bytes(9))
    with pytest.raises(UnreadableImage, match="zeros in the place of codes"):
        check_fax(b"\x12\x00\x00\x00\x34")


def test_what_others_say_is_passed_on(capfd):
    with pytest.raises(UnreadableImage, match="^Corrupt JPEG data: bad Huffman code$"):
        with heeding_complaints():
            os.write(
                2,
                b"epoch 3\nCorrupt JPEG data: bad Huffman code\nFax4Decode: Bad code word at line 1\n",
            )
    assert capfd.readouterr().err == "epoch 3\n"
    with heeding_complaints():
        os.write(2, b"half a line")
    assert capfd.readouterr().err == "half a line"
    with contextlib.suppress(ZeroDivisionError), heeding_complaints():
        os.write(2, b"before\n")
        raise ZeroDivisionError
    os.write(2, b"behind\n")
    assert capfd.readouterr().err == "before\nbehind\n"
