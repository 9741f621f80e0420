"""What ``report maps`` is asked for."""

import re
from dataclasses import dataclass

from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.places import ALL
from probe.report.statistics.token_maps import N_PARTS, OTSU, ZERO

TOKEN_MAPS = (PCA, PARTS, COSINE, NORM) = ("pca", "kmeans", "cosine", "norm")
ATTENTION, OVERLAY = "attention", "overlay"
WHAT = (*TOKEN_MAPS, ATTENTION, OVERLAY)
RANDOM, WRONG = "random", "wrong"
FEW = 6  # images that are chosen
MOST = 48  # that are shown, at most
COUNTED = re.compile(rf"({RANDOM}|{WRONG})(?::([1-9]\d*))?")
CELL = re.compile(r"(?P<y>\d+),(?P<x>\d+)")
SHARE = re.compile(r"(?P<x>\d+(?:\.\d+)?)%,(?P<y>\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Patch:
    """One patch of one image."""

    image: str  # its id
    y: float  # row, or share of the height
    x: float
    is_share: bool


def _read_threshold(text: str) -> str | float:
    if text in (OTSU, ZERO, "none"):
        return text
    try:
        return float(text)
    except ValueError:
        raise RequestError(
            f"--threshold takes {OTSU}, {ZERO}, none or a number of standard deviations; not {text!r}"
        ) from None


def _read_patch(text: str) -> Patch:
    image, colon, place = text.rpartition(":")
    if image and colon and (found := CELL.fullmatch(place)):
        return Patch(image, float(found["y"]), float(found["x"]), False)
    if image and colon and (found := SHARE.fullmatch(place)):
        x, y = float(found["x"]) / 100, float(found["y"]) / 100
        if max(x, y) <= 1:
            return Patch(image, y, x, True)
    raise RequestError(
        f"--patch takes ID:ROW,COLUMN of the grid, from 0, or ID:X%,Y% of the picture; not {text!r}"
    )


def _read_layer(text: str) -> tuple[int, ...] | str:
    if text == ALL:
        return ALL
    try:
        return tuple(dict.fromkeys(map(int, text.split(","))))
    except ValueError:
        raise RequestError(
            f"--layer takes numbers, comma separated, or {ALL}; not {text!r}"
        ) from None


@dataclass(frozen=True)
class AskedOfMaps:
    """Which images, and what is shown of them.

    Raises:
        RequestError: a word or number that a flag doesn't take.
    """

    images: str = setting(
        RANDOM,
        f"ids, comma separated; {RANDOM}:N of the split; {WRONG}:N: the surest wrong answers of a row, of "
        "masks those of the smallest Dice",
        metavar="WHICH",
        shown=f"{RANDOM}:{FEW}",
    )
    what: tuple[str, ...] = setting(
        (),
        f"columns: {', '.join(WHAT)}",
        metavar="NAMES",
        among=WHAT,
        shown=f"{PCA}, and {OVERLAY} where there are masks",
    )
    layers: tuple[int, ...] | str | None = setting(
        None,
        f"numbers of blocks or stages, comma separated, -1 the encoder's last; {ALL} that are stored",
        flag="--layer",
        metavar="LAYERS",
        read=_read_layer,
        shown="the last that is stored",
    )
    split: str = setting("test", "whose images are drawn", among=("train", "val", "test"))
    patch: Patch | None = setting(
        None,
        "of cosine: ID:ROW,COLUMN of the grid, or ID:X%,Y% of the picture",
        metavar="PATCH",
        read=_read_patch,
    )
    threshold: str | float = setting(
        OTSU,
        f"of pca, above which patches are foreground: {OTSU}; {ZERO}, the mean of all; a number of "
        "standard deviations above it; none",
        metavar="T",
        read=_read_threshold,
    )
    flip: bool = setting(False, "pca: foreground is the other side")
    k: int = setting(N_PARTS, "parts of kmeans", least=2, most=12)
    cosine: bool = setting(False, "kmeans of tokens of length 1; else as they are")
    smooth: bool = setting(False, "draw between patches what isn't known there")
    seed: int = setting(0, f"of {RANDOM} and kmeans", least=0)

    def __post_init__(self) -> None:
        check(self)
        if self.n > MOST:
            raise RequestError(f"--images takes {MOST} images at most, not {self.n}")
        if COSINE in self.what and self.patch is None:
            raise RequestError(
                f"{COSINE} is to one patch: name it by --patch ID:ROW,COLUMN or ID:X%,Y%"
            )
        if self.patch is not None and self.what and COSINE not in self.what:
            raise RequestError(f"--patch belongs to --what {COSINE}")

    @property
    def chosen_by(self) -> str:
        """RANDOM, WRONG, or "" where they are named."""
        found = COUNTED.fullmatch(self.images)
        return found[1] if found else ""

    @property
    def ids(self) -> list[str]:
        """Those that are named, each once; of others none."""
        words = [] if self.chosen_by else self.images.split(",")
        return list(dict.fromkeys(word.strip() for word in words if word.strip()))

    @property
    def n(self) -> int:
        """How many images."""
        found = COUNTED.fullmatch(self.images)
        return int(found[2] or FEW) if found else len(self.ids)
