"""How stored values become grey levels of 0..255: a window, in the words of ``--window``."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError

# Hounsfield units, black to white. All but the first are centre -+ width / 2, as radiologists use
# them: https://radiopaedia.org/articles/windowing-ct ("soft-tissue" is its abdomen's, "bone" its
# spine's). DICOM's own formula lies half a unit beside it.
PRESETS: dict[str, tuple[float, float]] = {
    "ct": (-1024, 600),  # Baharoon et al. 2023, amos.py:86
    "lung": (-1350, 150),  # centre -600, width 1500
    "soft-tissue": (-150, 250),  # 50, 400
    "bone": (-500, 1300),  # 400, 1800
    "brain": (0, 80),  # 40, 80
}
PERCENTILES = (5.0, 95.0)  # Baharoon et al. 2023, for MRI
RANGE, PERCENTILE, MIN_MAX, HEADER, FULL = "range", "percentile", "min-max", "header", "full"
FORMS = f"LO,HI, {', '.join(PRESETS)}, percentile:LO,HI, {MIN_MAX}, {HEADER} or {FULL}"


@dataclass(frozen=True)
class Window:
    """Which stored value becomes black and which white. Part of the key by its words.

    Values between the two are mapped linearly to 0..255, those beyond are clipped; where both are
    equal everything is black. Percentiles and extremes are those of the whole file: of a volume,
    not of a slice. Values that aren't finite count for neither; NaN becomes black.

    With percentiles, Baharoon et al. 2023 (brain_tumor.py:66-69) set what lies at or below the
    lower one to 0 instead of its value: the same image wherever that percentile is 0.
    """

    rule: str  # RANGE, PERCENTILE, MIN_MAX, HEADER: DICOM's own window, or FULL: the type's range
    low: float = 0.0  # of RANGE, a value as stored, rescaled by the header; of PERCENTILE, 0..100
    high: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read the text after ``--window``.

        Raises:
            RequestError: it isn't one of the forms.
        """
        word, _, numbers = text.strip().partition(":")
        if word in PRESETS and not numbers:
            return cls(RANGE, *PRESETS[word])
        if text.strip() in (MIN_MAX, HEADER, FULL):
            return cls(text.strip())
        if word == PERCENTILE:
            low, high = _two_numbers(numbers, text) if ":" in text else PERCENTILES
            if not 0 <= low < high <= 100:
                raise RequestError(
                    f"--window {text}: percentiles are two numbers of 0..100, the lower one first"
                )
            return cls(PERCENTILE, low, high)
        low, high = _two_numbers(text, text)
        if not low < high:
            raise RequestError(
                f"--window {text}: the value that becomes black stands first and is the lower one"
            )
        return cls(RANGE, low, high)

    def __str__(self) -> str:
        """The canonical text: equal windows, equal words; ``parse`` reads it."""
        numbers = f"{_plain(self.low)},{_plain(self.high)}"
        if self.rule == RANGE:
            return numbers
        return f"{PERCENTILE}:{numbers}" if self.rule == PERCENTILE else self.rule

    def edges(self, values: NDArray[Any], span: tuple[float, float] | None) -> tuple[float, float]:
        """The values that become black and white.

        Args:
            values: all of the file's.
            span: the range of their type; needed by FULL alone.
        """
        if self.rule == RANGE:
            return self.low, self.high
        if self.rule == FULL:
            assert span is not None
            return span
        finite = finite_values(values)
        if self.rule == MIN_MAX:
            return float(finite.min()), float(finite.max())
        low, high = np.percentile(finite, [self.low, self.high])
        return float(low), float(high)


def finite_values(values: NDArray[Any]) -> NDArray[Any]:
    """The finite ones; the array itself where all are."""
    if values.dtype.kind != "f":
        return values
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def to_levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map low..high linearly to 0..255 and clip; not rounded. Zeros where low equals high."""
    if low == high:
        return np.zeros(values.shape, np.float32)
    # float32 holds integers of up to 24 bits; wider ones, near to each other, would become one.
    wide = values.dtype.itemsize > (4 if values.dtype.kind == "f" else 2)
    levels = values.astype(np.float64 if wide else np.float32)
    levels -= low
    levels *= 255 / (high - low)
    np.clip(levels, 0, 255, out=levels)
    if values.dtype.kind == "f":
        np.nan_to_num(levels, copy=False, nan=0.0)
    return levels.astype(np.float32, copy=False)


def _two_numbers(text: str, wish: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RequestError(f"--window takes {FORMS}, not {wish!r}")
    return low, high


def _plain(number: float) -> str:
    """The shortest text that reads back as the same number: 600, 0.5."""
    return str(int(number)) if number == int(number) else repr(float(number))
