"""TIFF: numbers of every kind, stacks with one directory, channels in planes."""

import struct
import zlib

import numpy as np
import pytest
from decoding import read_one, unreadable
from PIL import Image

from cache import RequestError
from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.windows import Window

GREY = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
FORMATS = {"u": 1, "i": 2, "f": 3}  # values of SampleFormat


def write_tiff(
    path, values, *, order="<", photometric=1, planes=1, deflated=False, said="", behind=b"", **tags
):
    """A TIFF by hand: one strip a plane; what stands behind the strips; other tags as t338=1."""
    channels = values.shape[2] if values.ndim == 3 else 1
    stored = np.moveaxis(values, -1, 0) if planes == 2 else values[None]
    strips = [s.astype(s.dtype.newbyteorder(order)).tobytes() for s in stored]
    if deflated:
        strips = [zlib.compress(strip) for strip in strips]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    data = b"".join([*strips, behind])
    data += bytes(len(data) % 2)
    numbers = {
        256: (values.shape[1],),
        257: (values.shape[0],),
        258: (8 * values.dtype.itemsize,) * channels,
        259: (8 if deflated else 1,),
        262: (photometric,),
        273: tuple(starts[:-1]),
        277: (channels,),
        278: (values.shape[0],),
        279: tuple(map(len, strips)),
        284: (planes,),
        339: (FORMATS[values.dtype.kind],) * channels,
        **{int(name[1:]): (value,) for name, value in tags.items()},
    }
    packed = {tag: (4, len(n), struct.pack(f"{order}{len(n)}I", *n)) for tag, n in numbers.items()}
    if said:
        packed[270] = (2, len(said) + 1, said.encode().ljust(4) + b"\0")
    entries, tail = b"", b""
    after = 8 + len(data) + 2 + 12 * len(packed) + 4
    for tag, (kind, n, content) in sorted(packed.items()):
        place = content
        if len(content) > 4:
            place, tail = struct.pack(f"{order}I", after + len(tail)), tail + content
        entries += struct.pack(f"{order}HHI", tag, kind, n) + place
    magic = b"II" if order == "<" else b"MM"
    header = struct.pack(f"{order}2sHI", magic, 42, 8 + len(data))
    path.write_bytes(
        header + data + struct.pack(f"{order}H", len(packed)) + entries + bytes(4) + tail
    )
    return path


# ---------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_grey_of_any_type(tmp_path, kind, photometric, deflated, order):
    if (kind, photometric) == ("int8", 0):
        pytest.skip("Pillow reads no such file")
    dtype = np.dtype(kind)
    numbers = np.array([[-100, -1, 0], [1, 5, 90]])
    values = (numbers if dtype.kind in "if" else np.abs(numbers)).astype(dtype)
    if kind == "uint32":
        values[0, 0] = 2**31 + 7  # negative, if it were taken for int32
    path = write_tiff(
        tmp_path / "a.tif", values, order=order, photometric=photometric, deflated=deflated
    )
    read = 255 - values if (kind, photometric) == ("uint8", 0) else values  # Pillow inverts it
    facts = inspect(path, Window.parse("min-max"), None)
    found = "float32" if kind == "float64" else kind  # as Pillow reads it
    assert (facts.kind, facts.low, facts.high) == (found, read.min(), read.max())
    levels = (np.clip(read.astype(float), -50, 70) + 50) / 120 * 255
    if photometric == 0 and kind != "uint8":
        levels = 255 - levels
    np.testing.assert_allclose(read_one(path, "-50,70"), levels, atol=1e-4)
    if kind in ("uint8", "uint16"):
        full = read / (255 if kind == "uint8" else 65535) * 255
        full = 255 - full if photometric == 0 and kind == "uint16" else full
        np.testing.assert_allclose(read_one(path), full, rtol=1e-6)
    else:
        with pytest.raises(RequestError, match=f"a.tif: its {found} values .* --window LO,HI"):
            inspect(path, None, None)
    # Pillow 13 turns the bytes of these a second time.
    mended = (
        deflated and order == ">" and kind in ("int16", "uint32", "int32", "float32", "float64")
    )
    assert facts.decoder == (2 if mended else 1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
def test_colour_of_16_bit_keeps_them(tmp_path, order, deflated):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = write_tiff(tmp_path / "a.tif", values, order=order, photometric=2, deflated=deflated)
    np.testing.assert_allclose(read_one(path), values / 257, rtol=1e-6)


def test_what_is_in_a_fourth_channel_of_16_bit_is_alpha_only_where_it_says_so(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    path = write_tiff(tmp_path / "a.tif", values, photometric=2, t338=0)
    np.testing.assert_allclose(read_one(path), values[..., :3] / 257, rtol=1e-6)
    assert inspect(path, None, None).decoder == 2
    path = write_tiff(tmp_path / "a.tif", values, photometric=2, t338=2)
    laid = np.rint(values[..., :3] * (values[..., 3:] / 65535)) / 257
    np.testing.assert_allclose(read_one(path), laid, rtol=1e-6)


def test_kinds_that_are_not_supported_are_named(tmp_path):
    path = write_tiff(tmp_path / "a.tif", GREY.astype(np.float16))
    unreadable(path, "1 x 16-bit floating-point numbers, photometric 1", "min-max")
    path = write_tiff(tmp_path / "a.tif", np.dstack([GREY] * 5), order=">")
    unreadable(path, "5 x 8-bit whole numbers, photometric 1$")


# ------------------------------------------------------------------ stacks, one directory


IMAGEJ = "ImageJ=1.54f\nimages={}\nslices={}\nloop=false\n"
SHAPED = '{{"shape": [{}, 6, 9], "truncated": true}}'


@pytest.mark.parametrize("said", [IMAGEJ, SHAPED])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_stacks_with_one_directory(tmp_path, said, kind, order):
    stack = (GREY[None] * np.arange(1, 5)[:, None, None] % 199).astype(kind)
    path = tmp_path / "a.tif"
    behind = stack[1:].astype(stack.dtype.newbyteorder(order)).tobytes()
    write_tiff(path, stack[0], order=order, said=said.format(4, 4), behind=behind)
    facts = inspect(path, Window.parse("0,255"), None)
    assert (facts.n_frames, facts.kind, facts.decoder) == (4, kind, 2)
    np.testing.assert_allclose(read_image(path, Window.parse("0,255"), None), stack, atol=1e-4)
    write_tiff(path, stack[0], order=order, said=said.format(5, 5), behind=behind)
    unreadable(path, "a stack of more than 4 images that ends", "0,255")
    write_tiff(path, stack[0], order=order, said=said.format(4, 4), deflated=True)
    unreadable(path, "a stack of 4 images, of which only the first", "0,255")


def test_one_image_and_pages_of_their_own_are_no_such_stack(tmp_path):
    path = write_tiff(tmp_path / "a.tif", GREY, said=IMAGEJ.format(1, 1))
    assert inspect(path, None, None).n_frames == 1
    pages = [Image.fromarray(GREY)] * 2
    pages[0].save(path, save_all=True, append_images=pages[1:], description=IMAGEJ.format(2, 2))
    facts = inspect(path, None, None)
    assert (facts.n_frames, facts.decoder) == (2, 1)


@pytest.mark.parametrize(
    "said",
    [
        IMAGEJ.format(0, 0),
        SHAPED.format(0),
        '{"shape": "x", "truncated": true}',
        '{"shape": 3, "truncated": true}',
        '{"truncated": true}',
        '{"shape": [4, 6, 9], "truncated": true',
    ],
)
def test_a_description_that_says_nothing_of_a_stack_is_only_a_text(tmp_path, said):
    path = write_tiff(tmp_path / "a.tif", GREY, said=said)
    facts = inspect(path, None, None)
    assert (facts.n_frames, facts.decoder) == (1, 1)


def test_stacks_that_no_memory_holds_are_refused(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", GREY, said=IMAGEJ.format(10**12, 1))
    unreadable(path, "1000000000000 frames of 9 x 6")
    pages = [Image.fromarray(GREY)] * 4
    pages[0].save(path, save_all=True, append_images=pages[1:])
    monkeypatch.setattr("extract.datasets.files.formats.stored.MAX_VOXELS", 3 * GREY.size)
    unreadable(path, "4 frames of 9 x 6")


# ----------------------------------------------------------------------------------- planes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize(
    ("channels", "kind", "extra"),
    [
        (2, np.uint8, 2),
        (3, np.uint8, None),
        (4, np.uint8, 2),
        (3, np.uint16, None),
        (4, np.uint16, 0),
        (4, np.uint16, 1),
        (4, np.uint16, 2),
    ],
)
def test_planes_are_channels(tmp_path, channels, kind, extra, deflated, order):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (5, 7, channels), dtype=kind)
    tags = {} if extra is None else {"t338": extra}
    path = write_tiff(
        tmp_path / "a.tif",
        values,
        order=order,
        photometric=1 if channels == 2 else 2,
        planes=2,
        deflated=deflated,
        **tags,
    )
    expected = values[..., :1] if channels == 2 else values[..., :3]
    if extra == 2:  # alpha; 1: it is multiplied with already; 0: something else
        expected = np.rint(expected * (values[..., -1:] / np.iinfo(kind).max))
    levels = expected.squeeze() * (255 / np.iinfo(kind).max)
    np.testing.assert_allclose(read_one(path), levels, rtol=1e-6)
    facts = inspect(path, None, None)
    assert facts.notes == (("transparency",) if extra else ())
    assert facts.decoder == (2 if channels == 2 else 1)  # Pillow reads it as black


def test_planes_are_turned_upright(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = write_tiff(tmp_path / "a.tif", values, photometric=2, planes=2, t274=6)
    np.testing.assert_allclose(read_one(path), np.rot90(values, -1) / 257, rtol=1e-6)
    assert inspect(path, None, None).notes == ("exif-orientation",)
