"""A data set of files: rows in an order that labels don't decide, decoded by worker processes."""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.commands.names import counted
from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from cache.masks import MaskSource
from cache.splits.make import LEFT_OUT, continue_split, make_splits
from cache.splits.rules import Drawn, SplitRule
from extract.datasets.dataset import Dataset, Images, Piece, Prepare, Ranges, make_piece
from extract.datasets.drawn import Kept, SplitWish
from extract.datasets.files.below import composed
from extract.datasets.files.decode import ImageFacts, read_image
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.index import (
    Check,
    CheckedFile,
    Stamp,
    check_files,
    file_stamp,
    refuse_unreadable,
)
from extract.datasets.files.listing import Listing
from extract.datasets.files.mask_files import MaskFiles
from extract.datasets.files.windows import FULL, HEADER, Window
from extract.datasets.looks import thumbnail_side
from extract.datasets.volumes import Slicing
from extract.machine.workers import AHEAD, map_ordered

# A volume is decoded as a whole, so as many of its slices as a unit takes are passed on at once.
VOLUME_PIECE_BYTES = 1 << 28
VOLUME_WORKERS = 4  # each holds a volume, and a piece of it waits
USUAL_SPLIT = "80/10/10"  # per cent of train, val and test, where the owner has none


@dataclass(frozen=True)
class Reading:
    """How a user wants files read and split. The first block is in the key."""

    window: str | None = None  # see decode.Window; None: the listing's, or as stored
    slicing: Slicing | None = None
    skip_errors: bool = False

    split: SplitWish = field(default_factory=SplitWish)
    n_workers: int = 0


@dataclass(frozen=True)
class FileImages:
    """A listing whose files were opened once. F files in row order, S samples, N rows."""

    listing: Listing  # paths and samples in row order
    facts: tuple[ImageFacts, ...]  # (F,)
    sha256: tuple[str, ...]  # (F,) of the files' bytes
    reading: Reading
    window: Window | None
    n_skipped: int = 0
    notes: tuple[str, ...] = ()
    stamps: tuple[Stamp | None, ...] = ()  # (F,) when they were checked
    kept: Kept | None = None  # of a split that is drawn: what was drawn before

    @property
    def n_frames(self) -> NDArray[np.int64]:
        """(F,) rows of each file."""
        return np.array([facts.n_frames for facts in self.facts], np.int64)

    @property
    def n_rows(self) -> int:
        return int(self.n_frames.sum())

    @property
    def n_channels(self) -> int:
        """3 where any image has colour; grey ones are then repeated."""
        return max(facts.n_channels for facts in self.facts)

    @property
    def source_size(self) -> int | None:
        """The side of the images where all are square and alike."""
        sides = {side for facts in self.facts for side in (facts.height, facts.width)}
        return sides.pop() if len(sides) == 1 else None

    @property
    def drawn(self) -> Drawn | None:
        """How the samples are divided; None: as their owner has it."""
        asked = self.reading.split
        if self.listing.split is not None and not asked.rule:
            return None
        if self.kept:
            return self.kept.drawn
        return Drawn(SplitRule.parse(asked.rule or USUAL_SPLIT), asked.seed or 0)

    @property
    def split_words(self) -> str:
        """Whose split it is."""
        listing, drawn = self.listing, self.drawn
        if drawn is None:
            return f"split: {listing.split_words}"
        whole = "sample" if len(listing.ids) < len(listing.paths) else "image"
        by = "patient" if listing.groups is not None else "volume" if self.slicing else whole
        why = "as asked" if self.reading.split.rule else "the owner has none"
        return f"split: {drawn.rule} by {by}, seed {drawn.seed} ({why})"

    @property
    def kept_words(self) -> str:
        """What became of a split that was drawn before; empty where that is all there is to say."""
        if self.kept is None:
            return ""
        if self.kept.is_rule:
            return f"split by the rule of {self.kept.path.name}"
        n_new = int((self.kept.split == LEFT_OUT).sum())
        words = f"split kept as it was drawn before, in {self.kept.path.name}"
        words += f"; {counted(n_new, 'new sample')} drawn" if n_new else ""
        n = self.kept.n_divided
        return words + (f"; {n:_} of patients whom it divides are drawn anew" if n else "")

    @property
    def slicing(self) -> Slicing | None:
        """How volumes are cut into rows; None where every file is one image."""
        has_volumes = any(facts.n_frames > 1 for facts in self.facts)
        return self.reading.slicing or (Slicing() if has_volumes else None)

    @property
    def row_sample(self) -> NDArray[np.int64]:
        """(N,) the sample of each row."""
        return self.listing.sample.repeat(self.n_frames)

    @property
    def images_digest(self) -> str:
        """Of the contents in row order: the same on every machine, wherever the files lie."""
        digest = hashlib.sha256()
        for sha256 in self.sha256:
            digest.update(bytes.fromhex(sha256))
        return f"sha256:{digest.hexdigest()}"

    @property
    def key(self) -> dict[str, Any]:
        """How files became pixels, for the key."""
        return {
            "decoder": max((facts.decoder for facts in self.facts), default=1),
            "window": str(self.window) if self.window else "as each file says",
            "skipped": self.n_skipped,
        }


def open_files(
    listing: Listing,
    reading: Reading,
    folder: Path,
    report: Callable[[int], None] = lambda n: None,
) -> FileImages:
    """Open every file once, or remember it, and put the rows in order.

    Args:
        listing: the files.
        reading: how they are read.
        folder: of the index.
        report: told how many files were just opened.

    Raises:
        RequestError: files that can't be read, and weren't to be skipped.
    """
    words = reading.window or listing.window
    window = Window.parse(words) if words else None
    check = Check(listing.root, window, reading.slicing)
    checked = check_files(check, listing.paths, folder, reading.n_workers, report)
    kept = refuse_unreadable(listing.name, listing.paths, checked, reading.skip_errors)
    n_skipped = len(listing.paths) - len(kept)
    listing, order = _in_order(listing, checked, kept)
    files = [checked[i] for i in order]
    facts = tuple(file.facts for file in files if file.facts is not None)
    notes = list(listing.notes)
    if listing.groups is None:
        groups, said = _find_patients(listing, facts)
        listing = dataclasses.replace(listing, groups=groups)
        notes += said
    if n_skipped:
        are = "file can't be read and is" if n_skipped == 1 else "files can't be read and are"
        notes.append(f"{n_skipped} {are} left out")
    n_header = sum(fact.shown == HEADER for fact in facts)
    if n_header and window is None:
        notes.append(
            f"{n_header} of {len(facts)} files are shown through the windows of their own headers; "
            "--window LO,HI shows them otherwise"
        )
    return FileImages(
        listing,
        facts,
        tuple(file.sha256 for file in files),
        reading,
        window,
        n_skipped,
        (*notes, *_describe(facts)),
        tuple(file.stamp for file in files),
    )


def _in_order(
    listing: Listing, checked: Sequence[CheckedFile], kept: Sequence[int]
) -> tuple[Listing, list[int]]:
    """The listing in the order of its rows, and the old position of each file.

    Samples go by the last part of their ids, then by their contents. In folders of classes or
    splits the rest of an id is a label or a split, and moving an image to another one must not
    cost a forward pass. A sample's files go by their names, numbers by their size.
    """
    of_sample: dict[int, list[int]] = {}
    for i in kept:
        of_sample.setdefault(int(listing.sample[i]), []).append(i)
    for files in of_sample.values():
        # Composed: file systems spell accents apart.
        files.sort(key=lambda i: (_natural(composed(listing.paths[i])), listing.paths[i]))

    def place(sample: int) -> tuple[str, str, str]:
        name = listing.ids[sample]
        contents = "".join(checked[i].sha256 for i in of_sample[sample])
        return name.rsplit("/", 1)[-1], contents, name

    samples = sorted(of_sample, key=place)
    order = [i for sample in samples for i in of_sample[sample]]
    return listing.take(np.array(samples), np.array(order)), order


def _natural(path: str) -> list[tuple[int, str]]:
    """ "slice10" behind "slice9"."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)
    ]


def _find_patients(
    listing: Listing, facts: Sequence[ImageFacts]
) -> tuple[NDArray[np.str_] | None, list[str]]:
    """(S,) DICOM's PatientID of each sample's first file, where it tells patients apart; notes."""
    first = np.unique(listing.sample, return_index=True)[1]
    patients = [facts[file].patient for file in first]
    known = {*patients} - {""}
    if len(known) < 2:
        # What anonymisers write; one patient for all couldn't be divided into splits.
        return None, ["only one PatientID, which tells no patients apart"] if known else []
    n_alone = patients.count("")
    groups = [p or f"{name} alone" for p, name in zip(patients, listing.ids, strict=True)]
    note = f"without PatientID: {n_alone:_}, each taken for a patient by itself"
    return np.array(groups), [note] if n_alone else []


def _describe(facts: Sequence[ImageFacts]) -> list[str]:
    """What a user should know of the images."""
    notes = Counter(note for fact in facts for note in fact.notes)
    lines = [f"{count} of {len(facts)} files: {note}" for note, count in notes.items()]
    n_colour = sum(fact.n_channels == 3 for fact in facts)
    if 0 < n_colour < len(facts):
        lines.append(f"{len(facts) - n_colour} grey files among {n_colour} in colour")
    wide = [fact for fact in facts if fact.kind == "uint16" and fact.shown == FULL]
    spans = {fact.span for fact in wide if fact.span is not None}
    if len(spans) == 1:
        [(black, white)] = spans
        highest = max(fact.high for fact in wide)
        if black < highest < black + (white - black) * WIDE_USED:
            lines.append(
                f"16-bit files reach only {highest:g} of {white:g}; --window {black:g},{highest:g} "
                "would use the whole range"
            )
    return lines


WIDE_USED = 1 / 4  # below it two bits and more of the range are never used


def open_dataset(images: FileImages) -> Dataset:
    """The data set of checked files; splits are made where the owner has none.

    Args:
        images: the checked files.

    Raises:
        RequestError: the rule for splits can't be followed.
    """
    listing, target = images.listing, images.listing.target
    ids = np.array(listing.ids)
    drawn = images.drawn
    split, said = _split(images)
    notes = [*images.notes, images.split_words, *said]
    of_file = images.row_sample
    reader = FileReader(
        listing.root,
        listing.paths,
        np.concatenate([[0], np.cumsum(images.n_frames)]),
        images.window,
        images.reading.slicing,
        images.n_channels,
        thumbnail_side(images.source_size),
        images.stamps,
    )

    # Pieces of volumes are large: few of them wait.
    n_workers, ahead = images.reading.n_workers, AHEAD
    if images.slicing:
        n_workers, ahead = min(n_workers, VOLUME_WORKERS), 1

    def stream(ranges: Ranges) -> Iterator[Images]:
        return map_ordered(reader, ranges, n_workers, ahead)

    def load(ranges: Ranges, prepare: Prepare) -> Iterator[Piece]:
        return map_ordered(partial(read_piece, reader, prepare), ranges, n_workers, ahead)

    return Dataset(
        name=listing.name,
        task=target.task,
        class_names=target.class_names,
        source_size=images.source_size,
        n_channels=images.n_channels,
        samples=Samples(ids, split, target.labels, listing.groups, listing.meta),
        row_ids=_row_ids(ids, of_file),
        row_sample=of_file,
        images_digest=images.images_digest,
        stream=stream,
        licence=listing.licence,
        slicing=images.slicing,
        reading=images.key,
        notes=tuple(notes),
        drawn=drawn,
        row_bytes=_row_bytes(images),
        piece_bytes=VOLUME_PIECE_BYTES if images.slicing else None,
        masks=_masks(images),
        load=load,
    )


def _masks(images: FileImages) -> MaskSource | None:
    listing = images.listing
    if listing.masks is None:
        return None
    slicing = Slicing(images.slicing.axis) if images.slicing else Slicing()
    shapes = tuple((f.n_frames, f.height, f.width) for f in images.facts)
    files = MaskFiles(
        *(listing.root, listing.paths, listing.masks.paths, shapes, slicing),
        *(listing.masks.classes, listing.masks.also),
    )
    return files.source()


def _split(images: FileImages) -> tuple[NDArray[np.uint8], list[str]]:
    """The split by rule and seed, and how it was made; else the owner's."""
    listing, drawn = images.listing, images.drawn
    if drawn is None:
        assert listing.split is not None
        return listing.split, []
    ids, rule = np.array(listing.ids), drawn.rule
    if images.kept and not images.kept.is_rule:
        labels, groups = listing.target.labels, listing.groups
        return continue_split(drawn, images.kept.split, ids, labels, groups), []
    made = make_splits(
        rule,
        ids,
        listing.target.labels,
        listing.target.task,
        groups=listing.groups,
        meta=listing.meta,
        seed=drawn.seed,
        class_names=listing.target.class_names,
    )
    if len(made) > 1:
        raise RequestError(
            f"--split {rule} makes {len(made)} splits, and a file holds one; give extract another "
            "(80/10/10), and this one to probe --split: no forward pass is needed for it"
        )
    (only,) = made
    if (only.split >= len(SPLITS)).any():
        raise RequestError(f"--split {rule} leaves samples out; give it to probe --split")
    return only.split, list(only.notes)


def _row_ids(ids: NDArray[np.str_], row_sample: NDArray[np.int64]) -> NDArray[np.str_]:
    """A sample's id, and the number of the row in it where there are several."""
    counts = np.bincount(row_sample, minlength=len(ids))
    if (counts == 1).all():
        return ids
    starts = np.cumsum(counts) - counts
    within = np.arange(len(row_sample)) - starts[row_sample]
    return np.array(
        [
            f"{ids[sample]}/{number:04d}" if counts[sample] > 1 else str(ids[sample])
            for sample, number in zip(row_sample.tolist(), within.tolist(), strict=True)
        ]
    )


def _row_bytes(images: FileImages) -> NDArray[np.int64]:
    """(N,) bytes of each row as it is passed on."""
    of_file = [
        facts.height
        * facts.width
        * images.n_channels
        * (1 if facts.kind == "uint8" and images.window is None else 4)
        for facts in images.facts
    ]
    return np.repeat(np.array(of_file, np.int64), images.n_frames)


@dataclass(frozen=True)
class FileReader:
    """Decodes the rows of a range. Sent to the workers."""

    root: Path
    paths: tuple[str, ...]  # (F,)
    first_row: NDArray[np.int64]  # (F + 1,) of each file
    window: Window | None
    slicing: Slicing | None
    n_channels: int
    thumbnail_side: int
    stamps: tuple[Stamp | None, ...]  # (F,) of what the digest is of

    def __call__(self, rows: tuple[int, int]) -> Images:
        """The images of the rows [first, behind last).

        Raises:
            RequestError: a file can't be read, or is no longer as it was when it was checked.
        """
        start, stop = rows
        images: list[NDArray[Any]] = []
        file = int(np.searchsorted(self.first_row, start, "right")) - 1
        while start < stop:
            first, end = self.first_row[file], min(int(self.first_row[file + 1]), stop)
            images += self._read(file, int(start - first), int(end - first))
            start, file = end, file + 1
        return images

    def _read(self, file: int, first: int, last: int) -> list[NDArray[Any]]:
        path = self.root / self.paths[file]
        try:
            frames = read_image(path, self.window, self.slicing, first, last, checked=True)
            stamp = file_stamp(path)  # behind it: what is written meanwhile is seen too
        except (UnreadableImage, OSError) as error:
            raise RequestError(
                f"{path} could be read when it was checked, and no longer ({error}); run again"
            ) from error
        if len(frames) != last - first or stamp != self.stamps[file]:
            raise RequestError(f"{path} changed since it was checked; run again")
        if self.n_channels == 3 and frames.ndim == 3:
            frames = np.repeat(frames[..., None], 3, axis=-1)
        return list(frames)


def read_piece(reader: FileReader, prepare: Prepare, rows: tuple[int, int]) -> Piece:
    """Decode, look at and prepare the rows of a range."""
    return make_piece(reader(rows), prepare, reader.thumbnail_side)
