"""Volumes with masks of paper 003: three tasks of the Medical Segmentation Decathlon, and AMOS.

Each volume is a sample and a patient, its slices are rows; masks are cut and turned as their volumes
are, and headers say how far voxels lie apart. Owners publish no masks of their test sets, so the paper
divides what has masks: 80 of 260 hippocampi are test and 60 val, 15 of 41 spleens and 10; of AMOS it takes
150 CT volumes, 50 and 20. Which ones stands on the authors' drive; here all are taken in these shares, evenly
spaced as that paper's code divides its other sets (``systematic_split``): like sets, not the same.

Values are cut as the paper says: MRI at its 5th and 95th percentile, CT of AMOS at -1024 and 600. Of
spleens it says nothing; they are cut as AMOS's.
"""

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.labels.target import unlabelled
from cache.task import MULTI_LABEL
from extract.datasets.files.listing import Listing, MaskListing, first_of
from extract.datasets.files.mask_classes import MaskClasses
from extract.datasets.files.options import TableOptions
from extract.datasets.recipes.recipe import (
    MissingFiles,
    Recipe,
    find_base,
    require,
    systematic_split,
)

DESCRIPTION = "dataset.json"
CT, MRI = "-1024,600", "percentile:5,95"
FIRST_MR = 500  # AMOS: volumes from this number on are MR


@dataclass(frozen=True)
class _Set:
    """One set, as its archive unpacks."""

    name: str
    n: int  # volumes with masks, as published
    n_test: int  # of the paper
    n_val: int
    window: str
    classes: tuple[str, ...]  # of the masks' values 0, 1, ...
    folders: tuple[str, ...] = ("Tr",)  # images and labels, each with this behind its name
    most: int | None = None  # volumes have numbers below it; None: all are meant


HEART = _Set("msd-heart", 20, 4, 4, MRI, ("background", "left atrium"))
HIPPOCAMPUS = _Set("msd-hippocampus", 260, 80, 60, MRI, ("background", "anterior", "posterior"))
SPLEEN = _Set("msd-spleen", 41, 15, 10, CT, ("background", "spleen"))
ORGANS = (
    *("background", "spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver"),
    *("stomach", "aorta", "inferior vena cava", "pancreas", "right adrenal gland"),
    *("left adrenal gland", "duodenum", "bladder", "prostate or uterus"),
)
AMOS_CT = _Set("amos-ct", 300, 100, 40, CT, ORGANS, ("Tr", "Va"), FIRST_MR)


def _list(of: _Set, root: Path) -> Listing:
    base = find_base(root, "imagesTr", needs=("labelsTr",))
    if DESCRIPTION in base:
        _check_classes(base.path / DESCRIPTION, of)
    images: list[str] = []
    for word in of.folders:
        # macOS packs a file "._name" beside each.
        require(base, f"images{word}", f"labels{word}")
        there = [n for n in base.names(f"images{word}") if n.endswith(".nii.gz") and n[0] != "."]
        images += sorted(f"images{word}/{n}" for n in there)
    notes: tuple[str, ...] = ()
    if of.most is not None:
        n, images = len(images), [path for path in images if _number(path) < of.most]
        notes = (f"left out: {n - len(images)} MR volumes",) if len(images) < n else ()
    masks = [re.sub(r"^images", "labels", path) for path in images]
    lacking = [mask for mask in masks if mask not in base]
    if lacking or not images:
        raise MissingFiles(first_of(lacking) if lacking else f"{of.name}'s volumes in imagesTr")
    ids = tuple(path.rpartition("/")[2].removesuffix(".nii.gz") for path in images)
    return Listing(
        of.name,
        base.path,
        tuple(images),
        np.arange(len(images)),
        ids,
        unlabelled(len(ids)),
        systematic_split(len(ids), of.n_test, of.n_val, of.n),
        np.array(ids),
        window=of.window,
        notes=notes,
        masks=MaskListing(
            tuple(masks),
            MaskClasses.of(
                TableOptions(mask_classes=tuple(f"{i}={n}" for i, n in enumerate(of.classes)))
            ),
        ),
    )


def _number(path: str) -> int:
    """Of a volume: "imagesTr/amos_0507.nii.gz" is 507."""
    digits = re.search(r"(\d+)\.nii\.gz$", path)
    if digits is None:
        raise RequestError(f"{path} has no number; is it the owner's archive?")
    return int(digits.group(1))


def _check_classes(path: Path, of: _Set) -> None:
    """Refuse another task's folder: what the owner says of masks has other classes."""
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        n, names = len(labels), {str(name).lower() for name in labels.values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path} isn't the owner's ({error}); unpack its archive again"
        ) from error
    # Owners spell some names otherwise ("gall bladder"); of another task's none is among ours.
    if n != len(of.classes) or not names & {*of.classes[1:]}:
        raise RequestError(
            f"{path} has other classes than {of.name}, {', '.join(of.classes[:4])}; is it another "
            "set's folder?"
        )


def _recipe(of: _Set, title: str, size: str, licence: str, url: str, more: str = "") -> Recipe:
    layout = tuple(f"{kind}{word}/*.nii.gz" for word in of.folders for kind in ("images", "labels"))
    return Recipe(
        of.name,
        title,
        MULTI_LABEL,
        of.n,
        size,
        licence,
        url,
        "",
        f"Antonelli et al. 2022{more}" if of.name.startswith("msd") else f"Ji et al. 2022{more}",
        f"in the shares of Baharoon et al. 2023, evenly spaced: {of.n_test} test, {of.n_val} val",
        (*layout, f"{DESCRIPTION} (may be absent)"),
        partial(_list, of),
        origins=(title.partition(",")[0],),
        mask_classes=of.classes,
    )


DECATHLON = "https://registry.opendata.aws/msd"
VOLUMES_WITH_MASKS = (
    _recipe(HEART, "MSD Heart, left atrium in MRI", "0.4 GB", "CC BY-SA 4.0", DECATHLON),
    _recipe(HIPPOCAMPUS, "MSD Hippocampus, its parts in MRI", "27 MB", "CC BY-SA 4.0", DECATHLON),
    _recipe(SPLEEN, "MSD Spleen, in CT", "1.5 GB", "CC BY-SA 4.0", DECATHLON),
    _recipe(
        AMOS_CT,
        "AMOS, fifteen organs in CT",
        "24 GB",
        "CC BY 4.0",
        "https://doi.org/10.5281/zenodo.7262581",
    ),
)
