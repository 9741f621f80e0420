"""CBIS-DDSM: mammograms with a mass or a calcification, as The Cancer Imaging Archive publishes them.

Whole mammograms only; crops and masks of lesions are left out. A mammogram with several lesions is
malignant where one of them is. The owner splits cases, masses and calcifications apart, so a woman
with both may stand in train and in test; that is kept and counted. val is cut out of train: of its
patients, less those that are also in test, every tenth in order of their numbers.

Every mammogram here shows a lesion. What Huix et al. 2024 call CBIS-DDSM has normal ones too: see
``ddsm-huix2024``.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import Target
from cache.splits.make import TEST, TRAIN
from cache.task import BINARY
from extract.datasets.files.below import Root
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    SHOWN,
    MissingFiles,
    Recipe,
    cut_val,
    find_base,
)

NAME = "cbis-ddsm"
CLASSES = ("benign", "malignant")
PATHOLOGY = {"BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0, "MALIGNANT": 1}
TABLES = {
    "mass_case_description_train_set.csv": TRAIN,
    "calc_case_description_train_set.csv": TRAIN,
    "mass_case_description_test_set.csv": TEST,
    "calc_case_description_test_set.csv": TEST,
}
IMAGES = "CBIS-DDSM"
META = ("abnormality", "breast_density", "side", "view")
# "image file path": "Mass-Training_P_00001_LEFT_CC/1.3.6.../1.3.6.../000000.dcm". The retriever names
# the inner folders otherwise: "07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm".
CASE = re.compile(r"((?:Mass|Calc)-(?:Training|Test)_(P_\d+)_(LEFT|RIGHT)_(CC|MLO))(/[^/\\]+)+")
WHOLE = "full mammogram images"


@dataclass
class _Mammogram:
    """What the rows of one mammogram, one a lesion, say of it."""

    patient: str
    split: int
    meta: dict[str, str]
    malignant: list[int] = field(default_factory=list)  # of each lesion


def _list(root: Path) -> Listing:
    base = find_base(root, *TABLES, needs=TABLES)
    cases: dict[str, _Mammogram] = {}
    for name, split in TABLES.items():
        _read_cases(read_csv(base.path / name), split, cases)
    found = {case: _find_image(base, case) for case in sorted(cases)}
    missing = [case for case, path in found.items() if path is None]
    if missing:
        first = ", ".join(missing[:SHOWN])
        raise MissingFiles(f"{len(missing)} of {len(cases)} mammograms ({first}, ...)")
    ordered = [cases[case] for case in found]
    patients = np.array([case.patient for case in ordered])
    split = np.array([case.split for case in ordered], np.uint8)
    in_both = np.intersect1d(patients[split == TRAIN], patients[split == TEST])
    listing = Listing(
        NAME,
        base.path,
        tuple(path for path in found.values() if path is not None),
        np.arange(len(found)),
        tuple(found),
        Target(BINARY, CLASSES, np.array([max(case.malignant) for case in ordered], np.int64)),
        split,
        patients,
        {name: np.array([case.meta[name] for case in ordered]) for name in META},
        notes=(
            f"{len(in_both)} patients are in train and in test, as the owner has it: "
            "masses and calcifications were split apart",
        ),
    )
    return cut_val(listing)


def _read_cases(table: Table, split: int, cases: dict[str, _Mammogram]) -> None:
    """Add a table's rows to the mammograms that they belong to."""
    density = "breast_density" if "breast_density" in table.columns else "breast density"
    for line, path, pathology, kind, breast in zip(
        table.lines,
        column(table, "image file path"),
        column(table, "pathology"),
        column(table, "abnormality type"),
        column(table, density),
        strict=True,
    ):
        where = f"{table.path}, line {line}"
        match = CASE.fullmatch(path)
        if match is None:
            raise RequestError(
                f"{where}: expected an image file path like Mass-Training_P_00001_LEFT_CC/.../"
                f"000000.dcm, found {path!r}"
            )
        if pathology not in PATHOLOGY:
            raise RequestError(
                f"{where}: the pathology is one of {', '.join(PATHOLOGY)}, found {pathology!r}"
            )
        case, patient, side, view, _ = match.groups()
        meta: dict[str, str] = dict(zip(META, (kind, breast, side, view), strict=True))
        known = cases.setdefault(case, _Mammogram(patient, split, meta))
        if known.split != split:
            raise RequestError(f"{where}: {case} stands in a table of the other split too")
        known.malignant.append(PATHOLOGY[pathology])


def _find_image(base: Root, case: str) -> str | None:
    """A whole mammogram's one DICOM file, whatever the folders above it are called."""
    top = base.first(f"{IMAGES}/{case}") or case
    files = []
    for study in sorted(base.names(top)):
        series = sorted(base.names(f"{top}/{study}"))
        whole = [name for name in series if WHOLE in name] or series[:1]
        for name in whole:
            inner = f"{top}/{study}/{name}"
            files += [f"{inner}/{f}" for f in base.names(inner) if f.lower().endswith(".dcm")]
    return files[0] if len(files) == 1 else None


CBIS_DDSM = Recipe(
    NAME,
    "CBIS-DDSM, whole mammograms",
    BINARY,
    3103,
    "164 GB with crops and masks",
    "CC BY 3.0",
    "https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY",
    "the NBIA Data Retriever",
    "Lee et al. 2017, https://doi.org/10.1038/sdata.2017.177",
    "the owner's; every tenth patient of its train set is val",
    (
        *TABLES,
        "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/*/*full mammogram images*/*.dcm",
    ),
    _list,
    origins=("DDSM",),
)
