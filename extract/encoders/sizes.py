"""The valid input sizes next to one that an architecture refuses."""

from collections.abc import Callable

# Sides are multiples of a patch (8, 14, 16), of a total stride (32), or of a stride times a
# window (7 or 8 tokens): timm's architectures know no others.
STEPS = (8, 14, 16, 32, 56, 64, 112, 128, 224, 256)


def suggest_sizes(size: int, own_size: int, try_size: Callable[[int], object]) -> str:
    """The nearest sizes below and above that work, as words.

    Args:
        size: what was asked for, pixels.
        own_size: what certainly works.
        try_size: raises where a size doesn't work; any exception counts.
    """
    below = {size // step * step for step in STEPS} | {own_size}
    above = {-(-size // step) * step for step in STEPS} | {own_size}
    near = [
        _first_valid(sorted((s for s in below if 0 < s < size), reverse=True), try_size),
        _first_valid(sorted(s for s in above if s > size), try_size),
    ]
    return " or ".join(str(s) for s in near if s) or str(own_size)


def _first_valid(sizes: list[int], try_size: Callable[[int], object]) -> int | None:
    for size in sizes:
        try:
            try_size(size)
        except Exception:  # an architecture can refuse in any way
            continue
        return size
    return None
