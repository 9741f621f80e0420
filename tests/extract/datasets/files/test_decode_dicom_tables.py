"""Palettes and LUTs against DICOM's text by hand, and against pydicom where pydicom is right."""

from pathlib import Path

import numpy as np
import pytest
from decoding import read_one, unreadable
from making_dicom import make_dataset, save, write_dicom
from pydicom import Dataset, dcmread, uid
from pydicom.data import get_palette_files
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut

from extract.datasets.files.decode import inspect
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.windows import Window

rng = np.random.default_rng(0)
RAMP = np.arange(4096, dtype="<u2").reshape(64, 64)
INDEX = np.arange(256, dtype=np.uint8).reshape(16, 16)
WORDS = rng.integers(0, 65536, (3, 65536)).astype("<u2")
BYTES = rng.integers(0, 256, (3, 65536), dtype=np.uint8)
CHANNELS = ("Red", "Green", "Blue")
LITTLE, BIG, IMPLICIT = (
    uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian,
)  # fmt: skip


# ---------------------------------------------------------------------- tables of grey values


def lut(first, entries, bits=16, vr="US", **tags):
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.tobytes())
    for name, value in tags.items():
        setattr(item, name, value)
    return item


LINE = np.linspace(0, 65535, 4096).round().astype("<u2")
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024}


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize(
    ("pixels", "tags", "first", "vr", "decoder"),
    [
        (RAMP, HU, 64512, "US", 2),  # -1024 in the VR of unsigned pixels
        (RAMP, HU, -1024, "SS", None),  # 1 where the VR says it
        (RAMP, {}, 0, "US", 1),
        (RAMP + np.uint16(40000), {}, 40000, "US", 1),
        (RAMP + np.uint16(40000), {}, 40000 - 65536, "SS", None),
        (RAMP.astype(np.int16) - 2048, {}, -2048, "SS", 1),
        (RAMP.astype(np.int16) - 2048, {}, 65536 - 2048, "US", None),
        # Possible values are -1024 to 64511: a signed first value would cover none of them.
        (RAMP + np.uint16(41024), HU, 40000, "US", 1),
    ],
)
def test_a_first_value_is_signed_where_its_input_is(
    tmp_path, syntax, pixels, tags, first, vr, decoder
):
    dataset = make_dataset(pixels, **tags, VOILUTSequence=[lut(first, LINE, vr=vr)])
    dataset.file_meta.TransferSyntaxUID = syntax
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_one(path), LINE.reshape(64, 64) / 257, rtol=1e-5, atol=1e-4)
    # Explicit or not, the files hold the same, and what was read wrongly has another key.
    assert decoder is None or inspect(path, None, None).decoder == decoder
    assert inspect(path, Window.parse("0,100"), None).decoder == 1  # which doesn't use the table


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize(("first", "vr"), [(-2048, "SS"), (63488, "US")])
def test_a_modality_luts_first_value_is_signed_where_pixels_are(tmp_path, syntax, first, vr):
    pixels = RAMP.astype(np.int16) - 2048
    item = lut(first, LINE, vr=vr, ModalityLUTType="US")
    dataset = make_dataset(pixels, ModalityLUTSequence=[item])
    dataset.file_meta.TransferSyntaxUID = syntax
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_one(path, "0,65535"), LINE.reshape(64, 64) / 257, rtol=1e-5)
    # A VOI LUT behind it has unsigned input, whatever the pixels are.
    behind = lut(40000, LINE[:20000])
    dataset = make_dataset(pixels, ModalityLUTSequence=[item], VOILUTSequence=[behind])
    path = save(tmp_path / "b.dcm", dataset)
    expected = LINE[np.clip(LINE.astype(int) - 40000, 0, len(behind.LUTData) // 2 - 1)]
    np.testing.assert_allclose(read_one(path).ravel(), expected / 257, rtol=1e-5)


def test_a_conforming_ct_is_pydicoms(tmp_path):
    """With explicit VRs pydicom is right, but for values that leave an entry's bits."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, **HU, VOILUTSequence=[lut(-1024, LINE, vr="SS")])
    dataset = dcmread(path)
    units = apply_modality_lut(dataset.pixel_array, dataset).astype(int)
    expected = apply_voi_lut(units, dataset)
    np.testing.assert_allclose(read_one(path), expected / 257, rtol=1e-5)


@pytest.mark.parametrize("syntax", [LITTLE, BIG])
def test_entries_of_8_bit_in_both_byte_orders(tmp_path, syntax):
    order = ">u2" if syntax == BIG else "<u2"
    entries = (np.arange(4096) // 16).astype(np.uint8)
    for data in (entries.astype(order), entries.view("<u2").astype(order)):  # one or two to a word
        item = lut(0, entries, bits=8)
        item.LUTData = data.tobytes()
        dataset = make_dataset(RAMP, VOILUTSequence=[item])
        dataset.PixelData = RAMP.astype(order).tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        path = save(tmp_path / "a.dcm", dataset)
        np.testing.assert_allclose(read_one(path), RAMP // 16, rtol=1e-6)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (lut(0, LINE, bits=12), "entries up to 65535, where its header says 12 bits"),
        (Dataset(), "without the three numbers"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path, item, said):
    path = write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, VOILUTSequence=[item])
    with pytest.raises(UnreadableImage, match=said):
        inspect(path, None, None)
    inspect(path, Window.parse("0,4095"), None)  # which doesn't need the table


# ----------------------------------------------------------------------------------- palettes


def palette(path: Path, tables, descriptor, pixels=INDEX, syntax=LITTLE, segmented="", **tags):
    for channel, data in zip(CHANNELS, tables, strict=True):
        tags[f"{channel}PaletteColorLookupTableDescriptor"] = descriptor
        tags[f"{segmented}{channel}PaletteColorLookupTableData"] = data
    dataset = make_dataset(pixels, PhotometricInterpretation="PALETTE COLOR", **tags)
    dataset.file_meta.TransferSyntaxUID = syntax
    return save(path, dataset)


def data_of(tables, kind, n, order="<"):
    """Three tables of n entries as words, as bytes two to a word, or as bytes padded to words."""
    if kind == "bytes":
        padded = np.pad(tables[:, :n], ((0, 0), (0, n % 2)))
        tables = padded.view("<u2")
    else:
        tables = tables[:, :n]
    return [table.astype(f"{order}u2").tobytes() for table in tables]


@pytest.mark.parametrize(
    ("kind", "n", "big", "decoder"),
    [
        ("words", 256, False, 1),
        ("words", 256, True, 2),
        ("bytes", 256, False, 1),
        ("bytes", 256, True, 2),
        ("padded", 256, False, 2),
        ("padded", 256, True, 2),
        ("bytes", 255, False, 1),  # refused before
        ("words", 4096, False, 1),
        ("bytes", 4096, False, 2),
        ("bytes", 4095, False, 2),
        ("words", 65536, False, 1),
        ("bytes", 65536, False, 2),
        ("padded", 65536, False, 2),
    ],
)
def test_palettes(tmp_path, kind, n, big, decoder):
    tables = WORDS if kind == "words" else BYTES
    size = np.uint8 if n <= 256 else np.uint16
    pixels = np.minimum(np.arange(2**16) % 2 ** (8 * size().itemsize), n - 1)[: max(n, 256)]
    pixels = np.pad(pixels, (0, -len(pixels) % 256), mode="edge").reshape(-1, 256).astype(size)
    data = data_of(tables, kind, n, ">" if big else "<")
    path = palette(
        tmp_path / "a.dcm", data, [n % 65536, 0, 16 if kind == "words" else 8], pixels,
        BIG if big else LITTLE,
    )  # fmt: skip
    expected = np.moveaxis(tables[:, pixels], 0, -1) / (257 if kind == "words" else 1)
    levels = read_one(path)
    np.testing.assert_allclose(levels, expected, rtol=1e-5, atol=1e-4)
    assert (levels.dtype == np.uint8) == (kind != "words")
    assert inspect(path, None, None).decoder == decoder


@pytest.mark.parametrize("syntax", [LITTLE, IMPLICIT])
@pytest.mark.parametrize(("first", "stored"), [(100, INDEX), (-128, INDEX.view(np.int8))])
def test_values_beside_a_palette_take_its_ends(tmp_path, first, stored, syntax):
    path = palette(
        tmp_path / "a.dcm", data_of(WORDS, "words", 100), [100, first, 16], stored, syntax
    )
    at = np.clip(stored.astype(int) - first, 0, 99)
    np.testing.assert_allclose(
        read_one(path), np.moveaxis(WORDS[:, at], 0, -1) / 257, rtol=1e-5, atol=1e-4
    )
    short = palette(
        tmp_path / "b.dcm", data_of(BYTES, "bytes", 100), [100, 0, 8], RAMP, BitsStored=12
    )
    np.testing.assert_array_equal(
        read_one(short), np.moveaxis(BYTES[:, np.minimum(RAMP, 99)], 0, -1)
    )


def test_a_16_bit_palette_that_says_8(tmp_path):
    path = palette(tmp_path / "a.dcm", data_of(WORDS, "words", 256), [256, 0, 8])
    np.testing.assert_allclose(
        read_one(path), np.moveaxis(WORDS[:, INDEX], 0, -1) / 257, rtol=1e-5, atol=1e-4
    )
    assert inspect(path, None, None).decoder == 1


def segments(*codes):
    return np.array(codes, "<u2").tobytes()


@pytest.mark.parametrize(
    ("data", "bits", "expected"),
    [
        (segments(0, 2, 5, 9, 1, 4, 29), 16, [5, 9, 14, 19, 24, 29]),
        (segments(0, 1, 0, 1, 5, 10), 16, [0, 2, 4, 6, 8, 10]),
        # The offset of copied segments counts bytes, and a copied line goes on from where one is.
        (segments(0, 2, 5, 9, 1, 2, 29, 2, 1, 8, 0), 16, [5, 9, 19, 29, 29, 29]),
        (bytes([0, 2, 5, 9, 1, 2, 29, 2, 1, 4, 0, 0, 0, 0]), 8, [5, 9, 19, 29, 29, 29]),
        (bytes([0, 3, 5, 9, 7, 2, 1, 0, 0, 0, 0, 0]), 8, [5, 9, 7, 5, 9, 7]),
    ],
)
def test_palettes_in_segments(tmp_path, data, bits, expected):
    path = palette(tmp_path / "a.dcm", [data] * 3, [6, 0, bits], INDEX % 6, segmented="Segmented")
    levels = read_one(path) * (257 if bits == 16 else 1)
    np.testing.assert_allclose(levels[0, :6, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("file", get_palette_files("*.dcm"), ids=lambda file: Path(file).stem)
def test_the_standards_own_palettes(tmp_path, file):
    """In segments or not, as pydicom brings them (PS3.6, annex B)."""
    known = dcmread(file)
    segmented = "Segmented" * ("SegmentedRedPaletteColorLookupTableData" in known)
    tables = [known[f"{segmented}{c}PaletteColorLookupTableData"].value for c in CHANNELS]
    path = palette(tmp_path / "a.dcm", tables, [256, 0, 8], segmented=segmented)
    np.testing.assert_array_equal(read_one(path), apply_color_lut(INDEX, known))
    assert inspect(path, None, None).decoder == 1


@pytest.mark.parametrize(
    ("data", "bits", "said"),
    [
        (segments(0, 3, 1), 16, "make 1 entries, where its header says 6"),
        (segments(0, 2, 5, 9, 1), 16, "make 2 entries"),
        (segments(0, 2, 5, 9, 1, 4), 16, "cut short"),
        (segments(1, 4, 29), 16, "a segment of kind 1 that can't stand there"),
        (segments(0, 2, 5, 9, 7, 1), 16, "a segment of kind 7"),
        (segments(0, 2, 5, 9, 2, 1, 8, 0), 16, "a segment of kind 2 that can't stand there"),
        (segments(0, 2, 5, 9, 2, 1, 80, 0), 16, "cut short"),
        (segments(0, 6, *range(6)), 12, "of 12 bits, where DICOM knows 8 and 16"),
    ],
)
def test_segments_that_make_no_palette(tmp_path, data, bits, said):
    path = palette(tmp_path / "a.dcm", [data] * 3, [6, 0, bits], INDEX % 6, segmented="Segmented")
    with pytest.raises(UnreadableImage, match=said):
        inspect(path, None, None)


def test_palettes_that_contradict_themselves(tmp_path):
    data = data_of(WORDS, "words", 256)
    short = palette(tmp_path / "a.dcm", [table[:200] for table in data], [256, 0, 16])
    unreadable(short, "a red palette of 100 entries, .* says 256")
    dataset = dcmread(palette(tmp_path / "b.dcm", data, [256, 0, 16]))
    dataset.GreenPaletteColorLookupTableDescriptor = [256, 7, 16]
    unreadable(save(tmp_path / "c.dcm", dataset), "differ in length, start or bits")
    del dataset.GreenPaletteColorLookupTableData
    unreadable(save(tmp_path / "d.dcm", dataset), "no green palette")
