"""Metrics of segmentation: how well predicted masks cover the true ones.

What is known of a sample (an image, or a volume with all slices) is counted once, by ``overlap``;
every metric is a function of sums of that over samples, so that intervals, episodes and paired
tests are made as for other tasks.

Conventions:
    - ``scores`` are (N, 6 C), reshaped (N, 6, C) what ``cache.task.OVERLAP`` names, of each class:
      pixels that both predicted and true are of, pixels predicted; the same two of the bound (the
      true mask pooled to the grid and back); HD95 in mm and the normalised surface distance.
      ``NOT_MEASURED`` where a distance or bound isn't; the background, which is no structure, says
      ``BACKGROUND`` in the place of its distances, always.
    - ``labels`` are (N, C) whole numbers, how many pixels are of each class. Pixels of no class
      (ignored ones) are nowhere; a sample that has none but these counts nowhere.
    - A structure is a class of a sample, but for the background. Dice, Jaccard and distances are
      means over classes of the mean over the samples that have the structure. One that is missed
      counts 0, and the image's diagonal in HD95, so that missing more is never better. Samples
      without the structure are in none of these: whether anything is predicted there is what the
      detection's specificity tells.
    - A class that no sample has is out of the means.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import OVERLAP, SEGMENTATION
from probe.arrays import Array, Bools, Doubles, Floats, Indices, Ints
from probe.metrics import jackknife
from probe.metrics.counts import divided
from probe.metrics.jackknife import Support
from probe.metrics.metric import (
    AREAS,
    CLASSES,
    INTERVAL,
    LACKING,
    MEDIANS,
    REST,
    SD,
    STRUCTURES,
    VAL,
    Metric,
    Prepared,
)
from probe.metrics.surfaces import apart, diagonal

NOT_MEASURED, BACKGROUND = -1.0, -2.0
TOLERANCE = 1.0  # mm, of the normalised surface distance: Metrics Reloaded's default
SCORE_TYPE = "overlap"  # of rows
# In a row's .npz, where samples are several images: what is known of each (R, 6 C), and (R, C).
IMAGES, IMAGES_PIXELS = "images_overlap", "images_pixels"
PATCH_PIXELS = "patch_pixels"  # in a row's .npz: (N,) of test, see ``structures.per_size``
N_OF_CLASS = len(OVERLAP)


# The kernel: one sample.


def image_overlap(
    predicted: NDArray[np.uint8],
    true: NDArray[np.uint8],
    bound: NDArray[np.uint8] | None,
    n_classes: int,
    *,
    background: int | None,
    ignore: int | None = None,
    spacing: Sequence[float] | Floats | None = None,
    tolerance: float = TOLERANCE,
) -> Doubles:
    """What is known of one image, or of one volume as a stack of slices.

    Args:
        predicted: (H, W), or (Z, H, W), class numbers.
        true: the same, of the truth.
        bound: the same, of the true mask pooled to the grid and back; None: not measured.
        n_classes: C.
        background: the class that is no structure; None: every class is one.
        ignore: value of ``true`` that counts nowhere.
        spacing: mm from row to row, from column to column and, of volumes, from slice to slice;
            None, or NaN among those that are needed: distances aren't measured.
        tolerance: of the normalised surface distance, mm.

    Returns:
        (6, C), see ``OVERLAP``.

    Raises:
        RequestError: shapes that differ, or a value that is no class.
    """
    predicted, true = np.asarray(predicted), np.asarray(true)
    counts = true != ignore if ignore is not None else np.ones(true.shape, np.bool_)
    found = np.full((N_OF_CLASS, n_classes), NOT_MEASURED)
    found[:2] = _shared(predicted, true, counts, n_classes, "the prediction")
    if bound is not None:
        found[2:4] = _shared(np.asarray(bound), true, counts, n_classes, "the bound")
    if (step := _step(spacing, true.ndim)) is not None:
        across = diagonal(true.shape, step)
        for c in range(n_classes):
            of_truth = (true == c) & counts
            if c != background and of_truth.any():
                of_answer = (predicted == c) & counts
                box = _box(of_truth | of_answer)
                found[4:, c] = apart(of_answer[box], of_truth[box], step, tolerance, across)
    if background is not None:
        found[4:, background] = BACKGROUND
    return found


def _shared(answer: Array, true: Array, counts: Bools, n_classes: int, what: str) -> Ints:
    """(2, C) pixels that both are of, and pixels of the answer."""
    if answer.shape != true.shape:
        raise RequestError(f"{what} has shape {answer.shape}, and the true mask {true.shape}")
    answer, true = answer[counts].astype(np.intp), true[counts].astype(np.intp)
    for name, values in ((what, answer), ("the true mask", true)):
        if values.size and values.max() >= n_classes:
            raise RequestError(f"{name} has the class {values.max()}, of {n_classes} (from 0)")
    both = np.bincount(answer[answer == true], minlength=n_classes)
    return np.stack([both, np.bincount(answer, minlength=n_classes)])


def _step(spacing: Sequence[float] | Floats | None, n_axes: int) -> tuple[float, ...] | None:
    """mm along each axis of an image or a stack of slices; None where one isn't known."""
    if spacing is None:
        return None
    row, column, *slices = map(float, spacing)
    step = (row, column) if n_axes == 2 else (*slices[:1], row, column)
    return step if len(step) == n_axes and np.isfinite(step).all() else None


def _box(mask: Bools) -> tuple[slice, ...]:
    """Where the mask is, and a pixel around, so that its border is what it is in the image."""
    axes = range(mask.ndim)
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(max(0, int(s[0]) - 1), int(s[-1]) + 2) for s in spans)


def together(parts: Sequence[Doubles] | Doubles) -> Doubles:
    """What is known of several images as one sample: pixels add up, distances are means.

    Args:
        parts: (k, ..., 6, C) of the images; of a volume with known spacing measure the stack instead.

    Returns:
        (..., 6, C): distances are the mean over the images where they were measured, and so are bounds
        not measured unless they are in all.
    """
    each = np.asarray(parts, np.float64)
    found = each.sum(axis=0)
    bounds, distances = each[..., 2:4, :], each[..., 4:, :]
    found[..., 2:4, :] = np.where((bounds < 0).any(axis=0), NOT_MEASURED, found[..., 2:4, :])
    n = (distances >= 0).sum(axis=0)
    mean = np.where(distances >= 0, distances, 0).sum(axis=0) / np.maximum(n, 1)
    found[..., 4:, :] = np.where(n > 0, mean, distances.max(axis=0))
    return found


# Sums over samples.


class Sums(NamedTuple):
    """What the metrics need to know, each (..., C): sums over samples."""

    structures: Doubles  # samples, where the class may be a structure
    having: Doubles  # samples that have the class
    dice: Doubles  # of those that have it
    jaccard: Doubles
    both: Doubles  # pixels of all samples
    predicted: Doubles
    true: Doubles
    measured: Doubles  # samples that have it and whose distances are known
    hd95: Doubles  # of those
    nsd: Doubles
    found: Doubles  # of those that have it: something is predicted
    lacking: Doubles  # samples that don't have it
    quiet: Doubles  # of those: nothing is predicted
    bounded: Doubles  # samples that have it and whose bound is known
    bound: Doubles  # the bound's Dice of those


def shaped(scores: Floats) -> Doubles:
    """(..., 6, C) from (..., 6 C)."""
    return scores.reshape(*scores.shape[:-1], N_OF_CLASS, -1).astype(np.float64)


def sample_sums(scores: Floats, labels: Ints) -> Doubles:
    """Each sample's contribution, (N, 15, C): any weighted sum over N gives ``Sums``."""
    both, predicted, bound_both, bound_predicted, hd95, nsd = np.moveaxis(shaped(scores), -2, 0)
    true = labels.astype(np.float64)
    counts = (true.sum(axis=1) > 0)[:, None]
    has, lacks = true > 0, (true == 0) & counts
    structure = (hd95 != BACKGROUND) & counts
    # Of the background distances are below 0, as where they aren't measured.
    measured, bounded = has & (hd95 >= 0), has & (bound_both >= 0)
    return np.stack(
        [
            structure,
            has,
            has * 2 * both / np.maximum(predicted + true, 1),
            has * both / np.maximum(predicted + true - both, 1),
            both,
            predicted,
            true,
            measured,
            measured * hd95,
            measured * nsd,
            has & (predicted > 0),
            lacks,
            lacks & (predicted == 0),
            bounded,
            bounded * 2 * bound_both / np.maximum(bound_predicted + true, 1),
        ],
        axis=1,
        dtype=np.float64,
    )


def sample_dice(scores: Floats, labels: Ints) -> Doubles:
    """(N, C) Dice of each sample's structures; nan of the background and where there is none."""
    s = Sums(*np.moveaxis(sample_sums(scores, labels), -2, 0))
    return np.where((s.structures > 0) & (s.having > 0), s.dice, np.nan)


def medians(scores: Floats, labels: Ints) -> Doubles:
    """(C,) median HD95 of the samples that have the structure; nan where none is measured."""
    hd95 = shaped(scores)[:, 4]
    known = np.where((labels > 0) & (hd95 >= 0), hd95, np.nan)
    found = np.full(known.shape[1], np.nan)
    some = ~np.isnan(known).all(axis=0)
    found[some] = np.nanmedian(known[:, some], axis=0)
    return found


def _mean(values: Array, counted: Bools) -> Doubles:
    """Mean over classes of those that count; nan where none does."""
    return divided(np.where(counted, values, 0).sum(axis=-1), counted.sum(axis=-1))


def _each(total: Doubles, n: Doubles, structures: Doubles) -> Doubles:
    """Mean over structures of the mean over n samples of each."""
    return _mean(divided(total, n), (n > 0) & (structures > 0))


def _dice(s: Sums) -> Doubles:
    return _each(s.dice, s.having, s.structures)


def _jaccard(s: Sums) -> Doubles:
    return _each(s.jaccard, s.having, s.structures)


def _miou(s: Sums) -> Doubles:
    union = s.predicted + s.true - s.both
    return _mean(divided(s.both, union), union > 0)


def _metric(name: str, of: Callable[[Sums], Doubles], stands_on: str, **more: Any) -> Metric:
    def of_sums(sums: Doubles, task: str) -> Doubles:
        return of(Sums(*np.moveaxis(sums, -2, 0)))

    return Metric(name, of_sums, AREAS, (SEGMENTATION,), stands_on, **more)


# Means of what lies in 0..1 are nearest to normal as logits, those of distances as logarithms.
# Half the logit; what is 1 but for rounding is 1.
LOGIT = (
    lambda share: np.arctanh(np.clip(np.round(2 * share - 1, 12), -1, 1)),
    lambda z: (1 + np.tanh(z)) / 2,
)
POSITIVE = np.log, np.exp
MM = {"span": (0.0, np.inf), "has_unit": True, "is_loss": True}
METRICS = (
    _metric(
        *("dice", _dice, STRUCTURES),
        scale=LOGIT,
        column="dice",
        also=(INTERVAL, VAL, SD, REST),
    ),
    _metric(*("jaccard", _jaccard, STRUCTURES), scale=LOGIT, column="jaccard"),
    _metric("dice_all", lambda s: _each(s.dice, s.having, s.having), CLASSES, scale=LOGIT),
    _metric("jaccard_all", lambda s: _each(s.jaccard, s.having, s.having), CLASSES, scale=LOGIT),
    # Areas over the whole set, as mmsegmentation and DINOv3 have it.
    _metric("miou", _miou, CLASSES, scale=LOGIT, column="miou"),
    _metric(
        "hd95",
        lambda s: _each(s.hd95, s.measured, s.structures),
        STRUCTURES,
        scale=POSITIVE,
        fewest=10,  # by simulation: of fewer a miss that isn't seen would change all
        column="hd95",
        **MM,
    ),
    Metric(
        "hd95_median",
        lambda medians, task: _mean(medians, ~np.isnan(medians)),
        MEDIANS,
        (SEGMENTATION,),
        None,
        column="hd95 median",
        **MM,
    ),
    _metric(
        "nsd",
        lambda s: _each(s.nsd, s.measured, s.structures),
        STRUCTURES,
        scale=LOGIT,
        column="nsd",
    ),
    _metric(
        "detection_sensitivity",
        lambda s: _each(s.found, s.having, s.structures),
        STRUCTURES,
        column="det. sens",
    ),
    _metric(
        "detection_specificity",
        lambda s: _each(s.quiet, s.lacking, s.structures),
        LACKING,
        column="det. spec",
    ),
    # Of Baharoon et al. 2023 alone: neither tells what the other does.
    _metric(
        "dice_jaccard",
        lambda s: (_dice(s) + _jaccard(s)) / 2,
        STRUCTURES,
        scale=LOGIT,
        protocol="baharoon2023",
    ),
    _metric(
        "bound",
        lambda s: _each(s.bound, s.bounded, s.structures),
        STRUCTURES,
        scale=LOGIT,
        column="bound",
    ),
)  # in the order of every row


def validate(scores: Array, labels: Array) -> None:
    """Refuse what no metric above can answer for.

    Args:
        scores: (N, 6 C).
        labels: (N, C).

    Raises:
        RequestError: no samples, shapes that don't match, or numbers that can't be.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    is_right = labels.ndim == 2 and len(labels) and labels.dtype.kind in "iu"
    if not is_right or scores.shape != (len(labels), N_OF_CLASS * labels.shape[1]):
        raise RequestError(
            f"of segmented samples scores have shape (N, {N_OF_CLASS} C) and labels (N, C), whole "
            f"numbers of pixels; found {scores.shape} and {labels.dtype} {labels.shape}"
        )
    if not np.isfinite(scores).all() or labels.min(initial=0) < 0:
        raise RequestError("numbers of pixels are finite and from 0")
    both, predicted = shaped(scores)[:, 0], shaped(scores)[:, 1]
    if (both < 0).any() or (both > np.minimum(predicted, labels)).any():
        row = int(np.argmax(((both < 0) | (both > np.minimum(predicted, labels))).any(axis=1)))
        raise RequestError(f"more pixels are both predicted and true than either, in row {row}")


def prepare(scores: Floats, labels: Ints) -> Prepared:
    """Look at answers once: see ``validate`` for arguments and errors."""
    validate(scores, labels)
    parts = {AREAS: sample_sums(scores, labels)}
    return Prepared(SEGMENTATION, METRICS, parts, {MEDIANS: medians(scores, labels)}, [])


def supports(scores: Floats, labels: Ints, cluster: Indices) -> dict[str, Support]:
    """Name of each metric -> what it stands on: the units that have each structure, or lack it.

    Args:
        scores: (N, 6 C).
        labels: (N, C).
        cluster: (N,) number of each sample's unit, all from 0.
    """
    s = Sums(*np.moveaxis(sample_sums(scores, labels), -2, 0))
    has, lacks, structure = s.having > 0, s.lacking > 0, (s.structures > 0).any(axis=0)
    found = {
        STRUCTURES: jackknife.of_classes(has & structure, cluster),
        CLASSES: jackknife.of_classes(has, cluster),
        LACKING: jackknife.of_classes(lacks & structure, cluster),
    }
    return {m.name: found[m.stands_on] for m in METRICS if m.stands_on}


def unseen(scores: Floats, labels: Ints, cluster: Indices) -> dict[str, float]:
    """What misses that happen not to be in test would add to the variance of means over structures.

    A miss is rare and costs much. Where none of n units of a structure is missed, the jackknife sees
    nothing of it, though half a unit of n + 1 may well be (Jeffreys): p (1 - p) / n, times the square
    of what a miss costs, which is the class's mean, and of HD95 the way from it to the largest of
    test. Without this, of structures that 5 to 20 images have and one of 12 is missed, NSD's 95 %
    hold 88 %.

    Args:
        scores: (N, 6 C).
        labels: (N, C).
        cluster: (N,) number of each sample's unit.

    Returns:
        Name -> variance, on the metric's scale; of areas over the set, of detection, and at a scale's
        end none.
    """
    s = Sums(*sample_sums(scores, labels).sum(axis=0))
    largest = float(shaped(scores)[:, 4].max())
    n = np.array([jackknife.worth(cluster[column > 0]) for column in labels.T])
    found = divided(s.found, s.having)
    likely = 0.5 / (n + 1)
    short = np.where(found == 1, likely * (1 - likely) / n, 0)
    costs = {
        "dice": (s.dice, s.having),
        "jaccard": (s.jaccard, s.having),
        "dice_jaccard": ((s.dice + s.jaccard) / 2, s.having),
        "nsd": (s.nsd, s.measured),
        "hd95": (s.hd95, s.measured),
    }
    variances = {}
    for name, (total, counted) in costs.items():
        for of, kept in ((name, s.structures > 0), (f"{name}_all", np.ones_like(found, np.bool_))):
            here = kept & (counted > 0)
            means = divided(total, counted)[here]
            mean = float(means.mean()) if here.any() else 0.0
            is_far = name == "hd95"
            below = mean if is_far else 2 * mean * (1 - mean)  # 1 / below: the scale's slope
            if below > 0:
                lost = largest - means if is_far else means
                of_mean = float((short[here] * lost**2).sum()) / int(here.sum()) ** 2
                variances[of] = of_mean / below**2
    return variances
