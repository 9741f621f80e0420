"""DICOM, through pydicom: rescaled values, the header's own window, frames.

Pixels go the standard's way (PS3.3, C.11.1 and C.11.2): stored bits, Modality LUT (slope and
intercept, or a table), then the VOI LUT or window, then inversion where low values are bright.
Padding (PixelPaddingValue) counts like any value, so "min-max" and percentiles see it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.files.formats.dicom_files import GREY, PALETTE, open_dataset
from extract.datasets.files.formats.dicom_pixels import read_pixels
from extract.datasets.files.formats.dicom_tables import read_palette, read_table
from extract.datasets.files.formats.stored import Shown, Stored, UnreadableImage, reading
from extract.datasets.files.windows import to_levels

SUFFIXES = (".dcm", ".dicom", ".ima")

# Where a frame's display settings stand: in its functional groups, in the shared ones, or plainly.
GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
RESCALE = ("RescaleSlope", "RescaleIntercept")
WINDOW = ("WindowCenter", "WindowWidth")
SETTINGS = (*RESCALE, *WINDOW, "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence")

Settings = Mapping[str, Any]  # name -> the data set or item that says it
Span = tuple[float, float]
UNBOUNDED = (-math.inf, math.inf)


def read(path: Path) -> Stored:
    """Read an image or the frames of a series."""
    dataset = open_dataset(path)
    pixels, decoder = read_pixels(path, dataset)
    photometric = str(dataset.PhotometricInterpretation)
    patient = str(dataset.get("PatientID") or "").strip()
    n, kind = len(pixels), pixels.dtype
    span = None if kind.kind == "f" else Stored.whole_span(kind, dataset.BitsStored)
    if photometric not in GREY:
        if photometric == PALETTE:
            pixels, newest = _apply_palette(pixels, dataset, span or UNBOUNDED)
            kind, decoder = pixels.dtype, max(decoder, newest)
            span = Stored.whole_span(kind)
        return Stored(pixels, kind, span, is_stack=n > 1, patient=patient, decoder=decoder)
    settings = [_find_settings(dataset, frame, n) for frame in range(n)]
    values, spans, newest = _rescale(pixels, settings, dataset, span)
    has_window = all("VOILUTSequence" in s or all(w in s for w in WINDOW) for s in settings)
    return Stored(
        values,
        kind,
        None if span is None else (min(low for low, _ in spans), max(high for _, high in spans)),
        header=(lambda: _show(values, settings, dataset, spans)) if has_window else None,
        inverted=photometric == "MONOCHROME1",
        is_stack=n > 1,
        patient=patient,
        notes=_describe(dataset),
        decoder=max(decoder, newest),
    )


def read_spacing(path: Path) -> tuple[float, float] | None:
    """mm from row to row and from column to column, in the patient; None where the header says none.

    That at the detector (ImagerPixelSpacing), which is larger, doesn't count.

    Raises:
        UnreadableImage: no DICOM.
    """
    with reading(path):
        try:
            row, column = (float(mm) for mm in open_dataset(path).get("PixelSpacing") or ())
        except (TypeError, ValueError):
            return None
        return (row, column) if min(row, column) > 0 and math.isfinite(row + column) else None


def _describe(dataset: Any) -> tuple[str, ...]:
    """Notes on an image of grey values, see ``ImageFacts``."""
    notes = {
        "monochrome1": dataset.PhotometricInterpretation == "MONOCHROME1",
        # A Supplemental Palette over some or all of the values: C.8.16.2.1.1.1.
        "palette-not-applied": dataset.get("PixelPresentation") in ("COLOR", "MIXED"),
    }
    return tuple(note for note, is_so in notes.items() if is_so)


def _apply_palette(pixels: NDArray[Any], dataset: Any, span: Span) -> tuple[NDArray[Any], int]:
    """(n, H, W, 3) in the palette's 8 or 16 bits; and the decoder, see ``Stored``."""
    tables = read_palette(dataset, span)
    colours = np.stack([table.look_up(pixels) for table in tables], axis=-1)
    # The first decoder's index had no more bits than an entry.
    overflowed = colours.dtype == np.uint8 and int(pixels.max()) - tables[0].first > 255
    return colours, 2 if overflowed else max(table.decoder for table in tables)


def _find_settings(dataset: Any, frame: int, n: int) -> Settings:
    """Where each setting of one of n frames is said; it isn't read yet."""
    places = []
    for name, index, least in [
        ("PerFrameFunctionalGroupsSequence", frame, n),
        ("SharedFunctionalGroupsSequence", 0, 1),
    ]:
        groups = dataset.get(name)
        if groups:
            if len(groups) < least:
                raise UnreadableImage(f"{n} frames, and functional groups of only {len(groups)}")
            places += [macro[0] for g in GROUPS if (macro := groups[index].get(g))]
    settings: dict[str, Any] = {}
    for place in (*places, dataset):
        for name in SETTINGS:
            if name not in settings and name in place and not _is_empty(place.get_item(name)):
                settings[name] = place
    return settings


def _is_empty(element: Any) -> bool:
    return not element.value if element.is_raw else element.is_empty


def _read_number(settings: Settings, name: str, usual: float = math.nan) -> float:
    """The first of an element's numbers; the usual one where nothing is said.

    Raises:
        UnreadableImage: it is none, say for a decimal comma.
    """
    from pydicom.multival import MultiValue

    value = settings[name][name].value if name in settings else usual
    if isinstance(value, MultiValue):
        value = value[0]
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        cure = "; name a window with --window LO,HI" if name in WINDOW else ""
        raise UnreadableImage(f"its {name} is {str(value)!r}, which DICOM can't read{cure}")
    return number


def _first_item(settings: Settings, name: str) -> Any:
    return settings[name][name].value[0]


def _rescale(
    pixels: NDArray[Any], settings: Sequence[Settings], dataset: Any, span: Span | None
) -> tuple[NDArray[Any], list[Span], int]:
    """Apply the Modality LUT, frame by frame; stored values where there is none.

    Args:
        pixels: (n, H, W) stored values.
        settings: (n,)
        dataset: the file's.
        span: what stored values can be.

    Returns:
        (n, H, W) values, what each frame's can be, and the decoder, see ``Stored``.
    """
    if "ModalityLUTSequence" in settings[0]:
        tables = [
            read_table(_first_item(s, "ModalityLUTSequence"), dataset, span or UNBOUNDED)
            for s in settings
        ]
        values = np.stack([t.look_up(f) for f, t in zip(pixels, tables, strict=True)])
        spans = [Stored.whole_span(values.dtype, table.bits) for table in tables]
        return values, spans, max(table.decoder for table in tables)
    scales = [
        (_read_number(s, "RescaleSlope", 1), _read_number(s, "RescaleIntercept", 0))
        for s in settings
    ]
    low, high = span or UNBOUNDED
    ends = [(low * slope + intercept, high * slope + intercept) for slope, intercept in scales]
    spans = [(min(pair), max(pair)) for pair in ends]
    if all(scale == (1, 0) for scale in scales):
        return pixels, spans, 1
    values = np.empty(pixels.shape, np.float32)
    for frame, place, (slope, intercept) in zip(pixels, values, scales, strict=True):
        place[...] = frame.astype(np.float64) * slope + intercept
    return values, spans, 1


def _show(
    values: NDArray[Any], settings: Sequence[Settings], dataset: Any, spans: Sequence[Span]
) -> Shown:
    """Levels of 0..255 by the header: its first table, else its first window."""
    levels, decoder = np.empty(values.shape, np.float32), 1
    for frame, place, said, span in zip(values, levels, settings, spans, strict=True):
        if "VOILUTSequence" in said:
            table = read_table(_first_item(said, "VOILUTSequence"), dataset, span)
            place[...] = to_levels(table.look_up(np.rint(frame)), 0, 2**table.bits - 1)
            decoder = max(decoder, table.decoder)
        else:
            place[...] = _apply_window(frame, said)
    return Shown(levels, decoder)


def _apply_window(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Levels of 0..255 by a window: PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    center = _read_number(settings, "WindowCenter")
    width = _read_number(settings, "WindowWidth")
    place = settings.get("VOILUTFunction")
    function = "LINEAR" if place is None else str(place.VOILUTFunction).strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnreadableImage(f"its VOILUTFunction is {function!r}; name a window with --window")
    if width < 1 and (function == "LINEAR" or width <= 0):
        least = "at least 1" if function == "LINEAR" else "more than 0"
        raise UnreadableImage(
            f"its WindowWidth is {width:g}, where {function} takes {least}; name a window with "
            "--window LO,HI"
        )
    values = values.astype(np.float64)
    if function == "SIGMOID":
        levels = 255 / (1 + np.exp(-4 * (values - center) / width))
    else:
        if function == "LINEAR":
            center, width = center - 0.5, width - 1
        # A linear window of width 1 is a step.
        levels = ((values - center) / (width or 1) + 0.5) * 255
        levels[values <= center - width / 2] = 0
        levels[values > center + width / 2] = 255
    return np.nan_to_num(levels, copy=False, nan=0.0)
