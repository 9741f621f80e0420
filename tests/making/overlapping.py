"""Rows of segmentation: discs and dots, predicted with known skill; nothing is extracted or fitted."""

import dataclasses

import numpy as np
from answering import make_row

from cache.task import SEGMENTATION, Task
from probe.metrics.measure import measure
from probe.metrics.metric import Measuring
from probe.metrics.overlap import PATCH_PIXELS, SCORE_TYPE, image_overlap
from probe.metrics.patients import Scored
from probe.report.rows.stored import StoredRow

TASK = Task(SEGMENTATION, ("background", "organ", "lesion"))
SIDE, PATCH = 32, 4  # of images and of a patch of the grid, pixels
SPACING = (0.5, 0.5)  # mm


def true_masks(n=40, seed=0):
    """(n, 32, 32) class numbers: an organ in every image, a lesion in three of five."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, SIDE, SIDE), np.uint8)
    for i, mask in enumerate(masks):
        centre = rng.integers(12, 20, 2)
        disc(mask, centre, rng.uniform(5, 9), 1)
        if i % 5 < 3:
            disc(mask, centre + rng.integers(-3, 4, 2), rng.uniform(1, 3), 2)
    return masks


def disc(mask, centre, radius, value):
    rows, columns = np.indices(mask.shape)
    mask[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2] = value


def predicted_masks(true, skill=0.8, seed=1):
    """True masks moved by up to 4 (1 - skill) pixels a side, lesions missed as often as skill lacks,
    and seen where there is none half as often.
    """
    rng = np.random.default_rng(seed)
    masks = np.empty_like(true)
    for mask, of in zip(masks, true, strict=True):
        mask[:] = np.roll(of, np.round(rng.uniform(-4, 4, 2) * (1 - skill)).astype(int), (0, 1))
        if (mask == 2).any():
            mask[mask == 2] = 2 if rng.random() < skill else 1
        elif rng.random() < (1 - skill) / 2:
            disc(mask, rng.integers(8, 24, 2), 1.5, 2)
    return masks


def pooled(mask):
    """A mask by the most frequent class of each patch."""
    patches = mask.reshape(SIDE // PATCH, PATCH, SIDE // PATCH, PATCH)
    shares = np.stack([(patches == c).mean((1, 3)) for c in range(TASK.n_classes)])
    return np.kron(shares.argmax(0), np.ones((PATCH, PATCH), int)).astype(np.uint8)


def measured(true, predicted, spacing=SPACING, background=0):
    """Scores (n, 6 C) and labels (n, C) of masks."""
    more = {"background": background, "spacing": spacing}
    each = [
        image_overlap(p, t, pooled(t), TASK.n_classes, **more)
        for p, t in zip(predicted, true, strict=True)
    ]
    labels = [np.bincount(t.ravel(), minlength=TASK.n_classes) for t in true]
    return np.stack(each).reshape(len(each), -1), np.array(labels)


def runs(masks):
    """What a row's .npz holds of predicted masks: their shapes, and runs of equal pixels."""
    values, lengths = [], []
    for mask in masks:
        flat = mask.ravel()
        starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
        values.append(flat[starts])
        lengths.append(np.diff(np.r_[starts, flat.size]))
    return {
        "masks_shapes": np.array([mask.shape for mask in masks]),
        "masks_values": np.concatenate(values).astype(np.uint8),
        "masks_lengths": np.concatenate(lengths).astype(np.uint32),
    }


def segmented(
    model,
    skill=0.8,
    *,
    n=40,
    seed=1,
    dataset="shapes",
    kind="segment",
    spacing=SPACING,
    groups=None,
    episodes=0,
    protocol="",
    split=None,
    tables=None,
    **settings,
):
    """A row of an encoder's masks of n test images, with predicted masks in its scores.

    Args:
        groups: (n,) patients of which the numbers are resampled.
        episodes: few-shot ones; 0: none.
    """
    true = true_masks(n)
    ids = np.array([f"{dataset}/{i:05d}" for i in range(n)])
    masks = [predicted_masks(true, skill, seed + i) for i in range(max(1, episodes))]
    each, labels = zip(*(measured(true, one, spacing) for one in masks), strict=True)
    scores, labels = np.stack(each) if episodes else each[0], labels[0]
    patch_pixels = np.full(n, float(PATCH**2))
    if episodes:
        settings["few_shot"] = {"shots": 5, "episodes": episodes, "images": 5}
    found = measure(
        {"test": Scored(scores, labels, ids, groups)},
        TASK,
        measuring=Measuring(n_resamples=50),
        protocol=protocol,
        patch_pixels=patch_pixels,
    )
    row = make_row(kind, dataset, pool="tokens", **settings)
    encoded = dataclasses.replace(
        row.encoded,
        model=model,
        encoder=f"{model}.full",
        task=SEGMENTATION,
        digest=f"{model:0<64}",
        tables=tables or {},
    )
    target = {"masks": f"sha256:{'a' * 64}", "file": "masks_aaaaaaaaaaaa.h5", "task": SEGMENTATION}
    posed = dataclasses.replace(row.posed, target=target, split=split or {}, leaks=None)
    answered = dataclasses.replace(row.answered, score_type=SCORE_TYPE, chosen={})
    arrays = {
        "test_scores": scores,
        "test_labels": labels,
        "test_ids": ids,
        "class_names": np.array(TASK.class_names),
        PATCH_PIXELS: patch_pixels,
        **({} if episodes else {"masks_ids": ids, **runs(masks[0])}),
    }
    return StoredRow(
        dataclasses.replace(
            row,
            encoded=encoded,
            posed=posed,
            answered=answered,
            measured=found,
            scores=arrays,
            marks=tuple(found.marks),
            n={"train": 80, "val": 0, "test": n},
        )
    )
