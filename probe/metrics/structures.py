"""What a row says of each structure: of classes, of sizes, and what a reader of its numbers must know."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cache.task import Task
from probe.arrays import Floats, Ints
from probe.metrics.counts import divided
from probe.metrics.overlap import Sums, medians, sample_sums

# Under these sizes of a structure, in patches of the grid; the last is open.
SIZES = (("<1", 1.0), ("1-4", 4.0), ("4-16", 16.0), (">16", np.inf))


def per_class(scores: Floats, labels: Ints, task: Task) -> dict[str, list[Any]]:
    """What is known of each class on test.

    Args:
        scores: (N, 6 C).
        labels: (N, C).
        task: the names of C classes.

    Returns:
        Lists of C: "class", its name; "background", whether it is that; "n", how many samples have
        it, "dice" and "jaccard", means over these, nan where none has; "hd95", "hd95_median" and
        "nsd", mm and share, nan where not measured; "missed", in how many of n nothing is
        predicted; "n_empty", how many samples lack it, and "false_alarms", in how many of these
        something is predicted; "bound", the Dice of the true mask pooled to the grid and back.
    """
    s = Sums(*sample_sums(scores, labels).sum(axis=0))
    counts = {
        "n": s.having,
        "missed": s.having - s.found,
        "n_empty": s.lacking,
        "false_alarms": s.lacking - s.quiet,
    }
    n = {name: values.astype(int).tolist() for name, values in counts.items()}
    return {
        "class": [str(name) for name in task.class_names],
        "background": (s.structures == 0).tolist(),
        "n": n["n"],
        "dice": divided(s.dice, s.having).tolist(),
        "jaccard": divided(s.jaccard, s.having).tolist(),
        "hd95": divided(s.hd95, s.measured).tolist(),
        "hd95_median": medians(scores, labels).tolist(),
        "nsd": divided(s.nsd, s.measured).tolist(),
        **{name: n[name] for name in ("missed", "n_empty", "false_alarms")},
        "bound": divided(s.bound, s.bounded).tolist(),
    }


def per_size(
    scores: Floats, labels: Ints, task: Task, patch_pixels: Floats
) -> Mapping[str, list[Any]]:
    """How well structures of each size are found: a grid can't see what is smaller than its patches.

    Args:
        scores: (N, 6 C).
        labels: (N, C).
        task: the names of C classes.
        patch_pixels: (N,) pixels of a sample's masks that one patch of the grid covers.

    Returns:
        Lists, a line for each structure and size that occurs: "class"; "size" in patches, see
        ``SIZES``: all pixels of the structure in the sample, be they in several pieces or slices;
        "n", how many samples; their mean "dice" and "bound" (nan where not measured).
    """
    s = Sums(*np.moveaxis(sample_sums(scores, labels), -2, 0))
    patches = labels / np.asarray(patch_pixels, np.float64)[:, None]
    is_structure = (s.having > 0) & (s.structures > 0)
    found: dict[str, list[Any]] = {name: [] for name in ("class", "size", "n", "dice", "bound")}
    for c, name in enumerate(task.class_names):
        least = 0.0
        for size, most in SIZES:
            of = is_structure[:, c] & (patches[:, c] >= least) & (patches[:, c] < most)
            least = most
            if n := int(of.sum()):
                known = float(s.bounded[of, c].sum())
                bound = float(s.bound[of, c].sum() / known) if known else np.nan
                line = str(name), size, n, float(s.dice[of, c].mean()), bound
                for column, value in zip(found.values(), line, strict=True):
                    column.append(value)
    return found


def per_image(
    scores: Floats, labels: Ints, task: Task, patch_pixels: Floats
) -> tuple[dict[str, list[Any]], Mapping[str, list[Any]]]:
    """Of samples that are several images each, what is known of the images: slices of volumes.

    Args:
        scores: (R, 6 C) of the images.
        labels: (R, C).
        task: the names of C classes.
        patch_pixels: (R,), see ``per_size``.

    Returns:
        Further columns of ``per_class``: "n_images" that have the class, and their mean
        "dice_image" and "jaccard_image"; and ``per_size`` of the images.
    """
    of = per_class(scores, labels, task)
    columns = {"n_images": of["n"], "dice_image": of["dice"], "jaccard_image": of["jaccard"]}
    return columns, per_size(scores, labels, task, patch_pixels)


def marks_of(scores: Floats, labels: Ints, task: Task) -> list[str]:
    """What a reader of the numbers of test must know of them.

    Args:
        scores: (N, 6 C), of episodes (E, N, 6 C): the first tells for all.
        labels: (N, C).
        task: the names of C classes.
    """
    one = scores[0] if scores.ndim == 3 else scores
    s = Sums(*sample_sums(one, labels).sum(axis=0))
    structure = s.structures > 0
    absent = [str(name) for name in np.array(task.class_names)[structure & (s.having == 0)]]
    marks = [f"no test image has {', '.join(absent)}: out of all means"] if absent else []
    n_have, n_measured = int(s.having[structure].sum()), int(s.measured[structure].sum())
    if n_have and not n_measured:
        is_few_shot = scores.ndim == 3
        why = "none is measured of episodes" if is_few_shot else "the spacing of pixels is unknown"
        marks.append(f"no distances: {why}")
    elif n_measured < n_have:
        marks.append(
            f"distances of {n_measured:_} of {n_have:_} structures: of others the spacing is unknown"
        )
    if structure.any() and not s.lacking[structure].any():
        marks.append("no detection specificity: every test image has every structure")
    uncounted = int((labels.sum(axis=1) == 0).sum())
    return [*marks, f"{uncounted:_} test images have ignored pixels only"] if uncounted else marks
