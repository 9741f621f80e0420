"""Notes of many rows as few: those that differ in numbers alone become one, with their ranges."""

import re
from collections import defaultdict
from collections.abc import Iterable

NUMBER = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?!\w)")  # that stands alone: no part of a name


def joined(notes: Iterable[str]) -> dict[str, str]:
    """Each note -> what stands for it: "k is 16 to 37% of the 546 to 624 training images".

    Args:
        notes: of all rows of a page.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for note in dict.fromkeys(notes):
        alike[NUMBER.sub("#", note)].append(note)
    return {note: _ranges(members) for members in alike.values() for note in members}


def _ranges(notes: list[str]) -> str:
    if len(notes) == 1:
        return notes[0]
    columns = zip(*(NUMBER.findall(note) for note in notes), strict=True)
    words = [_range(column) for column in columns]
    return NUMBER.sub(lambda _: words.pop(0), notes[0])


def _range(words: tuple[str, ...]) -> str:
    ordered = sorted(set(words), key=float)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
