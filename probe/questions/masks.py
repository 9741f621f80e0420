"""Masks laid over a token file: the question of kinds that segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import RequestError
from cache.labels.target import Target
from cache.task import MISSING, MULTI_LABEL, SEGMENTATION, Task
from probe.questions.laying import choose_splits
from probe.questions.overlay import OverlayConfig
from probe.questions.question import Question

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it
    from cache.masks import Masks


def lay_masks(config: OverlayConfig, features: Features) -> list[Question]:
    """A token file's samples with their masks, once for each split.

    Samples without a mask are in no split; of a volume the slices that have none aren't read.

    Args:
        config: which masks, and which split.
        features: the token file.

    Raises:
        RequestError: there are no masks, several, or none of these images; labels are named, too.
    """
    if config.labels or config.target:
        raise RequestError(
            "kinds that segment learn from masks, so they take no --labels and no --target; leave "
            "them out"
        )
    masks, notes = choose_masks(config.masks, features)
    from cache.format.read import read_table  # h5py: --help shouldn't wait for it

    number = masks.find(read_table(features.header, "rows/ids"))
    has_mask, row_sample = number >= 0, features.row_sample
    if not has_mask.any():
        raise RequestError(
            f"{masks.path} has a mask of none of the images of {features.path.name}: its ids look "
            f"like {str(masks.ids[0])!r}, these like {str(features.ids[0])!r}"
        )
    counts = np.zeros((len(features.ids), len(masks.class_names)), np.int64)
    np.add.at(counts, row_sample[has_mask], masks.counts[number[has_mask]])
    is_known = np.bincount(row_sample[has_mask], minlength=len(features.ids)) > 0
    if n := int((~has_mask).sum()):
        notes.append(f"{n:_} of {len(has_mask):_} images have no mask: left out")
    seen = counts if masks.background is None else np.delete(counts, masks.background, axis=1)
    if not seen.any():
        raise RequestError(
            f"every mask of {masks.path} is background alone, so there is nothing to find; see that "
            "the values of its classes are right: `cache show` lists them"
        )
    # To divide samples evenly: which classes each has.
    present = np.where(is_known[:, None], counts > 0, MISSING).astype(np.int64)
    presence = Target(MULTI_LABEL, masks.class_names, present)
    said = {"task": SEGMENTATION, "masks": masks.digest, "file": masks.path.name}
    stored = features.header.tables["samples/split"]
    return [
        Question(
            features,
            Task(SEGMENTATION, masks.class_names),
            counts,
            named.split,
            named.name,
            {"labels": masks.digest, "split": division.get("digest", stored)},
            said,
            division,
            (*notes, *named.notes),
            masks=masks,
        )
        for named, division in choose_splits(config, features, presence, is_known)
    ]


def choose_masks(wish: Path | None, features: Features) -> tuple[Masks, list[str]]:
    """The masks that are named, or the newest beside a token file; and a note on others.

    Raises:
        RequestError: there are none.
    """
    from cache.masks import find_masks, open_masks  # h5py: --help shouldn't wait for it

    if wish is not None:
        return open_masks(wish), []
    root = features.path.parent.parent
    found = find_masks(root, features.dataset)
    if not found:
        raise RequestError(
            f"{features.dataset} has no masks in {features.path.parent}; images with masks are "
            f"demo-masks, seg-folder:PATH or csv:FILE --mask-col COLUMN: `extract data` lists them"
        )
    note = f"{found[0].name} is the newest of {len(found)} masks files; name another with --masks"
    return open_masks(found[0]), [note] if len(found) > 1 else []
