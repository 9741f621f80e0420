"""Masks over pictures: the true one, the predicted one, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.geometry import PADDING, Geometry
from probe.arrays import Array, Ints
from probe.report.figures.palette import COLOURS, GREY
from probe.report.maps.sheet import Cell, Key, Layer, grey_layer, numbered_layer, picture_layer

if TYPE_CHECKING:
    from cache.masks import Masks

ALPHA = 0.55  # of classes over the picture
MISSED, FALSE, CONFUSED = range(3)
# Each brighter than the dimmed picture below them, and of a lightness of its own (L* 70, 53, 90), so
# that a grey print says the same; Okabe and Ito's, so that the colour-blind tell them apart.
ERRORS = {
    MISSED: ("#56B4E9", "missed"),
    FALSE: ("#D55E00", "seen where nothing is"),
    CONFUSED: ("#F0E442", "another structure"),
}
RIGHT, RIGHT_ALPHA = "#5A5A5A", 0.7  # structures that are found: darker than any error
DIM = 0.2  # of the picture's brightness below them


@dataclass(frozen=True)
class Predicted:
    """The predicted masks of a row's test images, as its scores keep them: runs of equal pixels."""

    places: Mapping[str, int]  # row id -> its number
    shapes: Ints  # (R, 2)
    values: Array  # (K,) uint8
    ends: Ints  # (K,) where each run ends, counted through all images

    @staticmethod
    def of(arrays: Mapping[str, Array]) -> Predicted | None:
        """What a row holds; None: it keeps none, or not all of them."""
        if "masks_ids" not in arrays:
            return None
        shapes = arrays["masks_shapes"].astype(np.int64).reshape(-1, 2)
        ends = np.cumsum(arrays["masks_lengths"].astype(np.int64))
        n_pixels = int(shapes.prod(axis=1).sum())
        if len(shapes) != len(arrays["masks_ids"]) or not len(ends) or ends[-1] != n_pixels:
            return None
        places = {str(name): i for i, name in enumerate(arrays["masks_ids"].tolist())}
        return Predicted(places, shapes, arrays["masks_values"], ends)

    def mask(self, row_id: str) -> Array | None:
        """(H, W) uint8; None: the row has no such test image."""
        if (place := self.places.get(row_id)) is None:
            return None
        sizes = self.shapes.prod(axis=1)
        start = int(sizes[:place].sum())
        pixels = np.arange(start, start + int(sizes[place]))
        runs = np.searchsorted(self.ends, pixels, side="right")
        return self.values[runs].reshape(self.shapes[place])


def errors(true: Array, predicted: Array, background: int | None, ignore: int | None) -> Ints:
    """Where a mask is wrong, and how.

    Args:
        true: (H, W) class numbers, or ``ignore``.
        predicted: (H, W) class numbers.
        background: which class is no structure; None: none.
        ignore: value of ``true`` that counts nowhere.

    Returns:
        (H, W) MISSED, FALSE or CONFUSED; -1 where it is right, or nothing counts.
    """
    found = np.full(true.shape, -1)
    is_wrong = true != predicted
    if ignore is not None:
        is_wrong &= true != ignore
    found[is_wrong] = CONFUSED
    if background is not None:
        found[is_wrong & (predicted == background)] = MISSED
        found[is_wrong & (true == background)] = FALSE
    return found


def image_dice(true: Array, predicted: Array, masks: Masks) -> float:
    """The mean of Dice over the structures that an image has; nan where it has none."""
    counts = true != masks.ignore if masks.ignore is not None else np.ones(true.shape, bool)
    found = []
    for number in range(len(masks.class_names)):
        own, other = (true == number) & counts, (predicted == number) & counts
        if number != masks.background and own.any():
            found.append(2 * (own & other).sum() / (own.sum() + other.sum()))
    return float(np.mean(found)) if found else float("nan")


@dataclass(frozen=True)
class Overlays:
    """Cells of one data set's masks over pictures as one encoder sees them."""

    masks: Masks
    geometry: Geometry

    def true(self, row_id: str, picture: Array | None) -> Cell:
        """Where the structures are."""
        mask = self._true(row_id)
        if mask is None:
            return Cell((*picture_layer(picture),), "no mask")
        return Cell((*grey_layer(picture), *self._classes(mask)))

    def predicted(self, row_id: str, picture: Array | None, of: Predicted) -> Cell:
        """Where they are said to be."""
        mask = of.mask(row_id)
        if mask is None:
            return Cell((*picture_layer(picture),), "not in its test")
        return Cell((*grey_layer(picture), *self._classes(mask)))

    def wrong(self, row_id: str, picture: Array | None, of: Predicted) -> Cell:
        """Where both differ."""
        true, predicted = self._true(row_id), of.mask(row_id)
        if true is None or predicted is None or true.shape != predicted.shape:
            return Cell((), "" if true is None or predicted is None else "masks of another size")
        how = errors(true, predicted, self.masks.background, self.masks.ignore)
        is_right = (how < 0) & self._is_structure(true)
        numbers = np.where(is_right, len(ERRORS), how)
        seen = self.geometry.to_input(np.where(numbers < 0, PADDING, numbers).astype(np.uint8))
        colours = [ERRORS[number][0] for number in range(len(ERRORS))] + [RIGHT]
        shown = np.where(seen == PADDING, -1, seen.astype(int))
        alpha = np.where(shown == len(ERRORS), RIGHT_ALPHA, 1.0)
        dice = image_dice(true, predicted, self.masks)
        said = "no structure" if np.isnan(dice) else f"Dice {dice:.2f}"
        return Cell((*grey_layer(picture, DIM), numbered_layer(shown, colours, alpha)), said)

    def keys(self, *, with_errors: bool) -> list[Key]:
        """What the colours mean."""
        names = [
            Key("masks", colour, name)
            for name, colour in zip(self.masks.class_names, self._colours, strict=True)
            if colour
        ]
        if not with_errors:
            return names
        of = [CONFUSED] if self.masks.background is None else [*ERRORS]
        return [
            *names,
            *(Key("errors", *ERRORS[number]) for number in of),
            Key("errors", RIGHT, "found"),
        ]

    def unseen(self, row_id: str) -> float:
        """The share of an image that a crop keeps from the encoder, which isn't shown."""
        i = int(self.masks.find([row_id])[0])
        return 0.0 if i < 0 else self.geometry.unseen(tuple(self.masks.shapes[i].tolist()))

    @property
    def _colours(self) -> list[str]:
        """Of each class; "" of the background. They repeat after seven structures."""
        structures = iter(range(len(self.masks.class_names)))
        return [
            "" if number == self.masks.background else COLOURS[next(structures) % len(COLOURS)]
            for number in range(len(self.masks.class_names))
        ]

    def _true(self, row_id: str) -> Array | None:
        i = int(self.masks.find([row_id])[0])
        return None if i < 0 else self.masks.mask(i)

    def _is_structure(self, mask: Array) -> Array:
        known = mask < len(self.masks.class_names)
        return known if self.masks.background is None else known & (mask != self.masks.background)

    def _classes(self, mask: Array) -> tuple[Layer, ...]:
        """Structures in their colours, ignored pixels grey."""
        colours = [colour or GREY for colour in self._colours] + [GREY]
        ignored = len(self.masks.class_names)
        numbers = np.where(mask == self.masks.ignore, ignored, mask.astype(int))
        if self.masks.background is not None:
            numbers = np.where(mask == self.masks.background, -1, numbers)
        seen = self.geometry.to_input(np.where(numbers < 0, PADDING, numbers).astype(np.uint8))
        return (numbered_layer(np.where(seen == PADDING, -1, seen.astype(int)), colours, ALPHA),)
