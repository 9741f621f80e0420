"""NIfTI volumes, .nii and .nii.gz, through nibabel."""

import gzip
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.formats.stored import Stored, UnreadableImage, check_size, needs

SUFFIXES = (".nii", ".nii.gz")
HEADER_BYTES = {348: "Nifti1Image", 540: "Nifti2Image"}  # a file begins with its header's length
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
        from nibabel.imageglobals import LoggingOutputSuppressor
    except ImportError:
        raise needs(path, "nibabel") from None
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as stream, LoggingOutputSuppressor():
        head = stream.read(4)
        stream.seek(0)
        lengths = (int.from_bytes(head, "little"), int.from_bytes(head, "big"))
        known = [HEADER_BYTES[length] for length in lengths if length in HEADER_BYTES]
        if not known:
            raise UnreadableImage("not NIfTI: its first bytes aren't a header's length")
        image: Any = getattr(nibabel, known[0]).from_stream(stream)
        shape = image.shape + (1,) * (3 - len(image.shape))
        if any(n > 1 for n in shape[3:]):
            raise UnreadableImage(
                f"{'x'.join(map(str, shape[3:]))} volumes in one file; store each in its own"
            )
        check_size(shape[1], shape[0], shape[2])
        kind = image.get_data_dtype()
        if kind.kind not in "iuf":
            raise UnreadableImage(f"values of {kind} aren't grey levels")
        scale = image.dataobj.slope, image.dataobj.inter
        scaled = scale != (1, 0)
        # float32, where nibabel's own way is float64: half the memory, and 24 bits are enough.
        stored = image.dataobj.get_scaled(np.float32) if scaled else image.dataobj.get_unscaled()
        values = np.asarray(stored).reshape(shape[:3])
        _finish(stream)
    span = None
    if kind.kind in "iu":
        low, high = (float(limit) * scale[0] + scale[1] for limit in _limits(kind))
        span = min(low, high), max(low, high)
    placed = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
    return Stored(
        np.ascontiguousarray(_upright(values, image.affine)),
        kind.name,
        span,
        natural=False,
        is_stack=True,
        notes=() if placed else ("no-orientation",),
    )


def _upright(values: NDArray[Any], affine: NDArray[Any]) -> NDArray[Any]:
    """(i, j, k) as stored -> (superior to inferior, anterior to posterior, right to left)."""
    from nibabel.orientations import apply_orientation, io_orientation

    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise UnreadableImage("its affine doesn't say where the axes lead")
    # Canonical axes lead to right, anterior and superior.
    return apply_orientation(values, orientation).transpose(2, 1, 0)[::-1, ::-1, ::-1]


def _limits(kind: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(kind)
    return int(limits.min), int(limits.max)


def _finish(stream: IO[bytes]) -> None:
    """Read to the end: gzip compares its checksum only there."""
    while stream.read(CHUNK):
        pass
