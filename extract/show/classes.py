"""What ``extract data show`` draws: some images of each class, as the encoder will see them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cache.commands.sheet import Picture, Row, draw_rows, fit, is_writable, shown_side
from cache.format.sample_tables import SPLITS
from extract.config import FIRST_FILTER
from extract.datasets.dataset import Dataset
from extract.prepare.transforms import Transform, describe_distortion
from extract.show.samples import (
    ClassSamples,
    by_class,
    grouped,
    sample_kind,
    samples_of,
    spread,
    stream_images,
)

MOST_CLASSES = 60  # on a sheet: beyond, it would be gigabytes of white paper


def draw_classes(
    dataset: Dataset, transform: Transform, split: str | None, per_class: int
) -> tuple[Image.Image, list[str]]:
    """A contact sheet of a data set, one row a class.

    Args:
        dataset: its images.
        transform: what happens to them; mean and std are undone again for the eye.
        split: one of SPLITS, or "all"; None: the first that has samples.
        per_class: images a row, at most; evenly spread over the class's samples in their order.

    Returns:
        The sheet, and what a user should be told besides: how far shapes are distorted, and names
        of classes that no font here can write.

    Raises:
        RequestError: the split has no samples.
    """
    split = split or SPLITS[int(dataset.samples.split.min())]
    among = samples_of(dataset.name, dataset.samples, split)
    classes = by_class(dataset.target, among)
    drawn = classes[:MOST_CLASSES]
    chosen = [spread(one.samples, per_class) for one in drawn]
    side = shown_side(transform.size)
    pictures: dict[int, Picture] = {}
    shapes: list[tuple[int, ...]] = []
    for sample, image in stream_images(dataset, np.concatenate(chosen)):
        shapes.append(image.shape[:2])
        pictures[sample] = np.asarray(fit(preview(image, transform), side))
    kind = sample_kind(dataset)
    rows, notes = [], describe_distortion(shapes, transform.resize, "images shown")
    if len(drawn) < len(classes):
        notes.append(f"the first {len(drawn)} of {grouped(len(classes))} classes are drawn")
    caption = [
        _transform_words(transform, side),
        f"{_source_words(shapes, dataset)} · {_split_words(dataset, split, kind)}",
        *notes,
    ]
    for number, (one, samples) in enumerate(zip(drawn, chosen, strict=True)):
        name = one.name
        if not is_writable(name):
            name = f"class {number}"
            notes.append(f"{name} is {one.name}; no font here has its letters")
        of_class = [pictures[sample] for sample in samples.tolist()]
        rows.append(Row(name, _class_words(one, len(among), kind), of_class))
    return draw_rows(dataset.name, caption, rows, side), notes


def preview(image: NDArray[Any], transform: Transform) -> Picture:
    """An image after the transform, mean and std undone.

    Args:
        image: (H, W) or (H, W, 3), uint8 or float32 levels of 0..255.
        transform: for images of so many channels.

    Returns:
        (size, size, 3), or (size, size) where one filter alone sees it.
    """
    batch = np.array(transform.on_host(image[None]))  # a copy: torch wants to be able to write
    seen = transform(torch.from_numpy(batch))[0]  # (3, size, size)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transform.mean, transform.std))
    levels = (seen * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    return levels[0] if transform.channels == FIRST_FILTER else np.moveaxis(levels, 0, -1)


# ---------------------------------------------------------------------------- words


def _class_words(one: ClassSamples, n: int, kind: str) -> tuple[str, ...]:
    count = len(one.samples)
    words = [f"{grouped(count)} {kind if count != 1 else kind[:-1]} · {100 * count / n:.1f} %"]
    words += ["positive class"] if one.is_positive else []
    words += [f"{grouped(one.n_uncertain)} uncertain"] if one.n_uncertain else []
    return tuple(words)


def _transform_words(transform: Transform, side: int) -> str:
    words = str(transform).partition(" · mean ")[0]  # mean and std are undone here
    return words if side == transform.size else f"{words} · shown at {side} px"


def _source_words(shapes: Sequence[tuple[int, ...]], dataset: Dataset) -> str:
    sizes = sorted(set(shapes), key=lambda shape: (shape[0] * shape[1], shape))
    small, large = (f"{height} x {width} px" for height, width in (sizes[0], sizes[-1]))
    words = f"source {small}" + (f" to {large}" if large != small else "")
    if dataset.slicing is not None:
        words += f", middle slices along axis {dataset.slicing.axis}"
    return words


def _split_words(dataset: Dataset, split: str, kind: str) -> str:
    """ "train: 546 images"; of all splits each."""
    counts = {name: int((dataset.samples.split == i).sum()) for i, name in enumerate(SPLITS)}
    chosen = counts if split == "all" else {split: counts[split]}
    return ", ".join(f"{name}: {grouped(n)} {kind}" for name, n in chosen.items() if n)
