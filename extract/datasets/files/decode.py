"""From a file to grey levels: the formats that medical images come in, behind two functions.

What a file holds is decided by its contents as far as possible, and every file is decoded whole: a
truncated one fails, it never becomes half a picture. Colour profiles, gamma and pixel spacing are
left alone. Nothing here imports torch: worker processes run it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from extract.datasets.files.formats import dicom, mat, nifti, pillow
from extract.datasets.files.formats.dicom_files import is_dicom, is_unnamed_dicom
from extract.datasets.files.formats.stored import Stored, UnreadableImage, reading
from extract.datasets.files.windows import FULL, HEADER, Window, finite_values, to_levels
from extract.datasets.volumes import Slicing

IMAGE_SUFFIXES: tuple[str, ...] = (  # lower case; what a folder may hold
    *pillow.SUFFIXES,
    *dicom.SUFFIXES,
    *nifti.SUFFIXES,
    *mat.SUFFIXES,
)

# 12 bit in a PNG of 16: all of it is darker than a sixteenth of white, and a person should know.
NARROW = 16


@dataclass(frozen=True)
class ImageFacts:
    """What a check pass remembers of a file."""

    height: int  # of a frame, pixels
    width: int
    n_channels: int  # 1 or 3
    n_frames: int  # 1 of images; slices of a volume, frames of a series, pages of a TIFF
    low: float  # smallest finite value, before any window, rescaled as the header says
    high: float
    kind: str  # the stored type, e.g. "uint8", "uint16", "float32"
    patient: str  # DICOM's PatientID, or ""
    # "transparency" (laid on black), "exif-orientation" (turned upright), "monochrome1" (inverted),
    # "palette-not-applied" (DICOM's grey values that should be shown in colour: shown as grey),
    # "no-orientation" (of NIfTI: taken as stored), "not-finite" (NaN becomes black), "constant",
    # "narrow-range" (less than a sixteenth of the type's range, and that is shown whole).
    notes: tuple[str, ...]
    shown: str  # the rule of its window, see Window: HEADER, FULL...
    span: tuple[float, float] | None  # of its type, rescaled; None: it has no bounds
    # The decoder that first read it as it is read now. The key has the highest of a data set, so
    # that features of files once read wrongly are stale, and no others.
    decoder: int = 1


def inspect(path: Path, window: Window | None, slicing: Slicing | None) -> ImageFacts:
    """Decode a file whole and tell what it holds.

    Args:
        path: the file.
        window: how values become grey levels; None: see ``read_image``.
        slicing: how volumes are cut; None: along their first axis.

    Raises:
        UnreadableImage: it can't be read, or the window or slicing isn't for such a file.
        RequestError: a package is missing, or the file's values have no natural range and no
            window was given.
    """
    with reading(path):
        stored = decode_file(path)
        stored.check()
        chosen = _choose(stored, window, path)
        decoder = stored.decoder
        if chosen.rule == HEADER:
            assert stored.header is not None
            decoder = max(decoder, stored.header().decoder)
        n, height, width, n_channels = _shape(stored, slicing)
        finite = finite_values(stored.values)
        if not finite.size:
            raise UnreadableImage("no value in it is finite")
        low, high = float(finite.min()), float(finite.max())
    notes = [*stored.notes]
    if finite.size < stored.values.size:
        notes.append("not-finite")
    if low == high:
        notes.append("constant")
    elif chosen.rule == FULL and stored.span is not None:
        black, white = stored.span
        if high - low < (white - black) / NARROW:
            notes.append("narrow-range")
    return ImageFacts(
        height,
        width,
        n_channels,
        n,
        low,
        high,
        stored.kind.name,
        stored.patient,
        tuple(notes),
        chosen.rule,
        stored.span,
        decoder,
    )


def read_image(
    path: Path,
    window: Window | None,
    slicing: Slicing | None,
    first: int = 0,
    last: int | None = None,
    *,
    checked: bool = False,
) -> NDArray[Any]:
    """Frames first to last - 1 of a file.

    Without a window, images of 8 bit stay as they are; PNG and TIFF of 16 bit, or of other whole
    numbers, are scaled from the whole range of their type; DICOM is shown as its header says, and
    from the whole range of its stored bits where it says nothing. Floating-point images, NIfTI and
    .mat beyond 8 bit have no natural range and need a window.

    Args:
        path: the file.
        window: how values become grey levels; None: as above.
        slicing: how volumes are cut; None: along their first axis.
        first: number of a frame.
        last: behind the last one; None: all.
        checked: ``inspect`` has read this very file, so it isn't searched for damage again.

    Returns:
        (n, H, W) or (n, H, W, 3): uint8 where the file has 8 bit and no window changes them, else
        float32 levels in 0..255, not rounded.

    Raises:
        UnreadableImage, RequestError: as ``inspect``.
    """
    with reading(path):
        stored = decode_file(path)
        if not checked:
            stored.check()
        chosen = _choose(stored, window, path)
        _shape(stored, slicing)
        if chosen.rule == HEADER:
            assert stored.header is not None
            levels = _cut(stored.header().levels, slicing, first, last)
        else:
            low, high = chosen.edges(stored.values, stored.span)
            levels = _cut(stored.values, slicing, first, last)
            if levels.dtype != np.uint8 or (low, high) != (0, 255):
                levels = to_levels(levels, low, high)
        return 255 - levels if stored.inverted else levels


def is_image_file(path: str | Path) -> bool:
    """Whether a file among others is taken for an image: by its ending, or as DICOM without one."""
    return str(path).lower().endswith(IMAGE_SUFFIXES) or is_unnamed_dicom(Path(path))


def decode_file(path: Path) -> Stored:
    """What a file holds, as stored.

    Raises:
        Exception: whatever its decoder raises; see ``reading``.
    """
    name = path.name.lower()
    for format in (pillow, nifti, mat, dicom):
        if name.endswith(format.SUFFIXES):
            return format.read(path)
    # Scanners name their files by numbers.
    return dicom.read(path) if is_dicom(path) else pillow.read(path)


def _choose(stored: Stored, window: Window | None, path: Path) -> Window:
    """The window to apply: the one asked for where it fits, else what the file's type implies."""
    if window is None:
        if stored.header is not None:
            return Window(HEADER)
        eight_bit = stored.values.dtype == np.uint8 and stored.span == (0, 255)
        if stored.span is not None and (stored.natural or eight_bit):
            return Window(FULL)
        raise RequestError(
            f"{path.name}: its {stored.kind} values have no natural black and white; say which with "
            "--window LO,HI or --window percentile:5,95"
        )
    if stored.in_colour and window.rule != FULL:
        raise UnreadableImage(f"--window {window} is for grey images, and this one is in colour")
    if window.rule == HEADER and stored.header is None:
        raise UnreadableImage("no window in its header; name one with --window")
    if window.rule == FULL and stored.span is None:
        raise UnreadableImage(f"{stored.kind} has no full range; give --window two numbers")
    return window


def _shape(stored: Stored, slicing: Slicing | None) -> tuple[int, int, int, int]:
    """Number of frames, their height, width and channels."""
    n, height, width = stored.values.shape[:3]
    if slicing is None or slicing == Slicing():
        return n, height, width, 3 if stored.in_colour else 1
    if not stored.is_stack or stored.in_colour:
        what = "frames in colour" if stored.is_stack else "one image"
        raise UnreadableImage(f"{what}, and --slice-axis and --slice-neighbours are for volumes")
    height, width = slicing.slice_shape(stored.values.shape)
    return stored.values.shape[slicing.axis], height, width, slicing.n_channels


def _cut(
    values: NDArray[Any], slicing: Slicing | None, first: int, last: int | None
) -> NDArray[Any]:
    slicing = slicing or Slicing()
    return slicing.take(values, first, values.shape[slicing.axis] if last is None else last)
