"""DICOM against pydicom used plainly, windows by hand, and files that aren't right."""

import io
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from decoding import read_one, unreadable
from making_dicom import make_dataset, save, transcode, write_dicom
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from cache import RequestError
from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.windows import Window
from extract.datasets.volumes import Slicing

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (6, 10), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (6, 10, 3), dtype=np.uint8)
CT = rng.integers(0, 4096, (6, 10), dtype=np.uint16)  # 12 bit
HU = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}


def item(**tags):
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def encode(dataset, syntax, *frames):
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def picture(array, **options):
    with io.BytesIO() as stream:
        Image.fromarray(array).save(stream, **options)
        return stream.getvalue()


# ------------------------------------------------------------------------------- grey levels


def test_eight_bit_stays_as_it_is(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GREY)
    np.testing.assert_array_equal(read_one(path), GREY)
    facts = inspect(path, None, None)
    assert (facts.height, facts.width, facts.n_channels, facts.n_frames) == (6, 10, 1, 1)
    assert (facts.kind, facts.patient, facts.notes) == ("uint8", "P1", ())


def test_without_a_window_the_stored_bits_are_shown_whole(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CT, **HU)
    np.testing.assert_allclose(read_one(path), CT * (255 / 4095), rtol=1e-5, atol=1e-5)
    facts = inspect(path, None, None)
    assert (facts.low, facts.high, facts.kind) == (CT.min() - 1024.0, CT.max() - 1024.0, "uint16")


def test_windows_act_on_hounsfield_units(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", CT, **HU)
    units = CT.astype(float) - 1024
    expected = np.clip((units + 1350) / 1500, 0, 1) * 255
    np.testing.assert_allclose(read_one(path, "lung"), expected, rtol=1e-5, atol=1e-4)


def test_slope_and_sign(tmp_path):
    stored = rng.integers(-500, 500, (4, 5), dtype=np.int16)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=-0.5, RescaleIntercept=3)
    expected = np.clip((stored * -0.5 + 3 + 100) / 200, 0, 1) * 255
    np.testing.assert_allclose(read_one(path, "-100,100"), expected, rtol=1e-5, atol=1e-4)
    # A falling slope turns the range round, and doesn't invert the image twice.
    whole = (stored * -0.5 + 3 - (32767 * -0.5 + 3)) / (65535 * 0.5) * 255
    np.testing.assert_allclose(read_one(path), whole, rtol=1e-5)


def test_unused_bits_are_dropped(tmp_path):
    signed = np.array([[-2048, -1, 0, 2047]], np.int16)
    overlaid = ((signed & 0x0FFF) | 0x5000).astype(np.int16)  # an overlay in the high bits
    path = write_dicom(tmp_path / "a.dcm", overlaid, BitsStored=12)
    np.testing.assert_allclose(read_one(path), (signed + 2048.0) * (255 / 4095), rtol=1e-5)


def test_the_headers_window_by_hand(tmp_path):
    values = np.array([[-161, -160, 39, 40, 239, 240]], np.int16)
    path = write_dicom(
        tmp_path / "a.dcm",
        values,
        RescaleSlope=1,
        RescaleIntercept=0,
        WindowCenter=[40, -600],
        WindowWidth=[400, 1500],
    )
    # PS3.3 C.11.2.1.2.1: centre 39.5, width 399.
    expected = np.clip((values - 39.5) / 399 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(read_one(path), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(read_one(path, "header"), read_one(path))
    assert not np.allclose(read_one(path, "-160,240"), expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -100}])
def test_the_headers_window_is_pydicoms(tmp_path, function, rescale):
    window = {"WindowCenter": 1500, "WindowWidth": 900, "VOILUTFunction": function}
    path = write_dicom(tmp_path / "a.dcm", CT, BitsStored=12, **rescale, **window)
    dataset = dcmread(path)
    plain = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    black, white = (
        end * rescale.get("RescaleSlope", 1) + rescale.get("RescaleIntercept", 0)
        for end in (0, 4095)
    )
    expected = (plain - black) / (white - black) * 255
    np.testing.assert_allclose(read_one(path), expected, rtol=1e-5, atol=1e-4)


def table(entries, first, bits):
    dataset = item(LUTDescriptor=[len(entries), first, bits])
    dataset.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    dataset["LUTDescriptor"].VR = "US"
    return dataset


def test_tables_are_pydicoms(tmp_path):
    modality = table(rng.integers(0, 1024, 4000), 50, 16)
    modality.ModalityLUTType = "US"
    voi = table(rng.integers(0, 4096, 1000), 10, 12)
    path = write_dicom(
        tmp_path / "a.dcm", CT, BitsStored=12, ModalityLUTSequence=[modality], VOILUTSequence=[voi]
    )
    dataset = dcmread(path)
    values = apply_modality_lut(dataset.pixel_array, dataset)
    expected = apply_voi_lut(values, dataset) * (255 / 4095)
    np.testing.assert_allclose(read_one(path), expected, rtol=1e-5)
    expected = np.clip((values - 100.0) / 800, 0, 1) * 255
    np.testing.assert_allclose(read_one(path, "100,900"), expected, rtol=1e-5, atol=1e-4)


def test_long_tables_of_8_bit(tmp_path):
    entries = np.arange(4096) // 16
    for data in (entries.astype("<u2"), entries.astype("u1")):  # one or two to a word
        voi = table(entries, 0, 8)
        voi.LUTData = data.tobytes()
        path = write_dicom(tmp_path / "a.dcm", CT, BitsStored=12, VOILUTSequence=[voi])
        np.testing.assert_allclose(read_one(path), CT // 16, rtol=1e-6)


def test_short_tables_are_refused(tmp_path):
    voi = table(np.arange(100), 0, 12)
    voi.LUTDescriptor = [4096, 0, 12]
    path = write_dicom(tmp_path / "a.dcm", CT, BitsStored=12, VOILUTSequence=[voi])
    unreadable(path, "a LUT of 100 entries, where its header says 4096")


@pytest.mark.parametrize("window", [None, "100,3000", "percentile", "full"])
def test_monochrome1_is_inverted_after_the_window(tmp_path, window):
    plain = write_dicom(tmp_path / "a.dcm", CT, BitsStored=12)
    inverted = write_dicom(
        tmp_path / "b.dcm", CT, BitsStored=12, PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_allclose(read_one(inverted, window), 255 - read_one(plain, window))
    assert inspect(inverted, None, None).notes == ("monochrome1",)


def test_a_supplemental_palette_is_told(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GREY, PixelPresentation="MIXED")
    np.testing.assert_array_equal(read_one(path), GREY)
    assert inspect(path, None, None).notes == ("palette-not-applied",)
    path = write_dicom(tmp_path / "b.dcm", GREY, PixelPresentation="MONOCHROME")
    assert inspect(path, None, None).notes == ()
    path = write_dicom(tmp_path / "a.dcm", GREY, PhotometricInterpretation="MONOCHROME1")
    assert read_one(path).dtype == np.uint8
    np.testing.assert_array_equal(read_one(path), 255 - GREY)


def test_empty_settings_are_none(tmp_path):
    empty = dict.fromkeys(["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
    path = write_dicom(tmp_path / "IM000001", GREY, VOILUTSequence=[], **empty)  # without a suffix
    np.testing.assert_array_equal(read_one(path), GREY)
    unreadable(path, "no window in its header", "header")
    path = write_dicom(tmp_path / "a.dcm", CT, BitsStored=12, WindowCenter=100)  # half a window
    np.testing.assert_allclose(read_one(path), CT * (255 / 4095), rtol=1e-5, atol=1e-5)
    path = write_dicom(tmp_path / "a.dcm", CT, WindowCenter=100, WindowWidth=0)
    unreadable(path, "its WindowWidth is 0, .* at least 1; name a window")


def test_floats_need_a_window(tmp_path):
    dataset = make_dataset(CT.astype(np.uint32))
    del dataset.PixelData
    dataset.FloatPixelData = (CT / 7).astype("<f4").tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(RequestError, match="a.dcm: its float32 values have no natural"):
        inspect(tmp_path / "a.dcm", None, None)
    np.testing.assert_allclose(read_one(tmp_path / "a.dcm", "0,585"), CT / 7 * 255 / 585, rtol=1e-5)


# ----------------------------------------------------------------------------------- frames


def test_frames_of_a_series(tmp_path):
    frames = rng.integers(0, 256, (4, 6, 10), dtype=np.uint8)
    path = write_dicom(tmp_path / "a.dcm", frames)
    assert inspect(path, None, None).n_frames == 4
    np.testing.assert_array_equal(read_image(path, None, None, 1, 3), frames[1:3])
    slicing = Slicing(0, neighbours=True)
    assert inspect(path, None, slicing).n_channels == 3
    np.testing.assert_array_equal(read_image(path, None, slicing), slicing.take(frames, 0, 4))


def test_functional_groups_of_frames(tmp_path):
    frames = np.stack([CT, CT])
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-9)])
    own = [
        item(FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=101)])
        for center in (500, 4000)
    ]
    path = write_dicom(
        tmp_path / "a.dcm",
        frames,
        BitsStored=12,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    values = CT * 2.0 - 9
    expected = [np.clip((values - c + 0.5) / 100 + 0.5, 0, 1) * 255 for c in (500, 4000)]
    np.testing.assert_allclose(read_image(path, None, None), expected, rtol=1e-5, atol=1e-3)
    expected = np.clip(values / 5000, 0, 1) * 255
    window = Window.parse("0,5000")
    np.testing.assert_allclose(read_image(path, window, None)[1], expected, rtol=1e-5, atol=1e-4)


def test_colour_has_frames_along_one_axis(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.stack([COLOUR, COLOUR]))
    assert inspect(path, None, None).n_frames == 2
    unreadable(path, "frames in colour, and --slice-axis", None, Slicing(1))


# ------------------------------------------------------------------------------------ colour


@pytest.mark.parametrize("planes", [0, 1])
def test_rgb(tmp_path, planes):
    dataset = make_dataset(COLOUR, PlanarConfiguration=planes)
    if planes:
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0)).tobytes()
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_array_equal(read_one(path), COLOUR)


def test_ybr_becomes_rgb(tmp_path):
    stored = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    path = write_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_one(path).astype(int) - COLOUR).max() <= 3  # both ways are rounded


def test_palettes_become_rgb(tmp_path):
    channels = rng.integers(0, 256, (3, 256), dtype=np.uint8)
    lut = {}
    for name, channel in zip(("Red", "Green", "Blue"), channels, strict=True):
        lut[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        lut[f"{name}PaletteColorLookupTableData"] = (channel.astype("<u2") * 257).tobytes()
    dataset = make_dataset(GREY, PhotometricInterpretation="PALETTE COLOR", **lut)
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_one(path), np.moveaxis(channels[:, GREY], 0, -1), rtol=1e-5)
    unreadable(path, "for grey images", "0,99")


# ------------------------------------------------------------------------------------ codecs


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
def test_plain_transfer_syntaxes(tmp_path, syntax):
    dataset = make_dataset(CT, **HU)
    dataset.file_meta.TransferSyntaxUID = syntax
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_one(path), CT * (255 / 4095), rtol=1e-5, atol=1e-5)


def test_run_lengths(tmp_path):
    dataset = make_dataset(np.stack([CT, CT + 1]))
    dataset.compress(uid.RLELossless)
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(
        read_image(path, None, None), np.stack([CT, CT + 1]) / 257, rtol=1e-5
    )


def test_jpeg(tmp_path):
    grey = picture(GREY, format="JPEG")
    path = save(tmp_path / "a.dcm", encode(make_dataset(GREY), uid.JPEGBaseline8Bit, grey))
    with Image.open(io.BytesIO(grey)) as image:
        np.testing.assert_array_equal(read_one(path), np.asarray(image))
    colour = picture(COLOUR, format="JPEG", quality=95)
    dataset = make_dataset(COLOUR, PhotometricInterpretation="YBR_FULL_422")
    path = save(tmp_path / "b.dcm", encode(dataset, uid.JPEGBaseline8Bit, colour))
    with Image.open(io.BytesIO(colour)) as image:
        assert np.abs(read_one(path).astype(int) - np.asarray(image)).max() <= 2


def test_jpeg_2000(tmp_path):
    data = picture(CT, format="JPEG2000", no_jp2=True, irreversible=False)
    path = save(tmp_path / "a.dcm", encode(make_dataset(CT), uid.JPEG2000Lossless, data))
    np.testing.assert_allclose(read_one(path), CT / 257, rtol=1e-5)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
@pytest.mark.parametrize("pixels", [GREY, CT, CT.astype(np.int16) - 2000])
def test_lossless_jpeg(tmp_path, syntax, pixels):
    plain = write_dicom(tmp_path / "a.dcm", pixels)
    transcode(plain, tmp_path / "b.dcm", syntax)
    assert dcmread(tmp_path / "b.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_one(tmp_path / "b.dcm"), read_one(plain))


@pytest.mark.parametrize(
    "kind", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless"]
)
def test_one_real_image_in_every_syntax(kind):
    files = Path(pydicom.__file__).parent / "data/test_files"  # an MR of 64 x 64
    levels = read_one(files / "MR_small.dcm")
    np.testing.assert_array_equal(read_one(files / f"MR_small_{kind}.dcm"), levels)
    dataset = dcmread(files / "MR_small.dcm")
    plain = apply_voi_lut(dataset.pixel_array, dataset)  # -32768..32767
    np.testing.assert_allclose(levels, (plain + 32768) / 257, rtol=1e-5, atol=1e-4)


def test_broken_streams(tmp_path):
    data = picture(GREY, format="JPEG")
    dataset = encode(make_dataset(GREY), uid.JPEGBaseline8Bit, data[: len(data) // 2])
    path = save(tmp_path / "a.dcm", dataset)
    unreadable(path, r"its pixels \(JPEG Baseline.*\) can't be decoded")


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("data", [b"", b"DICM", bytes(200), b"\x08\x00" * 100])
def test_no_header(tmp_path, data):
    (tmp_path / "a.dcm").write_bytes(data)
    unreadable(tmp_path / "a.dcm", "no DICOM header")


@pytest.mark.parametrize("lost", [9, 30, 70])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated(tmp_path, lost, compressed):
    dataset = make_dataset(GREY)
    if compressed:
        encode(dataset, uid.JPEGBaseline8Bit, picture(GREY, format="JPEG"))
    path = save(tmp_path / "a.dcm", dataset)
    path.write_bytes(path.read_bytes()[:-lost])
    unreadable(path, "bytes of pixel data|cut short")


def test_no_pixels(tmp_path):
    dataset = make_dataset(GREY)
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    unreadable(tmp_path / "a.dcm", "no pixels in it")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.1.3.10"
    dataset.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    unreadable(tmp_path / "DICOMDIR", "a DICOMDIR")


def test_odd_headers(tmp_path):
    dataset = make_dataset(GREY)
    del dataset.Rows
    unreadable(save(tmp_path / "a.dcm", dataset), "its header lacks Rows")
    path = write_dicom(tmp_path / "b.dcm", GREY, Rows=60000, Columns=60000)
    unreadable(path, "60000 x 60000 pixels, where at most")
    path = write_dicom(tmp_path / "c.dcm", GREY, PhotometricInterpretation="HSV")
    unreadable(path, "1 samples of HSV")


@pytest.mark.parametrize(("package", "said"), [("pydicom", "pydicom"), ("gdcm", "python-gdcm")])
def test_missing_packages(tmp_path, monkeypatch, package, said):
    data = picture(GREY, format="JPEG")
    path = save(tmp_path / "a.dcm", encode(make_dataset(GREY), uid.JPEGBaseline8Bit, data))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        RequestError, match=rf"a.dcm needs {said}.*pip install 'medprobe\[medical\]'"
    ) as e:
        inspect(path, None, None)
    assert not isinstance(e.value, UnreadableImage)  # every file would be left out
