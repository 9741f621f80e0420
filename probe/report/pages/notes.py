"""Notes of many rows as few: those that differ in numbers alone become one, with their ranges.

Complaints of many files that are of one kind become one, with how many.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

MOST_ALIKE = 3  # complaints of one kind that stand one by one
FILE = re.compile(r"(?:^|(?<=: ))[^:]+\.(?:json|npz)(?=: )")  # that a complaint is of
AMONG = re.compile(r"(\bamong [\d_]+) to ([\d_]+)")
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


def as_few(complaints: Iterable[str]) -> list[str]:
    """Complaints, of more than three files of one kind one: "scans: a.json and 6 more: ..."."""
    alike: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(complaints):
        alike[FILE.sub("FILE", text, count=1)].append(text)
    found = []
    for of in alike.values():
        if len(of) > MOST_ALIKE:
            more = f" and {len(of) - 1} more"
            of = [FILE.sub(lambda file, more=more: file[0] + more, of[0], count=1)]
        found += of
    return found


def _ranges(notes: list[str]) -> str:
    if len(notes) == 1:
        return notes[0]
    columns = zip(*(NUMBER.findall(note) for note in notes), strict=True)
    words = [_range(column) for column in columns]
    # "among 5 to 12" would be these themselves.
    return AMONG.sub(r"\1 or \2", NUMBER.sub(lambda _: words.pop(0), notes[0]))


def _range(words: tuple[str, ...]) -> str:
    ordered = sorted(set(words), key=float)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"
