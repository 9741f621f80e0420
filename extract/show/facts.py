"""What is known of each data set that ``--data`` can name, and whether it is on this machine.

Nothing is fetched, no image is opened, and torch isn't imported.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.commands.names import near_names
from cache.format.sample_tables import SPLITS
from cache.labels.target import Target
from cache.task import BINARY, MULTI_LABEL
from extract.datasets.arrays import demo, demo_masks, medmnist, medsegbench
from extract.datasets.arrays.official import OfficialFile
from extract.datasets.files import definitions
from extract.datasets.files.options import TableOptions
from extract.datasets.origins import ORIGINS
from extract.datasets.recipes import RECIPES, Recipe, recipe_root
from extract.datasets.sources import DEMOS, list_files
from extract.datasets.volumes import Slicing
from extract.encoders.table.entries import ENTRIES
from extract.show.samples import ClassSamples, by_class

Facts = dict[str, Any]  # all that is known of one data set

COMMANDS = ("show", "twins", "add", "remove")  # of ``extract data``, of which one may be meant
READY, NEEDS_DOWNLOAD, NOT_HERE, DAMAGED = "ready", "needs download", "not here", "damaged"
MEDMNIST_PAPER = "Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8"
DEMO_PAPER = "Fonov et al. 2011, https://doi.org/10.1016/j.neuroimage.2010.07.033"
DEMO_PACKAGES = ("nilearn", "nibabel")


def list_facts(root: Path | None) -> list[Facts]:
    """All data sets: a user's own, MedMNIST's, MedSegBench's, those with a recipe, the demos.

    Args:
        root: folder of MedMNIST's or MedSegBench's files, or of recipes' folders; None: each one's usual place.
    """
    return [
        *map(definition_facts, definitions.names()),
        *(medmnist_facts(flag, root) for flag in medmnist.FLAGS),
        *(medseg_facts(name, root) for name in medsegbench.WHOLES),
        *(recipe_facts(recipe, root) for recipe in RECIPES),
        demo_facts(),
        demo_masks_facts(),
    ]


def find_facts(name: str, root: Path | None) -> Facts:
    """The facts of one data set.

    Raises:
        RequestError: there is none of this name.
    """
    if name in medsegbench.PARTS:  # which the list passes over
        return medseg_facts(name, root)
    every = {facts["name"]: facts for facts in list_facts(root)}
    if name not in every and ":" in name:
        raise RequestError(
            f"{name} has no name yet: `extract data add NAME {name}` gives it one; `extract data "
            f"show {name}` draws it as it is"
        )
    if name not in every:
        near = near_names(name, [*every, *COMMANDS], "`extract data` lists them all")
        raise RequestError(
            f"no data set {name!r}; {near} (`extract data add {name} folder:PATH` makes it one)"
        )
    return every[name]


def medmnist_facts(flag: str, root: Path | None) -> Facts:
    """Of one of MedMNIST's sets."""
    info = medmnist.info(flag)
    file = medmnist.find_file(flag, 0, None, root)
    title = info["python_class"] + (", volumes" if flag in medmnist.FLAGS_3D else "")
    return _facts(
        name=flag,
        state=READY if file.here else NEEDS_DOWNLOAD,
        title=title,
        task=info["task"],
        classes=list(info["label"].values()),
        n_samples=sum(info["n_samples"].values()),
        splits=dict(info["n_samples"]),
        **_sizes(file),
        licence=info["license"],
        url=info["url"].partition("/files/")[0],
        reference=MEDMNIST_PAPER,
        about=info["description"],
    )


def _sizes(file: OfficialFile) -> Facts:
    """In which sizes there are images, and which are here."""
    files = list(map(str, file.here.values()))
    return {
        "sizes": [size for size, _ in file.sizes],
        "sizes_here": list(file.here),
        "files": files,
    }


def medseg_facts(name: str, root: Path | None) -> Facts:
    """Of one of MedSegBench's sets, or of a part of one."""
    wanted = medsegbench.NAMES[name]
    one = wanted.of
    file = medsegbench.find_file(name, 0, None, root)
    task, classes = wanted.labels or (None, ())
    parts = {
        part: w.part.name
        for part, w in medsegbench.PARTS.items()
        if w.part and w.of is one and not wanted.part
    }
    return _facts(
        name=name,
        state=READY if file.here else NEEDS_DOWNLOAD,
        title=f"MedSegBench's {one.flag}: {one.modality}, with masks",
        task=task,
        classes=list(classes) or None,
        mask_classes=list(wanted.mask_classes),
        n_samples=sum(wanted.counts),
        splits=dict(zip(SPLITS, wanted.counts, strict=True)),
        parts=parts,
        **_sizes(file),
        licence=one.licence,
        url=file.url.partition("/files/")[0],
        reference=f"{medsegbench.PAPER}; {one.reference}",
        notes=list(medsegbench.notes_of(wanted)),
    )


def demo_facts() -> Facts:
    """Of the demonstration set."""
    missing = [name for name in DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    return _facts(
        name=demo.NAME,
        state=f"missing package {missing[0]}" if missing else READY,
        title="patches of one averaged brain; it proves nothing",
        task=demo.TASK,
        classes=list(demo.CLASS_NAMES),
        n_samples=demo.demo_counts(),
        splits={split: len(demo.MAPS) * n for split, n in demo.PER_CLASS.items()},
        sizes=[demo.SIDE],
        sizes_here=[] if missing else [demo.SIDE],
        licence=demo.LICENCE,
        reference=DEMO_PAPER,
    )


def demo_masks_facts() -> Facts:
    """Of the demonstration set with masks."""
    counts = demo_masks.demo_counts()
    return _facts(
        name=demo_masks.NAME,
        state=demo_facts()["state"],
        title="slices of one averaged brain, with masks; it proves nothing",
        mask_classes=list(demo_masks.CLASS_NAMES),
        n_samples=sum(counts.values()),
        splits=counts,
        licence=demo_masks.LICENCE,
        reference=DEMO_PAPER,
    )


def recipe_facts(recipe: Recipe, root: Path | None) -> Facts:
    """Of a published set that a person must fetch."""
    # Of a root that was named only a folder of the set's name counts here: else every set would be
    # ready in it.
    folder = recipe_root(recipe, root) if root is None else root / recipe.name
    return _facts(
        name=recipe.name,
        state=READY if folder.is_dir() else NOT_HERE,
        title=recipe.title,
        # Of masks alone the task only holds the place of labels.
        **({} if recipe.mask_classes and recipe.task == MULTI_LABEL else {"task": recipe.task}),
        mask_classes=list(recipe.mask_classes) or None,
        n_samples=recipe.n_images or None,
        split=recipe.split,
        files=[str(folder)] if folder.is_dir() else [],
        licence=recipe.licence,
        url=recipe.url,
        archives=recipe.size,
        needs=recipe.access,
        reference=recipe.reference,
        layout=list(recipe.layout),
    )


def definition_facts(name: str) -> Facts:
    """Of a set that the user added."""
    try:
        definition = definitions.load(name)
        assert definition is not None, "names() lists what is stored"
    except RequestError as error:
        return _facts(name=name, state=DAMAGED, title="your own", problem=str(error))
    path = definition.path
    return _facts(
        name=name,
        state=READY if path.exists() else NOT_HERE,
        title=f"your own: {definition.kind}:{path}",
        files=[str(path)] if path.exists() else [],
        licence=definition.options.licence or None,
        options=definition.options.as_json(),
    )


def _facts(**known: Any) -> Facts:
    """The facts that the list shows, where they are known, and whatever else is."""
    classes = known.get("classes")
    binary = known.get("task") == BINARY and classes
    return {
        "name": known["name"],
        "state": known["state"],
        "title": known["title"],
        "task": known.get("task"),
        "classes": classes,
        "mask_classes": known.get("mask_classes"),
        "positive_class": classes[1] if classes and binary else None,
        "n_samples": known.get("n_samples"),
        "sizes_here": known.get("sizes_here", []),
        "licence": known.get("licence"),
        **known,
        "origins": list(ORIGINS.get(known["name"], ())) or None,
        "seen_by": seen_by(known["name"]),
    }


def seen_by(name: str) -> list[str] | None:
    """Short names of the encoders whose pretraining saw a set; None where its origin is unknown."""
    origins = ORIGINS.get(name)
    if origins is None:
        return None
    return [e.name for e in ENTRIES if not {*origins}.isdisjoint(e.pretraining.seen or ())]


# ---------------------------------------------------------------------------- labels


@dataclass(frozen=True)
class Labelled:
    """What the labels of a data set say. S samples."""

    target: Target
    split: NDArray[np.uint8] | None  # (S,) index into SPLITS; None: the owner has none
    notes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()

    def by_class(self) -> list[tuple[ClassSamples, list[int]]]:
        """Each class, and its samples in every split; in all, where there is no split."""
        everyone = np.arange(len(self.target.labels))
        split = np.zeros(len(everyone), np.uint8) if self.split is None else self.split
        n_splits = 1 if self.split is None else len(SPLITS)
        return [
            (one, np.bincount(split[one.samples], minlength=n_splits).tolist())
            for one in by_class(self.target, everyone)
        ]


def read_labels(facts: Facts, root: Path | None) -> Labelled:
    """The labels of a data set that is here; of files of images none is opened.

    Raises:
        RequestError: it isn't here, or isn't as it should be.
    """
    name = facts["name"]
    listing = list_files(name, root, TableOptions())
    if listing is not None:
        masks = listing.masks.classes.names if listing.masks else ()
        return Labelled(listing.target, listing.split, listing.notes, masks)
    if name in DEMOS:
        dataset = (demo if name == demo.NAME else demo_masks).open_demo()
    else:
        is_medseg = name in medsegbench.NAMES
        find = medsegbench.find_file if is_medseg else medmnist.find_file
        here = find(name, 0, None, root).here
        if not here:
            raise RequestError(f"no file of {name} is here")
        file = find(name, 0, min(here), root)
        # Labels alone are wanted: its MD5 would cost reading all images.
        if is_medseg:
            dataset = medsegbench.open_medseg(file, lambda _: file.md5)
        else:
            cut = Slicing() if name in medmnist.FLAGS_3D else None
            dataset = medmnist.open_medmnist(file, lambda _: file.md5, cut)
    masks = dataset.masks.class_names if dataset.masks else ()
    return Labelled(dataset.target, dataset.samples.split, mask_classes=masks)
