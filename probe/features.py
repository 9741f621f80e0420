"""From a feature file to what a probe eats: arrays and labels by split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.aggregate import aggregate_rows
from cache.errors import RequestError
from cache.features import Features
from cache.format.read import SPLITS
from probe.kinds.zeroshot import n_text_classes
from probe.paper_encoders import USUAL, Reading
from probe.questions.question import Asked


@dataclass(frozen=True)
class Split:
    """One split of one layer and pool. n samples."""

    x: NDArray[np.floating]  # (n, D)
    y: NDArray[Any]  # int64 (n,) or (n, C), of regression float64 (n,)
    ids: NDArray[np.str_]  # (n,)
    groups: NDArray[np.str_] | None = None  # (n,) patients, where known; an empty text is nobody

    def __len__(self) -> int:
        return len(self.y)


def default_pool(features: Features, layer: int, reading: Reading = USUAL) -> str:
    """The pool that is meant when none is named.

    Usually cls, else head at the last layer, else mean; or what a paper reads of the encoder.
    """
    layer = features.find_layer(layer)
    is_last = layer == features.last_layer
    return reading.pool(features.encoder, pools_at(features, layer), is_last)


def pools_at(features: Features, layer: int) -> list[str]:
    """The pools of a layer by its absolute number; head and proj belong to the last one."""
    of_last = [pool for pool in ("head", "proj") if pool in features.pools]
    return [*features.layers.get(layer, []), *(of_last if layer == features.last_layer else [])]


def read_layer(features: Features, layer: int, pool: str) -> NDArray[np.floating]:
    """(N, D) features of one layer; "concat" is cls and mean side by side.

    Raises:
        RequestError: the file doesn't hold them.
        BrokenCache: the stored rows don't match their checksums.
    """
    if pool != "concat":
        return features.array(layer, pool)
    return np.concatenate([features.array(layer, "cls"), features.array(layer, "mean")], axis=1)


def rows_are_samples(features: Features) -> bool:
    """Whether each row is one sample, in order; else rows are slices of volumes, or views."""
    # Not by their number alone: rows in another order would be given their neighbours' labels.
    return np.array_equal(features.row_sample, np.arange(len(features.labels)))


def read_samples(
    features: Features, layer: int, pool: str, aggregate: str = "mean"
) -> NDArray[np.floating]:
    """(S, D) features of every sample, of one layer and pool.

    Args:
        features: the file.
        layer: absolute, or negative from the end.
        pool: one that the layer has, or "concat".
        aggregate: what a sample's several rows become: their "mean" or "max".

    Raises:
        RequestError: no such layer or pool.
        BrokenCache: the stored rows don't match their checksums.
    """
    x = read_layer(features, layer, pool)
    if not rows_are_samples(features):
        x = aggregate_rows(x, features.row_sample, len(features.labels), aggregate)
    return x


def divide_samples(x: NDArray[np.floating], asked: Asked) -> dict[str, Split]:
    """Train, val and test; what is in no split is left out.

    Args:
        x: (S, D) features of the samples.
        asked: their labels and split.
    """
    splits, ids, groups = {}, asked.features.ids, asked.features.groups
    for name in SPLITS:
        rows = _as_slice(np.flatnonzero(asked.is_in(name)))
        patients = None if groups is None else groups[rows]
        splits[name] = Split(x[rows], asked.labels[rows], ids[rows], patients)
    return splits


@dataclass(frozen=True)
class Prompts:
    """What a text encoder made of every class. P prompts."""

    x: NDArray[np.floating]  # (P, D)
    y: NDArray[np.int64]  # (P,) class number
    n_classes: int  # 2C for the multi-label task: the labels, then their negatives
    logit_scale: float  # already exponentiated


def read_prompts(text: Features, images: Asked) -> Prompts:
    """The prompts of a text file, for the classes of an image file.

    Raises:
        RequestError: the classes aren't the same, or there is no logit scale.
        BrokenCache: the stored rows don't match their checksums.
    """
    names, n_classes = images.class_names, n_text_classes(images.task, len(images.class_names))
    if tuple(text.class_names[: len(names)]) != names or len(text.class_names) != n_classes:
        negatives = ", then their negatives" if n_classes > len(names) else ""
        raise RequestError(
            f"{text.path.name} should have prompts for {', '.join(names)}{negatives}; found "
            f"{', '.join(text.class_names)}: make it anew for {images.dataset}"
        )
    scale = text.notes.get("logit_scale")
    if not isinstance(scale, int | float):
        raise RequestError(
            f"{text.path.name} should have a number as its note logit_scale, found {scale!r}"
        )
    return Prompts(text.array(-1, "proj"), text.labels, n_classes, float(scale))


def _as_slice(rows: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Rows that follow one another as a slice: no copy is made of a split that is one piece."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
