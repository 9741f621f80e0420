"""The valid input sizes next to one that an architecture refuses, and which of them takes its place."""

from collections.abc import Callable, Sequence

from cache import RequestError
from extract.config import FITS

# Sides are multiples of a patch (8, 14, 16), of a total stride (32), or of a stride times a
# window (7 or 8 tokens): timm's architectures know no others.
STEPS = (8, 14, 16, 32, 56, 64, 112, 128, 224, 256)
MOST_OFF = 1 / 8  # of the side that is asked for: 224 px are no way to see 1024


class SizeError(RequestError):
    """An architecture doesn't take a size.

    Args:
        encoder: its full name.
        size: that was asked for, pixels.
        why: it can't be, in words.
        near: valid sizes next to it; none: nobody knows any but its own.
        own_size: what certainly works.
    """

    def __init__(
        self, encoder: str, size: int, why: str, near: Sequence[int], own_size: int
    ) -> None:
        self.encoder, self.size = encoder, size
        self.near = tuple(near) or (own_size,)
        super().__init__(
            f"{encoder} doesn't take --size {size} ({why}); nearest valid: "
            f"{' or '.join(map(str, self.near))}; its own size is {own_size}"
        )

    @property
    def cure(self) -> str:
        """What a user can do beside naming another size; "" where nothing is near."""
        if not self._close():
            return ""
        rules = f"{', '.join(FITS[:-1])} or {FITS[-1]}"
        return f"; or let images be fitted to such a size, --fit-size {rules}"

    def _close(self) -> list[int]:
        return [s for s in self.near if abs(s - self.size) <= MOST_OFF * self.size]

    def fitting(self, fit: str) -> int:
        """The size that takes its place by a rule.

        Args:
            fit: "nearest", the smaller of two; "crop", the one below; "pad", the one above.

        Raises:
            RequestError: there is none near enough.
        """
        sides = {
            "nearest": lambda side: True,
            "crop": lambda side: side < self.size,
            "pad": lambda side: side > self.size,
        }
        found = sorted(filter(sides[fit], self._close()), key=lambda side: abs(side - self.size))
        if not found:
            raise RequestError(f"--fit-size {fit} finds no size near {self.size}: {self}")
        return found[0]


def near_sizes(size: int, own_size: int, try_size: Callable[[int], object]) -> list[int]:
    """The nearest sizes below and above that work.

    Args:
        size: what was asked for, pixels.
        own_size: the encoder's, which may not work either.
        try_size: raises where a size doesn't work; any exception counts.

    Returns:
        At most one below and one above; [] where none works.
    """
    below = {size // step * step for step in STEPS} | {own_size}
    above = {-(-size // step) * step for step in STEPS} | {own_size}
    near = [
        _first_valid(sorted((s for s in below if 0 < s < size), reverse=True), try_size),
        _first_valid(sorted(s for s in above if s > size), try_size),
    ]
    return [side for side in near if side]


def _first_valid(sizes: list[int], try_size: Callable[[int], object]) -> int | None:
    for size in sizes:
        try:
            try_size(size)
        except Exception:  # an architecture can refuse in any way
            continue
        return size
    return None
