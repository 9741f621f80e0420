"""Images and their masks in two folders: ``--data seg-folder:PATH``.

PATH/images/a.png, PATH/masks/a.png                     or with train, val and test
PATH/train/images/a.png, PATH/train/masks/a.png         or the other way round
PATH/images/train/a.png, PATH/masks/train/a.png

A mask has its image's path below these folders, but for the ending, and may have one of SUFFIXES behind
its name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.errors import RequestError
from cache.format.key import file_stem
from cache.format.sample_tables import SPLITS
from cache.labels.target import unlabelled
from extract.datasets.files.decode import IMAGE_SUFFIXES, is_image_file
from extract.datasets.files.folders import SPLIT_WORDS, divide, make_ids, make_samples, walk
from extract.datasets.files.listing import Listing, MaskListing, first_of
from extract.datasets.files.mask_classes import MaskClasses
from extract.datasets.files.options import OF_MASKS, TableOptions

IMAGES = ("images", "image", "imgs", "img")  # in any case
MASKS = ("masks", "mask", "labels", "label", "segmentations", "segmentation")
SUFFIXES = ("", "_mask", "-mask", "_seg", "_segmentation", "_label", "_labels", "_gt")
LAYOUT = "expected PATH/images/a.png and PATH/masks/a.png, or both below train, val and test"


@dataclass(frozen=True)
class _Place:
    """Where a file lies: in which split, and by what path below its folder, without its ending."""

    split: str  # one of SPLITS, however its folder is called; "": none
    stem: str


def list_seg_folder(
    root: Path, name: str | None = None, options: TableOptions | None = None
) -> Listing:
    """List images and their masks; none is opened.

    Args:
        root: the folder.
        name: of the data set; None: the folder's own.
        options: of masks; with ``samples`` "folders", images in one folder below ``images`` are the
            slices of one sample.

    Raises:
        RequestError: no such folder or layout, no image has a mask, two masks for one image, a link
            that leads out.
    """
    options = options or TableOptions()
    options.refuse_columns(str(root), {"samples", "unlabelled", *OF_MASKS - {"mask_col"}})
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise RequestError(f"no folder at {root}; {LAYOUT}")
    files, others = divide(walk(root)[0], lambda path: is_image_file(f"{root}{os.sep}{path}"))
    images, masks, loose = _sort(files)
    if not images or not masks:
        lacks = "images" if not images else "masks"
        raise RequestError(f"{root} has no {lacks}; {LAYOUT}")
    splits = _splits(root, images)
    of_image, left = _pair(root, images, masks)
    n_without = sum(mask is None for mask in of_image)
    if n_without == len(images):
        paths = first_of([*images])
        raise RequestError(f"{root}: no image has a mask of its name ({paths}); {LAYOUT}")
    ids, sample = make_samples(make_ids(root, [*images]), _depth(splits), options.samples)
    first = np.unique(sample, return_index=True)[1]
    places = [*images.values()]
    of_first = [SPLITS.index(places[i].split) for i in first if splits]
    notes = [
        *([f"left out: {len(left):_} masks without an image ({first_of(left)})"] if left else []),
        *([f"left out: {len(loose):_} files beside them ({first_of(loose)})"] if loose else []),
        *([f"passed over: {len(others):_} files that are no images"] if others else []),
    ]
    return Listing(
        name=name or file_stem(root.name),
        root=root,
        paths=tuple(images),
        sample=sample,
        ids=ids,
        target=unlabelled(len(ids)),
        split=np.array(of_first, np.uint8) if splits else None,
        licence=options.licence,
        window=options.window,
        notes=tuple(notes),
        masks=MaskListing(of_image, MaskClasses.of(options)),
    )


def _sort(files: Sequence[str]) -> tuple[dict[str, _Place], dict[str, _Place], list[str]]:
    """Images, masks, and what lies in the folder of neither."""
    images: dict[str, _Place] = {}
    masks: dict[str, _Place] = {}
    loose = []
    for path in files:
        parts = path.split("/")
        words = [part.lower() for part in parts[:-1][:2]]
        kind = next((i for i, word in enumerate(words) if word in (*IMAGES, *MASKS)), None)
        if kind is None or (kind == 1 and words[0] not in SPLIT_WORDS):
            loose.append(path)
            continue
        beside = 1 - kind
        is_split = beside < len(words) and words[beside] in SPLIT_WORDS
        split = SPLITS[SPLIT_WORDS[words[beside]]] if is_split else ""
        rest = "/".join(parts[2 if is_split else 1 :])
        (images if words[kind] in IMAGES else masks)[path] = _Place(split, _stem(rest))
    return images, masks, loose


def _stem(path: str) -> str:
    """A path without the ending of an image: "a.nii.gz" is "a"."""
    endings = sorted(IMAGE_SUFFIXES, key=len, reverse=True)
    ending = next((e for e in endings if path.lower().endswith(e)), "")
    return path[: len(path) - len(ending)]


def _splits(root: Path, images: dict[str, _Place]) -> set[str]:
    """The folders of splits; none where there are none."""
    splits = {place.split for place in images.values()}
    if "" in splits and len(splits) > 1:
        loose = [path for path, place in images.items() if not place.split]
        raise RequestError(
            f"{root} has images in folders of splits and others beside them ({first_of(loose)}); {LAYOUT}"
        )
    return splits - {""}


def _depth(splits: set[str]) -> int:
    """Folders above an image that are no sample's: images, and the split's."""
    return 1 if splits else 0


def _pair(
    root: Path, images: dict[str, _Place], masks: dict[str, _Place]
) -> tuple[tuple[str | None, ...], list[str]]:
    """The mask of each image, and the masks that are left."""
    by_place: dict[_Place, str] = {}
    for path, place in masks.items():
        if place in by_place:
            raise RequestError(
                f"{root}: {by_place[place]} and {path} are masks of one name; leave one"
            )
        by_place[place] = path
    of_image: list[str | None] = []
    taken: dict[str, str] = {}
    for path, place in images.items():
        found = [by_place.get(_Place(place.split, place.stem + suffix)) for suffix in SUFFIXES]
        mask = next((one for one in found if one), None)
        if mask is not None and taken.setdefault(mask, path) != path:
            raise RequestError(
                f"{root}: {taken[mask]} and {path} have one mask, {mask}; rename them"
            )
        of_image.append(mask)
    return tuple(of_image), [path for path in masks if path not in taken]
