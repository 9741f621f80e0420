"""What ``--data`` can name: each source knows whether its images are here and how to get them."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache import RequestError
from cache.commands.names import near_names
from cache.commands.settings import changed, words
from cache.files import no_file
from cache.format.key import file_stem
from cache.header_index import INDEX
from cache.places import features_root
from extract.datasets.arrays import demo, demo_masks, medmnist, medsegbench
from extract.datasets.arrays.npz import check_images, is_volume, open_npz, read_members
from extract.datasets.arrays.official import OfficialFile
from extract.datasets.dataset import Dataset
from extract.datasets.drawn import Sampled, find_kept
from extract.datasets.files.definitions import KINDS, Definition
from extract.datasets.files.definitions import load as load_definition
from extract.datasets.files.definitions import names as definition_names
from extract.datasets.files.images import FileImages, Reading, open_dataset, open_files
from extract.datasets.files.listing import Listing
from extract.datasets.files.options import TableOptions
from extract.datasets.recipes import RECIPES, find_recipe, open_recipe
from extract.datasets.volumes import Slicing
from extract.machine.digests import DigestMemory, file_md5

DEMOS = (demo.NAME, demo_masks.NAME)
NPZ, FOLDER, CSV, SEG_FOLDER = "npz:", "folder:", "csv:", "seg-folder:"


@dataclass(frozen=True)
class FileWishes:
    """What a user wants of data sets that are files of images."""

    reading: Reading = field(default_factory=Reading)
    table: TableOptions = field(default_factory=TableOptions)  # of "csv:FILE"
    index: Path | None = None  # folder of what the check pass found; None: among the features
    report: Callable[[str, int, int], None] = lambda name, n, n_all: None  # files just opened
    features: Path | None = None  # folder of features, where an earlier split is; None: the usual
    only_classes: bool = False  # open none: what the classes are called is all that is wanted


@dataclass(frozen=True)
class Source:
    """A data set that was named, before its images are read."""

    name: str
    wish: str  # as typed after --data
    n_images: int
    source_size: int | None  # None: not all alike and square
    n_channels: int
    open: Callable[[DigestMemory], Dataset]  # checks the file; raises RequestError
    path: Path | None = None  # the file whose MD5 stands for the images
    file: OfficialFile | None = None  # where it can be downloaded to
    classes: tuple[str, tuple[str, ...]] | None = None  # task and class names, where known already
    slicing: Slicing | None = None  # how volumes are cut into rows; None: images
    digest: str | None = None  # of the images, where it is known already
    part: str = ""  # which of the file's images these are; "": all
    files: FileImages | None = None  # of a folder, a table or a recipe, checked
    shape: tuple[int, int] | None = None  # height and width of an array's images; None: square

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each file's images, or of an array's; none where all are squares."""
        if self.files:
            return [(facts.height, facts.width) for facts in self.files.facts]
        return [self.shape] if self.shape else []

    @property
    def usual_resize(self) -> str:
        """Where neither flag nor protocol says: images as they come aren't squashed."""
        return "pad-fit" if self.files or self.source_size is None else "scale"

    @property
    def reading(self) -> Mapping[str, Any] | None:
        """How files became pixels, for the key; None of sources without files."""
        return self.files.key if self.files else None

    @property
    def present(self) -> bool:
        """Whether the images are on this machine."""
        return self.file is None or self.file.exists


def expand_names(names: tuple[str, ...]) -> list[str]:
    """``all`` becomes the twelve 2D sets, ``all3d`` the six 3D sets; doubles are dropped."""
    groups = {"all": medmnist.FLAGS_2D, "all3d": medmnist.FLAGS_3D}
    wide = [flag for name in names for flag in groups.get(name, (name,))]
    return list(dict.fromkeys(wide))


def find_source(
    name: str,
    size: int,
    source_size: int | None,
    root: Path | None,
    slicing: Slicing | None = None,
    files: FileWishes | None = None,
) -> Source:
    """The source behind one word of ``--data``.

    Args:
        name: a MedMNIST flag, a name of MedSegBench's sets, "demo", "demo-masks", "npz:FILE" for a file in MedMNIST's layout, "folder:PATH",
            "seg-folder:PATH", "csv:FILE", a recipe, or a definition of the user's.
        size: side of the encoder's input, pixels.
        source_size: which of the published sizes; None chooses by ``size``.
        root: folder of MedMNIST's or MedSegBench's files, or of a recipe's.
        slicing: how volumes are cut; None: along their first axis, one by one.
        files: how files of images are read, which opens each of them once; None: as by default,
            with an index below the usual folder of features.

    Raises:
        RequestError: unknown name, a file that isn't there or can't be read, or slices of what has
            none.
    """
    wishes = files or FileWishes()
    listing = list_files(name, root, wishes.table)
    if listing is not None:
        _refuse_source_size(listing.name, source_size, None)
        return _files_source(name, listing, slicing, wishes)
    _refuse_reading(name, wishes.reading)
    if name == demo.NAME:
        _refuse_slicing(name, slicing)
        _refuse_source_size(name, source_size, demo.SIDE)
        n = demo.demo_counts()
        classes = (demo.TASK, demo.CLASS_NAMES)
        return Source(name, name, n, demo.SIDE, 1, _open_demo, classes=classes)
    if name == demo_masks.NAME:
        _refuse_slicing(name, slicing)
        _refuse_source_size(name, source_size, None)
        n = sum(demo_masks.demo_counts().values())
        return Source(name, name, n, None, 1, _open_demo_masks, shape=demo_masks.SHAPE)
    if name.startswith(NPZ):
        return _npz_source(Path(name.removeprefix(NPZ)).expanduser(), source_size, slicing)
    if name in medsegbench.NAMES:
        _refuse_slicing(name, slicing)
        return _medseg_source(medsegbench.find_file(name, size, source_size, root))
    if name not in medmnist.FLAGS:
        raise RequestError(_unknown(name))
    file = medmnist.find_file(name, size, source_size, root)

    facts = medmnist.info(name)
    cut = (slicing or Slicing()) if name in medmnist.FLAGS_3D else None
    if cut is None:
        _refuse_slicing(name, slicing)
    return Source(
        name,
        name,
        file.n_images * (file.source_size if cut else 1),
        file.source_size,
        cut.n_channels if cut else facts["n_channels"],
        partial(_open_medmnist, file, cut),
        file.path,
        file,
        (facts["task"], tuple(facts["label"].values())),
        cut,
    )


def _medseg_source(file: OfficialFile) -> Source:
    wanted = medsegbench.NAMES[file.name]
    return Source(
        file.name,
        file.name,
        file.n_images,
        file.source_size,
        wanted.of.n_channels,
        partial(_open_medseg, file),
        file.path,
        file,
        wanted.labels,
        part=wanted.part_words,
    )


def _unknown(name: str) -> str:
    """What is said of a word that names no data set: those that are like it, the user's own too."""
    every = [*definition_names(), *sorted(reserved_names())]
    return (
        f"no data set {name!r}; {near_names(name, every, '`extract data` lists them all')} "
        "(images of your own are folder:PATH, csv:FILE or npz:FILE)"
    )


def list_files(name: str, root: Path | None, table: TableOptions) -> Listing | None:
    """The files behind one word of ``--data``; None where it names no data set of files.

    Raises:
        RequestError: they aren't there, or not as they should be.
    """
    kind, colon, path = name.partition(":")
    if colon and kind in KINDS:
        return _checked_name(name, KINDS[kind](Path(path).expanduser(), options=table))
    _refuse_table(name, table)
    definition = load_definition(name)
    if definition is not None:
        if name in reserved_names():  # it was added before there was a recipe of this name
            raise RequestError(
                f"{name} is a published set and a definition of yours; `extract data remove {name}`, "
                "and add your own under another name"
            )
        return definition.list()
    recipe = find_recipe(name)
    return None if recipe is None else open_recipe(recipe, root)


def _refuse_table(name: str, table: TableOptions) -> None:
    if table != TableOptions():
        flags = " ".join(word for word in words(table) if word.startswith("--"))
        definition = load_definition(name)
        if definition is not None:
            raise RequestError(f"{flags}: {_redefine(definition, table)}")
        raise RequestError(
            f"{flags} is for --data csv:FILE (some for folder:PATH), and {name} says all of it "
            "itself; leave it out, or name the two in commands of their own"
        )


def _redefine(definition: Definition, table: TableOptions) -> str:
    """The commands by which a definition says something else of its columns too."""
    said = changed(table, TableOptions())
    said["missing"] = tuple(dict.fromkeys((*definition.options.missing, *table.missing)))
    options = dataclasses.replace(definition.options, **said)
    kept = {"--licence": options.licence, "--window": options.window}  # no flags of a table
    described = [*words(options), *(w for f, v in kept.items() if v for w in (f, v))]
    name, place = definition.name, f"{definition.kind}:{definition.path}"
    command = shlex.join(["extract", "data", "add", name, place, *described])
    return f"{name} has its own description; give it a new one (features stay):\n  extract data remove {name}\n  {command}"


def _refuse_reading(name: str, reading: Reading) -> None:
    """What is said of files has no effect on arrays, and isn't ignored silently."""
    said = {
        "--window": reading.window,
        "--skip-errors": reading.skip_errors,
        "--split": reading.split.rule,
        "--split-seed": reading.split.seed,
        "--keep-split": reading.split.keep,
    }
    cures = {"--split": "give it to probe, which needs no forward pass for it"}
    for flag, value in said.items():
        if value:
            raise RequestError(
                f"{flag} is for files of images, and {name} isn't one of those; "
                f"{cures.get(flag, 'leave it out')}"
            )


def _checked_name(name: str, listing: Listing) -> Listing:
    """A user's own images must not pass for a published set."""
    if listing.name in reserved_names():
        raise RequestError(
            f"{name} would be called {listing.name}, as a published set is, and its rows would pass "
            f"for it; give it a name of its own: extract data add NAME {name}"
        )
    return listing


def reserved_names() -> set[str]:
    """Names that stand for data sets that everybody knows."""
    recipes = {recipe.name for recipe in RECIPES}
    return {*medmnist.FLAGS, *medsegbench.NAMES, *recipes, *DEMOS, "all", "all3d"}


def _files_source(
    name: str, listing: Listing, slicing: Slicing | None, wishes: FileWishes
) -> Source:
    classes = (listing.target.task, listing.target.class_names)
    n_files = len(listing.paths)
    if wishes.only_classes:
        return Source(listing.name, name, n_files, None, 1, _not_opened, classes=classes)
    reading = dataclasses.replace(wishes.reading, slicing=slicing)
    images = open_files(
        listing,
        reading,
        wishes.index or features_root() / INDEX,
        lambda n: wishes.report(listing.name, n, n_files),
    )
    if images.drawn:
        now = Sampled(
            listing.name,
            images.images_digest,
            images.row_sample,
            np.array(images.listing.ids),
            images.listing.groups,
        )
        kept = find_kept(wishes.features or features_root(), reading.split, now)
        images = dataclasses.replace(images, kept=kept)
    if all(facts.n_frames == 1 for facts in images.facts):
        _refuse_slicing(listing.name, slicing)  # it would change nothing but the key
    return Source(
        listing.name,
        name,
        images.n_rows,
        images.source_size,
        images.n_channels,
        partial(_open_images, images),
        digest=images.images_digest,
        classes=classes,
        slicing=images.slicing,
        files=images,
    )


# Functions, and none within others: a source can be sent to another process.


def _open_demo(memory: DigestMemory) -> Dataset:
    return demo.open_demo()


def _open_demo_masks(memory: DigestMemory) -> Dataset:
    return demo_masks.open_demo()


def _open_medmnist(file: OfficialFile, cut: Slicing | None, memory: DigestMemory) -> Dataset:
    return medmnist.open_medmnist(file, lambda p: memory.get("md5", p, file_md5), cut)


def _open_medseg(file: OfficialFile, memory: DigestMemory) -> Dataset:
    return medsegbench.open_medseg(file, lambda p: memory.get("md5", p, file_md5))


def _open_images(images: FileImages, memory: DigestMemory) -> Dataset:
    return open_dataset(images)


def _open_npz(path: Path, name: str, cut: Slicing | None, memory: DigestMemory) -> Dataset:
    return open_npz(path, name, "md5:" + memory.get("md5", path, file_md5), slicing=cut)


def _not_opened(memory: DigestMemory) -> Dataset:
    raise AssertionError("only its classes were asked for")


def _npz_source(path: Path, source_size: int | None, slicing: Slicing | None) -> Source:
    if not path.is_file():
        raise RequestError(f"{no_file(path)}; --data npz:FILE takes a file in MedMNIST's layout")
    name = file_stem(path.stem)
    if name in (*medmnist.FLAGS, *medsegbench.NAMES, *DEMOS):
        raise RequestError(
            f"{path} is named like the official set {name}, and its rows would pass for it; rename "
            f"the file, or name its folder with --data {name} --data-root {path.parent}"
        )
    members = read_members(path)
    cut = (slicing or Slicing()) if is_volume(members) else None
    if cut is None:
        _refuse_slicing(path.name, slicing)
    shape = check_images(path, members, cut)
    _refuse_source_size(path.name, source_size, shape.source_size)

    return Source(
        name,
        f"{NPZ}{path}",
        shape.n_rows,
        shape.source_size,
        shape.n_channels,
        partial(_open_npz, path, name, cut),
        path,
        slicing=cut,
        shape=None if shape.source_size else (shape.height, shape.width),
    )


def _refuse_slicing(name: str, slicing: Slicing | None) -> None:
    if slicing is not None:
        raise RequestError(
            f"--slice-axis and --slice-neighbours are for volumes, and {name} has images; leave "
            "them out"
        )


def _refuse_source_size(name: str, wish: int | None, side: int | None) -> None:
    if wish is not None and wish != side:
        has = "images as their files have them" if side is None else f"images of {side} px only"
        raise RequestError(f"--source-size {wish}: {name} has {has}")
