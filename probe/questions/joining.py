"""Feature files of several encoders side by side: the same samples, matched by id."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Texts

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

LABELS, SPLIT = "label", "split"


def align(files: Sequence[Features], laid_over: Collection[str] = ()) -> tuple[Features, ...]:
    """The files, whose samples come in the first one's order.

    Args:
        files: one of each encoder.
        laid_over: ``LABELS``, ``SPLIT``: what isn't read of them, and may differ.

    Raises:
        RequestError: samples, classes, labels, splits or patients differ; the message says in what.
    """
    first, *others = files
    return first, *(_aligned(first, other, laid_over) for other in others)


def _aligned(first: Features, other: Features, laid_over: Collection[str]) -> Features:
    names = [f"{f.label} at {f.size} px" for f in (first, other)]
    which = f"{' and '.join(names)} on {first.dataset}"

    def refuse(what: str) -> None:
        raise RequestError(
            f"{which} aren't of the same samples: {what}; extract both from the same images and labels"
        )

    if first.dataset != other.dataset:
        refuse(f"the second is of {other.dataset}")
    for one, of, name in ((first, other, names[1]), (other, first, names[0])):
        if lacking := sorted({*one.ids.tolist()} - {*of.ids.tolist()}):
            refuse(f"{name} lacks {len(lacking):_} of {len(one.ids):_}, the first {lacking[0]!r}")
    own, found = (first.task, first.class_names), (other.task, other.class_names)
    if own != found and LABELS not in laid_over:
        refuse(f"classes are {', '.join(own[1])} and {', '.join(found[1])}")
    other = other.in_order(first.ids)
    for what, ours, theirs in (
        (LABELS, first.labels, other.labels),
        (SPLIT, first.split, other.split),
        ("patient", _patients(first), _patients(other)),
    ):
        if what not in laid_over and (differs := _first_unlike(ours, theirs)):
            i, n = differs
            refuse(
                f"the {what} of {str(first.ids[i])!r} is {ours[i]} and {theirs[i]}, {n:_} differ"
            )
    return other


def _patients(features: Features) -> Texts:
    return np.full(len(features.ids), "") if features.groups is None else features.groups


def _first_unlike(ours: Array, theirs: Array) -> tuple[int, int] | None:
    """The first sample that differs, and how many do."""
    same = ours == theirs
    if ours.dtype.kind == "f":
        same |= np.isnan(ours) & np.isnan(theirs)
    unlike = ~(same.all(axis=1) if same.ndim > 1 else same)
    return (int(unlike.argmax()), int(unlike.sum())) if unlike.any() else None
