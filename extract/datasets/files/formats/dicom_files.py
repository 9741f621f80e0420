"""DICOM files and their data sets: recognised by contents, with or without a header, inflated."""

import io
import struct
import zlib
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from extract.datasets.files.formats.stored import UnreadableImage, check_size, needs

PREAMBLE, MAGIC = 128, b"DICM"
BEHIND_MAGIC = PREAMBLE + len(MAGIC)
DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR

# Without a preamble a file begins with an element of the meta header or, without that one too, of
# the first group of every data set; both have their lengths, classes and ids first.
META, IDENTIFYING = 0x0002, 0x0008
LAST_FIRST = 0x0018  # SOP Instance UID, which every data set has
FIRST_VRS = (b"UL", b"CS", b"UI", b"SH", b"DA", b"TM", b"DT", b"LO", b"OB")
LONGEST_FIRST = 1024  # bytes, where no VR is said

REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom turns them into RGB
PALETTE = "PALETTE COLOR"
ALLOCATED = (1, 8, 16, 32, 64)  # bits of a sample
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
MAX_INFLATED = 1 << 25  # bytes of a deflated data set beside its pixels


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, whatever its name."""
    with path.open("rb") as file:
        head = file.read(BEHIND_MAGIC)
    return head[PREAMBLE:] == MAGIC or _begins_with_element(head)


def is_unnamed_dicom(path: Path) -> bool:
    """Whether a file is DICOM and its name says nothing, as scanners and archives name them.

    That is without an ending, or with a number for one: IM000001, 1.2.840.113619.2.5. The index of
    a disc, always named DICOMDIR (PS3.10, 8.6), has no pixels.
    """
    name = path.name
    if PurePath(name).suffix[1:].isalpha() or name.upper() == "DICOMDIR":
        return False
    try:
        return is_dicom(path)
    except OSError:
        return False


def _begins_with_element(head: bytes) -> bool:
    if len(head) < BEHIND_MAGIC:
        return False
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", head)
        if group in (META, IDENTIFYING) and element <= LAST_FIRST:
            (length,) = struct.unpack_from(f"{order}I", head, 4)
            return head[4:6] in FIRST_VRS or (order == "<" and length <= LONGEST_FIRST)
    return False


def open_dataset(path: Path) -> Any:
    """The elements of an image's file, whose pixels aren't decoded yet.

    Returns:
        pydicom's Dataset; the transfer syntax is filled in where a file has none.

    Raises:
        UnreadableImage: no DICOM, no image, or what isn't there can't be filled in.
        RequestError: pydicom isn't installed.
    """
    try:
        from pydicom import dcmread, uid
    except ImportError:
        raise needs(path, "pydicom") from None
    if not is_dicom(path):
        raise UnreadableImage(
            "no DICOM header: neither the letters DICM at byte 128 nor an element at the start"
        )
    with path.open("rb") as file:
        meta = _read_meta(file)
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            dataset = _inflate(file, meta)
        else:
            file.seek(0)
            dataset = dcmread(file, force=True)
    if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        raise UnreadableImage("a DICOMDIR: the index of a disc, without pixels")
    if not any(name in dataset for name in PIXELS.values()):
        raise UnreadableImage("no pixels in it, or it is cut short before their end")
    _require(dataset)
    if dataset.file_meta.get("TransferSyntaxUID") is None:
        dataset.file_meta.TransferSyntaxUID = _find_syntax(dataset)
    return dataset


def count_frames(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _require(dataset: Any) -> None:
    """Refuse a data set that doesn't say what its pixels are, or too many or unknown ones."""
    missing = [name for name in REQUIRED if dataset.get(name) is None]
    if missing:
        raise UnreadableImage(f"its header lacks {', '.join(missing)}")
    check_size(dataset.Rows, dataset.Columns, count_frames(dataset))
    photometric, samples = str(dataset.PhotometricInterpretation), dataset.SamplesPerPixel
    if photometric not in (*GREY, PALETTE, *COLOUR) or samples != (
        3 if photometric in COLOUR else 1
    ):
        raise UnreadableImage(f"{samples} samples of {photometric} aren't supported")
    if dataset.BitsAllocated not in ALLOCATED:
        raise UnreadableImage(f"samples in {dataset.BitsAllocated} bits aren't supported")


def _read_meta(file: BinaryIO) -> Any:
    """The meta header, which may be empty; the file then stands behind it."""
    from pydicom.filereader import read_dataset

    file.seek(PREAMBLE)
    if file.read(len(MAGIC)) != MAGIC:
        file.seek(0)
    return read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != META)


def _find_syntax(dataset: Any) -> Any:
    """The transfer syntax of a data set whose file doesn't say, as pydicom saw it."""
    from pydicom import uid

    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise UnreadableImage("its pixels are compressed, and no header says how")
    is_implicit, is_little = dataset.original_encoding
    if is_implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian


def _inflate(file: BinaryIO, meta: Any) -> Any:
    """A deflated data set, and no more memory taken than its own header asks for."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset

    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(), MAX_INFLATED)
    if not inflater.eof:
        header = read_dataset(
            io.BytesIO(data), False, True, stop_when=lambda tag, vr, length: tag in PIXELS
        )
        _require(header)
        values = header.Rows * header.Columns * header.SamplesPerPixel * count_frames(header)
        data += inflater.decompress(
            inflater.unconsumed_tail, values * header.BitsAllocated // 8 + 1
        )
    if inflater.unconsumed_tail:
        raise UnreadableImage("it inflates to far more than its header's pixels take")
    if not inflater.eof:
        raise UnreadableImage("its deflated data are cut short")
    dataset = read_dataset(io.BytesIO(data), False, True)
    dataset.file_meta = FileMetaDataset(meta)
    dataset.set_original_encoding(False, True)
    return dataset
