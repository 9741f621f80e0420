"""What is known of a data set of files before any image is opened."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.labels.target import Target
from extract.datasets.files.mask_classes import MaskClasses

SHOWN = 3  # names in a message
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def first_of(names: Sequence[str], n: int = SHOWN) -> str:
    """ "a, b, c ...": the first n names, and whether there are more."""
    return ", ".join(names[:n]) + (" ..." if len(names) > n else "")


@dataclass(frozen=True)
class MaskListing:
    """The masks of a listing's files. F files."""

    paths: tuple[str | None, ...]  # (F,) below the listing's root; None: without a mask
    classes: MaskClasses
    also: tuple[
        str, ...
    ] = ()  # (F,) a second mask of each, that is joined to it; (): there is none

    @property
    def words(self) -> str:
        """What was understood."""
        n, n_files = sum(path is not None for path in self.paths), len(self.paths)
        of = "all" if n == n_files else f"{n:_} of"
        names, number = self.classes.names, self.classes.background
        background = "none" if number is None else names[number]
        return f"masks of {of} {n_files:_} files, to be read as: {self.classes.words}; background: {background}"


@dataclass(frozen=True)
class Listing:
    """Files, the samples they belong to, and what is said of the samples. F files, S samples.

    Made by a folder, a table or a recipe; ``file_images`` opens the files. Order is of no meaning:
    rows are put in order where the files' contents are known.
    """

    name: str
    root: Path
    paths: tuple[str, ...]  # (F,) of files, POSIX, relative to root and below it; no doubles
    sample: NDArray[np.int64]  # (F,) which sample a file belongs to
    ids: tuple[str, ...]  # (S,) unique, NFC
    target: Target
    split: NDArray[np.uint8] | None = None  # (S,) index into SPLITS; None: the owner has none
    groups: NDArray[np.str_] | None = None  # (S,) patients, where known
    meta: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (S,) text or float64
    licence: str = ""
    window: str | None = None  # how values beyond 8 bit become grey levels; None: nobody says
    notes: tuple[str, ...] = ()  # what a user should be told once, e.g. "3 rows without a label"
    masks: MaskListing | None = None  # labels of pixels
    split_words: str = "the owner's"  # whose split it is

    def __post_init__(self) -> None:
        for text in (*self.target.class_names, *self.ids):
            if CONTROL.search(text):
                raise RequestError(
                    f"{self.name}: the name {text!r} holds a control character, which could rewrite "
                    "the terminal that shows it; rename it"
                )

    def take(self, samples: NDArray[np.int64], files: NDArray[np.int64] | None = None) -> "Listing":
        """Some samples, in the order given.

        Args:
            samples: their numbers.
            files: numbers of their files, in order; None: each sample is one file.
        """
        files = samples if files is None else files
        place = np.zeros(len(self.ids), np.int64)
        place[samples] = np.arange(len(samples))
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in files.tolist()),
            sample=place[self.sample[files]],
            ids=tuple(self.ids[i] for i in samples.tolist()),
            target=dataclasses.replace(self.target, labels=self.target.labels[samples]),
            split=None if self.split is None else self.split[samples],
            groups=None if self.groups is None else self.groups[samples],
            meta={name: values[samples] for name, values in self.meta.items()},
            masks=self.masks
            and dataclasses.replace(
                self.masks,
                paths=tuple(self.masks.paths[i] for i in files.tolist()),
                also=tuple(self.masks.also[i] for i in files.tolist() if self.masks.also),
            ),
        )
