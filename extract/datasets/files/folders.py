"""Images in class folders: ``--data folder:PATH``.

PATH/{class}/**/images             or
PATH/{train,val,test}/{class}/**/images
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.key import file_stem
from cache.format.sample_tables import SPLITS
from cache.labels.columns import class_target
from cache.labels.target import unlabelled, warn_of_classes
from extract.datasets.files.below import composed, refuse_leading_out
from extract.datasets.files.decode import IMAGE_SUFFIXES, is_image_file
from extract.datasets.files.listing import SHOWN, Listing, first_of
from extract.datasets.files.options import TableOptions

SPLIT_WORDS = {  # in any case -> index into SPLITS
    **dict.fromkeys(("train", "training"), SPLITS.index("train")),
    **dict.fromkeys(("val", "valid", "validation", "dev"), SPLITS.index("val")),
    **dict.fromkeys(("test", "testing"), SPLITS.index("test")),
}
LAYOUT = "expected PATH/CLASS/image.png or PATH/train/CLASS/image.png"


def list_folder(
    root: Path, name: str | None = None, options: TableOptions | None = None
) -> Listing:
    """List the images of class folders.

    A class is a folder's name; images may lie deeper. None is opened but those without an ending,
    or with a number for one, whose first bytes tell whether they are DICOM. Hidden files, what
    macOS leaves behind and other files are passed over; the latter are counted in the notes.

    Args:
        root: the folder.
        name: of the data set; None: the folder's own.
        options: task, positive class, licence, window, and whether there are labels; nothing about
            columns.

    Raises:
        RequestError: no folder, no class folders, one class, class folders beside folders of
            splits, a link that leads out.
    """
    options = options or TableOptions()
    options.refuse_columns(str(root))
    root = root.expanduser().absolute()
    if not root.is_dir():
        raise RequestError(f"no folder at {root}; {LAYOUT}")
    files, folders = walk(root)
    images, others = divide(files, lambda path: is_image_file(f"{root}{os.sep}{path}"))
    splits = {} if options.unlabelled else _find_splits(root, images)
    # Where the class stands in a path; what has none may lie anywhere.
    depth = -1 if options.unlabelled else 1 if splits else 0
    images, loose = divide(images, lambda path: path.count("/") > depth)
    if not images:
        raise RequestError(_say_no_images(root, loose, others))
    ids, sample = make_samples(make_ids(root, images), depth, options.samples)
    first = np.unique(sample, return_index=True)[1].tolist()
    firsts = [images[i] for i in first]
    of_first = [splits[path.split("/", 1)[0]] for path in firsts if splits]
    if options.unlabelled:
        target, empty = unlabelled(len(ids)), []
        tops = sorted({path.split("/", 1)[0] for path in images if "/" in path})
        unread = [top for top in tops if top.lower() in SPLIT_WORDS]
    else:
        classes = [composed(path.split("/")[depth]) for path in firsts]
        _refuse_one_class(root, set(classes))
        target = class_target(
            classes, where=str(root), task=options.task, positive=options.positive
        )
        empty, unread = _empty_classes(folders, splits, set(classes)), []
    notes = [
        *([f"left out: {len(loose):_} in no class folder ({first_of(loose)})"] if loose else []),
        *([f"folders that are read as no split: {', '.join(unread)}"] if unread else []),
        *([f"no images in {first_of(empty)}, so no such class"] if empty else []),
        *([f"passed over: {_count_endings(others)}"] if others else []),
        *warn_of_classes(target),
    ]
    return Listing(
        name=name or file_stem(root.name),
        root=root,
        paths=tuple(images),
        sample=sample,
        ids=ids,
        target=target,
        split=np.array(of_first, np.uint8) if splits else None,
        licence=options.licence,
        window=options.window,
        notes=tuple(notes),
    )


def walk(root: Path) -> tuple[list[str], list[str]]:
    """All files and all folders below the root, relative to it, in one order everywhere."""
    real_root = os.path.realpath(root)
    files: list[str] = []
    folders: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    _check_link(root / path, real_root)
                if entry.is_dir():
                    folders.append(path)
                    pending.append(path)
                elif entry.is_file():
                    files.append(path)
    return sorted(files), sorted(folders)


def _check_link(link: Path, real_root: str) -> None:
    refuse_leading_out(link, real_root)
    if link.is_dir():  # it might lead round in a circle
        raise RequestError(f"{link} is a link to a folder, whose images would be there twice")


def divide(paths: Sequence[str], keep: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Those to keep, and the others."""
    kept: list[str] = []
    others: list[str] = []
    for path in paths:
        (kept if keep(path) else others).append(path)
    return kept, others


def _find_splits(root: Path, images: Sequence[str]) -> dict[str, int]:
    """Folders of splits -> index into SPLITS; none where the first folders are classes."""
    tops = sorted({path.split("/", 1)[0] for path in images if "/" in path})
    splits = {top: SPLIT_WORDS[top.lower()] for top in tops if top.lower() in SPLIT_WORDS}
    if splits and len(splits) < len(tops):
        others = [top for top in tops if top not in splits]
        raise RequestError(
            f"{root} has folders of splits ({first_of(list(splits))}) beside others with images "
            f"({first_of(others)}); {LAYOUT}, not both"
        )
    if len(set(splits.values())) < len(splits):
        raise RequestError(f"{root}: two of {', '.join(splits)} are one split; join them")
    return splits


def _say_no_images(root: Path, loose: Sequence[str], others: Sequence[str]) -> str:
    if loose:
        return (
            f"{root} has {len(loose):_} images in no class folder ({first_of(loose)}), so they have "
            f"no labels; {LAYOUT}, or name a table of paths and labels: --data csv:FILE; "
            "or say --unlabelled"
        )
    there = _count_endings(others) or "nothing"
    return f"no images in {root}, but {there}; {LAYOUT}, ending in {' '.join(IMAGE_SUFFIXES)}, or DICOM without an ending"


def _refuse_one_class(root: Path, classes: set[str]) -> None:
    if len(classes) == 1:
        raise RequestError(
            f"{root} has one class folder with images, {classes.pop()}, and a probe needs at least "
            f"two; {LAYOUT}; if it holds the class folders, name it itself"
        )


def _empty_classes(
    folders: Sequence[str], splits: Mapping[str, int], classes: set[str]
) -> list[str]:
    """Folders that stand where classes do, but hold no images, in no split."""
    places = [path.split("/") for path in folders]
    if splits:
        places = [place[1:] for place in places if place[0] in splits]
    return sorted({composed(place[0]) for place in places if len(place) == 1} - classes)


def make_ids(root: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """Paths in one spelling.

    Raises:
        RequestError: a name isn't UTF-8, or two look the same.
    """
    ids = {}
    for path in paths:
        if path.encode(errors="ignore").decode() != path:
            raise RequestError(f"{root}: the file name {path!r} isn't UTF-8; rename it")
        name = composed(path).strip()  # as a table, read later, has them
        if name in ids:
            raise RequestError(
                f"{root}: two files are named {name}, once with composed accents; rename one"
            )
        ids[name] = path
    return tuple(ids)


def make_samples(
    names: Sequence[str], depth: int, samples: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Ids of the samples, and which of them each image belongs to.

    Images in a folder below their class's are the slices or views of one sample, where folders are
    samples; those in the class's own folder stand alone.
    """
    if samples == "files":
        return tuple(names), np.arange(len(names))
    places: dict[str, int] = {}
    sample = []
    for name in names:
        folder = name.rsplit("/", 1)[0]
        below = folder.count("/") > depth
        sample.append(places.setdefault(folder if below else name, len(places)))
    return tuple(places), np.array(sample, np.int64)


def _count_endings(paths: Sequence[str]) -> str:
    """ "12 .txt, 1 without ending", the most frequent first."""
    counts = Counter(PurePosixPath(path).suffix.lower() or "without ending" for path in paths)
    return ", ".join(f"{n:_} {ending}" for ending, n in counts.most_common(2 * SHOWN))
