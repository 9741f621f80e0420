"""Which values of masks are which classes: ``--mask-classes``, ``--mask-ignore``, ...; and their spacing."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from extract.datasets.files.formats.stored import UnreadableImage
from extract.datasets.files.options import TableOptions

TWO = ("background", "foreground")  # what is meant where nobody names classes
BACKGROUND, NONE = "background", "none"
IGNORED = 255  # in the cache, whatever value the files have
UNKNOWN = (math.nan, math.nan, math.nan)  # mm
COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
N_SHOWN = 6  # values in a message
HOW = "--mask-classes NAME,NAME,.. names 0, 1, ..; VALUE=NAME,.. names any; --mask-ignore VALUE"


@dataclass
class MaskClasses:
    """Values -> class numbers. Of two names without values 0 is the first, the one other value the second."""

    names: tuple[str, ...]
    values: Mapping[int, int]  # value (of colours red, green, blue as one number) -> class number
    ignore: int | None = None
    background: int | None = None
    in_colour: bool = False  # values are colours
    is_open: bool = False  # class 1 has any one value
    spacing: tuple[float, float, float] = UNKNOWN  # mm of row, column, slice where no header says
    other: int | None = field(default=None, compare=False)  # which one it turned out to be

    @classmethod
    def of(cls, options: TableOptions) -> "MaskClasses":
        """As a user named them.

        Raises:
            RequestError: they make no sense.
        """
        words = options.mask_classes or TWO
        named = ["=" in word for word in words]
        if any(named) and not all(named):
            raise RequestError(f"--mask-classes names values in all its words or in none; {HOW}")
        pairs = [
            word.split("=", 1) if "=" in word else [str(i), word] for i, word in enumerate(words)
        ]
        names = tuple(dict.fromkeys(name.strip() for _, name in pairs))
        if len(names) < 2 or not all(names):
            raise RequestError(f"masks have two classes at least, each with a name; {HOW}")
        if len(names) < len(words) and not all(named):
            raise RequestError(f"--mask-classes has a name twice: {', '.join(words)}")
        in_colour = any(value.strip().startswith("#") for value, _ in pairs)
        values: dict[int, int] = {}
        for value, name in pairs:
            number = _number(value.strip(), in_colour, "--mask-classes")
            if number in values:
                raise RequestError(f"--mask-classes names the value {value.strip()} twice")
            values[number] = names.index(name.strip())
        ignore = options.mask_ignore
        ignored = None if ignore is None else _number(ignore.strip(), in_colour, "--mask-ignore")
        if ignored in values:
            raise RequestError(
                f"--mask-ignore {ignore} is a class of --mask-classes; leave one out"
            )
        return cls(
            names,
            values,
            ignored,
            _background(names, options.mask_background),
            in_colour,
            is_open=len(names) == 2 and not any(named),
            spacing=_spacing(options.mask_spacing),
        )

    @property
    def words(self) -> str:
        """How values are understood."""
        if self.is_open:
            return f"0 is {self.names[0]}, the one other value {self.names[1]}"
        shown = [
            f"{self.shown(value)} is {self.names[number]}" for value, number in self.values.items()
        ]
        return ", ".join(shown[:N_SHOWN]) + (", ..." if len(shown) > N_SHOWN else "")

    def shown(self, value: int) -> str:
        return f"#{value:06x}" if self.in_colour else str(value)

    def numbers(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Class numbers of a mask's values, IGNORED where they are ignored.

        Args:
            values: (H, W) whole numbers, or (H, W, 3) colours.

        Raises:
            UnreadableImage: a value that is no class; with the pixels of each.
        """
        found, place, counts = np.unique(
            self._plain(values), return_inverse=True, return_counts=True
        )
        meant = dict(self.values)
        if self.is_open:
            others = [v for v in found.tolist() if v not in (0, self.ignore, self.other)]
            if self.other is None and len(others) == 1:
                self.other = others[0]
            meant = {0: 0} | ({} if self.other is None else {self.other: 1})
        if self.ignore is not None:
            meant[self.ignore] = IGNORED
        unknown = [i for i, value in enumerate(found.tolist()) if value not in meant]
        if unknown:
            raise UnreadableImage(self._say_unknown(found, counts, unknown))
        table = np.array([meant[value] for value in found.tolist()], np.uint8)
        return table[place].reshape(values.shape[:2])

    def _plain(self, values: NDArray[Any]) -> NDArray[Any]:
        """One whole number a pixel."""
        grey = values.ndim == 2 or bool((values == values[..., :1]).all())
        if not self.in_colour:
            if not grey:
                raise UnreadableImage(_say_colours(values))
            values = values if values.ndim == 2 else values[..., 0]
        elif values.dtype != np.uint8:
            raise UnreadableImage("colours of 8 bit were expected")
        else:
            rgb = (values if values.ndim == 3 else values[..., None].repeat(3, -1)).astype(np.int64)
            values = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        if values.dtype.kind == "f":
            whole = values.astype(np.int64)
            if (whole != values).any():
                raise UnreadableImage("its values aren't whole numbers, so no classes")
            return whole
        return values

    def _say_unknown(self, found: NDArray[Any], counts: NDArray[Any], unknown: list[int]) -> str:
        listed = [f"{self.shown(int(found[i]))} ({counts[i]:_} px)" for i in unknown[:N_SHOWN]]
        more = f" and {len(unknown) - N_SHOWN} more" if len(unknown) > N_SHOWN else ""
        known = (
            self.words
            if not self.is_open or self.other is None
            else (f"0 is {self.names[0]}, {self.other} is {self.names[1]} (as in masks before)")
        )
        return f"values {', '.join(listed)}{more} are no classes, where {known}; {HOW}"


def _number(text: str, in_colour: bool, flag: str) -> int:
    if in_colour:
        if not COLOUR.fullmatch(text):
            raise RequestError(f"{flag} takes colours as #rrggbb, all or none; not {text!r}")
        return int(text[1:], 16)
    try:
        return int(text)
    except ValueError:
        raise RequestError(
            f"{flag} takes whole numbers or #rrggbb as values, not {text!r}"
        ) from None


def _background(names: tuple[str, ...], asked: str | None) -> int | None:
    if asked is None:
        return next((i for i, name in enumerate(names) if name.lower() == BACKGROUND), None)
    if asked.lower() == NONE and asked not in names:
        return None
    if asked not in names:
        raise RequestError(
            f"--mask-background takes one of {', '.join(names)}, or {NONE}; not {asked!r}"
        )
    return names.index(asked)


def _say_colours(values: NDArray[Any]) -> str:
    colours, counts = np.unique(values.reshape(-1, values.shape[-1]), axis=0, return_counts=True)
    most = np.argsort(-counts)[:3]
    shown = ["#" + "".join(f"{int(c):02x}" for c in colours[i]) for i in most]
    return (
        f"it is in colour ({len(colours):_} colours, most of it {', '.join(shown)}), and classes are "
        f"numbers; name the colours: --mask-classes '{shown[0]}=background,{shown[-1]}=NAME', or store "
        "it as grey or with a palette"
    )


def _spacing(words: tuple[str, ...]) -> tuple[float, float, float]:
    """mm of row, column and slice, from one to three words.

    Raises:
        RequestError: they aren't such numbers.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) > 3 or not all(0 < mm < math.inf for mm in numbers):
        raise RequestError(
            "--mask-spacing takes mm: one number, a pixel's height and width, or these and the distance "
            f"of slices, as in 0.7,0.7,3; not {','.join(words)}"
        )
    if not numbers:
        return UNKNOWN
    row, column = numbers[0], numbers[1] if len(numbers) > 1 else numbers[0]
    return row, column, numbers[2] if len(numbers) > 2 else math.nan
