"""DDSM as Huix et al. 2024 use it: normal mammograms, and those with a benign or malignant lesion.

Their paper calls it CBIS-DDSM, which has no normal mammograms; their code (defaults/datasets.py:127-135)
reads the JPEGs and lists of DDSM Visual Primitives (Wu et al. 2018). An image's name begins with what
it shows: normal 0, benign and cancer 1. Where a PNG of the same name lies beside a JPEG the PNG is
read, as their code does.
"""

import re
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.labels.target import Target
from cache.task import BINARY
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.recipe import (
    Recipe,
    find_base,
    read_lines,
    require_images,
)

NAME = "ddsm-huix2024"
CLASSES = ("normal", "benign or cancer")
DIAGNOSES = {"normal": 0, "benign": 1, "cancer": 1}
IMAGES, LISTS = "ddsm_raw", "ddsm_raw_image_lists"
# "cancer_15-B_3504_1.RIGHT_CC.LJPEG.1.jpg": volume 15, case B_3504, which is one woman.
CASE = re.compile(r"[a-z]+_(?:\d+-)?([A-D]_\d+)_\d+\.(LEFT|RIGHT)_(CC|MLO)\..+")


def _list(root: Path) -> Listing:
    files = [f"{LISTS}/{name}.txt" for name in SPLITS]
    base = find_base(root, LISTS, needs=[IMAGES, *files])
    lists = [read_lines(base.path / file) for file in files]
    names = [name for names in lists for name in names]
    if len(set(names)) < len(names):
        raise RequestError(
            f"an image stands in two lists of {base.path / LISTS}; expected disjoint ones"
        )
    listed = [f"{IMAGES}/{name}" for name in names]
    paths = tuple(base.first(f"{path.rpartition('.')[0]}.png") or path for path in listed)
    require_images(base, paths)
    stems = [name.rpartition("/")[2] for name in names]
    diagnoses = [stem.partition("_")[0] for stem in stems]
    for name, diagnosis in zip(names, diagnoses, strict=True):
        if diagnosis not in DIAGNOSES:
            raise RequestError(
                f"{base.path / LISTS}: names begin with {', '.join(DIAGNOSES)}; found {name}"
            )
    cases = [CASE.fullmatch(stem) for stem in stems]
    patients = [case[1] if case else stem for case, stem in zip(cases, stems, strict=True)]
    n_unknown = cases.count(None)
    notes = (f"{n_unknown} images whose names don't say the patient stand for one each",)
    return Listing(
        NAME,
        base.path,
        paths,
        np.arange(len(paths)),
        tuple(names),
        Target(BINARY, CLASSES, np.array([DIAGNOSES[d] for d in diagnoses], np.int64)),
        np.repeat(np.arange(len(SPLITS), dtype=np.uint8), [len(names) for names in lists]),
        np.array(patients),
        {
            "diagnosis": np.array(diagnoses),
            "side": np.array([case[2] if case else "" for case in cases]),
            "view": np.array([case[3] if case else "" for case in cases]),
        },
        notes=notes if n_unknown else (),
    )


DDSM_HUIX2024 = Recipe(
    NAME,
    "DDSM as Huix et al. 2024 read it (their CBIS-DDSM)",
    BINARY,
    0,
    "some 10 GB",
    "none is stated; DDSM is free for research, with citation",
    "https://github.com/jimmyyhwu/ddsm-visual-primitives",
    "",
    "Heath et al. 2001 (DDSM); Wu et al. 2018 (JPEGs and lists)",
    "the lists of DDSM Visual Primitives",
    (f"{IMAGES}/*.jpg", f"{LISTS}/train.txt", f"{LISTS}/val.txt", f"{LISTS}/test.txt"),
    _list,
    origins=("DDSM",),
    statistics=((0.286,) * 3, (0.267,) * 3),  # Huix et al. 2024, defaults/datasets.py
)
