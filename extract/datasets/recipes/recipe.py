"""What a recipe is, and how one is opened.

Nothing is downloaded here: most owners want a registration first. A recipe knows what lies where once
their archives are unpacked, says what is missing, and reads labels, patients and the split.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import RequestError
from extract.datasets.files.listing import Listing
from extract.datasets.recipes.layouts import MissingFiles

DATA_VARIABLE = "MEDPROBE_DATA"


@dataclass(frozen=True)
class Recipe:
    """A published data set: who publishes it under which terms, and how its files are read."""

    name: str  # as typed after --data
    title: str
    task: str  # one of cache.task.TASKS
    n_images: int  # as published, or as the paper counts; 0: nobody says
    size: str  # of the archives, in words
    licence: str  # as its owner words it
    url: str  # where it is published
    access: str  # what the owner wants first; "" where it is nothing
    reference: str
    split: str  # whose, in words
    layout: tuple[str, ...]  # what is expected below the root
    list_files: Callable[[Path], Listing]  # raises MissingFiles, RequestError
    origins: tuple[str, ...]  # whose images these are, in the words of ``Pretraining.seen``
    # Mean and std of each channel as a paper has them; None: computed from the train split's pixels.
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    templates: tuple[str, ...] = ()  # of prompts; {} is the class. (): those of any data set


def recipe_root(recipe: Recipe, root: Path | None) -> Path:
    """Where a data set is looked for.

    Args:
        recipe: which.
        root: a folder that holds the set, or a folder named like it that does; None is
            ``$MEDPROBE_DATA``, or ``./data``.
    """
    if root is None:
        return Path(os.environ.get(DATA_VARIABLE) or "data").expanduser() / recipe.name
    named = root / recipe.name
    return named if named.is_dir() else root


def open_recipe(recipe: Recipe, root: Path | None) -> Listing:
    """List a data set's files and read what its owner says of them. No image is opened.

    Args:
        recipe: which.
        root: see ``recipe_root``.

    Raises:
        RequestError: no folder, an incomplete one (what is missing is named, with what is expected
            and where it is published), or tables that aren't the owner's.
    """
    folder = recipe_root(recipe, root)
    if not folder.is_dir():
        raise RequestError(f"no folder {folder} for {recipe.name}; {_expected(recipe)}")
    try:
        listing = recipe.list_files(folder)
    except MissingFiles as missing:
        raise RequestError(
            f"{folder} lacks {missing} of {recipe.name}; {_expected(recipe)}"
        ) from None
    notes = listing.notes
    if recipe.n_images and len(listing.paths) != recipe.n_images:
        notes = (f"{recipe.n_images} images are published, {len(listing.paths)} are here", *notes)
    return dataclasses.replace(
        listing, licence=recipe.licence, notes=notes, split_words=recipe.split
    )


def _expected(recipe: Recipe) -> str:
    needs = f"needs {recipe.access}; " if recipe.access else ""
    return (
        f"expected there: {', '.join(recipe.layout)}. Published at {recipe.url} ({recipe.size}; "
        f"{needs}licence: {recipe.licence}); name its folder with --data-root DIR"
    )
