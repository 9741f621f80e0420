"""What ``extract data twins`` shows: images of one split that another split holds too."""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.labels import REGRESSION
from cache.layout import HASH, HASH_BYTES, SPLITS, THUMBNAIL
from cache.leaks import Leaks, Twin, describe_leaks, find_twins
from cache.units import UNIT_ROWS
from extract.class_samples import class_words, read_images
from extract.contact_sheet import Pair, Picture, draw_pairs
from extract.datasets.dataset import Dataset
from extract.progress import Progress

PER_SHEET = 50  # pairs
SIDE = 160  # of a picture on the sheet, pixels
ID_LETTERS = 36  # of an id under a picture: the end tells more than the folder


def look_for_twins(dataset: Dataset) -> Leaks:
    """Look at every image once, then search the splits for each other's.

    Thumbnails go through a temporary file: memory doesn't grow with the data set but for 16 bytes
    an image.
    """
    n, width = dataset.n_rows, dataset.thumbnail_side**2
    hashes = np.empty((n, HASH_BYTES), np.uint8)
    ranges = dataset.cut([(0, n)], UNIT_ROWS)
    with tempfile.TemporaryFile() as file, Progress(dataset.name, n) as progress:
        for (first, last), piece in zip(ranges, dataset.pieces(ranges, _corner), strict=True):
            hashes[first:last] = piece.looks[HASH]
            file.write(np.ascontiguousarray(piece.looks[THUMBNAIL]).data)
            progress.advance(last - first)
        file.flush()
        thumbnails = np.memmap(file, np.uint8, "r", shape=(n, width))
        samples = dataset.samples
        return find_twins(thumbnails, hashes, dataset.row_sample, samples.split, samples.groups)


def _corner(images: NDArray[Any]) -> NDArray[Any]:
    """One pixel of each image: only their looks are wanted."""
    return images[:, :1, :1]


def by_likeness(twins: Sequence[Twin]) -> list[Twin]:
    """Exact copies first, then the most alike."""
    return sorted(
        twins, key=lambda t: (t.kind != "exact", -np.nan_to_num(t.correlation), t.sample, t.other)
    )


def describe_twin(dataset: Dataset, twin: Twin) -> str:
    """One line: kind, correlation, and both samples with their classes."""
    left, right = (
        f"{dataset.samples.ids[s]} ({_class_of(dataset, s)})" for s in (twin.sample, twin.other)
    )
    marks = "  labels differ" if labels_differ(dataset, twin) else ""
    return f"{_likeness(twin):<10}  {left}  {right}{marks}"


def draw_twins(
    dataset: Dataset, leaks: Leaks, twins: Sequence[Twin], pages: tuple[int, int]
) -> Image.Image:
    """One sheet of pairs: left the later split's image, right its twin.

    Args:
        dataset: its images; of a volume the middle slice is drawn.
        leaks: of the whole data set, for the caption.
        twins: the pairs of this sheet.
        pages: the sheet's number, from 1, and how many there are.
    """
    images = read_images(dataset, np.array([s for t in twins for s in (t.sample, t.other)]))

    def picture(sample: int) -> Picture:
        return np.clip(np.rint(images[sample]), 0, 255).astype(np.uint8)

    pairs = [
        Pair(
            picture(twin.sample),
            picture(twin.other),
            _likeness(twin) + (" · labels differ" if labels_differ(dataset, twin) else ""),
            _sample_words(dataset, twin.sample),
            _sample_words(dataset, twin.other),
        )
        for twin in twins
    ]
    caption = [describe_leaks(leaks.summary())]
    caption += [
        "left: of the later split · right: its twin · r: correlation of their thumbnails"
        + (f" · sheet {pages[0]} of {pages[1]}" if pages[1] > 1 else "")
    ]
    return draw_pairs(f"{dataset.name}: twins across splits", caption, pairs, SIDE)


def labels_differ(dataset: Dataset, twin: Twin) -> bool:
    """Whether somebody labelled one picture in two ways."""
    return not np.array_equal(
        dataset.samples.labels[twin.sample],
        dataset.samples.labels[twin.other],
        equal_nan=dataset.task == REGRESSION,
    )


def _class_of(dataset: Dataset, sample: int) -> str:
    return class_words(dataset.task, dataset.class_names, dataset.samples.labels[sample])


def _likeness(twin: Twin) -> str:
    if twin.kind == "exact":
        return "exact copy"
    # Never rounded up to 1: that would read as an exact copy.
    return f"r = {np.floor(twin.correlation * 10_000) / 10_000:.4f}"


def _sample_words(dataset: Dataset, sample: int) -> tuple[str, ...]:
    name = str(dataset.samples.ids[sample])
    split = SPLITS[dataset.samples.split[sample]]
    if len(name) > ID_LETTERS:
        name = "…" + name[-ID_LETTERS:]
    words = (name, _class_of(dataset, sample))
    return words if name.startswith(split) else (split, *words)
