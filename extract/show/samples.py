"""The samples of each class: how many there are, and a few of them to look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.format.sample_tables import SPLITS
from cache.format.spec import Samples
from cache.labels.target import Target
from cache.task import BINARY, MISSING, MULTI_LABEL, REGRESSION, UNCERTAIN
from extract.datasets.dataset import Dataset

QUARTERS = 4  # continuous labels have no classes, so their samples stand together by value


@dataclass(frozen=True)
class ClassSamples:
    """The samples of one class, of one label, or of a quarter of continuous labels."""

    name: str
    samples: NDArray[np.int64]  # numbers of samples, ascending
    n_uncertain: int = 0  # samples of which somebody says that it isn't clear
    is_positive: bool = False  # label 1 of a binary task


def by_class(target: Target, among: NDArray[np.int64]) -> list[ClassSamples]:
    """Samples by class, in the order of the classes.

    Of several labels, a sample stands with each that it has, and at the end are those that have
    none. Continuous labels come by quarter, the lowest first. The very last are those whose label
    nobody knows.

    Args:
        target: the labels of all samples.
        among: numbers of the samples that count.
    """
    task, of = target.task, target.labels[among]
    if task == REGRESSION:
        unknown = among[np.isnan(of)]
        classes = _quarters(target, among[~np.isnan(of)])
    elif task == MULTI_LABEL:
        unknown = among[(of == MISSING).all(axis=1)]
        none = among[(of == 0).all(axis=1)]
        classes = [
            ClassSamples(name, among[of[:, c] == 1], int((of[:, c] == UNCERTAIN).sum()))
            for c, name in enumerate(target.class_names)
        ]
        classes += [ClassSamples("none of these", none)] if len(none) else []
    else:
        unknown = among[of == MISSING]
        classes = [
            ClassSamples(name, among[of == c], is_positive=task == BINARY and c == 1)
            for c, name in enumerate(target.class_names)
        ]
    return [*classes, ClassSamples("no label", unknown)] if len(unknown) else classes


def _quarters(target: Target, known: NDArray[np.int64]) -> list[ClassSamples]:
    (name,), labels = target.class_names, target.labels
    ascending = known[np.argsort(labels[known], kind="stable")]
    return [
        ClassSamples(f"{name} {labels[part[0]]:.4g} to {labels[part[-1]]:.4g}", np.sort(part))
        for part in np.array_split(ascending, QUARTERS)
        if len(part)
    ]


def class_words(target: Target, sample: int) -> str:
    """The class of one sample; of several labels those it has; "no label" where nobody knows."""
    names, label = target.class_names, target.labels[sample]
    if target.task == REGRESSION:
        return "no label" if np.isnan(label) else f"{names[0]} {label:.4g}"
    if target.task == MULTI_LABEL:
        has = [name for name, value in zip(names, label, strict=True) if value == 1]
        return " + ".join(has) or "none of them"
    return names[int(label)] if label != MISSING else "no label"


# ---------------------------------------------------------------------------- a few of them


def samples_of(name: str, samples: Samples, split: str) -> NDArray[np.int64]:
    """Numbers of a split's samples, or, of the split "all", of every sample.

    Raises:
        RequestError: the data set ``name`` has none in this split.
    """
    if split == "all":
        return np.arange(len(samples.ids))
    among = np.flatnonzero(samples.split == SPLITS.index(split))
    if not len(among):
        has = ", ".join(SPLITS[i] for i in np.unique(samples.split))
        raise RequestError(f"{name} has no images in {split}; it has {has}")
    return among


def spread(samples: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """At most n of them, evenly spread; the first and the last are among them."""
    places = np.linspace(0, len(samples) - 1, min(n, len(samples)))
    return samples[places.round().astype(int)]


def middle_rows(row_sample: NDArray[np.int64], samples: NDArray[np.int64]) -> dict[int, int]:
    """Sample -> its middle row: of a volume the middle slice, of an image its only row."""
    order = np.argsort(row_sample, kind="stable")
    first = np.searchsorted(row_sample, samples, "left", sorter=order)
    behind = np.searchsorted(row_sample, samples, "right", sorter=order)
    middle = order[(first + behind) // 2]
    return dict(zip(samples.tolist(), middle.tolist(), strict=True))


def stream_images(
    dataset: Dataset, samples: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Each of some samples and its image as stored, of several rows the middle one.

    Yields:
        In the order of the rows, each sample once: its number, and (H, W) or (H, W, 3) of uint8, or
        of float32 levels in 0..255.
    """
    rows = middle_rows(dataset.row_sample, np.unique(samples))
    in_order = sorted((row, sample) for sample, row in rows.items())
    streamed = dataset.stream([(row, row + 1) for row, _ in in_order])
    for (_, sample), images in zip(in_order, streamed, strict=True):
        yield sample, np.asarray(images[0])


# ---------------------------------------------------------------------------- words


def sample_kind(dataset: Dataset) -> str:
    """What a sample is, in the plural."""
    if dataset.slicing is not None:
        return "volumes"
    return "images" if dataset.n_rows == len(dataset.samples.ids) else "samples"


def grouped(n: int) -> str:
    """ "1 380", as the README writes numbers."""
    return f"{n:_}".replace("_", " ")
