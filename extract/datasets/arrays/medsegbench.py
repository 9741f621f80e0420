"""MedSegBench's sets: published images with masks, already resized and divided. ``--data medseg-kvasir``.

What is known of each stands in ``medsegbench_table``. A file has ``{split}_images`` and ``{split}_label``,
and of the parts of a set ("categories") ``{split}_images_C1`` and ``{split}_label_C1``. A part is a set of
its own, ``medseg-busi-c1``. Where parts make up the whole, this is read as their sum, part after part, so
that each image's label, hospital or cell line is known; its id then names the part: ``train/C1/000000``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from cache.labels.target import Target, unlabelled
from cache.masks import MaskSource
from cache.task import BINARY, MULTI_CLASS
from extract.datasets.arrays.medsegbench_table import (
    LABELS,
    MASKS,
    RECORD,
    RECORDS,
    SETS,
    SIZES,
    MedsegSet,
    Part,
)
from extract.datasets.arrays.npz import WHOLE, Member, check_streamable, read_members, stream_rows
from extract.datasets.arrays.official import OfficialFile, check_file, choose_size
from extract.datasets.dataset import Dataset, Ranges

PREFIX = "medseg-"
PAPER = "Kus and Aydin 2024, https://doi.org/10.1038/s41597-024-04159-2"
IGNORED = 255
FEW = 20  # images of a val split that choose little


@dataclass(frozen=True)
class Wanted:
    """A set, or a part of one, by the name that is typed."""

    name: str
    of: MedsegSet
    part: Part | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.part.counts if self.part else self.of.counts

    @property
    def members(self) -> tuple[tuple[int, Part | None], ...]:
        """Split and part of each array of images, in the order of the rows."""
        if self.part or not self.of.whole_is_parts:
            return tuple((split, self.part) for split in range(len(SPLITS)))
        return tuple((split, part) for split in range(len(SPLITS)) for part in self.of.parts)

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the arrays of images."""
        shared = self.of.parts_are == MASKS
        return tuple(_member("images", s, None if shared else part) for s, part in self.members)

    @property
    def masks(self) -> tuple[str, ...]:
        return tuple(_member("label", split, part) for split, part in self.members)

    @property
    def part_words(self) -> str:
        """Which of the file's images these are, for their digest; "" of all, as they lie there."""
        whole = tuple(_member("images", split, None) for split in range(len(SPLITS)))
        return "" if self.images == whole else " ".join(self.images)

    @property
    def labels(self) -> tuple[str, tuple[str, ...]] | None:
        """Task and class names of the images; None where they have none."""
        if self.part or self.of.parts_are != LABELS:
            return None
        names = tuple(part.name for part in self.of.parts)
        return (BINARY if len(names) == 2 else MULTI_CLASS), names

    @property
    def mask_classes(self) -> tuple[str, ...]:
        return tuple(name for name in self.of.classes if name != self.of.ignored)


def _member(what: str, split: int, part: Part | None) -> str:
    return f"{SPLITS[split]}_{what}" + (f"_{part.key}" if part else "")


WHOLES = {f"{PREFIX}{one.flag}": Wanted(f"{PREFIX}{one.flag}", one) for one in SETS}
PARTS = {
    name: Wanted(name, one, part)
    for one in SETS
    for part in one.parts
    for name in [f"{PREFIX}{one.flag}-{part.key.lower()}"]
}
NAMES = {**WHOLES, **PARTS}


def find_file(name: str, size: int, source_size: int | None, root: Path | None) -> OfficialFile:
    """Which file belongs to a request.

    Args:
        name: one of NAMES.
        size: side of the encoder's input: decides the source size if that is None.
        source_size: 128, 256 or 512; None: see ``choose_size``.
        root: the folder of the files; None is MedSegBench's own, ``~/.medsegbench``.

    Raises:
        RequestError: unknown size.
    """
    wanted = NAMES[name]
    one = wanted.of
    root = root or Path.home() / ".medsegbench"
    paths = {size: root / f"{one.flag}_{size}.npz" for size in SIZES}
    source_size, usual_size = choose_size(name, paths, size, source_size)
    record = RECORDS.get(one.flag, RECORD)
    # A part's arrays lie beside those of the whole.
    n_stored = sum(one.counts) + sum(sum(part.counts) for part in one.parts)
    return OfficialFile(
        name,
        source_size,
        paths[source_size],
        one.md5s[SIZES.index(source_size)],
        f"https://zenodo.org/records/{record}/files/{one.flag}_{source_size}.npz?download=1",
        sum(wanted.counts),
        n_stored * (one.n_channels + 1) * source_size**2,
        usual_size,
        tuple(paths.items()),
    )


def open_medseg(file: OfficialFile, md5_of: Callable[[Path], str]) -> Dataset:
    """Check a file and describe its images and masks.

    Args:
        file: present on the disk.
        md5_of: computes, or remembers, a file's MD5.

    Raises:
        RequestError: it isn't the official file, or its arrays aren't as they should be.
    """
    check_file(file, md5_of)
    wanted = NAMES[file.name]
    one, path = wanted.of, file.path
    n_rows = _check_members(file, wanted)
    split = np.repeat([split for split, _ in wanted.members], n_rows).astype(np.uint8)
    part = np.repeat([one.parts.index(p) if p else -1 for _, p in wanted.members], n_rows)
    ids = np.array(
        [
            f"{SPLITS[s]}/{f'{p.key}/' if p and one.parts_are != MASKS else ''}{i:06d}"
            for (s, p), n in zip(wanted.members, n_rows, strict=True)
            for i in range(n)
        ]
    )
    labels = wanted.labels
    target = Target(*labels, part.astype(np.int64)) if labels else unlabelled(len(ids))
    named = one.whole_is_parts and not wanted.part and not labels
    meta = {one.parts_are: np.array([p.name for p in one.parts])[part]} if named else {}
    images, masks, about = wanted.images, wanted.masks, wanted.mask_classes

    def stream(ranges: Ranges) -> Iterator[NDArray[np.uint8]]:
        return stream_rows(path, images, ranges)

    def stream_masks(ranges: Ranges) -> Iterator[Sequence[NDArray[np.uint8]]]:
        for values in stream_rows(path, masks, ranges, WHOLE):
            yield list(_numbers(file, one, values))

    return Dataset(
        name=wanted.name,
        task=target.task,
        class_names=target.class_names,
        source_size=file.source_size,
        n_channels=one.n_channels,
        samples=Samples(ids, split, target.labels, meta=meta),
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        images_digest=images_digest(file.md5, wanted.part_words),
        stream=stream,
        licence=one.licence,
        notes=notes_of(wanted),
        row_bytes=np.full(len(ids), file.source_size**2 * one.n_channels),
        masks=MaskSource(
            about,
            about.index(one.background),
            IGNORED if one.ignored else None,
            stream_masks,
            origin=f"md5:{file.md5} {' '.join(masks)}",
        ),
    )


def images_digest(md5: str, part: str) -> str:
    """Of a file's images, or of a part of them."""
    return f"md5:{md5} {part}".strip()


def notes_of(wanted: Wanted) -> tuple[str, ...]:
    """What a person should know of a set."""
    one, (n_train, n_val, n_test) = wanted.of, wanted.counts
    of_volumes = "images are slices of volumes, and " if one.of_volumes else ""
    said = [f"{of_volumes}patients are unknown: one may lie in several splits"]
    if wanted.part:
        what = "masks of" if one.parts_are == MASKS else "images of"
        said.append(f"{what} {wanted.part.name} alone ({one.flag}'s {wanted.part.key})")
    elif one.parts_are == MASKS:
        apart = ", ".join(f"{p.name} ({PREFIX}{one.flag}-{p.key.lower()})" for p in one.parts)
        said.append(f"which structures its masks join isn't stated; apart: {apart}")
    if n_val < FEW:
        said.append(f"val has {n_val} images: choices made by it are shaky")
    if n_val > min(n_train, n_test):
        said.append(
            f"val is large: {n_val:_} images beside {n_train:_} of train, {n_test:_} of test"
        )
    if one.ignored:
        said.append(f"{one.ignored!r} is no class here: its pixels count nowhere")
    if one.background != "background":
        said.append(f"background is {one.background!r}")
    if one.instances:
        said.append("masks number objects; all of them are one class here")
    return (*said, *([one.note] if one.note else []))


def _check_members(file: OfficialFile, wanted: Wanted) -> list[int]:
    """Rows of each array of images, once it is sure that all can be streamed.

    Raises:
        RequestError: one is missing, or has another type, shape or number of rows.
    """
    path, side, one = file.path, file.source_size, wanted.of
    members = read_members(path)
    names = (*wanted.images, *wanted.masks)
    if missing := [name for name in names if name not in members]:
        raise RequestError(
            f"{path} lacks {', '.join(missing)}; expected of {wanted.name}: {', '.join(names)}"
        )
    n_rows = []
    for image, mask in zip(wanted.images, wanted.masks, strict=True):
        n, *_ = members[image].shape or (0,)
        colour = (3,) if one.n_channels == 3 else ()
        _check_shape(path, members[image], (n, side, side, *colour))
        _check_shape(path, members[mask], (n, side, side))
        check_streamable(path, members[image])
        check_streamable(path, members[mask], WHOLE)
        n_rows.append(n)
    found = tuple(
        sum(n for n, (s, _) in zip(n_rows, wanted.members, strict=True) if s == split)
        for split in range(len(SPLITS))
    )
    if found != wanted.counts:
        raise RequestError(f"{path} has {found} images of {wanted.name}; expected {wanted.counts}")
    return n_rows


def _check_shape(path: Path, member: Member, expected: tuple[int, ...]) -> None:
    if member.shape != expected:
        raise RequestError(f"{path}: {member.name} should be {expected}, found {member.shape}")


def _numbers(file: OfficialFile, one: MedsegSet, values: NDArray) -> NDArray[np.uint8]:
    """Class numbers of stored values, IGNORED where they are ignored.

    Of two classes 255 is the second too, as pictures of masks have it.

    Raises:
        RequestError: a value that is no class.
    """
    if one.instances:
        return (values != 0).astype(np.uint8)
    table = np.full(256, 254, np.uint8)  # 254: no class
    kept = [name for name in one.classes if name != one.ignored]
    for value, name in enumerate(one.classes):
        table[value] = IGNORED if name == one.ignored else kept.index(name)
    if len(one.classes) == 2:
        table[255] = 1
    numbers = table[np.clip(values, 0, 255).astype(np.uint8)]
    wrong = (numbers == 254) | (values < 0) | (values > 255)
    if wrong.any():
        found = ", ".join(map(str, np.unique(values[wrong])[:5]))
        raise RequestError(
            f"{file.path}: masks of {file.name} hold {found}, and classes are 0 to "
            f"{len(one.classes) - 1}: {', '.join(one.classes)}"
        )
    return numbers
