"""Places on an axis, moved until names and columns fit beside each other."""

import numpy as np

from probe.arrays import Doubles


def moved_apart(wanted: Doubles, room: float) -> Doubles:
    """Places on an axis from 0 to 1, moved until each two are so far from each other."""
    order = np.argsort(wanted, kind="stable")
    up = wanted[order]
    down = up.copy()
    for i in range(1, len(up)):
        up[i] = max(up[i], up[i - 1] + room)
        down[-i - 1] = min(down[-i - 1], down[-i] - room)
    middle = (up + down) / 2
    middle -= max(0.0, float(middle[-1]) - 1.0)
    middle += max(0.0, -float(middle[0]))
    found = np.empty_like(middle)
    found[order] = middle
    return found
