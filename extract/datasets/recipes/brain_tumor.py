"""Brain Tumor: slices of contrast-enhanced MRI with one of three tumours, each in a MATLAB file.

MohammedSB/DINOv2ForRadiology, dinov2/data/datasets/brain_tumor.py: patients in the order in which
1.mat, 2.mat, ... name them; 70 of 233 evenly spaced ones are test and 50 of the others val, which
makes 1344, 718 and 1002 slices. Values are cut at each slice's 5th and 95th percentile. Their code
takes an image as HDF5 has it, transposed; here it stands upright.

The owner's own split is five folds by patient, in cvind.mat: meta column "fold".
"""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.commands.names import first_line
from cache.labels.target import Target
from cache.task import MULTI_CLASS
from extract.datasets.files.formats.mat import read_mat_scalar, read_mat_text
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    MissingFiles,
    Recipe,
    find_base,
    systematic_split,
)

NAME = "brain-tumor"
CLASSES = ("meningioma", "glioma", "pituitary tumour")  # the files' 1, 2 and 3
N_IMAGES, N_PATIENTS, N_TEST, N_VAL = 3064, 233, 70, 50
FOLDER = "brainTumorDataPublic_"  # "brainTumorDataPublic_1-766" and three more; or all in the root
FOLDS = "cvind.mat"
DAMAGED = "isn't one of the set's MATLAB files; download its archive again"


def _list(root: Path) -> Listing:
    base = find_base(root, "1.mat", f"{FOLDER}1-766")
    folders = sorted(name for name in base.names("") if name.startswith(FOLDER))
    names = [f"{number}.mat" for number in range(1, N_IMAGES + 1)]
    found = [base.first(name, *(f"{folder}/{name}" for folder in folders)) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if not path]
    if missing:
        raise MissingFiles(f"{len(missing)} of {N_IMAGES} images ({missing[0]}, ...)")
    paths = tuple(path for path in found if path)
    cases = [_read_case(base.path / path) for path in paths]
    patients = [patient for _, patient in cases]
    order = list(dict.fromkeys(patients))
    split = systematic_split(len(order), N_TEST, N_VAL, N_PATIENTS)
    of_patient = dict(zip(order, split, strict=True))
    notes = ()
    if len(order) != N_PATIENTS:
        notes = (f"{N_PATIENTS} patients are published, {len(order)} here: not the paper's split",)
    return Listing(
        NAME,
        base.path,
        paths,
        np.arange(len(paths)),
        tuple(names),
        Target(MULTI_CLASS, CLASSES, np.array([label for label, _ in cases], np.int64)),
        np.array([of_patient[patient] for patient in patients], np.uint8),
        np.array(patients),
        {"fold": _read_folds(base.path / FOLDS, len(paths))} if FOLDS in base else {},
        window="percentile:5,95",
        notes=notes,
    )


def _read_case(path: Path) -> tuple[int, str]:
    """A slice's class, 0 to 2, and its patient."""
    try:
        label = read_mat_scalar(path, "cjdata/label")
        patient = read_mat_text(path, "cjdata/PID")
    except UnreadableImage as error:
        raise RequestError(f"{path}: {error}; it {DAMAGED}") from error
    if label not in (1, 2, 3) or not patient:
        raise RequestError(f"{path}: label {label:g}, patient {patient!r}; it {DAMAGED}")
    return int(label) - 1, patient


def _read_folds(path: Path, n: int) -> NDArray[np.str_]:
    """The owner's fold of each slice, "1" to "5": text, for it is a name. (n,)"""
    try:
        with h5py.File(path, "r", locking=False) as file:
            # A soft or external link could lead to any file of this machine.
            is_here = isinstance(file.get("cvind", getlink=True), h5py.HardLink)
            folds = file["cvind"] if is_here else None
            if isinstance(folds, h5py.Dataset) and folds.size == n:
                return np.ravel(folds[()]).astype(int).astype(str)
    except OSError as error:
        raise RequestError(f"{path}: {first_line(error)}; it {DAMAGED}") from error
    raise RequestError(f"{path} has no fold for each of {n} slices; it {DAMAGED}")


BRAIN_TUMOR = Recipe(
    NAME,
    "Brain Tumor (T1-weighted, contrast-enhanced MRI)",
    MULTI_CLASS,
    N_IMAGES,
    "0.9 GB",
    "CC BY 4.0",
    "https://doi.org/10.6084/m9.figshare.1512427",
    "",
    "Cheng et al. 2015, https://doi.org/10.1371/journal.pone.0140381",
    "Baharoon et al. 2023, 70 of 233 patients test, 50 val",
    ("brainTumorDataPublic_*/1.mat to 3064.mat (or all in one folder)", f"{FOLDS} (may be absent)"),
    _list,
    origins=("Cheng 2015 brain MRI",),
)
