"""Windows, and what the dispatch and Pillow's formats do; pages, bits, alpha, damage."""

import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
from decoding import read_one, unreadable
from PIL import Image

from cache import RequestError
from extract.datasets.files.decode import IMAGE_SUFFIXES, inspect, read_image
from extract.datasets.files.formats.mat import read_mat_scalar, read_mat_text
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.windows import Window, to_levels
from extract.datasets.volumes import Slicing

GREY = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


# ----------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-1024,600", "-1024,600"),
        ("ct", "-1024,600"),
        ("lung", "-1350,150"),
        ("soft-tissue", "-150,250"),
        ("bone", "-500,1300"),
        ("brain", "0,80"),
        (" 0.1 , 1e3 ", "0.1,1000"),
        ("percentile", "percentile:5,95"),
        ("percentile:0.5,99.5", "percentile:0.5,99.5"),
        ("min-max", "min-max"),
        ("header", "header"),
        ("full", "full"),
    ],
)
def test_window_words(text, words):
    window = Window.parse(text)
    assert str(window) == words
    assert Window.parse(words) == window


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("liver", "--window takes LO,HI, ct, lung, .*'liver'"),
        ("1,2,3", "takes LO,HI"),
        ("1,nan", "takes LO,HI"),
        ("", "takes LO,HI"),
        ("ct:5", "takes LO,HI"),
        ("600,-1024", "the lower one"),
        ("5,5", "the lower one"),
        ("percentile:", "takes LO,HI"),
        ("percentile:95,5", "two numbers of 0..100"),
        ("percentile:5,101", "two numbers of 0..100"),
    ],
)
def test_window_refuses(text, reason):
    with pytest.raises(RequestError, match=reason):
        Window.parse(text)


BIG = 2**30  # its neighbours are one and the same in float32


@pytest.mark.parametrize(
    ("values", "low", "high", "expected"),
    [
        (np.int16([-2000, -1024, -212, 600, 3000]), -1024, 600, [0, 0, 127.5, 255, 255]),
        (np.int32([BIG, BIG + 1, BIG + 2]), BIG, BIG + 2, [0, 127.5, 255]),
        (np.float32([np.nan, -np.inf, 0, np.inf]), -1, 1, [0, 0, 127.5, 255]),
        (np.float32([np.nan, -np.inf, 0, np.inf]), 3, 3, [0, 0, 0, 0]),
    ],
)
def test_levels_by_hand(values, low, high, expected):
    np.testing.assert_allclose(to_levels(values, low, high), expected)


def test_percentiles_are_numpys_over_all_pages(tmp_path):
    pages = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    low, high = np.percentile(pages, [5, 95])
    expected = (np.clip(pages, low, high) - low) / (high - low) * 255
    window = Window.parse("percentile")
    np.testing.assert_allclose(
        read_image(tmp_path / "a.tif", window, None), expected, rtol=1e-5, atol=1e-4
    )
    # A part of the file has the levels that it has in the whole.
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif", window, None, 1, 2),
        read_image(tmp_path / "a.tif", window, None)[1:2],
    )


# ------------------------------------------------------------------------------ 8 bit and less


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif", ".webp"])
def test_eight_bit_stays_as_it_is(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", GREY, **options)
    levels = read_one(path)
    grey = levels[..., 0] if suffix == ".webp" else levels  # which knows colour only
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(grey, GREY)


def test_jpeg_is_pillows(tmp_path):
    path = save(tmp_path / "a.jpg", COLOUR)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_one(path), np.asarray(image))
    facts = inspect(path, None, None)
    assert (facts.height, facts.width, facts.n_channels, facts.n_frames) == (6, 9, 3, 1)
    assert (facts.kind, facts.patient, facts.notes) == ("uint8", "", ())


def test_contents_decide_not_the_suffix(tmp_path):
    save(tmp_path / "a.png", COLOUR, format="JPEG")
    save(tmp_path / "IM0001", GREY, format="PNG")
    assert inspect(tmp_path / "a.png", None, None).n_channels == 3
    np.testing.assert_array_equal(read_one(tmp_path / "IM0001"), GREY)


def test_palettes_are_looked_up(tmp_path):
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "colour.png")
    np.testing.assert_array_equal(
        read_one(tmp_path / "colour.png"), np.asarray(image.convert("RGB"))
    )
    grey = Image.fromarray(GREY).convert("P")
    grey.putpalette(np.repeat(np.arange(256)[::-1], 3).tolist())  # backwards: indices aren't levels
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_one(tmp_path / "grey.png"), 255 - GREY)


def test_bilevel_is_black_and_white_and_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(GREY > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_one(tmp_path / "a.png"), np.where(GREY > 99, 255, 0))
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_one(tmp_path / "a.tif"), COLOUR)


def test_transparency_is_laid_on_black(tmp_path):
    alpha = np.full_like(GREY, 255)
    opaque = save(tmp_path / "opaque.png", np.dstack([COLOUR, alpha]))
    np.testing.assert_array_equal(read_one(opaque), COLOUR)
    assert inspect(opaque, None, None).notes == ()
    alpha[0], alpha[1] = 0, 51
    for plain in (COLOUR, GREY[..., None]):
        path = save(tmp_path / "a.png", np.concatenate([plain, alpha[..., None]], axis=-1))
        expected = np.rint(plain * (alpha[..., None] / 255))
        np.testing.assert_array_equal(read_one(path), expected.squeeze())
        assert inspect(path, None, None).notes == ("transparency",)


def test_one_transparent_colour(tmp_path):
    image = GREY.copy()
    image[0] = 77
    path = save(tmp_path / "a.png", image, transparency=77)
    np.testing.assert_array_equal(read_one(path), np.where(image == 77, 0, image))
    assert inspect(path, None, None).notes == ("transparency",)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = save(tmp_path / f"flat{suffix}", GREY)
    path = save(tmp_path / f"a{suffix}", GREY, exif=exif)
    turn = [  # EXIF 2.32, 4.6.4: what the stored rows and columns are, seen upright
        lambda x: x,
        np.fliplr,
        lambda x: np.rot90(x, 2),
        np.flipud,
        np.transpose,
        lambda x: np.rot90(x, -1),
        lambda x: np.rot90(x, 2).T,
        np.rot90,
    ][orientation - 1]
    np.testing.assert_array_equal(read_one(path), turn(read_one(flat)))
    assert inspect(path, None, None).notes == (("exif-orientation",) if orientation > 1 else ())


# ---------------------------------------------------------------------------- more than 8 bit


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png(path, values, extra=b"", interlace=0):
    """A PNG of 16 bit by hand, each row with another of the format's five filters."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    pixel = 2 * channels
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    lines = []
    for y, row in enumerate(rows):
        up = rows[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(pixel, int), line[:-pixel]]) for line in (row, up))
        guess = left + up - corner
        distances = [abs(guess - left), abs(guess - up), abs(guess - corner)]
        paeth = np.choose(np.argmin(distances, axis=0), [left, up, corner])
        kind = y % 5
        predicted = [0, left, up, (left + up) // 2, paeth][kind]
        lines.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlace)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(b"".join(lines)))
        + png_chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bit_keeps_them(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65536, (11, 7, channels), dtype=np.uint16)
    path = write_png(tmp_path / "a.png", values)
    expected = values.astype(float)
    if channels in (2, 4):
        expected = np.rint(expected[..., :-1] * expected[..., -1:] / 65535)
    np.testing.assert_allclose(
        read_one(path), expected.squeeze(-1 if channels < 3 else ()) / 257, rtol=1e-6
    )
    facts = inspect(path, None, None)
    assert (facts.kind, facts.high) == ("uint16", expected.max())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_level_of_few_bits(tmp_path, bits):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) & (2**bits - 1)
    planes = np.unpackbits(levels[..., None], axis=-1)[..., -bits:].reshape(8, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(planes, axis=-1))
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0))
        + png_chunk(b"tRNS", struct.pack(">H", 1))
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    grey = levels * np.uint8(255 // (2**bits - 1))
    np.testing.assert_array_equal(read_one(path), np.where(levels == 1, 0, grey))
    facts = inspect(path, None, None)
    assert facts.notes[0] == "transparency"
    assert facts.decoder == (2 if bits in (2, 4) else 1)  # only those were read wrongly before


def test_transparent_colour_of_16_bit(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    colour = values[2, 3].astype(">u2").tobytes()
    chunk = (
        struct.pack(">I", 6) + b"tRNS" + colour + struct.pack(">I", zlib.crc32(b"tRNS" + colour))
    )
    path = write_png(tmp_path / "a.png", values, extra=chunk)
    values[2, 3] = 0
    np.testing.assert_allclose(read_one(path), values / 257, rtol=1e-6)
    assert inspect(path, None, None).notes == ("transparency",)


def test_narrow_range_is_noted(tmp_path):
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 15)  # 12 bit in 16
    assert inspect(path, None, None).notes == ("narrow-range",)
    assert inspect(path, Window.parse("0,4095"), None).notes == ()
    constant = save(tmp_path / "b.png", np.full((3, 3), 7, np.uint8))
    assert inspect(constant, None, None).notes == ("constant",)


# ------------------------------------------------------------------------------ several frames


def test_pages_are_frames(tmp_path):
    pages = np.stack([GREY, 255 - GREY, GREY // 2])
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert inspect(tmp_path / "a.tif", None, None).n_frames == 3
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", None, None, 1, 3), pages[1:])
    slicing = Slicing(1, neighbours=True)
    facts = inspect(tmp_path / "a.tif", None, slicing)
    assert (facts.n_frames, facts.height, facts.width, facts.n_channels) == (6, 3, 9, 3)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif", None, slicing, 2, 4), slicing.take(pages, 2, 4)
    )


def test_pages_that_differ(tmp_path):
    others = [Image.fromarray(GREY[:4])]
    Image.fromarray(GREY).save(tmp_path / "a.tif", save_all=True, append_images=others)
    unreadable(tmp_path / "a.tif", "2 pages differ")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_are_refused(tmp_path, suffix):
    others = [Image.fromarray(255 - GREY)]
    Image.fromarray(GREY).save(tmp_path / f"a{suffix}", save_all=True, append_images=others)
    unreadable(tmp_path / f"a{suffix}", "an animation of 2 frames")


def test_a_cameras_second_picture_is_left_alone(tmp_path):
    others = [Image.fromarray(COLOUR[:2])]
    Image.fromarray(COLOUR).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=others
    )
    assert inspect(tmp_path / "a.jpg", None, None).height == 6


def test_slicing_is_for_volumes(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    assert inspect(path, None, Slicing()).n_frames == 1
    for slicing in (Slicing(1), Slicing(0, neighbours=True)):
        with pytest.raises(UnreadableImage, match="one image, and --slice-axis"):
            read_image(path, None, slicing)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnreadableImage):
        inspect(path, None, None)


def test_not_an_image(tmp_path):
    for text in (
        "patient,label\n",
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # PostScript is never run
    ):
        (tmp_path / "a.png").write_text(text)
        unreadable(tmp_path / "a.png", "^not an image")
    unreadable(tmp_path / "b.png", "^No such file or directory$")
    (tmp_path / "c.png").mkdir()
    unreadable(tmp_path / "c.png", "directory")
    assert {".png", ".tiff", ".dcm", ".nii", ".nii.gz", ".mat"} <= set(IMAGE_SUFFIXES)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bombs(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    unreadable(tmp_path / "a.png", "pixels")


def test_the_machines_trouble_is_not_the_files(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY)
    for error, reason in [
        (MemoryError(), "not enough memory"),
        (OSError(24, "too many"), "too many"),
    ]:

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(OSError, match=reason):
            inspect(path, None, None)


def test_windows_are_for_grey_images(tmp_path):
    path = save(tmp_path / "a.png", COLOUR)
    np.testing.assert_array_equal(read_one(path, "full"), COLOUR)
    unreadable(path, "--window -1350,150 is for grey images", "lung")


def test_windows_that_the_file_lacks(tmp_path):
    unreadable(save(tmp_path / "a.png", GREY), "no window in its header", "header")
    path = save(tmp_path / "a.tif", GREY.astype(np.float32))
    unreadable(path, "float32 has no full range", "full")
    path = save(tmp_path / "b.tif", np.full((3, 3), np.nan, np.float32))
    unreadable(path, "no value in it is finite", "min-max")


def test_workers_import_no_torch():
    code = "import sys, extract.datasets.files.decode; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------- .mat


def write_mat(path, **arrays):
    """Variables as MATLAB 7.3 stores them: axes in reverse; "/" in a name as "__"."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            dataset = file.create_dataset(name.replace("__", "/"), data=np.asarray(values).T)
            kind = "char" if dataset.dtype == np.uint16 else dataset.dtype.name
            dataset.attrs["MATLAB_class"] = np.bytes_(kind.replace("float64", "double"))
    return path


def test_the_brain_tumor_sets_files(tmp_path):
    image = np.arange(12, dtype=np.int16).reshape(3, 4) * 100
    path = write_mat(
        tmp_path / "1.mat",
        cjdata__image=image,
        cjdata__tumorMask=np.ones((3, 4), np.uint8),
        cjdata__label=[[2.0]],
        cjdata__PID=np.array([[ord(c) for c in "MR0402é"]], np.uint16),
    )
    np.testing.assert_allclose(read_one(path, "0,1100"), image * (255 / 1100), rtol=1e-6)
    assert inspect(path, Window.parse("percentile"), None).kind == "int16"
    assert read_mat_scalar(path, "cjdata/label") == 2
    assert read_mat_text(path, "cjdata/PID") == "MR0402é"
    with pytest.raises(UnreadableImage, match="no array cjdata/age"):
        read_mat_scalar(path, "cjdata/age")
    with pytest.raises(UnreadableImage, match="should be one number, found 4x3 int16"):
        read_mat_scalar(path, "cjdata/image")
    with pytest.raises(RequestError, match="1.mat: its int16 values"):
        inspect(path, None, None)


def test_mat_volumes_are_slices(tmp_path):
    volume = np.random.default_rng(0).normal(size=(3, 4, 5))  # rows, columns, slices
    path = write_mat(tmp_path / "a.mat", volume=volume, spacing=[[1.0, 1.0, 3.0]])
    levels = read_image(path, Window.parse("-5,5"), None)
    np.testing.assert_allclose(levels, (np.moveaxis(volume, 2, 0) + 5) * 25.5, rtol=1e-5)
    assert inspect(path, Window.parse("-5,5"), Slicing(2)).n_frames == 4


def test_mat_in_colour_and_with_other_than_one_array(tmp_path):
    path = write_mat(tmp_path / "a.mat", picture=COLOUR)
    np.testing.assert_array_equal(read_one(path), COLOUR)
    path = write_mat(tmp_path / "a.mat", one=GREY, two=GREY)
    unreadable(path, "expected one array .* found one, two")
    unreadable(write_mat(tmp_path / "b.mat", age=[[40.0]]), "found none")
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(600))
    unreadable(path, "not HDF5.*-v7.3")


def test_mat_links_are_never_followed(tmp_path):
    write_mat(tmp_path / "other.mat", image=GREY)
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["cjdata/image"] = h5py.ExternalLink("other.mat", "image")
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file.create_dataset("image", (6, 9), "u1", external=[("other.bin", 0, 54)])
    with h5py.File(tmp_path / "c.mat", "w") as file:
        layout = h5py.VirtualLayout((9, 6), "u1")
        layout[:] = h5py.VirtualSource(tmp_path / "other.mat", "image", (9, 6))
        file.create_virtual_dataset("image", layout)
    unreadable(tmp_path / "a.mat", "found none")
    for name in ("b.mat", "c.mat"):
        unreadable(tmp_path / name, "image lies in another file")
