"""Samples of a layer in the plane, by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.arrays import Array, Ints
from probe.report.figures.files import AskedOfFiles, caption_of, panel_of
from probe.report.figures.frame import Frame
from probe.report.findings.alike import PCA, TITLES, Scatter, scatter
from probe.report.findings.matched import Seen, file_of, name_layers

LAST = -1
N_BANDS = 4  # of numbers, of as many samples each
UNKNOWN, NONE, SEVERAL = "unknown", "no label", "several labels"
APART = "Neighbours are near each other; how far groups lie apart, and how large they are, means nothing."


@dataclass(frozen=True)
class Spot:
    """One sample."""

    panel: str
    x: float
    y: float
    label: str  # its class, or a band of its number
    id: str
    dataset: str
    split: str
    encoder: str
    layer: int
    pool: str
    method: str
    share_x: float  # of the variance; nan: not of principal components
    share_y: float


def make(asked: AskedOfFiles) -> Frame[Spot]:
    """A panel for each layer that is asked for, the last one else.

    Raises:
        RequestError: too few samples, or a method that isn't installed.
    """
    spots: list[Spot] = []
    ways: list[tuple[str, str]] = []
    notes: list[str] = []
    for dataset, files in asked.of_datasets().items():
        places = [place for file in files for place in asked.places(file, LAST)]
        for place, seen in zip(places, name_layers(places), strict=True):
            found = scatter(place, asked.method, split=asked.split, seed=asked.seed)
            words = f"{seen.encoder}, {seen.place}"
            if found.shares:
                words += (
                    f"; {percent(found.shares[0])} and {percent(found.shares[1])} of the variance"
                )
            spots += _spots(panel_of(found.samples, words), found, seen, file_of(place).task)
            ways.append((dataset, found.describe()))
            notes += [f"{dataset}: {note}" for note in found.samples.notes]
    words = [caption_of(ways), *([] if asked.method == PCA else [APART])]
    title = TITLES[asked.method]
    return Frame(
        *("scatter", tuple(spots), " ".join(words), tuple(dict.fromkeys(notes))),
        *(f"{title} 1", f"{title} 2"),
    )


def percent(share: float) -> str:
    """Of a whole, in one word."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _spots(panel: str, found: Scatter, seen: Seen, task: str) -> list[Spot]:
    """By class, so that a legend has their order."""
    share_x, share_y = found.shares or (math.nan, math.nan)
    codes, names = groups_of(found.labels, found.class_names, task)
    return [
        Spot(
            *(panel, float(found.points[s, 0]), float(found.points[s, 1]), names[codes[s]]),
            *(str(found.samples.ids[s]), found.samples.dataset, found.samples.split),
            *(seen.encoder, seen.layer, seen.pool, found.method, share_x, share_y),
        )
        for s in np.argsort(codes, kind="stable")
    ]


def groups_of(labels: Array, class_names: Sequence[str], task: str) -> tuple[Ints, list[str]]:
    """Each sample's class; of several labels at once the only one, of numbers a band.

    Args:
        labels: (n,) or (n, C), as ``Features.labels``.
        class_names: C of them.
        task: of ``cache.task``.

    Returns:
        (n,) numbers of groups, and what each group is called.
    """
    if task == REGRESSION:
        known = labels[~np.isnan(labels)]
        ends = (
            np.unique(np.quantile(known, np.linspace(0, 1, N_BANDS + 1))) if len(known) else known
        )
        names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(ends)]
        names = names or [f"{value:.3g}" for value in ends]  # all are the same
        bands = np.searchsorted(ends[1:-1], labels, side="right")
        return np.where(np.isnan(labels), len(names), bands), [*names, UNKNOWN]
    names = [*map(str, class_names), NONE, SEVERAL, UNKNOWN]
    if task == MULTI_LABEL:
        is_there, n = labels == 1, len(class_names)
        n_there, is_open = is_there.sum(axis=1), (labels < 0).any(axis=1)
        several = np.where(n_there > 1, n + 1, np.where(is_open, n + 2, n))
        return np.where(n_there == 1, is_there.argmax(axis=1), several), names
    return np.where(labels == MISSING, len(names) - 1, labels), names
