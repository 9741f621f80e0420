"""DICOM, through pydicom: rescaled values, the header's own window, frames.

Pixels go the standard's way (PS3.3, C.11.1 and C.11.2): stored bits, Modality LUT (slope and
intercept, or a table), then the VOI LUT or window, then inversion where low values are bright.
Padding (PixelPaddingValue) counts like any value, so "min-max" and percentiles see it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.formats.stored import Stored, UnreadableImage, check_size, needs
from extract.datasets.windows import to_levels

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC_AT, MAGIC = 128, b"DICM"
DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom turns them into RGB
PALETTE = "PALETTE COLOR"

# Where a frame's display settings stand: in its functional groups, in the shared ones, or plainly.
GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
RESCALE = ("RescaleSlope", "RescaleIntercept")
WINDOW = ("WindowCenter", "WindowWidth")
SETTINGS = (*RESCALE, *WINDOW, "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence")


def is_dicom(path: Path) -> bool:
    """Whether a file carries DICOM's letters, whatever its name."""
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def read(path: Path) -> Stored:
    """Read an image or the frames of a series."""
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
    except ImportError:
        raise needs(path, "pydicom") from None
    if not is_dicom(path):
        raise UnreadableImage("no DICOM header: the letters DICM aren't at byte 128")
    dataset = pydicom.dcmread(path)
    pixels, photometric = _read_pixels(path, dataset)
    patient = str(dataset.get("PatientID") or "").strip()
    n = len(pixels)
    if photometric not in GREY:
        if photometric == PALETTE:
            pixels = apply_color_lut(pixels, dataset)[..., :3]
        bits = 8 * pixels.dtype.itemsize if photometric == PALETTE else dataset.BitsStored
        return Stored(pixels, pixels.dtype, (0, 2.0**bits - 1), is_stack=n > 1, patient=patient)
    settings = [_find_settings(dataset, frame) for frame in range(n)]
    values = _rescale(pixels, settings, dataset)
    has_window = all("VOILUTSequence" in s or all(w in s for w in WINDOW) for s in settings)
    return Stored(
        values,
        pixels.dtype,
        _span(pixels.dtype, settings, dataset),
        header=(lambda: _show(values, settings, dataset)) if has_window else None,
        inverted=photometric == "MONOCHROME1",
        is_stack=n > 1,
        patient=patient,
        notes=("monochrome1",) if photometric == "MONOCHROME1" else (),
    )


def _read_pixels(path: Path, dataset: Any) -> tuple[NDArray[Any], str]:
    """Stored values (n, H, W) or (n, H, W, 3), and what they mean."""
    from pydicom.pixels.utils import pixel_array

    if dataset.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
        raise UnreadableImage("a DICOMDIR: the index of a disc, without pixels")
    if not any(name in dataset for name in PIXELS):
        raise UnreadableImage("no pixels in it, or it is cut short before their end")
    missing = [name for name in REQUIRED if dataset.get(name) is None]
    if missing:
        raise UnreadableImage(f"its header lacks {', '.join(missing)}")
    n, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    check_size(dataset.Rows, dataset.Columns, n)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in (*GREY, PALETTE, *COLOUR) or samples != (
        3 if photometric in COLOUR else 1
    ):
        raise UnreadableImage(f"{samples} samples of {photometric} aren't supported")
    codec = _choose_codec(path, dataset)
    try:
        pixels = pixel_array(dataset, decoding_plugin=codec)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if not codec:
            raise
        # pydicom's own words tell of plugins.
        name = dataset.file_meta.TransferSyntaxUID.name
        raise UnreadableImage(f"its pixels ({name}) can't be decoded") from error
    return pixels.reshape(n, *pixels.shape[-3 if samples == 3 else -2 :]), photometric


def _choose_codec(path: Path, dataset: Any) -> str:
    """Which of pydicom's plugins decodes; "": there is one way only.

    Left alone, pydicom takes what it finds, and two decoders of lossy JPEG differ by a grey level:
    the same file would have other features elsewhere.
    """
    from pydicom import uid

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == uid.RLELossless:
        return ""
    try:
        import gdcm
    except ImportError:
        raise needs(path, f"python-gdcm ({syntax.name})") from None
    for silence in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        silence()
    return "gdcm"


def _find_settings(dataset: Any, frame: int) -> Any:
    """How one frame is rescaled and shown, collected from wherever it is said."""
    from pydicom import Dataset

    places = []
    for name, index in [
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ]:
        groups = dataset.get(name) or []
        if index < len(groups):
            places += [macro[0] for g in GROUPS if (macro := groups[index].get(g))]
    settings = Dataset()
    for place in (*places, dataset):
        for name in SETTINGS:
            if name not in settings and name in place and not place[name].is_empty:
                settings[name] = place[name]
    return settings


def _rescale(pixels: NDArray[Any], settings: Sequence[Any], dataset: Any) -> NDArray[Any]:
    """Apply the Modality LUT, frame by frame; stored values where there is none."""
    if "ModalityLUTSequence" in settings[0]:
        tables = [_read_table(s.ModalityLUTSequence[0], dataset) for s in settings]
        return np.stack([_look_up(f, *t[:2]) for f, t in zip(pixels, tables, strict=True)])
    scales = [_slope(s) for s in settings]
    if all(scale == (1, 0) for scale in scales):
        return pixels
    values = np.empty(pixels.shape, np.float32)
    for frame, place, (slope, intercept) in zip(pixels, values, scales, strict=True):
        place[...] = frame.astype(np.float64) * slope + intercept
    return values


def _slope(settings: Any) -> tuple[float, float]:
    return float(settings.get("RescaleSlope", 1)), float(settings.get("RescaleIntercept", 0))


def _span(kind: np.dtype[Any], settings: Sequence[Any], dataset: Any) -> tuple[float, float] | None:
    """What the stored bits can hold, rescaled; over all frames."""
    if kind.kind == "f":
        return None
    if "ModalityLUTSequence" in settings[0]:
        bits = [_read_table(s.ModalityLUTSequence[0], dataset)[2] for s in settings]
        return 0, 2.0 ** max(bits) - 1
    bits = dataset.BitsStored
    low, high = (
        (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if kind.kind == "i" else (0, 2.0**bits - 1)
    )
    ends = [
        end * slope + intercept for slope, intercept in map(_slope, settings) for end in (low, high)
    ]
    return min(ends), max(ends)


def _show(values: NDArray[Any], settings: Sequence[Any], dataset: Any) -> NDArray[np.float32]:
    """Levels of 0..255 by the header: its first table, else its first window."""
    from pydicom.pixels.processing import apply_windowing

    levels = np.empty(values.shape, np.float32)
    for frame, place, said in zip(values, levels, settings, strict=True):
        if "VOILUTSequence" in said:
            entries, first, bits = _read_table(said.VOILUTSequence[0], dataset)
            place[...] = to_levels(_look_up(np.rint(frame), entries, first), 0, 2**bits - 1)
            continue
        said = said.copy()
        for name in (*RESCALE, "ModalityLUTSequence"):
            said.pop(name, None)
        # pydicom maps a window to the range of the stored bits; of 8 unsigned ones that is 0..255.
        said.BitsStored, said.PixelRepresentation = 8, 0
        said.PhotometricInterpretation = "MONOCHROME2"
        place[...] = apply_windowing(frame, said)
    return levels


def _read_table(item: Any, dataset: Any) -> tuple[NDArray[Any], int, int]:
    """A LUT's entries, the value of the first one, and bits an entry."""
    n, first, bits = item.LUTDescriptor
    n = n or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        packed = bits <= 8 and len(data) < 2 * n  # two entries to a word
        data = np.frombuffer(data, "u1" if packed else f"{order}u2")
    entries = np.asarray(data)[:n]
    if len(entries) < n:
        raise UnreadableImage(f"a LUT of {len(entries)} entries, where its header says {n}")
    return entries.astype(np.uint16), first, bits


def _look_up(values: NDArray[Any], entries: NDArray[Any], first: int) -> NDArray[Any]:
    """Values below the table take its first entry, those above its last.

    Not pydicom's: there an index is as narrow as an entry, and of 8-bit entries behind the 256th
    it takes another one.
    """
    return entries[np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)]
