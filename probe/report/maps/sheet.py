"""A sheet of maps: a row each image, a column each map. What draws it sees this and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.arrays import Array, Floats
from probe.report.figures.heat import Scale

DIM = 0.35  # what is left of a picture's brightness beneath what is drawn over it
SIDE = 224  # pixels of a cell where it becomes one picture


@dataclass(frozen=True)
class Layer:
    """Colours over the square that the encoder sees."""

    rgba: Array  # (h, w, 4) uint8
    is_grid: bool = False  # a value a patch, not a pixel


@dataclass(frozen=True)
class Cell:
    """One map of one image."""

    layers: tuple[Layer, ...] = ()  # the lowest first; none: there is nothing to show
    said: str = ""  # below it
    mark: tuple[float, float, float, float] | None = (
        None  # left, top, right, bottom, 0 to 1: a frame
    )

    def pixels(self, side: int = SIDE) -> Array:
        """(side, side, 3) uint8, on black; each value of a grid the square of pixels that it is."""
        found = np.zeros((side, side, 3))
        for layer in self.layers:
            rgba = nearest(layer.rgba, side).astype(np.float64)
            alpha = rgba[..., 3:] / 255
            found = found * (1 - alpha) + rgba[..., :3] * alpha
        return found.round().astype(np.uint8)


@dataclass(frozen=True)
class Maps:
    """A column: one map of each image."""

    group: str  # which encoder; "": there is one
    title: str
    under: tuple[str, ...]  # lines below the title
    cells: tuple[Cell, ...]
    scale: Scale | None = None  # of its colours, where they are of a number


@dataclass(frozen=True)
class Key:
    """What a colour means."""

    of: str  # what it is a colour of
    colour: str
    label: str


@dataclass(frozen=True)
class Sheet:
    """All of it."""

    names: tuple[tuple[str, ...], ...]  # of each image, in lines; the first is its id
    columns: tuple[Maps, ...]
    keys: tuple[Key, ...]
    caption: str
    notes: tuple[str, ...]


def nearest(values: Array, side: int) -> Array:
    """(h, w, ...) -> (side, side, ...): the value at the middle of each pixel, unsmoothed."""
    rows, columns = (
        ((2 * np.arange(side) + 1) * n // (2 * side)).astype(np.intp) for n in values.shape[:2]
    )
    return values[rows[:, None], columns]


def rgb(colour: str) -> Array:
    """ "#0072B2" -> (3,) uint8."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)


def picture_layer(picture: Array | None) -> tuple[Layer, ...]:
    """A picture (h, w, 3) of uint8 as a layer; nothing where there is none."""
    return () if picture is None else (Layer(opaque(picture)),)


def grey_layer(picture: Array | None, share: float = 1.0) -> tuple[Layer, ...]:
    """The same in grey, for below colours, and dimmed to a share of its brightness."""
    if picture is None:
        return ()
    levels = picture @ np.array([0.299, 0.587, 0.114]) * share  # luma of BT.601
    return (Layer(opaque(np.repeat(levels[..., None], 3, axis=2))),)


def opaque(levels: Array) -> Array:
    """(h, w, 3) 0 to 255 -> (h, w, 4) uint8."""
    whole = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    return np.dstack([whole, np.full(whole.shape[:2], 255, np.uint8)])


def scaled_layer(values: Floats, scale: Scale) -> Layer:
    """(h, w) numbers in the colours of a scale."""
    stops = np.stack([rgb(colour) for colour in scale.colours]).astype(np.float64)
    place = (np.asarray(values, np.float64) - scale.low) / (scale.high - scale.low or 1)
    at = np.clip(place, 0, 1) * (len(stops) - 1)
    low = np.minimum(at.astype(np.intp), len(stops) - 2)
    part = (at - low)[..., None]
    return Layer(opaque(stops[low] * (1 - part) + stops[low + 1] * part), is_grid=True)


def scale_of(values: Floats, label: str) -> Scale:
    """From the smallest to the largest of all images of a column."""
    low, high = float(np.min(values)), float(np.max(values))
    return Scale(low, high if high > low else low + 1, label)


def numbered_layer(numbers: Array, colours: Sequence[str], alpha: Array | float = 1.0) -> Layer:
    """(h, w) whole numbers in colours that repeat; those below 0 aren't drawn.

    Args:
        numbers: of colours.
        colours: of each number.
        alpha: 0 to 1, of all or (h, w) of each.
    """
    table = np.stack([rgb(colour) for colour in colours])
    found = np.zeros((*numbers.shape, 4), np.uint8)
    found[..., :3] = table[np.maximum(numbers, 0) % len(table)]
    found[..., 3] = np.where(numbers < 0, 0, np.round(255 * np.asarray(alpha)))
    return Layer(found)
