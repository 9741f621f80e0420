"""Where an image's pixels lie in the square that an encoder sees, and back.

The arithmetic of the resize rules, for images (``extract.prepare.transforms``), for masks, which go
where their image's pixels go, and for maps on an encoder's grid, which go back to the image's size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError

CENTRED = ("pad", "pad-fit", "pad-after-norm")
NEVER_ENLARGED = ("pad", "pad-after-norm")
CROPPED = ("crop", "scale-crop")
RULES = ("scale", *CROPPED, *CENTRED, "longest")
PADDING = 255  # in a mask: pixels that no image has


@dataclass(frozen=True)
class Axis:
    """Rows, or columns, of one image: how many, resized to how many, moved how far."""

    source: int  # pixels of the image
    resized: int  # pixels it is resized to
    shift: int  # place of the first resized pixel in the encoder's input; below 0 where it is cut
    inside: tuple[int, int]  # (first, behind last) places that may hold pixels of the image

    def nearest(self, size: int, *, corner: bool = False) -> NDArray[np.int64]:
        """The pixel of the image at each place of the input, (size,); -1 where there is padding.

        Args:
            size: of the input.
            corner: the pixel at a place's corner, as torch's "nearest" has it, not at its middle.
        """
        place = np.arange(size)
        resized = place - self.shift
        # Whole numbers, so that no rounding decides; between two pixels the later one is taken.
        twice = 2 * resized + (0 if corner else 1)
        pixel = np.minimum(twice * self.source // (2 * self.resized), self.source - 1)
        first, end = self.inside
        is_image = (resized >= 0) & (resized < self.resized) & (place >= first) & (place < end)
        return np.where(is_image, pixel, -1)

    def place(self) -> NDArray[np.float64]:
        """Where the middle of each pixel of the image lies in the input, (source,), in its pixels."""
        scale = self.resized / self.source
        return np.array((np.arange(self.source) + 0.5) * scale + self.shift, np.float64)


@dataclass(frozen=True)
class Geometry:
    """A resize rule at a size."""

    resize: str  # one of RULES
    size: int  # side of the encoder's input, pixels
    content: int | None = None  # side that images are prepared at, if another
    corner: bool = False  # nearest pixels are those at the corner: torchvision's "nearest"

    @classmethod
    def of(cls, key: Mapping[str, Any]) -> "Geometry":
        """That of a feature file.

        Raises:
            RequestError: its rule is unknown here.
        """
        transform = key["transform"]
        resize, _, backend = str(transform["resize"]).partition(" (")
        if resize not in RULES:
            raise RequestError(
                f"resize rule {resize!r} is unknown; medprobe has {', '.join(RULES)}"
            )
        corner = transform.get("interpolation") == "nearest" and backend == "tensor)"
        return cls(resize, int(key["size"]), transform.get("content"), corner)

    @property
    def side(self) -> int:
        """Of what images are prepared to, before they are cut or padded to ``size``."""
        return self.content or self.size

    @property
    def fitted(self) -> tuple[int, int]:
        """What is put before and behind ``side`` pixels for the encoder; below 0: cut off."""
        more = self.size - self.side
        return more // 2, more - more // 2

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to resize to, before any crop or padding."""
        if self.resize == "scale":
            return self.side, self.side
        if self.resize in CROPPED:
            # 256 for 224 px, in this ratio for any other size.
            side = round(self.side * 256 / 224)
            if self.resize == "scale-crop":
                return side, side
            # As torchvision's Resize(side) has it: the longer side is rounded down.
            long = int(side * max(height, width) / min(height, width))
            return (side, long) if height <= width else (long, side)
        longest = max(height, width)
        if self.resize in NEVER_ENLARGED and longest <= self.side:
            return height, width
        # As SAM's ResizeLongestSide has it; but a line one pixel thin doesn't vanish.
        scale = self.side / longest
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def kept(self, height: int, width: int) -> tuple[slice, slice]:
        """Which rows and columns of a resized image the crop leaves."""
        if self.resize not in CROPPED:
            return slice(0, height), slice(0, width)
        # As torchvision's CenterCrop has it: halves go to the even number.
        top, left = round((height - self.side) / 2), round((width - self.side) / 2)
        return slice(top, top + self.side), slice(left, left + self.side)

    def before(self, resized: int) -> int:
        """Rows, or columns, of padding before those of a resized image."""
        return (self.side - resized) // 2 if self.resize in CENTRED else 0

    def axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Rows and columns of an image of this shape."""
        lengths = self.resized(height, width)
        first, more = self.fitted[0], self.side
        return tuple(
            Axis(source, resized, first + self.before(resized) - kept.start, (first, first + more))
            for source, resized, kept in zip(
                (height, width), lengths, self.kept(*lengths), strict=True
            )
        )  # type: ignore[return-value]

    def to_input(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask (H, W) as the encoder sees its image: (size, size), by nearest, else PADDING."""
        rows, columns = (
            axis.nearest(self.size, corner=self.corner) for axis in self.axes(*mask.shape)
        )
        seen = mask[rows[:, None], columns]
        seen[rows < 0] = PADDING
        seen[:, columns < 0] = PADDING
        return seen

    def to_source(self, maps: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """Maps on the encoder's grid at an image's size.

        Bilinear, between the middles of patches; beyond the outermost middles, and where a crop
        left a part out (``unseen``), the nearest value is taken.

        Args:
            maps: (h, w, C) over the encoder's input, from its top left corner.
            shape: (H, W) of the image.

        Returns:
            (H, W, C), of the maps' type.
        """
        for axis, of in enumerate(self.axes(*shape)):
            n = maps.shape[axis]
            place = np.clip(of.place() * (n / self.size) - 0.5, 0, n - 1)
            low = place.astype(np.int64)
            weight = (place - low).astype(maps.dtype)[(slice(None), *[None] * (2 - axis))]
            maps = (
                np.take(maps, low, axis) * (1 - weight)
                + np.take(maps, np.minimum(low + 1, n - 1), axis) * weight
            )
        return maps

    def unseen(self, shape: tuple[int, int]) -> float:
        """The share of an image's pixels that a crop keeps from the encoder, 0..1."""
        seen = 1.0
        for axis in self.axes(*shape):
            place = axis.place()
            seen *= float(
                np.mean(
                    (place >= max(axis.inside[0], 0)) & (place < min(axis.inside[1], self.size))
                )
            )
        return 1 - seen
