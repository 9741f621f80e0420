"""Which bits and frames of a DICOM file are its pixels; files without headers; windows; bombs."""

import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from decoding import read_one, unreadable
from making_dicom import make_dataset, save, transcode, write_dicom
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from extract.datasets.files.decode import inspect, read_image
from extract.datasets.files.formats.stored import UnreadableImage

FILES = Path(pydicom.__file__).parent / "data/test_files"
rng = np.random.default_rng(0)
CT = rng.integers(0, 4096, (6, 10), dtype=np.uint16)  # 12 bit
FRAMES = np.stack([CT, CT + 1, CT + 2]) % 4096
BITS = {"BitsStored": 12}


def compress(dataset, syntax, frames, has_table=True):
    dataset.PixelData = encapsulate(frames, has_bot=has_table)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def jpeg_2000(array, **options):
    with io.BytesIO() as stream:
        options = {"irreversible": False, **options}
        Image.fromarray(array).save(stream, format="JPEG2000", no_jp2=True, **options)
        return stream.getvalue()


def runs(array):
    """One frame in run lengths, as pydicom codes it."""
    dataset = make_dataset(array)
    dataset.compress(uid.RLELossless)
    [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
    return frame


# --------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("is_rle", [False, True])
@pytest.mark.parametrize(
    ("stored", "bits", "high", "expected", "decoder"),
    [
        (CT, 12, 11, CT, 1),
        (CT << 4, 12, 15, CT, 2),  # where the header says
        (CT << 2, 12, 13, CT, 2),
        (CT, 12, 15, CT, 1),  # the header is wrong: the lowest bits are used, the highest never
        (CT * 0, 12, 15, CT * 0, 1),
        (CT & 0xFF0, 12, 15, None, 0),  # fits both
        (CT << 4 | 1, 12, 15, None, 0),  # fits neither
        (CT, 12, 10, None, 0),
        (CT, 12, 16, None, 0),
        (CT, 17, 16, None, 0),
        (((CT << 4).view(np.int16)), 12, 15, (CT << 4).view(np.int16) >> 4, 2),
        (CT.astype(np.int16) - 2048, 12, 15, CT.astype(np.int16) - 2048, 1),
    ],
)
def test_the_highest_bit(tmp_path, stored, bits, high, expected, decoder, is_rle):
    dataset = make_dataset(stored, BitsStored=bits)
    dataset.HighBit = high
    if is_rle:
        compress(dataset, uid.RLELossless, [runs(stored)])
    path = save(tmp_path / "a.dcm", dataset)
    if expected is None:
        unreadable(path, "bits .*stored")
        return
    facts = inspect(path, None, None)
    assert (facts.low, facts.high, facts.decoder) == (expected.min(), expected.max(), decoder)
    low = -2048 if stored.dtype.kind == "i" else 0
    np.testing.assert_allclose(
        read_one(path), (expected.astype(float) - low) * (255 / 4095), rtol=1e-5, atol=1e-4
    )


def test_streams_of_more_bits_than_the_header_says(tmp_path):
    """As many encoders write them: harmless while the values fit, and else refused."""
    dataset = compress(make_dataset(CT, **BITS), uid.JPEG2000Lossless, [jpeg_2000(CT)])
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(read_one(path), CT * (255 / 4095), rtol=1e-5, atol=1e-4)
    dataset = compress(make_dataset(CT, **BITS), uid.JPEG2000Lossless, [jpeg_2000(CT * 16)])
    unreadable(save(tmp_path / "b.dcm", dataset), "fill up to 16 bits, where its header says 12")


def test_lossy_streams_may_swing_over(tmp_path):
    edges = np.where(np.arange(64 * 64).reshape(64, 64) // 8 % 2, 4095, 0).astype(np.uint16)
    lossy = {"irreversible": True, "quality_mode": "rates", "quality_layers": [20]}
    data = jpeg_2000(edges, **lossy)
    with Image.open(io.BytesIO(data)) as image:
        decoded = np.asarray(image)
    assert 4095 < decoded.max() < 4096 * 1.125
    dataset = compress(make_dataset(edges, **BITS), uid.JPEG2000, [data])
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_allclose(
        read_one(path), np.minimum(decoded, 4095) * (255 / 4095), rtol=1e-5, atol=1e-4
    )
    dataset = compress(make_dataset(edges, **BITS), uid.JPEG2000, [jpeg_2000(edges * 2, **lossy)])
    unreadable(save(tmp_path / "b.dcm", dataset), "fill up to 16 bits")


def test_a_stream_of_more_bits_than_there_is_room_for(tmp_path):
    dataset = compress(make_dataset(CT.astype(np.uint8)), uid.JPEG2000Lossless, [jpeg_2000(CT)])
    unreadable(save(tmp_path / "a.dcm", dataset), "a frame of 16 bits, where its header says 8")


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
@pytest.mark.parametrize("pixels", [CT, CT * 16, CT.astype(np.int16) - 2048])
def test_lossless_streams_of_more_bits(tmp_path, syntax, pixels):
    wide = write_dicom(tmp_path / "a.dcm", pixels)  # 16 bit in header and stream
    transcode(wide, tmp_path / "b.dcm", syntax)
    dataset = dcmread(tmp_path / "b.dcm")
    dataset.BitsStored, dataset.HighBit = 12, 11
    path = save(tmp_path / "c.dcm", dataset)
    if pixels.max() > 4095:
        unreadable(path, "fill up to 16 bits")
        return
    facts = inspect(path, None, None)
    assert (facts.low, facts.high) == (pixels.min(), pixels.max())


def wavy(side=128):
    y, x = np.mgrid[:side, :side]
    return (128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 13)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_damaged_jpegs(tmp_path, damage, number):
    """gdcm decodes on and only complains on standard error."""
    with io.BytesIO() as stream:
        Image.fromarray(wavy()).save(stream, "JPEG", quality=90)
        good = stream.getvalue()
    half = len(good) // 2
    bad = good[:half] + b"\xff\xd9"
    if damage == "zeros":
        bad = good[:half] + bytes(400) + good[half + 400 :]
    frames = [good, good, good]
    whole = compress(make_dataset(np.stack([wavy()] * 3)), uid.JPEGBaseline8Bit, frames)
    inspect(save(tmp_path / "a.dcm", whole), None, None)
    frames[number] = bad
    broken = compress(make_dataset(np.stack([wavy()] * 3)), uid.JPEGBaseline8Bit, frames)
    unreadable(save(tmp_path / "b.dcm", broken), "Corrupt JPEG data")


def test_a_stream_of_another_size(tmp_path):
    for shape in ((6, 12), (60, 10), (6, 10, 3)):
        other = rng.integers(0, 256, shape, dtype=np.uint8)
        grey = make_dataset(CT.astype(np.uint8))
        path = save(tmp_path / "a.dcm", compress(grey, uid.JPEG2000Lossless, [jpeg_2000(other)]))
        unreadable(path, r"a frame of .* where its header says 10 x 6 and")


# ------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("said", [1, 2, 3, 4, None])
@pytest.mark.parametrize("how", ["plain", "runs", "runs, no table", "JPEG", "JPEG, no table"])
def test_as_many_frames_as_the_header_says(tmp_path, said, how):
    dataset = make_dataset(FRAMES)
    has_table = "no table" not in how
    if how.startswith("runs"):
        compress(dataset, uid.RLELossless, [runs(frame) for frame in FRAMES], has_table)
    if how.startswith("JPEG"):
        compress(dataset, uid.JPEG2000Lossless, [jpeg_2000(f) for f in FRAMES], has_table)
    dataset.NumberOfFrames = said
    path = save(tmp_path / "a.dcm", dataset)
    if said == 3:
        np.testing.assert_allclose(read_image(path, None, None), FRAMES / 257, rtol=1e-5)
        return
    words = f"pixels of 3 frames, where its header says {said or 1}"
    unreadable(path, f"{words}|less than expected")


def test_a_frame_in_pieces_is_one_frame(tmp_path):
    data = jpeg_2000(rng.integers(0, 65536, (64, 64), dtype=np.uint16))
    dataset = make_dataset(np.zeros((64, 64), np.uint16))
    dataset.PixelData = encapsulate([data], fragments_per_frame=3)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    path = save(tmp_path / "a.dcm", dataset)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_allclose(read_one(path), np.asarray(image) / 257, rtol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "syntax", "said"),
    [
        (CT.tobytes(), uid.JPEG2000Lossless, "aren't compressed, and its header says JPEG 2000"),
        (CT.tobytes(), uid.RLELossless, "aren't compressed, and its header says RLE"),
        (encapsulate([bytes(200)]), uid.ExplicitVRLittleEndian, "are compressed, .* Explicit VR"),
    ],
)
def test_pixels_that_are_compressed_where_the_header_says_otherwise(tmp_path, pixels, syntax, said):
    dataset = make_dataset(CT)
    path = tmp_path / "a.dcm"
    dataset.PixelData = pixels
    dataset["PixelData"].is_undefined_length = len(pixels) > CT.nbytes
    dataset["PixelData"].VR = "OW"
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.filewriter.write_file_meta_info(file, dataset.file_meta, enforce_standard=False)
        stream = pydicom.filebase.DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(stream, dataset)
        file.write(stream.getvalue())
    with pytest.raises(UnreadableImage, match=said):
        inspect(path, None, None)


def test_functional_groups_of_fewer_frames(tmp_path):
    groups = [Dataset(), Dataset()]
    path = write_dicom(tmp_path / "a.dcm", FRAMES, PerFrameFunctionalGroupsSequence=groups)
    unreadable(path, "3 frames, and functional groups of only 2")


# ---------------------------------------------------------------------------------- plug-ins


@pytest.mark.parametrize(
    ("syntax", "bits", "packages"),
    [
        (uid.JPEGExtended12Bit, 12, "pylibjpeg pylibjpeg-libjpeg"),
        (uid.HTJ2KLossless, 16, "pylibjpeg pylibjpeg-openjpeg"),
        (uid.HTJ2K, 8, "pylibjpeg pylibjpeg-openjpeg"),
        (uid.JPEGLSLossless, 6, "pyjpegls"),
        (uid.JPEGLSLossless, 7, "pyjpegls"),
        (uid.JPEGLSNearLossless, 5, "pyjpegls"),
    ],
)
def test_what_gdcm_cant_decode_names_what_can(tmp_path, monkeypatch, syntax, bits, packages):
    class Decoder:
        available_plugins = ("gdcm",)

    monkeypatch.setattr("pydicom.pixels.decoders.base.get_decoder", lambda syntax: Decoder)
    if syntax in uid.JPEG2000TransferSyntaxes:
        header = (
            b"\xff\x4f\xff\x51" + bytes(4) + np.array([10, 6, 0, 0, 10, 6, 0, 0], ">u4").tobytes()
        )
        frame = header + bytes([0, 1, bits - 1, 1, 1, 0])
    else:
        frame = b"\xff\xd8\xff\xf7\x00\x0b" + bytes([bits, 0, 6, 0, 10, 1, 1, 0x11, 0, 0])
    dataset = compress(make_dataset(CT, BitsStored=bits), syntax, [frame])
    path = save(tmp_path / "a.dcm", dataset)
    with pytest.raises(UnreadableImage) as e:
        inspect(path, None, None)
    assert str(e.value) == f"its pixels ({syntax.name} of {bits} bits) need: pip install {packages}"


def test_what_nothing_decodes(tmp_path):
    dataset = compress(
        make_dataset(CT),
        uid.MPEG2MPML,
        [b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x06\x00\x0a\x01\x01\x11\x00"],
    )
    unreadable(save(tmp_path / "a.dcm", dataset), "MPEG2.* can't be decoded")


# ----------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
@pytest.mark.parametrize("lost", ["preamble", "meta header", "syntax"])
def test_files_without_a_header(tmp_path, syntax, lost):
    dataset = make_dataset(CT, **BITS)
    if syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = CT.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    path = save(tmp_path / "IM0001", dataset)
    data = path.read_bytes()
    if lost == "syntax":
        meta = dcmread(path).file_meta
        behind = data[144 + meta.FileMetaInformationGroupLength :]
        del meta.TransferSyntaxUID
        stream = pydicom.filebase.DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(stream, meta)
        path.write_bytes(data[:132] + stream.getvalue() + behind)
    elif lost == "preamble":
        path.write_bytes(data[132:])
    else:
        path.write_bytes(data[144 + dcmread(path).file_meta.FileMetaInformationGroupLength :])
    np.testing.assert_allclose(read_one(path), CT * (255 / 4095), rtol=1e-5, atol=1e-4)
    assert inspect(path, None, None).patient == "P1"


def test_real_files_without_a_header():
    """Reports, which pydicom brings: known for DICOM, and without pixels."""
    for name in ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"):
        unreadable(FILES / name, "no pixels in it")


def test_compressed_pixels_need_a_header(tmp_path):
    path = save(tmp_path / "a.dcm", compress(make_dataset(CT), uid.JPEG2000, [jpeg_2000(CT)]))
    meta = dcmread(path).file_meta
    path.write_bytes(path.read_bytes()[144 + meta.FileMetaInformationGroupLength :])
    unreadable(path, "compressed, and no header says how")


# ----------------------------------------------------------------------------------- windows


def write_window(path, center, width, implicit=False, **tags):
    """With these very bytes in the header, which pydicom wouldn't write."""
    dataset = make_dataset(CT, **BITS, WindowCenter="11111111", WindowWidth="22222222", **tags)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    data = save(path, dataset).read_bytes()
    for old, new in ((b"11111111", center), (b"22222222", width)):
        assert data.count(old) == 1
        data = data.replace(old, new.encode().ljust(8))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("center", "width", "said"),
    [
        ("1000,5", "400", "its WindowCenter is '1000,5', which DICOM can't read; name a window"),
        ("1000", "400,0", "its WindowWidth is '400,0', which"),
        ("abc", "400", "its WindowCenter is 'abc'"),
        ("1000", "nan", "its WindowWidth is 'nan'"),
        ("inf", "400", "its WindowCenter is 'inf'"),
        ("1000", "0.5", "its WindowWidth is 0.5, where LINEAR takes at least 1; name a window"),
        ("1000", "-400", "its WindowWidth is -400, where LINEAR takes at least 1"),
    ],
)
def test_windows_that_arent_numbers(tmp_path, center, width, said, implicit):
    path = write_window(tmp_path / "a.dcm", center, width, implicit)
    with pytest.raises(UnreadableImage, match=said):
        inspect(path, None, None)
    np.testing.assert_allclose(read_one(path, "0,4095"), CT * (255 / 4095), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        ("LINEAR", "1", np.where(CT > 1999.5, 255, 0)),  # C.11.2.1.2.1: a step
        ("LINEAR_EXACT", "0.5", np.clip((CT - 2000.0) / 0.5 + 0.5, 0, 1) * 255),
        ("SIGMOID", "0.5", 255 / (1 + np.exp(np.clip(-4 * (CT - 2000.0) / 0.5, -50, 50)))),
    ],
)
def test_narrow_windows(tmp_path, function, width, expected):
    path = write_window(tmp_path / "a.dcm", "2000", width, VOILUTFunction=function)
    np.testing.assert_allclose(read_one(path), expected, atol=1e-4)


def test_the_first_of_several_windows_is_taken(tmp_path):
    path = write_window(tmp_path / "a.dcm", "2000\\1,5", "900\\1")
    plain = write_window(tmp_path / "b.dcm", "2000", "900")
    np.testing.assert_array_equal(read_one(path), read_one(plain))


def test_a_slope_that_isnt_a_number(tmp_path):
    data = write_dicom(tmp_path / "a.dcm", CT, RescaleSlope="1.25", RescaleIntercept=0).read_bytes()
    (tmp_path / "a.dcm").write_bytes(data.replace(b"1.25", b"1,25"))
    unreadable(tmp_path / "a.dcm", "its RescaleSlope is '1,25', which DICOM can't read$", "0,99")


def test_what_isnt_a_number_is_black_in_a_header_window(tmp_path):
    dataset = make_dataset(CT.astype(np.uint32), WindowCenter=2000, WindowWidth=5000)
    del dataset.PixelData
    values = CT.astype("<f4")
    values[0, :3] = np.nan
    dataset.FloatPixelData = values.tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    levels = read_one(tmp_path / "a.dcm")
    assert not levels[0, :3].any()
    assert np.isfinite(levels).all()


# ------------------------------------------------------------------------------------- bombs


def write_bomb(path, n_zeros, at_pixels):
    """A deflated file of 64 x 64 with so many zeros, in its pixels or in a private element."""
    dataset = make_dataset(np.zeros((64, 64), np.uint8))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    if not at_pixels:
        dataset.private_block(0x0029, "zeros", create=True).add_new(1, "OB", b"\x01" * 4096)
    plain = save(path, dataset).read_bytes()
    start = 144 + dcmread(path).file_meta.FileMetaInformationGroupLength
    elements = zlib.decompressobj(-15).decompress(plain[start:])
    old = bytes(4096) if at_pixels else b"\x01" * 4096
    before, behind = elements.split(old)
    deflater = zlib.compressobj(1, zlib.DEFLATED, -15)
    parts = [plain[:start], deflater.compress(before[:-4] + n_zeros.to_bytes(4, "little"))]
    parts += [deflater.compress(bytes(1 << 20)) for _ in range(n_zeros >> 20)]
    path.write_bytes(b"".join([*parts, deflater.compress(behind), deflater.flush()]))
    return path


@pytest.mark.parametrize("at_pixels", [False, True])
def test_a_deflated_bomb_takes_no_memory(tmp_path, at_pixels):
    path = write_bomb(tmp_path / "a.dcm", 1 << 28, at_pixels)
    assert path.stat().st_size < 1 << 23
    tracemalloc.start()
    try:
        unreadable(path, "inflates to far more|header lacks")
        assert tracemalloc.get_traced_memory()[1] < 1 << 27
    finally:
        tracemalloc.stop()


def test_a_bomb_of_run_lengths(tmp_path):
    frame = bytearray(runs(np.zeros((64, 64), np.uint8)))
    frame += b"\x81\x00" * (1 << 20)  # 128 zeros each
    dataset = compress(make_dataset(np.zeros((64, 64), np.uint8)), uid.RLELossless, [bytes(frame)])
    path = save(tmp_path / "a.dcm", dataset)
    tracemalloc.start()
    try:
        unreadable(path, "run lengths are far longer")
        assert tracemalloc.get_traced_memory()[1] < 1 << 26  # of 1 << 27
    finally:
        tracemalloc.stop()


def test_deflated_files(tmp_path):
    dataset = make_dataset(np.zeros((3000, 3000), np.uint16))  # deflates a thousandfold
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    path = save(tmp_path / "a.dcm", dataset)
    assert not read_one(path).any()
    np.testing.assert_array_equal(
        read_one(FILES / "image_dfl.dcm"), dcmread(FILES / "image_dfl.dcm").pixel_array
    )
    path.write_bytes(path.read_bytes()[:-200])
    unreadable(path, "deflated data are cut short")
