"""Tokens as int8: a scale a channel and unit, and what the rounding did."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 127  # the largest number in use: -128 would have no counterpart


@dataclass(frozen=True)
class Rounded:
    """The tokens of a unit as they are stored: ``tokens * scale`` is what they were, nearly."""

    tokens: NDArray[np.int8]  # (n, h, w, D)
    scale: NDArray[np.float32]  # (D,)
    error: NDArray[np.float64]  # (3,) sum of squared errors, sum of squares, largest error


@dataclass(frozen=True)
class Rounding:
    """What rounding to int8 did to the tokens of a layer."""

    rms: float  # of the errors, relative to the root mean square of the tokens
    largest: float  # absolute, in the tokens' own unit


def round_tokens(values: NDArray[np.floating]) -> Rounded:
    """Round a unit's tokens to int8, half to even.

    Args:
        values: (n, h, w, D) finite.

    Returns:
        Scales are the channel's largest magnitude / 127; a channel of zeros has scale 0, and so has
        one so small that float32 can't hold its scale.
    """
    places = (0, 1, 2)
    largest = np.maximum(values.max(axis=places), -values.min(axis=places)).astype(np.float32)
    scale = largest / np.float32(LEVELS)
    divisor = np.where(scale > 0, scale, np.float32(1))
    tokens = np.empty(values.shape, np.int8)
    error = np.zeros(3)
    for row, of_row in enumerate(values):  # one by one: memory stays near the result's
        x = of_row.astype(np.float32)
        levels = np.rint(x / divisor)
        np.clip(levels, -LEVELS, LEVELS, out=levels)  # the scale itself was rounded
        tokens[row] = levels
        off = np.abs(levels * scale - x)
        error[0] += np.square(off, dtype=np.float64).sum()
        error[1] += np.square(x, dtype=np.float64).sum()
        error[2] = max(error[2], off.max(initial=0.0))
    return Rounded(tokens, scale, error)


def summarise_rounding(errors: NDArray[np.float64]) -> Rounding:
    """What rounding did to a layer.

    Args:
        errors: (n_units, 3) of ``Rounded.error``.
    """
    off, all_in_all = errors[:, 0].sum(), errors[:, 1].sum()
    rms = float(np.sqrt(off / all_in_all)) if all_in_all > 0 else 0.0
    return Rounding(rms, float(errors[:, 2].max(initial=0.0)))
