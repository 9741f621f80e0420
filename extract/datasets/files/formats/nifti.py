"""NIfTI volumes, .nii and .nii.gz, through nibabel."""

import contextlib
import gzip
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.files.formats.stored import (
    Stored,
    UnreadableImage,
    check_size,
    needs,
    reading,
)

SUFFIXES = (".nii", ".nii.gz")
# Asked of the file, because nibabel takes the header of a pair (.hdr, .img) for a volume as well,
# and then reads the header as voxels.
MAGICS = {"Nifti1Image": (344, b"n+1"), "Nifti2Image": (4, b"n+2")}
HEAD = 348
CHUNK = 1 << 20


def read(path: Path) -> Stored:
    """Read one volume, turned so that its slices look upright.

    By the header's affine, to the nearest axes: axis 0 runs from superior to inferior, axis 1 from
    anterior to posterior, axis 2 from the patient's right to left. So axial slices (axis 0) have
    anterior on top and the patient's right on the left, as radiologists see them; coronal (axis 1)
    and sagittal ones (axis 2) have superior on top. Spacing is left alone: voxels count as cubes.
    """
    try:
        import nibabel
    except ImportError:
        raise needs(path, "nibabel") from None
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as stream, _quiet():
        head = stream.read(HEAD)
        stream.seek(0)
        kinds = [name for name, (at, word) in MAGICS.items() if head[at : at + 3] == word]
        if not kinds:
            raise UnreadableImage(
                "not NIfTI in one file: the letters n+1 or n+2 aren't in its header"
            )
        image: Any = getattr(nibabel, kinds[0]).from_stream(stream)
        shape = image.shape + (1,) * (3 - len(image.shape))
        if any(n > 1 for n in shape[3:]):
            raise UnreadableImage(
                f"{'x'.join(map(str, shape[3:]))} volumes in one file; store each in its own"
            )
        check_size(shape[1], shape[0], shape[2])
        kind = image.get_data_dtype()
        if kind.kind not in "iuf":
            raise UnreadableImage(f"values of {kind} aren't grey levels")
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        values = np.asarray(image.dataobj.get_unscaled()).reshape(shape[:3])
        _finish(stream)
    if (slope, intercept) != (1, 0):
        # nibabel would take float64, twice the memory; float32 holds integers of 16 bit and more.
        values = values.astype(np.result_type(kind, np.float32)) * slope + intercept
    span = None
    if kind.kind in "iu":
        low, high = (limit * slope + intercept for limit in Stored.whole_span(kind))
        span = min(low, high), max(low, high)
    placed = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
    return Stored(
        np.ascontiguousarray(_upright(values, image.affine)),
        kind,
        span,
        natural=False,
        is_stack=True,
        notes=() if placed else ("no-orientation",),
    )


@dataclass(frozen=True)
class Placement:
    """Where a volume lies, by its header, its axes as ``read`` turns them."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]  # mm along each axis
    corners: NDArray[np.float64]  # (2, 3) of the first and the last voxel, mm

    def difference(self, other: "Placement", alike: float, near: float) -> str:
        """What differs, in words; nothing where they lie on each other.

        Args:
            other: another volume's.
            alike: share of a voxel's side that spacing may differ.
            near: sides of a voxel that corners may lie apart.
        """
        if self.shape != other.shape:
            return f"{self.shape} and {other.shape} voxels"
        own, its = np.array(self.spacing), np.array(other.spacing)
        if (np.abs(own - its) > alike * own).any():
            return f"voxels of {_mm(own)} and {_mm(its)}"
        if (np.abs(self.corners - other.corners).max(axis=0) > near * own.max()).any():
            return f"first voxels at {_mm(self.corners[0])} and {_mm(other.corners[0])}"
        return ""


def _mm(values: NDArray[Any]) -> str:
    return " x ".join(f"{mm:.3g}" for mm in values) + " mm"


UNITS = {"meter": 1000.0, "micron": 0.001}  # in mm; what a header doesn't say is mm


def read_placement(path: Path) -> Placement:
    """Where a volume lies; its voxels aren't read.

    Raises:
        UnreadableImage: no NIfTI, or its affine leads nowhere.
    """
    with reading(path), _quiet():
        import nibabel
        from nibabel.orientations import io_orientation

        image: Any = nibabel.load(path)  # type: ignore[attr-defined]
        shape = (*image.shape, 1, 1)[:3]
        affine = image.affine * UNITS.get(image.header.get_xyzt_units()[0], 1.0)
        orientation = io_orientation(affine)
        if np.isnan(orientation).any():
            raise UnreadableImage("its affine doesn't say where the axes lead")
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        first, last = np.zeros(3), np.array(shape) - 1.0
        # Upright axes lead downwards, backwards and to the left.
        order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in (2, 1, 0)]
        for axis in range(3):
            if orientation[axis, 1] > 0:
                first[axis], last[axis] = last[axis], first[axis]
        corners = np.stack([affine[:3, :3] @ end + affine[:3, 3] for end in (first, last)])
        return Placement(
            tuple(int(shape[axis]) for axis in order),  # type: ignore[arg-type]
            tuple(float(sides[axis]) for axis in order),  # type: ignore[arg-type]
            corners,
        )


def _upright(values: NDArray[Any], affine: NDArray[Any]) -> NDArray[Any]:
    """(i, j, k) as stored -> (superior to inferior, anterior to posterior, right to left)."""
    from nibabel.orientations import apply_orientation, io_orientation

    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise UnreadableImage("its affine doesn't say where the axes lead")
    # Canonical axes lead to right, anterior and superior.
    return apply_orientation(values, orientation).transpose(2, 1, 0)[::-1, ::-1, ::-1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """nibabel prints what it mends in a header; workers would print it for every file."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _finish(stream: IO[bytes]) -> None:
    """Read to the end: gzip compares its checksum only there."""
    while stream.read(CHUNK):
        pass
