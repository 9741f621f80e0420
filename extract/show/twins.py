"""What ``extract data twins`` shows: images of one split that another split holds too."""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.commands.sheet import Pair, Picture, draw_pairs, fit
from cache.format.sample_tables import SPLITS
from cache.format.spec import HASH, HASH_BYTES, THUMBNAIL
from cache.format.units import UNIT_ROWS
from cache.leaks import Leaks, Twin, find_twins
from cache.task import REGRESSION
from extract.datasets.dataset import Dataset
from extract.machine.progress import Progress
from extract.show.samples import class_words, stream_images

PER_SHEET = 50  # pairs
SIDE = 160  # of a picture on the sheet, pixels
ID_LETTERS = 36  # of an id under a picture: the end tells more than the folder
LEGEND = "left: of the later split · right: its twin · r: correlation of their thumbnails"


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


def draw_twins(dataset: Dataset, twins: Sequence[Twin], caption: str) -> Image.Image:
    """One sheet of pairs: left the later split's image, right its twin.

    Args:
        dataset: its images as stored; of a volume the middle slice is drawn.
        twins: the pairs of this sheet.
        caption: line below the title.
    """
    both = np.array([sample for twin in twins for sample in (twin.sample, twin.other)])
    pictures: dict[int, Picture] = {}
    for sample, image in stream_images(dataset, both):
        levels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        pictures[sample] = np.asarray(fit(levels, SIDE))
    pairs = [
        Pair(
            pictures[twin.sample],
            pictures[twin.other],
            _likeness(twin) + (" · labels differ" if labels_differ(dataset, twin) else ""),
            _sample_words(dataset, twin.sample),
            _sample_words(dataset, twin.other),
        )
        for twin in twins
    ]
    return draw_pairs(f"{dataset.name}: twins across splits", [caption, LEGEND], pairs, SIDE)


# ---------------------------------------------------------------------------- words


def describe_twin(dataset: Dataset, twin: Twin) -> str:
    """One line: kind, correlation, and both samples with their classes."""
    left, right = (
        f"{' '.join(_place(dataset, s))} ({class_words(dataset.target, s)})"
        for s in (twin.sample, twin.other)
    )
    marks = "  labels differ" if labels_differ(dataset, twin) else ""
    return f"{_likeness(twin):<10}  {left}  {right}{marks}"


def describe_shared(dataset: Dataset, leaks: Leaks) -> list[str]:
    """A line for each patient of an earlier split too, with the samples in each split."""
    samples = dataset.samples
    if samples.groups is None or leaks.patient is None:
        return []
    patients, number = np.unique(samples.groups, return_inverse=True)
    counts = np.zeros((len(patients), len(SPLITS)), np.int64)
    np.add.at(counts, (number, samples.split), 1)
    return [
        f"patient {patients[i]}: "
        + ", ".join(f"{split} {n}" for split, n in zip(SPLITS, counts[i], strict=True) if n)
        for i in np.unique(number[leaks.patient])
    ]


def twin_facts(dataset: Dataset, twin: Twin) -> dict[str, Any]:
    """One pair, as JSON has it."""
    samples = dataset.samples
    sides = {
        side: {
            "id": str(samples.ids[s]),
            "split": SPLITS[samples.split[s]],
            "class": class_words(dataset.target, s),
        }
        for side, s in (("sample", twin.sample), ("other", twin.other))
    }
    correlation = None if np.isnan(twin.correlation) else twin.correlation
    return {"kind": twin.kind, "correlation": correlation, **sides}


def labels_differ(dataset: Dataset, twin: Twin) -> bool:
    """Whether somebody labelled one picture in two ways."""
    return not np.array_equal(
        dataset.samples.labels[twin.sample],
        dataset.samples.labels[twin.other],
        equal_nan=dataset.task == REGRESSION,
    )


def _likeness(twin: Twin) -> str:
    if twin.kind == "exact":
        return "exact copy"
    # Never rounded up to 1: that would read as an exact copy.
    return f"r = {np.floor(twin.correlation * 10_000) / 10_000:.4f}"


def _place(dataset: Dataset, sample: int) -> tuple[str, ...]:
    """Split and id; of an id that begins with its split only that."""
    name, split = str(dataset.samples.ids[sample]), SPLITS[dataset.samples.split[sample]]
    return (name,) if name.startswith(f"{split}/") else (split, name)


def _sample_words(dataset: Dataset, sample: int) -> tuple[str, ...]:
    *split, name = _place(dataset, sample)
    name = name if len(name) <= ID_LETTERS else f"…{name[-ID_LETTERS:]}"
    return (*split, name, class_words(dataset.target, sample))
