"""The split that a data set without one was given before: kept when labels or samples change.

A split that is drawn anew for each encoder makes numbers that can't be compared, and nobody sees it.
So it is drawn once: whoever is in the newest complete feature file of the data set stays where that
file has it, and only what is new is drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import CacheError, RequestError
from cache.export import EXPORTED
from cache.features import Features, open_features
from cache.format.key import file_stem
from cache.format.read import read_table
from cache.places import IMAGES
from cache.splits.make import LEFT_OUT, divided_groups
from cache.splits.rules import Drawn, SplitRule

ANEW = "none"  # of --keep-split


@dataclass(frozen=True)
class SplitWish:
    """What a user says of the split of files of images."""

    rule: str | None = None  # see cache.splits.make; None: the owner's, else the usual one
    seed: int | None = None  # None: of the split that is kept, else 0
    keep: str | None = None  # the feature file whose split is kept, or ANEW; None: the newest

    def fits(self, drawn: Drawn) -> bool:
        """Whether a split that was drawn so isn't another than is asked for."""
        same_rule = self.rule is None or SplitRule.parse(self.rule) == drawn.rule
        return same_rule and self.seed in (None, drawn.seed)


@dataclass(frozen=True)
class Sampled:
    """The samples of a data set as they are now. S samples, N rows."""

    name: str
    images: str  # digest of their images, in order
    row_sample: NDArray[np.int64]  # (N,)
    ids: NDArray[np.str_]  # (S,)
    groups: NDArray[np.str_] | None = None  # (S,) patients, where known


@dataclass(frozen=True)
class Kept:
    """A split that was drawn before, laid over the samples as they are now.

    Of a rule in which ids or columns decide only the rule is kept, and of a split that patients who
    weren't known then would have made another one.
    """

    path: Path  # of the file that has it
    drawn: Drawn
    split: NDArray[np.uint8]  # (S,) index into SPLITS; LEFT_OUT of what isn't kept
    n_divided: int = 0  # samples of patients that it divides: they are drawn anew

    @property
    def is_rule(self) -> bool:
        """Whether nobody keeps a place, and only how to draw is known."""
        return bool((self.split == LEFT_OUT).all())


def find_files(root: Path, name: str) -> Iterator[Features]:
    """The complete feature files of a data set, and what ``finetune`` keeps of it; none of texts.

    Not those that were made to share, whose ids may be hashes, nor those of a few images.

    Args:
        root: the folder of features.
        name: of the data set.
    """
    for folder in (root / file_stem(name), root / IMAGES / file_stem(name)):
        for path in sorted(folder.glob("*.h5")):
            try:
                features = open_features(path)
            except (CacheError, OSError):
                continue  # unfinished, or damaged: `cache verify` says so
            is_ours = features.dataset == name and EXPORTED not in features.notes
            if is_ours and not features.is_text and not features.is_part:
                yield features


def find_kept(root: Path, asked: SplitWish, now: Sampled) -> Kept | None:
    """The earlier split of a data set whose owner has none, where there is one to keep.

    Args:
        root: the folder of features.
        asked: what the user says.
        now: the samples.

    Returns:
        None where there is none: the first time, or where another rule or seed is asked for.

    Raises:
        RequestError: two complete files have different splits; no such file to keep it of.
    """
    if asked.keep == ANEW:
        return None
    if asked.keep:
        features = _named(Path(asked.keep), now.name)
        found = [(features, Drawn.read(features.notes))]
    else:
        files = [(features, Drawn.read(features.notes)) for features in find_files(root, now.name)]
        files.sort(key=lambda item: item[0].path.stat().st_mtime_ns, reverse=True)
        found = [(features, drawn) for features, drawn in files if drawn]
    try:
        laid = [(features, drawn, _lay(features, now)) for features, drawn in _distinct(found)]
    except CacheError as error:  # it may be the one whose split is to be kept
        raise RequestError(str(error)) from error
    laid = [(features, drawn, split) for features, drawn, split in laid if (split < LEFT_OUT).any()]
    if not laid:
        return None
    newest, drawn, split = laid[0]
    if drawn is None or not asked.fits(drawn):
        return None
    for other, _, others in laid[1:]:
        _refuse_another(now.name, (newest, split), (other, others))
    divided = divided_groups(split, now.groups)
    if not drawn.rule.shares or (divided.any() and newest.groups is None):
        return Kept(newest.path, drawn, np.full_like(split, LEFT_OUT))
    return Kept(newest.path, drawn, split, int((divided & (split < LEFT_OUT)).sum()))


def _distinct(
    found: Sequence[tuple[Features, Drawn | None]],
) -> list[tuple[Features, Drawn | None]]:
    """The first of each table: files of many encoders have one, and need not all be read."""
    names = ("rows/sample", "samples/ids", "samples/split", "samples/groups")
    first: dict[tuple[Any, ...], tuple[Features, Drawn | None]] = {}
    for features, drawn in found:
        tables = features.header.tables
        said = (features.key.get("images"), *(tables.get(name) for name in names))
        first.setdefault(said, (features, drawn))
    return list(first.values())


def _named(path: Path, name: str) -> Features:
    """The file of --keep-split.

    Raises:
        RequestError: there is none, or it is of another data set, or has its owner's split.
    """
    try:
        features = open_features(path)
    except CacheError as error:
        raise RequestError(f"--keep-split: {error}") from error
    if features.dataset != name:
        raise RequestError(f"--keep-split: {path} is of {features.dataset}, not of {name}")
    if Drawn.read(features.notes) is None:
        raise RequestError(f"--keep-split: the split of {path} wasn't drawn, or nobody knows how")
    return features


def _lay(features: Features, now: Sampled) -> NDArray[np.uint8]:
    """(S,) the split that a file has of the samples as they are now, LEFT_OUT where it has none."""
    stored = read_table(features.header, "samples/split")
    same_images = features.key.get("images") == now.images
    if same_images and np.array_equal(features.row_sample, now.row_sample):
        return stored  # of folders a corrected label is another id of the same image
    place = {name: i for i, name in enumerate(features.ids.tolist())}
    at = np.array([place.get(name, -1) for name in now.ids.tolist()])
    return np.where(at < 0, LEFT_OUT, stored[at]).astype(np.uint8)


def _refuse_another(
    name: str, a: tuple[Features, NDArray[np.uint8]], b: tuple[Features, NDArray[np.uint8]]
) -> None:
    """Two files of one data set that divide it differently: nobody can say which one is meant.

    Raises:
        RequestError: they do.
    """
    both = (a[1] < LEFT_OUT) & (b[1] < LEFT_OUT)
    if n := int((a[1] != b[1])[both].sum()):
        raise RequestError(
            f"{name} is divided differently in two files, {n:_} of {int(both.sum()):_} samples, so "
            f"that no table may compare them:\n  {a[0].path}\n  {b[0].path}\n"
            f"say whose split to keep; all files of these images then take it:\n"
            f"  extract ... --keep-split {a[0].path}"
        )
