"""What is to be said of a data set's masks."""

from collections.abc import Iterator

import numpy as np

from cache.commands.names import counted
from cache.masks import Masks
from extract.datasets.dataset import Dataset


def describe_masks(masks: Masks, dataset: Dataset) -> str:
    """Classes and their shares of all pixels, and what a person should know, in one line."""
    n, counts = len(masks), masks.counts
    pixels = masks.shapes.prod(axis=1)
    shares = counts.sum(axis=0) / pixels.sum()
    classes = ", ".join(
        f"{name} {share:.2%}" for name, share in zip(masks.class_names, shares, strict=True)
    )
    said = [f"masks of {counted(n, 'image')}: {classes}", *_notes(masks, dataset)]
    return f"{'; '.join(said)} · {masks.path}"


def _notes(masks: Masks, dataset: Dataset) -> Iterator[str]:
    n, counts = len(masks), masks.counts
    if without := dataset.n_rows - n:
        yield f"{counted(without, 'image')} without a mask"
    if ignored := int((masks.shapes.prod(axis=1) - counts.sum(axis=1)).sum()):
        yield f"{ignored:_} pixels ignored ({masks.ignore})"
    missing = [name for name, k in zip(masks.class_names, counts.sum(axis=0), strict=True) if not k]
    if missing:
        yield f"no pixel of {', '.join(missing)}"
    if masks.background is not None:
        others = np.delete(counts, masks.background, axis=1).sum(axis=1)
        if not others.any():
            yield "all of them are background alone: there is nothing to segment"
        elif empty := int((others == 0).sum()):
            yield f"{empty:_} are background alone"
