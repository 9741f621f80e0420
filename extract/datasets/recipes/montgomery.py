"""Montgomery County's chest X-rays, with masks of both lungs: paper 003's set of two dimensions.

Each lung has a mask of its own; the paper joins them to one class. MohammedSB/DINOv2ForRadiology takes
every third image as test and every fourth of the others as val: 69, 23 and 46 of 138, by name. The label
is whether a radiologist has seen tuberculosis, the last digit of a name.
"""

import re
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.labels.target import Target
from cache.task import BINARY
from extract.datasets.files.listing import Listing, MaskListing, first_of
from extract.datasets.files.mask_classes import MaskClasses
from extract.datasets.files.options import TableOptions
from extract.datasets.recipes.recipe import MissingFiles, Recipe, find_base, systematic_split

NAME = "montgomery"
IMAGES, LEFT, RIGHT = "CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"
N_IMAGES, N_TEST, N_VAL = 138, 46, 23
CLASSES = ("background", "lung")


def _list(root: Path) -> Listing:
    base = find_base(root, IMAGES, needs=(LEFT, RIGHT))
    names = sorted(name for name in base.names(IMAGES) if name.endswith(".png") and name[0] != ".")
    lacking = [f"{of}/{n}" for of in (LEFT, RIGHT) for n in names if f"{of}/{n}" not in base]
    if lacking or not names:
        raise MissingFiles(first_of(lacking) if lacking else f"images in {IMAGES}")
    odd = [name for name in names if not re.fullmatch(r"MCUCXR_\d+_[01]\.png", name)]
    if odd:
        raise RequestError(f"{IMAGES}/{odd[0]} isn't named as the owner's, MCUCXR_0001_0.png")
    labels = np.array([int(name[-5]) for name in names])
    return Listing(
        NAME,
        base.path,
        tuple(f"{IMAGES}/{name}" for name in names),
        np.arange(len(names)),
        tuple(name.removesuffix(".png") for name in names),
        Target(BINARY, ("normal", "tuberculosis"), labels),
        systematic_split(len(names), N_TEST, N_VAL, N_IMAGES),
        masks=MaskListing(
            tuple(f"{LEFT}/{name}" for name in names),
            MaskClasses.of(TableOptions(mask_classes=CLASSES)),
            tuple(f"{RIGHT}/{name}" for name in names),
        ),
    )


MONTGOMERY = Recipe(
    NAME,
    "Montgomery County chest X-rays",
    BINARY,
    N_IMAGES,
    "0.6 GB",
    "free to use, with the source and the papers cited",
    "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set",
    "",
    "Jaeger et al. 2014, https://doi.org/10.3978/j.issn.2223-4292.2014.11.20",
    "Baharoon et al. 2023, every third image test, every fourth of the others val",
    (f"{IMAGES}/MCUCXR_*.png", f"{LEFT}/MCUCXR_*.png", f"{RIGHT}/MCUCXR_*.png"),
    _list,
    origins=("Montgomery chest X-rays",),
    mask_classes=CLASSES,
)
